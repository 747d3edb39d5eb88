"""Where annotators come from: what each platform's link carries, and where its people go back to.

An adapter is pure: it reads a link's parameters strictly and makes addresses. `prolific_api` talks to Prolific.
"""

from __future__ import annotations

from annotations.models import Platform
from annotations.recruitment.base import Adapter, NotAdmitted, Visit
from annotations.recruitment.connect import Connect
from annotations.recruitment.links import InvitationLink, OpenLink
from annotations.recruitment.prolific import Prolific
from annotations.recruitment.sona import Sona

__all__ = ["ADAPTERS", "Adapter", "NotAdmitted", "Visit", "adapter"]

ADAPTERS: dict[str, Adapter] = {
    each.platform: each for each in (OpenLink(), InvitationLink(), Prolific(), Connect(), Sona())
}


def adapter(platform: str) -> Adapter:
    return ADAPTERS[Platform(platform)]

"""The audit log: who did what, when, and what changed. Entries are only ever added.

Rows that curators change are watched by django-auditlog (`elicit/audited.py` lists them); `record` tells of what
changes no row of theirs. Neither network addresses nor ids of platforms nor what annotators wrote are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from auditlog.models import LogEntry
from celery import current_app
from django.contrib.auth.models import AbstractBaseUser
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.db.models.signals import pre_save

# Who acts: what gives a request's user, asked only when an entry is written; None outside of requests.
_request_user: ContextVar[Callable[[], Any] | None] = ContextVar("elicit_audit_user", default=None)


@contextmanager
def acting(user: Callable[[], Any]) -> Iterator[None]:
    """Whatever is logged inside was done by whom `user()` gives; one who is not signed in is an annotator."""
    token = _request_user.set(user)
    try:
        yield
    finally:
        _request_user.reset(token)


def record(
    what: str,
    row: models.Model | None,
    *,
    study: int | None = None,
    actor: Any = None,
    details: Mapping[str, str | int | bool] | None = None,
) -> None:
    """Note an action in words: `record("downloaded payments as CSV", study, study=study.pk)`.

    Args:
        row: what it was done to, if to one thing. `study`: the study under which the log shows it.
        actor: only where the request's user is not the one, as at a sign-in.
        details: more to show. Never a secret, an id of a platform, or an annotator's words.
    """
    LogEntry.objects.create(
        content_type=ContentType.objects.get_for_model(LogEntry if row is None else row),
        object_pk=str(row.pk) if row is not None else "",
        object_id=row.pk if row is not None and isinstance(row.pk, int) else None,
        object_repr=str(row) if row is not None else "",
        action=LogEntry.Action.ACCESS,
        changes={},
        actor=actor,
        additional_data={"what": what, "details": dict(details or {}), "study": study},
    )


def _sign(sender: object, instance: LogEntry, **_: object) -> None:
    """Put down who it was, on every entry however it came about."""
    if instance.actor_id is None:
        ask = _request_user.get()
        user = ask() if ask else None
        if isinstance(user, AbstractBaseUser):
            instance.actor = user
        else:
            by = "nobody signed in" if ask else "worker" if current_app.current_task else "command line"
            instance.additional_data = {**(instance.additional_data or {}), "by": by}
    if instance.actor is not None:
        # The name stays readable when the account is gone.
        instance.additional_data = {**(instance.additional_data or {}), "by": instance.actor.get_username()}
    kind = instance.content_type
    if f"{kind.app_label}.{kind.model}" in NAMELESS:
        instance.object_repr = f"{kind.model} {instance.object_pk}"
    instance.actor_email = instance.remote_addr = instance.remote_port = instance.cid = None


# Models whose own name for a row may hold somebody's words: the log gives a number instead.
NAMELESS = {"annotations.invitation"}


def hidden(_: str) -> str:
    """What the log shows in place of a secret or of somebody's words: that it changed, not what it says."""
    return "(not shown)"


def connect() -> None:
    pre_save.connect(_sign, sender=LogEntry, dispatch_uid="annotations.audit.sign")

"""Links without a platform: one for everybody, or one for each person."""

from __future__ import annotations

import re
from collections.abc import Mapping

from annotations.models import Platform, Recruitment
from annotations.recruitment.base import Adapter, NotAdmitted, Visit

LONGEST_PERSON = 120


class OpenLink(Adapter):
    """Anybody who has the link. `pid` may carry an id of the curator's own; it is nobody's proof of being that person.

    It may be anything short: cut, two people's ids could become one, and PostgreSQL stores no NUL.
    """

    platform = Platform.OPEN

    def read(self, query: Mapping[str, str], recruiting: Recruitment) -> Visit:
        self._nobody_elses(query)
        person = query.get("pid", "")
        if len(person) > LONGEST_PERSON or "\0" in person:
            raise NotAdmitted("malformed")
        return Visit(self.platform, person=person)

    def way_back(self, recruiting: Recruitment, code: str, person: str) -> str:
        return recruiting.completion_url or recruiting.study.return_url


class InvitationLink(Adapter):
    """A secret of its own for each person, used once."""

    platform = Platform.INVITATION
    parameters = {"invitation": re.compile(r"[A-Za-z0-9_-]{32}")}

    def _visit(self, values: Mapping[str, str], recruiting: Recruitment) -> Visit:
        return Visit(self.platform, submission=values["invitation"])

    def way_back(self, recruiting: Recruitment, code: str, person: str) -> str:
        return recruiting.completion_url or recruiting.study.return_url

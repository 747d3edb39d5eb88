"""What every platform's adapter offers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from annotations.models import Platform, Recruitment

# By whose presence a link shows which platform made it.
FOREIGN = {
    Platform.PROLIFIC: ("PROLIFIC_PID", "SESSION_ID", "STUDY_ID"),
    Platform.CONNECT: ("participantId", "assignmentId", "projectId"),
    Platform.SONA: ("survey_code",),
    Platform.INVITATION: ("invitation",),
}


@dataclass(frozen=True, slots=True)
class Visit:
    """Who stands at the door: the platform's ids of a person and of their submission, both empty on the open link."""

    platform: Platform
    person: str = ""
    submission: str = ""


class NotAdmitted(Exception):
    """The link's parameters do not do. `code`: missing, malformed, preview, elsewhere or other_study."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Adapter:
    """How a platform's people come and go."""

    platform: ClassVar[Platform]
    parameters: ClassVar[Mapping[str, re.Pattern[str]]] = {}
    # What the platform itself puts in place of each parameter, as a curator pastes it.
    placeholders: ClassVar[Mapping[str, str]] = {}

    def read(self, query: Mapping[str, str], recruiting: Recruitment) -> Visit:
        """The visit that a link's parameters tell of.

        Raises:
            NotAdmitted: they are missing, malformed, another platform's, or those of a preview.
        """
        self._nobody_elses(query)
        values = {name: query.get(name, "") for name in self.parameters}
        if any(self._is_placeholder(value) for value in values.values()):
            raise NotAdmitted("preview")
        if not all(values.values()):
            raise NotAdmitted("missing")
        if not all(pattern.fullmatch(values[name]) for name, pattern in self.parameters.items()):
            raise NotAdmitted("malformed")
        return self._visit(values, recruiting)

    def link(self, address: str) -> str:
        """The address to paste into the platform, placeholders and all."""
        query = "&".join(f"{name}={placeholder}" for name, placeholder in self.placeholders.items())
        return f"{address}?{query}" if query else address

    def way_back(self, recruiting: Recruitment, code: str, person: str) -> str:
        """Where somebody goes who ends with this code; empty where the platform gave no such address."""
        return recruiting.completion_url

    def _visit(self, values: Mapping[str, str], recruiting: Recruitment) -> Visit:
        raise NotImplementedError

    def _nobody_elses(self, query: Mapping[str, str]) -> None:
        for platform, names in FOREIGN.items():
            if platform != self.platform and any(name in query for name in names):
                raise NotAdmitted("elsewhere")

    @staticmethod
    def _is_placeholder(value: str) -> bool:
        return value.startswith(("{{", "%", "[["))

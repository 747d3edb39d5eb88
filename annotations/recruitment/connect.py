"""CloudResearch Connect's links. Connect adds its parameters by itself: there are no placeholders to paste."""

from __future__ import annotations

import re
from collections.abc import Mapping

from annotations.models import Platform, Recruitment
from annotations.recruitment.base import Adapter, NotAdmitted, Visit

_ID = re.compile(r"[A-Za-z0-9-]{8,64}")


class Connect(Adapter):
    platform = Platform.CONNECT
    parameters = {"participantId": _ID, "assignmentId": _ID, "projectId": _ID}

    def _visit(self, values: Mapping[str, str], recruiting: Recruitment) -> Visit:
        if recruiting.platform_study and values["projectId"] != recruiting.platform_study:
            raise NotAdmitted("other_study")
        return Visit(self.platform, person=values["participantId"], submission=values["assignmentId"])

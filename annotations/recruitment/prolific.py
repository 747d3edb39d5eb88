"""Prolific's links. SESSION_ID is the submission's id (docs.prolific.com: "Approve or reject a submission")."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlencode

from annotations.models import Platform, Recruitment
from annotations.recruitment.base import Adapter, NotAdmitted, Visit

_ID = re.compile(r"[0-9a-f]{24}")
COMPLETE = "https://app.prolific.com/submissions/complete"


class Prolific(Adapter):
    platform = Platform.PROLIFIC
    parameters = {"PROLIFIC_PID": _ID, "STUDY_ID": _ID, "SESSION_ID": _ID}
    placeholders = {
        "PROLIFIC_PID": "{{%PROLIFIC_PID%}}",
        "STUDY_ID": "{{%STUDY_ID%}}",
        "SESSION_ID": "{{%SESSION_ID%}}",
    }

    def _visit(self, values: Mapping[str, str], recruiting: Recruitment) -> Visit:
        if values["STUDY_ID"] != recruiting.platform_study:
            raise NotAdmitted("other_study")
        return Visit(self.platform, person=values["PROLIFIC_PID"], submission=values["SESSION_ID"])

    def way_back(self, recruiting: Recruitment, code: str, person: str) -> str:
        return f"{COMPLETE}?{urlencode({'cc': code})}" if code else ""

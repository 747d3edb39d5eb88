"""SONA's links: one code says who, and goes back with whoever is done."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit

from annotations.models import Platform, Recruitment
from annotations.recruitment.base import Adapter, Visit


class Sona(Adapter):
    platform = Platform.SONA
    parameters = {"survey_code": re.compile(r"[A-Za-z0-9]{1,40}")}
    placeholders = {"survey_code": "%SURVEY_CODE%"}

    def _visit(self, values: Mapping[str, str], recruiting: Recruitment) -> Visit:
        return Visit(self.platform, person=values["survey_code"], submission=values["survey_code"])

    def way_back(self, recruiting: Recruitment, code: str, person: str) -> str:
        """The completion URL with the person's own code in place of SONA's XXXX. It grants credit: only with a code
        that says completed."""
        if not (recruiting.completion_url and person) or code != recruiting.code_completed:
            return ""
        parts = urlsplit(recruiting.completion_url)
        query = {**dict(parse_qsl(parts.query)), "survey_code": person}
        return parts._replace(query=urlencode(query)).geturl()

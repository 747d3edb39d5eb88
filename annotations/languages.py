"""Which language an annotator's page speaks: the study's, else the one that the annotator chose or their browser asks
for. The curator's console stays in the site's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.utils import translation
from rest_framework.request import Request

from annotations.models import Study


@dataclass(frozen=True)
class Choice:
    """A language that the pages can be switched to: Django's code, HTML's tag, and its name in itself."""

    code: str
    tag: str
    name: str


def speak(request: HttpRequest | Request, study: Study | None = None) -> None:
    """Translate from here to the end of the request."""
    chosen = (study.language if study else "") or translation.get_language_from_request(request)
    translation.activate(chosen)


def choices(study: Study | None) -> list[Choice]:
    """What a page offers: nothing where the study has settled it."""
    if study and study.language:
        return []
    return [Choice(code, translation.to_locale(code).replace("_", "-"), name) for code, name in settings.LANGUAGES]


class SiteLanguage:
    """Every request begins in the site's language: what one page activates, the thread's next request does not meet."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        with translation.override(settings.LANGUAGE_CODE):
            return self.get_response(request)

"""Pages of the console about one study, each a tab beside its settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import URLPattern, path, reverse

from annotations.models import Study


class StudyPage:
    """A tab. Subclasses set the class attributes and say what their template shows, and what a POST does.

    `key` is the last part of the address, `annotations_study_<key>` its name. Whoever lacks `permission` sees neither
    tab nor page; a POST needs `change_permission` as well. `more_urls` are further addresses below the page's own, made
    with `view`, so that each is guarded alike.
    """

    key: str
    title: str
    template: str
    permission = "annotations.view_study"
    change_permission = "annotations.change_study"

    def __init__(self, site: AdminSite) -> None:
        self.site = site

    def context(self, request: HttpRequest, study: Study) -> dict[str, Any]:
        """What the template shows beside the study itself."""
        return {}

    def post(self, request: HttpRequest, study: Study) -> HttpResponse | None:
        """Do what the form asks for; None shows the page again."""
        return None

    def more_urls(self) -> Sequence[URLPattern]:
        return ()

    @property
    def urls(self) -> list[URLPattern]:
        return [
            path(f"<int:pk>/{self.key}/", self.view(self._page), name=f"annotations_study_{self.key}"),
            *self.more_urls(),
        ]

    def address(self, study: Study) -> str:
        return reverse(f"admin:annotations_study_{self.key}", args=[study.pk])

    def view(self, function: Any) -> Any:
        """A view `function(request, study, **rest)` behind the console's login and this page's permissions."""

        def guarded(request: HttpRequest, pk: int, **rest: Any) -> HttpResponse:
            study = get_object_or_404(Study.objects.select_related("dataset"), pk=pk)
            needed = [self.permission] if request.method in ("GET", "HEAD") else [
                self.permission, self.change_permission,
            ]  # fmt: skip
            if not request.user.has_perms(needed):
                raise PermissionDenied
            response: HttpResponse = function(request, study, **rest)
            return response

        return self.site.admin_view(guarded)

    def render(
        self, request: HttpRequest, study: Study, context: dict[str, Any], *, template: str = "", status: int = 200
    ) -> HttpResponse:
        """The page, or another of this tab's, within the console."""
        return render(
            request,
            template or self.template,
            {
                **self.site.each_context(request),
                "title": f"{self.title}: {study.name}",
                "opts": Study._meta,
                "study": study,
                "tab": self.key,
                "may_change": request.user.has_perm(self.change_permission),
                **context,
            },
            status=status,
        )

    def _page(self, request: HttpRequest, study: Study) -> HttpResponse:
        if request.method == "POST" and (done := self.post(request, study)) is not None:
            return done
        return self.render(request, study, self.context(request, study))


@dataclass(frozen=True)
class Tab:
    title: str
    address: str
    current: bool


def tabs(request: HttpRequest, study: Study, pages: Sequence[StudyPage], current: str) -> list[Tab]:
    """The study's settings first, then the pages that the user may see."""
    settings = Tab("Settings", reverse("admin:annotations_study_change", args=[study.pk]), current == "")
    return [settings] + [
        Tab(page.title, page.address(study), page.key == current)
        for page in pages
        if request.user.has_perm(page.permission)
    ]

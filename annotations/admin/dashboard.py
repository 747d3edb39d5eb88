"""The first tab of a study: what happens in it now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.core.cache import cache
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.cache import patch_cache_control
from django.utils.http import urlencode

from annotations import selectors, watching
from annotations.admin.study_pages import StudyPage
from annotations.links import image_url
from annotations.models import Study, StudyStatus, StudySummary
from annotations.selectors import dashboard, plans, recruitment
from annotations.selectors.dashboard import SUMMARY_VERSION, WINDOWS, Live, Rate
from annotations.services import summaries
from elicit import shares
from elicit.figures import DRAWING_POLICY, Figure
from elicit.shares import Shares

# Seconds between two looks of an open page.
EVERY = 10
EVERY_CLOSED = 60
DRAWN_FOR = 3600


@dataclass(frozen=True)
class Shown:
    figure: Figure
    source: str


@dataclass(frozen=True)
class DisputedImage:
    number: int
    address: str
    picture: str
    labels: int
    entropy: float
    shares: Shares


class DashboardPage(StudyPage):
    key = "dashboard"
    title = "Live"
    template = "admin/annotations/study/dashboard.html"
    part = "admin/annotations/study/_dashboard.html"

    def more_urls(self) -> Sequence[URLPattern]:
        here = f"<int:pk>/{self.key}"
        return [
            path(f"{here}/figures/<str:name>.svg", self.view(self.figure), name="annotations_study_figure"),
            path(f"{here}/images/<int:number>/", self.view(self.image), name="annotations_study_image"),
        ]

    def _page(self, request: HttpRequest, study: Study) -> HttpResponse:
        # What the open page fetches now and then: its own middle, and nothing around it.
        if request.method == "GET" and "part" in request.GET:
            response = render(request, self.part, {"study": study, **self.context(request, study)})
            patch_cache_control(response, private=True, no_store=True)
            return response
        return super()._page(request, study)

    def context(self, request: HttpRequest, study: Study) -> dict[str, Any]:
        now = timezone.now()
        asked = summaries.ask(study, now)
        live = dashboard.live(study, now)
        rate = dashboard.rate(study, _window(request), now, live.summary)
        names = selectors.category_names(study)
        figures = all_figures(study, live, rate, names)
        current = study.status in (StudyStatus.LIVE, StudyStatus.PAUSED)
        return {
            "live": live,
            "tiles": watching.tiles(live),
            "alarms": dashboard.all_alarms(study, live),
            "figures": [Shown(each, self._source(study, each, rate)) for each in figures],
            "disputed": [self._disputed(study, each, names) for each in _data(live.summary).get("disputed", [])],
            "windows": [(key, name, key == rate.window) for key, name in WINDOWS.items()],
            "summary_age": watching.ago((now - live.summary.until).total_seconds()) if live.summary else "",
            "in_the_works": live.in_the_works or asked is not None,
            "every": EVERY if current or live.in_the_works or asked else EVERY_CLOSED,
            "here": self.address(study),
            "may_change": request.user.has_perm(self.change_permission),
        }

    def post(self, request: HttpRequest, study: Study) -> HttpResponse | None:
        summaries.ask(study, timezone.now(), at_once=True)
        messages.success(request, "A worker sums the study up anew; the page shows it when it is done.")
        return HttpResponseRedirect(self.address(study))

    def figure(self, request: HttpRequest, study: Study, name: str) -> HttpResponse:
        """One drawing, as it is now. Its address changes with its content, so a browser may keep it."""
        key = f"figure-{study.pk}-{name}-{request.GET.get('of', '')[:16]}"
        body = cache.get(key)
        if body is None:
            found = next((each for each in _only(request, study, name) if each.name == name), None)
            if found is None:
                raise Http404("This study has no such figure now.")
            body = found.svg()
            # What was asked for may have changed meanwhile: then it is drawn as it is, and not kept.
            if watching.digest(found) == request.GET.get("of"):
                cache.set(key, body, DRAWN_FOR)
        response = HttpResponse(body, content_type="image/svg+xml")
        response["Content-Security-Policy"] = DRAWING_POLICY
        patch_cache_control(response, private=True, max_age=DRAWN_FOR)
        return response

    def image(self, request: HttpRequest, study: Study, number: int) -> HttpResponse:
        """Everything that was said of one image."""
        picture = selectors.dataset_image(study, number)
        if picture is None or not study.study_images.filter(image=picture).exists():
            raise Http404("The study has no such image.")
        names = selectors.category_names(study)
        said = [
            {
                "session": each.session,
                "trial": each.trial,
                "response": each.response,
                "named": [(names[category], percentage) for category, percentage in each.response.named],
                "impossible": [names[category] for category in each.response.impossible],
                "seconds": each.response.duration_ms / 1000,
            }
            for each in dashboard.said_of_image(study, number)
        ]
        context = {"image": picture, "picture": image_url(picture, study), "said": said, "here": self.address(study)}
        return self.render(request, study, context, template="admin/annotations/study/dashboard_image.html")

    def _source(self, study: Study, figure: Figure, rate: Rate) -> str:
        address = reverse("admin:annotations_study_figure", args=[study.pk, figure.name])
        query = {"of": watching.digest(figure)} | ({"pace": rate.window} if figure.name == "pace" else {})
        return f"{address}?{urlencode(query)}"

    def _disputed(self, study: Study, row: dict[str, Any], names: Sequence[str]) -> DisputedImage:
        return DisputedImage(
            number=row["image"],
            address=reverse("admin:annotations_study_image", args=[study.pk, row["image"]]),
            picture=reverse("image", args=[row["sha256"], study.image_scale]),
            labels=row["labels"],
            entropy=row["entropy"],
            shares=shares.of_label(row["label"], names, 3),
        )


def all_figures(study: Study, live: Live, rate: Rate, names: Sequence[str]) -> list[Figure]:
    """In the order of the page."""
    cost = watching.costs(live.cost, live.coverage, plans.planned_curve(study))
    return [
        watching.people(live.steps),
        watching.pace(rate),
        watching.covered(live.coverage),
        *watching.of_summary(_data(live.summary), len(names)),
        *([cost] if cost else []),
    ]


def _only(request: HttpRequest, study: Study, name: str) -> list[Figure]:
    """The figure of this name, without counting for the others."""
    now = timezone.now()
    if name == "people":
        return [watching.people(dashboard.people_by_step(study, now))]
    if name == "coverage":
        return [watching.covered(dashboard.coverage(study))]
    if name == "costs":
        found = watching.costs(recruitment.cost_so_far(study), dashboard.coverage(study), plans.planned_curve(study))
        return [found] if found else []
    summary = StudySummary.objects.filter(study=study, version=SUMMARY_VERSION).first()
    if name == "pace":
        return [watching.pace(dashboard.rate(study, _window(request), now, summary))]
    return watching.of_summary(_data(summary), selectors.category_count(study))


def _data(summary: StudySummary | None) -> dict[str, Any]:
    return dict(summary.data) if summary else {}


def _window(request: HttpRequest) -> str:
    """`hour`, `day` or `whole`: what the reader asked for."""
    wanted = request.GET.get("pace", "")
    return wanted if wanted in WINDOWS else next(iter(WINDOWS))

"""How people answered: everybody's measures, the rules over them, and a page for each annotator."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import numpy as np
from django import forms
from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone

from annotations import quality_figures, selectors
from annotations.admin.quality_forms import MOST_CHECKS, MOST_RULES, Checks, checks_form, rules_form
from annotations.admin.sessions import MAY_EXCLUDE, ExclusionForm
from annotations.admin.study_pages import StudyPage
from annotations.admin.tables import plain_cell
from annotations.links import image_url
from annotations.models import (
    Appeal,
    AppealOutcome,
    ExclusionReason,
    QualityRule,
    Session,
    SessionStatus,
    Study,
    StudyStatus,
)
from annotations.selectors import quality as found_out
from annotations.selectors.quality import Card, DryRun, MeasuredSession, ShownTrial
from annotations.services import leaving
from annotations.services import quality as service
from elicit.figures import DRAWING_POLICY, Figure
from elicit.labels.errors import Refusal
from elicit.labels.quality import ABOUT, RECOMMENDED, Measure, Measured, in_words
from elicit.shares import Shares, of_label

CORE = (
    Measure.ATTENTION_FAILED,
    Measure.GOLD_FAILED,
    Measure.REPEAT_DISTANCE,
    Measure.MEDIAN_SECONDS,
    Measure.CERTAIN_SHARE,
    Measure.CROWD_EXCESS,
    Measure.ALONE_SHARE,
    Measure.SCORE,
)
"""The columns that the list shows first."""
SHOWN = {"all": "everybody", "flagged": "who breaks a rule", "in": "who is in", "excluded": "who is excluded"}
AT_ONCE = 100


class AppealForm(forms.Form):
    text = forms.CharField(
        label="what they say",
        max_length=5000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="In their words or yours. Erased with everything else should they withdraw; never released.",
    )


class DecisionForm(forms.Form):
    appeal = forms.IntegerField(widget=forms.HiddenInput)
    outcome = forms.ChoiceField(label="what came of it", choices=[each for each in AppealOutcome.choices if each[0]])


@dataclass(frozen=True)
class Cell:
    """A measure of a session in words: with what it rests on, and whether a rule is broken by it."""

    text: str
    count: int
    broken: bool


@dataclass(frozen=True)
class Line:
    row: MeasuredSession
    address: str
    cells: list[Cell]


@dataclass(frozen=True)
class Column:
    """A head that sorts: `sorted` is ascending, descending or none, as assistive technology says it."""

    title: str
    what: str
    address: str
    sorted: str


# Of those who break a rule, so many are named where it is tried; the page that excludes names them all.
MOST_NAMED = 50


class _Echo:
    """A file that gives back what is written to it, so that a table is sent line by line."""

    def write(self, text: str) -> str:
        return text


class QualityPage(StudyPage):
    """The list of sessions with their measures, and what the rules would do."""

    key = "quality"
    title = "Quality"
    template = "admin/annotations/study/quality.html"
    permission = "annotations.view_session"
    change_permission = MAY_EXCLUDE

    def more_urls(self) -> Sequence[URLPattern]:
        here = f"<int:pk>/{self.key}"
        views: list[tuple[str, str, Callable[..., HttpResponseBase]]] = [
            ("rules/", "rules", self.rules),
            ("apply/", "apply", self.apply),
            ("checks/", "checks", self.checks),
            ("sessions.csv", "csv", self.file),
            ("measures/<str:name>.svg", "spread", self.spread),
            ("sessions/<uuid:session>/", "card", self.card),
            ("sessions/<uuid:session>/<str:name>.svg", "card_figure", self.card_figure),
        ]
        return [
            path(f"{here}/{rest}", self.view(view), name=f"annotations_study_quality_{name}")
            for rest, name, view in views
        ]

    # --- The list

    def context(self, request: HttpRequest, study: Study) -> dict[str, Any]:
        show = request.GET.get("show", "all")
        show = show if show in SHOWN else "all"
        every = request.GET.get("columns") == "all"
        columns = tuple(Measure) if every else CORE
        sort, backwards = _order(request.GET.get("sort", ""))
        page = max(0, _number(request.GET.get("page", "")) - 1)
        some = found_out.listed_sessions(study, show, sort, backwards, page * AT_ONCE, AT_ONCE)
        counted, run = found_out.count_measured(study), found_out.flag_counts(study)
        number = counted.shown(show, run.would if run else 0)
        kept = {"show": show, **({"columns": "all"} if every else {})}

        def head(key: str, title: str, what: str) -> Column:
            now = ("descending" if backwards else "ascending") if sort == key else "none"
            turned = key if sort == key and backwards else f"-{key}"
            return Column(title, what, f"?{urlencode({**kept, 'sort': turned})}", now)

        return {
            "run": run,
            "of": counted.included,
            "lines": [self._line(study, row, columns) for row in some],
            "columns": [head(each.value, ABOUT[each].title, ABOUT[each].what) for each in columns],
            "first": head("annotator", "Annotator", "Their pseudonym"),
            "flags": head("breaks", "Breaks", "How many rules"),
            "shown": SHOWN,
            "show": show,
            "every": every,
            "sort": request.GET.get("sort", ""),
            "found": number,
            "pages": _pages(page, number, {**kept, "sort": request.GET.get("sort", "")}),
            "measured": counted.measured,
            "unmeasured": counted.finished - counted.measured,
            "measured_at": counted.measured_at,
            "checks_made": found_out.check_items(study),
            "draft": study.status == StudyStatus.DRAFT,
            "may_check": request.user.has_perm("annotations.change_study"),
        }

    def post(self, request: HttpRequest, study: Study) -> HttpResponse | None:
        """Measure everybody anew."""
        service.measure_now(study.pk)
        messages.success(request, "The sessions are measured anew: look again in a moment.")
        return redirect(self.address(study))

    def _line(self, study: Study, row: MeasuredSession, columns: Sequence[Measure]) -> Line:
        broken = {rule.measure for rule in row.broken}
        cells = []
        for name in columns:
            value, count = row.measures.get(name.value, (None, 0))
            cells.append(Cell("–" if value is None else in_words(name, value), count, name.value in broken))
        return Line(row, self._at("card", study, row.session.pk), cells)

    def file(self, request: HttpRequest, study: Study) -> StreamingHttpResponse:
        """Every measure of everybody, under pseudonyms."""
        rows = found_out.in_table(found_out.measured_sessions(study))
        lines = csv.writer(_Echo())
        response = StreamingHttpResponse(
            (lines.writerow([plain_cell(cell) for cell in row]) for row in rows), content_type="text/csv; charset=utf-8"
        )
        response["Content-Disposition"] = f'attachment; filename="{study.slug}-quality.csv"'
        return response

    # --- Rules

    def rules(self, request: HttpRequest, study: Study) -> HttpResponse:
        """Write the rules, try them, and see where everybody lies on what they are about."""
        if request.method == "POST" and "recommended" in request.POST:
            service.write_rules(study.pk, RECOMMENDED)
            self._log(request, study, "quality rules: the recommended ones")
            messages.success(request, "The recommended rules are saved. Nobody is excluded by that.")
            return redirect(self._at("rules", study))
        stored = list(study.quality_rules.all())
        rows = rules_form(stored, request.POST if request.method == "POST" else None)
        tried = stored
        if rows.is_bound and rows.is_valid():
            if "try" not in request.POST:
                service.write_rules(study.pk, rows.wanted)
                self._log(request, study, f"quality rules: {len(rows.wanted)}")
                messages.success(request, "The rules are saved. Nobody is excluded by that.")
                return redirect(self._at("rules", study))
            tried = [_unsaved(study, wanted) for wanted in rows.wanted]
        run = found_out.dry_run(study, tried) if tried and not (rows.is_bound and not rows.is_valid()) else None
        return self.render(
            request,
            study,
            {
                "title": f"Rules: {study.name}",
                "rows": rows,
                "most": MOST_RULES,
                "trying": rows.is_bound and rows.is_valid(),
                "stored": stored,
                "run": run,
                "tried": [self._tried(study, run, place) for place in range(len(run.rules))] if run else [],
                "recommended": [rule.says for rule in RECOMMENDED],
            },
            template="admin/annotations/study/quality_rules.html",
            status=422 if rows.is_bound and not rows.is_valid() else 200,
        )

    def _tried(self, study: Study, run: DryRun, place: int) -> dict[str, Any]:
        """A rule's outcome with the drawing of its measure."""
        one = run.rules[place]
        name = Measure(one.rule.measure)
        figure = quality_figures.spread(name, run.measures[name], one.rule.threshold, "threshold")
        query = urlencode({"at": f"{one.rule.threshold:g}"})
        return {
            "one": one,
            "would": [self._line(study, row, (name,)) for row in one.would[:MOST_NAMED]],
            "more": max(0, len(one.would) - MOST_NAMED),
            "figure": figure,
            "source": f"{self._at('spread', study, name.value)}?{query}",
        }

    def spread(self, request: HttpRequest, study: Study, name: str) -> HttpResponse:
        """The drawing of where everybody lies on a measure."""
        if name not in set(Measure):
            raise Http404
        try:
            mark = float(request.GET["at"])
        except (KeyError, ValueError):
            mark = None
        if mark is not None and not np.isfinite(mark):
            mark = None
        what = "this annotator" if "session" in request.GET else "threshold"
        measures = found_out.latest(study, "in").measures
        return _drawing(quality_figures.spread(Measure(name), measures[Measure(name)], mark, what))

    def apply(self, request: HttpRequest, study: Study) -> HttpResponse:
        """Say what the saved rules would do, and do it once that is confirmed."""
        if request.method == "POST":
            shown = [UUID(each) for each in request.POST.getlist("session") if _is_uuid(each)]
            done = service.apply_rules(study.pk, expected=shown, by=_user(request), now=timezone.now())
            self._log(request, study, f"excluded by rules: {', '.join(done.excluded) or 'nobody'}")
            for annotator, why in done.refused.items():
                messages.error(request, f"{annotator}: {why}")
            messages.success(
                request,
                f"{_sessions(len(done.excluded))} excluded. Their places are open again. Nobody was rejected, and "
                "everybody is paid as before.",
            )
            return redirect(f"{self.address(study)}?show=excluded")
        run = found_out.dry_run(study, to_apply=True)
        would = [(self._line(study, row, ()), rules) for row, rules in run.would]
        return self.render(
            request,
            study,
            {"title": f"Exclude by rules: {study.name}", "run": run, "would": would, "cost": _money(run)},
            template="admin/annotations/study/quality_apply.html",
        )

    # --- Check images

    def checks(self, request: HttpRequest, study: Study) -> HttpResponse:
        """Images whose answer is known, of a draft."""
        if not request.user.has_perm("annotations.change_study"):
            raise PermissionDenied
        if study.status != StudyStatus.DRAFT:
            messages.error(request, "The settings of a launched study are fixed.")
            return redirect(self.address(study))
        rows: Checks = checks_form(
            study, found_out.check_items(study), request.POST if request.method == "POST" else None
        )
        if rows.is_bound and rows.is_valid():
            service.write_check_items(study.pk, rows.items)
            self._log(request, study, f"check images: {len(rows.items)}")
            messages.success(request, "The check images are saved.")
            return redirect(self._at("checks", study))
        return self.render(
            request,
            study,
            {
                "title": f"Check images: {study.name}",
                "rows": rows,
                "most": MOST_CHECKS,
                "names": selectors.category_names(study),
                "thumbnails": reverse("admin:annotations_study_thumbnail", args=[study.pk, 0]).removesuffix("0/"),
            },
            template="admin/annotations/study/quality_checks.html",
            status=422 if rows.is_bound else 200,
        )

    # --- One annotator

    def card(self, request: HttpRequest, study: Study, session: UUID) -> HttpResponse:
        """One annotator beside the others, and what a curator decides about them."""
        found = self._session(study, session)
        exclusion, appeal = ExclusionForm(), AppealForm()
        if request.method == "POST":
            exclusion, appeal, done = self._decide(request, study, found)
            if done:
                return redirect(self._at("card", study, session))
        seen = found_out.card(found)
        usual = found_out.latest(study, "in").measures
        mine = found_out.measured_session(found)
        before, after = found_out.neighbours(study, found)
        names = selectors.category_names(study)
        bound = exclusion.is_bound or appeal.is_bound
        return self.render(
            request,
            study,
            {
                "title": f"{found.participant.annotator}: {study.name}",
                "session": found,
                "mine": mine,
                "places": self._places(usual, mine) if mine else [],
                "figures": self._figures(study, seen, usual),
                "agreement": _agreement(seen),
                "strip": [_answer(each, study, names) for each in seen.strip],
                "repeats": [_answer(each, study, names) for each in seen.strip if each.again is not None],
                "checks": _checked(seen, study, names),
                "before": before and (before.participant.annotator, self._at("card", study, before.pk)),
                "after": after and (after.participant.annotator, self._at("card", study, after.pk)),
                "exclusion": exclusion,
                "appeal": appeal,
                "appeals": [
                    (each, DecisionForm(initial={"appeal": each.pk}, auto_id=f"id_%s_{each.pk}"))
                    for each in found.appeals.select_related("written_by", "decided_by")
                ],
                "completed": found.status == SessionStatus.COMPLETED,
            },
            template="admin/annotations/study/quality_card.html",
            status=422 if bound else 200,
        )

    def _decide(self, request: HttpRequest, study: Study, session: Session) -> tuple[ExclusionForm, AppealForm, bool]:
        """What the posted form asks for; the forms as they stand, and whether it is done."""
        exclusion, appeal, now = ExclusionForm(), AppealForm(), timezone.now()
        do = request.POST.get("do", "")
        try:
            if do == "exclude":
                exclusion = ExclusionForm(request.POST)
                if not exclusion.is_valid():
                    return exclusion, appeal, False
                leaving.exclude(
                    session_id=session.pk,
                    reason=ExclusionReason(exclusion.cleaned_data["reason"]),
                    note=exclusion.cleaned_data["note"],
                    by=_user(request),
                    now=now,
                )
                self._log(request, session, f"excluded: {exclusion.cleaned_data['reason']}")
                messages.success(request, "Excluded. The place is open again; they are paid as before.")
                service.measure_soon(study.pk, now)
            elif do == "reinstate":
                leaving.reinstate(session_id=session.pk)
                self._log(request, session, "reinstated")
                messages.success(request, "Taken back in: ask for a new release to see them in it.")
                service.measure_soon(study.pk, now)
            elif do == "appeal":
                appeal = AppealForm(request.POST)
                if not appeal.is_valid():
                    return exclusion, appeal, False
                service.write_appeal(
                    session_id=session.pk, text=appeal.cleaned_data["text"], by=_user(request), now=now
                )
                self._log(request, session, "appeal noted")
                messages.success(request, "The appeal is noted.")
            elif do == "outcome":
                decision = DecisionForm(request.POST)
                if decision.is_valid():
                    service.decide_appeal(
                        session_id=session.pk,
                        appeal_id=decision.cleaned_data["appeal"],
                        outcome=AppealOutcome(decision.cleaned_data["outcome"]),
                        by=_user(request),
                        now=now,
                    )
                    self._log(request, session, f"appeal decided: {decision.cleaned_data['outcome']}")
                    messages.success(request, "The outcome is noted.")
        except Refusal as error:
            messages.error(request, error.message)
        except Appeal.DoesNotExist:
            messages.error(request, "This appeal is decided already.")
        return exclusion, appeal, True

    def card_figure(self, request: HttpRequest, study: Study, session: UUID, name: str) -> HttpResponse:
        """A drawing of one annotator's page."""
        seen = found_out.card(self._session(study, session))
        drawn = {each.name: each for each in _drawn(seen, found_out.latest(study, "in").measures)}
        return _drawing(drawn.get(name))

    def _figures(self, study: Study, seen: Card, usual: Mapping[Measure, Measured]) -> list[tuple[Figure, str]]:
        drawn = _drawn(seen, usual)
        return [(figure, self._at("card_figure", study, seen.session.pk, figure.name)) for figure in drawn]

    def _places(self, usual: Mapping[Measure, Measured], mine: MeasuredSession) -> list[dict[str, Any]]:
        """Each known measure of one, beside everybody's."""
        broken = {rule.measure for rule in mine.broken}
        places = []
        for name in Measure:
            value, count = mine.measures.get(name.value, (None, 0))
            others = usual[name].values[usual[name].known]
            if value is None:
                continue
            low, middle, high = np.quantile(others, [0.1, 0.5, 0.9]).tolist() if len(others) else (value,) * 3
            places.append(
                {
                    "about": ABOUT[name],
                    "value": in_words(name, value),
                    "count": f"{count} {ABOUT[name].of if count != 1 else ABOUT[name].one}",
                    "middle": in_words(name, middle),
                    "usual": f"{in_words(name, low)} to {in_words(name, high)}",
                    "broken": name.value in broken,
                    "dot": _along(value, others),
                    "band": (_along(low, others), _along(high, others)),
                }
            )
        return places

    def _session(self, study: Study, session: UUID) -> Session:
        return get_object_or_404(
            Session.objects.select_related("study__dataset", "participant", "excluded_by"), pk=session, study=study
        )

    def _at(self, name: str, study: Study, *rest: object) -> str:
        return reverse(f"admin:annotations_study_quality_{name}", args=[study.pk, *rest])

    def _log(self, request: HttpRequest, what: Model, words: str) -> None:
        self.site.get_model_admin(type(what)).log_change(request, what, words)


# --- Small parts


def _order(wanted: str) -> tuple[str, bool]:
    key = wanted.removeprefix("-")
    known = {"annotator", "breaks", *(each.value for each in Measure)}
    return (key, wanted.startswith("-")) if key in known else ("", False)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 1


def _pages(page: int, found: int, query: dict[str, str]) -> list[tuple[str, str]]:
    """Links to the page before and the next."""
    links = []
    if page > 0:
        links.append(("Previous", f"?{urlencode({**query, 'page': page})}"))
    if (page + 1) * AT_ONCE < found:
        links.append(("Next", f"?{urlencode({**query, 'page': page + 2})}"))
    return links


def _sessions(number: int) -> str:
    return f"{number} session{'' if number == 1 else 's'}"


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _user(request: HttpRequest) -> User | None:
    return request.user if isinstance(request.user, User) else None


def _unsaved(study: Study, wanted: service.WantedRule) -> QualityRule:
    return QualityRule(
        study=study,
        measure=wanted.measure.value,
        threshold=wanted.threshold,
        at_least=wanted.at_least,
        least=wanted.least,
    )


def _money(run: DryRun) -> str:
    return "" if run.replacing_minor is None else f"{run.replacing_minor / 100:,.2f} {run.currency}"


def _drawing(figure: Figure | None) -> HttpResponse:
    if figure is None:
        raise Http404
    response = HttpResponse(figure.svg(), content_type="image/svg+xml")
    response["Content-Security-Policy"] = DRAWING_POLICY
    response["Cache-Control"] = "private, no-cache"
    return response


def _along(value: float, others: np.ndarray[Any, np.dtype[np.float64]]) -> str:
    """Where a value lies between everybody's lowest and highest: 0 to 100, as an attribute of SVG."""
    low, high = (float(others.min()), float(others.max())) if len(others) else (value, value)
    low, high = min(low, value), max(high, value)
    return f"{50.0 if high == low else 100 * (value - low) / (high - low):.2f}"


def _drawn(seen: Card, usual: Mapping[Measure, Measured]) -> list[Figure]:
    """The figures that there is something to draw for."""
    figures = [quality_figures.reliability(seen.calibration)] if seen.calibration else []
    if seen.seconds:
        seconds = usual[Measure.MEDIAN_SECONDS]
        everybody = float(np.median(seconds.values[seconds.known])) if seconds.known.any() else None
        figures.append(quality_figures.pace(seen.seconds, everybody))
    return figures


def _agreement(seen: Card) -> str:
    """The mean distance to the others in words, with its interval."""
    found = found_out.nearness(seen)
    if found is None:
        return ""
    interval = "" if found.interval is None else f" (95 % interval {found.interval[0]:.2f} to {found.interval[1]:.2f})"
    images = len(seen.nearness)
    return f"{found.value:.2f}{interval}, over {images} image{'' if images == 1 else 's'} that others saw too"


@dataclass(frozen=True)
class Answer:
    """An answer on the strip."""

    shown: ShownTrial
    picture: str
    said: Shares
    crowd: Shares | None
    again: Shares | None
    named: str
    moved: str


def _named(said: Any, names: Sequence[str]) -> str:
    return ", ".join(f"{names[category]} {percentage:g} %" for category, percentage in said)


def _answer(shown: ShownTrial, study: Study, names: Sequence[str]) -> Answer:
    again = shown.again
    moved = "" if again is None else f"{float(np.abs(shown.label - again.label).sum() / 2):.2f}"
    return Answer(
        shown=shown,
        picture=image_url(shown.trial.image, study),
        said=of_label(shown.label, names, 3),
        crowd=None if shown.crowd is None else of_label(shown.crowd, names, 3),
        again=None if again is None else of_label(again.label, names, 3),
        named=_named(shown.response.named, names),
        moved=moved,
    )


def _checked(seen: Card, study: Study, names: Sequence[str]) -> list[dict[str, Any]]:
    """Check images, what was said, what passes, and what came of it."""
    lines = []
    for trial, response, outcome in seen.checks:
        item = trial.check_item
        if item is None:
            continue
        passes = " or ".join(names[each] for each in item.allowed)
        if item.target:
            target = of_label(item.target, names, 3)
            passes = ", ".join(f"{share.name} {share.percent:.3g} %" for share in target.first)
            rest = f", {target.folded_percent:.3g} % others" if target.folded else ""
            passes += f"{rest}; at most {item.tolerance or 0:g} away"
        lines.append(
            {
                "picture": image_url(trial.image, study),
                "number": trial.image.index,
                "kind": item.get_kind_display().partition(":")[0],
                "note": item.note,
                "said": _named(response.named, names),
                "passes": passes,
                "outcome": outcome,
            }
        )
    return lines

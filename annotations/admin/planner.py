"""How many labels per image: what they cost, and what they buy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.cache import patch_cache_control

from annotations.admin.people import Amount
from annotations.admin.study_pages import StudyPage
from annotations.models import Currency, PlannedMetric, SecondsFrom, Study, StudyStatus
from annotations.selectors import plans, recruitment
from annotations.selectors.recruitment import money
from annotations.services import plans as services
from elicit.figures import DRAWING_POLICY, Figure, number, plots
from elicit.labels.errors import Refusal
from elicit.labels.planning import MOST_LABELS, PUBLISHED, PUBLISHED_SECONDS, Cost, ErrorCurve, Metric, Published, Terms

SIZE = (560, 340)
SHOWN_LABELS = 12
SHORT = {Metric.TV: "TV", Metric.KL: "KL", Metric.ENTROPY: "entropy correlation"}
PUBLISHED_NAMES = {
    Published.RECOMMENDED: "our labels, published answers",
    Published.PAPER: "the paper’s labels, published answers",
    Published.VOTES: "hard votes, published answers",
}
# What the errors of each source are errors of.
SOURCES = {
    Published.RECOMMENDED: "CIFAR-10S’s answers with our recommended recipe, against CIFAR-10H",
    Published.PAPER: "CIFAR-10S’s answers with the paper’s recipe, against CIFAR-10H",
    Published.VOTES: "CIFAR-10H’s votes, against its other votes",
}
AMBIGUOUS = "500 images, most of them ambiguous: on easier ones labels err less, so try a pilot of your own."
NO_KL = (
    "Without reference labels the divergence can’t be measured on own answers: choose total variation or the "
    "correlation of entropies."
)
TOO_FEW = "Too few people of that study answered the same images to tell how their labels err."


class PlanForm(forms.Form):
    """What is asked of the curator; `study` gives the defaults."""

    labels = forms.IntegerField(label="Labels per image (K)", min_value=1, max_value=MOST_LABELS)
    metric = forms.ChoiceField(label="Error as", choices=PlannedMetric.choices)
    errors_from = forms.ChoiceField(label="How labels err, from")
    seconds_from = forms.ChoiceField(label="Seconds per answer, from")
    seconds = forms.FloatField(label="Seconds per answer, typed", required=False, min_value=0.5, max_value=3600)
    minutes = forms.FloatField(
        label="Other minutes of a session",
        min_value=0,
        max_value=600,
        help_text="Reading, practice, questions at the end.",
    )
    pay = Amount(label="Pay per hour")
    currency = forms.ChoiceField(label="Currency", choices=Currency.choices)
    fee = forms.FloatField(
        label="Platform’s fee (%)", min_value=0, max_value=200, help_text="Of the pay, on top of it: 33.3 is a third."
    )
    error = forms.FloatField(label="K for an error of at most", required=False, min_value=0, max_value=100)
    budget = Amount(label="K for a budget of", required=False, max_value=100_000_000)

    def __init__(self, data: Any = None, *, study: Study) -> None:
        self.study = study
        self.pilots = plans.pilots(study)
        self.measured = plans.seconds_per_response(study)
        super().__init__(data, initial=self._initial())
        self._fields["errors_from"].choices = [
            *((str(key), name) for key, name in PUBLISHED_NAMES.items()),
            *(
                (f"{plans.PILOT}-{each.pk}", f"own answers: {'this study' if each.pk == study.pk else each.name}")
                for each in self.pilots
            ),
        ]
        self._fields["seconds_from"].choices = [
            *([(SecondsFrom.STUDY, self._measured_name())] if self.measured else []),
            (SecondsFrom.PUBLISHED, f"the published study: {PUBLISHED_SECONDS:.0f} s"),
            (SecondsFrom.TYPED, "what I type"),
        ]
        for name in ("seconds", "minutes", "fee", "error"):
            self._fields[name].widget.attrs.update({"step": "any", "inputmode": "decimal"})

    @property
    def _fields(self) -> dict[str, Any]:
        """The fields with all that their own kinds have."""
        return self.fields

    def _measured_name(self) -> str:
        seconds, sessions = self.measured or (0.0, 0)
        return f"this study so far: {seconds:.1f} s, the median of {number(sessions)} sessions"

    def _initial(self) -> dict[str, Any]:
        plan = plans.plan_of(self.study)
        if plan:
            own = plan.errors_from == plans.PILOT
            known = [each.pk for each in self.pilots]
            return {
                "labels": plan.labels_per_image,
                "metric": plan.metric,
                "errors_from": (
                    f"{plans.PILOT}-{plan.pilot_id}" if plan.pilot_id in known else Published.RECOMMENDED.value
                )
                if own
                else plan.errors_from,
                "seconds_from": plan.seconds_from
                if self.measured or plan.seconds_from != SecondsFrom.STUDY
                else SecondsFrom.PUBLISHED,
                "seconds": plan.seconds_per_response if plan.seconds_from == SecondsFrom.TYPED else None,
                "minutes": plan.minutes_per_session,
                "pay": plan.pay_per_hour_minor,
                "currency": plan.currency,
                "fee": round(plan.fee_share * 100, 4),
            }
        recruiting = recruitment.of_study(self.study)
        return {
            "labels": self.study.labels_per_image,
            "metric": PlannedMetric.TV,
            "errors_from": Published.RECOMMENDED.value,
            "seconds_from": SecondsFrom.STUDY if self.measured else SecondsFrom.PUBLISHED,
            "minutes": 6,
            "pay": round(recruiting.base_minor * 60 / recruiting.expected_minutes) or 900,
            "currency": recruiting.currency,
            "fee": round(recruiting.fee_share * 100, 4),
        }

    def defaults(self) -> dict[str, Any]:
        """What the page starts with, as its form would send it."""
        return {
            name: self._fields[name].prepare_value(value) for name, value in self.initial.items() if value is not None
        }

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if data.get("seconds_from") == SecondsFrom.TYPED and not data.get("seconds") and "seconds" not in self.errors:
            self.add_error("seconds", "Type how long an answer takes.")
        if self.errors:
            return data
        source, _, pilot = data["errors_from"].partition("-")
        metric = Metric(data["metric"])
        data["pilot"] = next((each for each in self.pilots if str(each.pk) == pilot), None)
        data["source"] = source
        if source == plans.PILOT and metric is Metric.KL and not plans.reference_exists(self.study):
            self.add_error("metric", NO_KL)
            return data
        data["curve"] = plans.curve(self.study, source, metric, data["pilot"])
        if data["curve"] is None:
            self.add_error("errors_from", TOO_FEW)
        return data

    @property
    def seconds_per_response(self) -> float:
        chosen = self.cleaned_data["seconds_from"]
        if chosen == SecondsFrom.TYPED:
            return float(self.cleaned_data["seconds"])
        return self.measured[0] if chosen == SecondsFrom.STUDY and self.measured else PUBLISHED_SECONDS

    def values(self) -> dict[str, Any]:
        """The fields of `Plan`."""
        data = self.cleaned_data
        return {
            "labels_per_image": data["labels"],
            "seconds_from": data["seconds_from"],
            "seconds_per_response": self.seconds_per_response,
            "minutes_per_session": data["minutes"],
            "pay_per_hour_minor": data["pay"],
            "currency": data["currency"],
            "fee_share": data["fee"] / 100,
            "metric": data["metric"],
            "errors_from": data["source"],
            "pilot": data["pilot"],
            "curve": plans.as_json(data["curve"]),
        }


@dataclass(frozen=True)
class Answer:
    """What a plan comes to, in words and numbers."""

    terms: Terms
    curve: ErrorCurve
    labels: int
    currency: str
    budget_minor: int
    error: float | None
    source: str

    @property
    def cost(self) -> Cost:
        return self.terms.cost(self.labels)

    @property
    def metric(self) -> Metric:
        return self.curve.metric

    def error_at(self, labels: int) -> float:
        return float(self.curve.at(labels))

    def gain_after(self, labels: int) -> float:
        """By how much the error is better with one more, at least 0."""
        return abs(self.error_at(labels + 1) - self.error_at(labels))

    def money(self, minor: int) -> str:
        """To the pound where it is many."""
        return money(minor, self.currency) if minor < 10_000 else money(round(minor, -2), self.currency)[:-3]

    @property
    def sentence(self) -> str:
        cost = self.cost
        more = self.terms.cost(self.labels + 1).total_minor - cost.total_minor
        buys = "add" if self.metric.higher_is_better else "take off"
        people = "one session" if cost.sessions == 1 else f"{number(cost.sessions)} sessions"
        return (
            f"K = {self.labels}: about {self.money(cost.total_minor)}, {_hours(cost.hours)} of work in {people}; "
            f"expected {SHORT[self.metric]} {self.error_at(self.labels):.3f}. The next label would cost "
            f"{self.money(more)} and {buys} {self.gain_after(self.labels):.3f}."
        )

    @property
    def tiles(self) -> list[tuple[str, str]]:
        cost = self.cost
        return [
            ("Cost", self.money(cost.total_minor)),
            *([("of it the platform’s fee", self.money(cost.fees_minor))] if cost.fees_minor else []),
            ("Answers", number(cost.responses)),
            ("Hours of work", _hours(cost.hours)),
            ("Sessions", number(cost.sessions)),
            ("Minutes a session", f"{cost.minutes_per_session:.0f}"),
            ("Pay a session", money(round(cost.pay_minor / cost.sessions), self.currency)),
            (f"Expected {SHORT[self.metric]}", f"{self.error_at(self.labels):.3f}"),
        ]

    @property
    def inverse(self) -> list[str]:
        """The questions asked the other way round."""
        said = []
        if self.error is not None:
            needed = self.curve.labels_for(self.error)
            word = "at least" if self.metric.higher_is_better else "at most"
            wanted = f"{SHORT[self.metric]} of {word} {self.error:g}"
            if needed is None:
                said.append(
                    f"No number of such labels is expected to reach {wanted}: more and more come to "
                    f"{self.curve.limit:.3f}."
                )
            else:
                said.append(f"{wanted}: K = {needed}, {self.money(self.terms.cost(needed).total_minor)}.")
        if self.budget_minor:
            most = self.terms.labels_for(self.budget_minor)
            budget = self.money(self.budget_minor)
            if most:
                said.append(
                    f"{budget}: K = {most}, {self.money(self.terms.cost(most).total_minor)}; expected "
                    f"{SHORT[self.metric]} {self.error_at(most):.3f}."
                )
            else:
                said.append(
                    f"{budget} is not enough for one label of each image: {self.money(self.terms.cost(1).total_minor)}."
                )
        return said

    @property
    def figure(self) -> Figure:
        labels = list(range(1, max(SHOWN_LABELS, math.ceil(1.5 * self.labels)) + 1))
        costs = [self.terms.cost(each) for each in labels]
        errors = self.curve.at(labels)
        ends = {
            int(label): (low, high)
            for label, low, high in zip(self.curve.labels, self.curve.low, self.curve.high, strict=True)
            if not np.isnan(low)
        }
        measured = set(self.curve.labels.tolist())
        rows = [
            (
                number(label),
                number(cost.sessions),
                _hours(cost.hours),
                self.money(cost.total_minor),
                f"{error:.4f}" + ("" if label in measured else " *"),
                *([f"{ends[label][0]:.3f}–{ends[label][1]:.3f}" if label in ends else "–"] if ends else []),
                f"{self.gain_after(label):.4f}",
            )
            for label, cost, error in zip(labels, costs, errors.tolist(), strict=True)
        ]
        low, high = (np.array([ends.get(label, (np.nan, np.nan))[end] for label in labels]) for end in (0, 1))
        last = max(measured)
        name = SHORT[self.metric]
        return Figure(
            name="plan",
            title="What labels buy, and what they cost",
            finding=f"{name} goes from {errors[0]:.3f} with one label to {errors[-1]:.3f} with {labels[-1]}, the cost "
            f"from {self.money(costs[0].total_minor)} to {self.money(costs[-1].total_minor)}.",
            note=f"{self.source} Up to K = {last} as measured; * beyond, extrapolated by a line in 1 / K. However many "
            f"such labels: {self.curve.limit:.3f}." + (" Shaded: 95 % intervals over annotators." if ends else ""),
            size=SIZE,
            head=("K", "Sessions", "Hours", "Cost", name, *(["95 %"] if ends else []), "Next label’s gain"),
            rows=rows,
            draw=lambda: plots().two_scales(
                labels,
                errors,
                [cost.total_minor / 100 for cost in costs],
                what="labels per image (K)",
                of_falling=name,
                of_rising=f"cost ({self.currency})",
                size=SIZE,
                band=(low, high) if ends else None,
                mark=(self.labels, f"K = {self.labels}"),
            ),
        )


class PlannerPage(StudyPage):
    key = "plan"
    title = "Plan"
    template = "admin/annotations/study/planner.html"
    part = "admin/annotations/study/_planner.html"

    def more_urls(self) -> Sequence[URLPattern]:
        return [path(f"<int:pk>/{self.key}/curve.svg", self.view(self.drawing), name="annotations_study_plan_curve")]

    def _page(self, request: HttpRequest, study: Study) -> HttpResponse:
        # What the open page fetches when a field changes.
        if request.method == "GET" and "part" in request.GET:
            response = self.render(request, study, self.context(request, study), template=self.part)
            patch_cache_control(response, private=True, no_store=True)
            return response
        return super()._page(request, study)

    def context(self, request: HttpRequest, study: Study) -> dict[str, Any]:
        form = self._form(request.POST if request.method == "POST" else request.GET, study)
        answer = self._answer(form)
        query = form.data.copy() if hasattr(form.data, "copy") else form.data
        query = {name: value for name in form.fields if (value := query.get(name)) not in (None, "")}
        return {
            "form": form,
            "answer": answer,
            "has_images": study.study_images.exists(),
            "query": query,
            "drawing": self._address(study, query),
            "worth": _worth(answer, form) if answer else "",
            "saved": plans.plan_of(study),
            "is_draft": study.status == StudyStatus.DRAFT,
        }

    def post(self, request: HttpRequest, study: Study) -> HttpResponse | None:
        form = self._form(request.POST, study)
        if self._answer(form) is None:
            return self.render(request, study, self.context(request, study), status=422)
        labels = form.cleaned_data["labels"]
        try:
            if "use" in request.POST:
                services.use_labels(study.pk, labels)
        except Refusal as error:
            messages.error(request, error.message)
            return HttpResponseRedirect(self.address(study))
        services.save_plan(study, form.values())
        said = "The plan is saved; the live tab shows the cost beside it."
        messages.success(
            request, f"{said} The study asks for {labels} labels per image now." if "use" in request.POST else said
        )
        return HttpResponseRedirect(self.address(study))

    def drawing(self, request: HttpRequest, study: Study) -> HttpResponse:
        answer = self._answer(self._form(request.GET, study))
        if answer is None:
            raise Http404("There is no such plan.")
        response = HttpResponse(answer.figure.svg(), content_type="image/svg+xml")
        response["Content-Security-Policy"] = DRAWING_POLICY
        patch_cache_control(response, private=True, no_store=True)
        return response

    def _form(self, data: Any, study: Study) -> PlanForm:
        """Bound to what was sent, or to what the page starts with."""
        if "labels" in data:
            return PlanForm(data, study=study)
        return PlanForm(PlanForm(study=study).defaults(), study=study)

    def _answer(self, form: PlanForm) -> Answer | None:
        if not form.is_valid():
            return None
        data = form.cleaned_data
        terms = plans.terms_of(
            form.study,
            seconds_per_response=form.seconds_per_response,
            minutes_per_session=data["minutes"],
            pay_per_hour_minor=data["pay"],
            fee_share=data["fee"] / 100,
        )
        if terms is None:
            return None
        return Answer(
            terms,
            data["curve"],
            data["labels"],
            data["currency"],
            data["budget"] or 0,
            data["error"],
            _source(form),
        )

    def _address(self, study: Study, query: dict[str, Any]) -> str:
        return reverse("admin:annotations_study_plan_curve", args=[study.pk], query=query)


def _source(form: PlanForm) -> str:
    """Whose errors these are, and against what."""
    source, pilot = form.cleaned_data["source"], form.cleaned_data["pilot"]
    if pilot is None:
        return f"Of {SOURCES[Published(source)]}: {AMBIGUOUS}"
    against = (
        "the dataset’s reference labels"
        if plans.reference_exists(pilot)
        else "what ever more of its people would say on average (not the truth)"
    )
    return f"Of the mean label of the people of “{pilot}”, against {against}."


def _worth(answer: Answer, form: PlanForm) -> str:
    """What so many soft labels are worth in hard votes, by each metric: they disagree."""
    source = form.cleaned_data["source"]
    if source not in (Published.RECOMMENDED, Published.PAPER):
        return ""
    parts: list[str] = []
    for metric in Metric:
        votes = PUBLISHED[Published.VOTES][metric]
        error = float(PUBLISHED[Published(source)][metric].at(answer.labels))
        worth = votes.worth(error)
        known = worth is not None and worth <= votes.labels[-1]
        hard = f"{worth:.0f}" if known else f"more than {votes.labels[-1]}"
        parts.append(f"{hard}{'' if parts else ' hard votes'} by {SHORT[metric]}")
    labels = "such soft label of an image is" if answer.labels == 1 else "such soft labels of an image are"
    return (
        f"On the published images {answer.labels} {labels} worth about {', '.join(parts[:-1])} and {parts[-1]}: "
        "the metrics disagree."
    )


def _hours(hours: float) -> str:
    return f"{hours:,.0f} h" if hours >= 10 else f"{hours:.1f} h"

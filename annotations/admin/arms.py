"""A tab of a study: its arms, in a draft to be changed, afterwards side by side."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from annotations.admin.study_pages import StudyPage
from annotations.models import ARM_SETTINGS, Arm, ArmComparison, Framing, InputMode, Study, StudyStatus
from annotations.selectors.arms import compared_sessions
from annotations.services import arms
from elicit.labels.arms import MEASURES, beyond_chance

AS_THE_STUDY = ("", "as the study")
YES_NO = [AS_THE_STUDY, ("yes", "yes"), ("no", "no")]
POOLED = {
    "pooled_tv": ("Pooled labels from the reference (total variation)", 3),
    "pooled_kl": ("Pooled labels from the reference (KL, nats, with a floor)", 3),
}
SPARE_ROWS = 2


class ArmForm(forms.Form):
    """An arm: what is left empty is as in the study."""

    name = forms.SlugField(max_length=40, label="name")
    weight = forms.IntegerField(min_value=1, max_value=100, initial=1)
    framing = forms.ChoiceField(label="question", choices=[AS_THE_STUDY, *Framing.choices], required=False)
    input_mode = forms.ChoiceField(label="percentages by", choices=[AS_THE_STUDY, *InputMode.choices], required=False)
    most_named = forms.IntegerField(
        label="most categories named", min_value=0, max_value=1000, required=False, help_text="0: no limit."
    )
    ask_impossible = forms.ChoiceField(label="ask for impossible categories", choices=YES_NO, required=False)
    impossible_shortcut = forms.ChoiceField(label="offer “all others impossible”", choices=YES_NO, required=False)

    @property
    def arm(self) -> dict[str, Any]:
        data = self.cleaned_data
        settings: dict[str, Any] = {name: data[name] for name in ("framing", "input_mode") if data.get(name)}
        if data.get("most_named") is not None:
            settings["most_named"] = data["most_named"] or None
        for name in ("ask_impossible", "impossible_shortcut"):
            if data.get(name):
                settings[name] = data[name] == "yes"
        return {"name": data["name"], "weight": data["weight"], "settings": settings}


def _initial(arm: Arm) -> dict[str, Any]:
    said: dict[str, Any] = {"name": arm.name, "weight": arm.weight}
    for name, value in arm.settings.items():
        if name == "most_named":
            said[name] = value or 0
        else:
            said[name] = {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
    return said


class _ArmsBase(forms.BaseFormSet[ArmForm]):
    def clean(self) -> None:
        names = [form.cleaned_data["name"] for form in self.kept if form.cleaned_data.get("name")]
        if any(one == other for one, other in pairwise(sorted(names))):
            raise ValidationError("Two arms have the same name.")

    @property
    def kept(self) -> list[ArmForm]:
        return [form for form in self.forms if form.has_changed() and not form.cleaned_data.get("DELETE")]


ArmsForm: type[_ArmsBase] = forms.formset_factory(  # type: ignore[assignment]
    ArmForm, formset=_ArmsBase, extra=SPARE_ROWS, max_num=12, can_delete=True
)


class ArmsPage(StudyPage):
    key = "arms"
    title = "Arms"
    template = "admin/annotations/study/arms.html"

    def context(self, request: HttpRequest, study: Study) -> dict[str, Any]:
        mine = list(study.arms.order_by("pk"))
        draft = study.status == StudyStatus.DRAFT
        context: dict[str, Any] = {
            "draft": draft,
            "arms": [{"arm": arm, "settings": in_words(arm), "sessions": arm.sessions.count()} for arm in mine],
            "forms": ArmsForm(initial=[_initial(arm) for arm in mine]) if draft else None,
        }
        if mine and not draft:
            arms.ask_for_comparison(study)
            comparison = ArmComparison.objects.filter(study=study).first()
            context |= {
                "comparison": comparison,
                "stale": compared_sessions(study) != (comparison.sessions if comparison else 0),
            }
            if comparison:
                found = comparison.found
                context |= {
                    "columns": [
                        {"name": name, "annotators": arm["annotators"], "answers": arm["answers"]}
                        for name, arm in _in_order(found, mine)
                    ],
                    "rows": _rows(found, mine),
                    "sentences": sentences(found),
                }
        return context

    def post(self, request: HttpRequest, study: Study) -> HttpResponse | None:
        if study.status != StudyStatus.DRAFT:
            raise PermissionDenied
        form = ArmsForm(request.POST)
        if form.is_valid():
            try:
                made = arms.write_arms(study.pk, [each.arm for each in form.kept])
            except ValidationError as error:
                messages.error(request, " ".join(error.messages))
            else:
                messages.success(request, f"The study has {len(made)} arms now." if made else "The study has no arms.")
                return redirect(self.address(study))
        return self.render(request, study, {**self.context(request, study), "forms": form}, status=422)


def in_words(arm: Arm) -> list[str]:
    """What an arm does differently, in the words of the study's settings."""
    said = []
    for name in ARM_SETTINGS:
        if name not in arm.settings:
            continue
        field, value = Study._meta.get_field(name), arm.settings[name]
        words = dict(getattr(field, "flatchoices", ())).get(value, value)
        if isinstance(value, bool):
            words = "yes" if value else "no"
        said.append(f"{field.verbose_name}: {'no limit' if value is None else words}")  # type: ignore[union-attr]
    return said


def _in_order(found: dict[str, Any], mine: list[Arm]) -> list[tuple[str, dict[str, Any]]]:
    """The arms that were compared as the study lists them: a database keeps an object's keys in an order of its own."""
    return [(arm.name, found["arms"][arm.name]) for arm in mine if arm.name in found["arms"]]


def _rows(found: dict[str, Any], mine: list[Arm]) -> list[dict[str, Any]]:
    measures = {key: (measure.title, measure.digits, measure.unit) for key, measure in MEASURES.items()}
    measures |= {key: (title, digits, "") for key, (title, digits) in POOLED.items()}
    rows = []
    for key, (title, digits, unit) in measures.items():
        values = [arm.get(key) for _, arm in _in_order(found, mine)]
        if any(values):
            rows.append({"title": title, "cells": [_cell(value, digits, unit) for value in values]})
    return rows


def _cell(value: list[float] | None, digits: int, unit: str) -> dict[str, str]:
    if value is None:
        return {"value": "–", "interval": ""}
    unit = f" {unit}" if unit else ""
    return {"value": f"{value[0]:.{digits}f}{unit}", "interval": f"{value[1]:.{digits}f} to {value[2]:.{digits}f}"}


def sentences(found: dict[str, Any]) -> list[str]:
    """What differs between arms beyond chance, a sentence for each two arms."""
    said = []
    for pair in found["pairs"]:
        first, second = pair["first"], pair["second"]
        parts = []
        for key, interval in pair["differences"].items():
            if beyond_chance(interval):
                measure = MEASURES[key]
                way = measure.more if interval[0] > 0 else measure.less
                low, high = sorted((abs(interval[1]), abs(interval[2])))
                unit = f" {measure.unit}" if measure.unit else ""
                parts.append(
                    f"{way} (by {abs(interval[0]):.{measure.digits}f}{unit}, "
                    f"95 % interval {low:.{measure.digits}f} to {high:.{measure.digits}f})"
                )
        if parts:
            said.append(f"Beside “{first}”, “{second}” {', '.join(parts)}.")
        else:
            said.append(f"In no figure of the table do “{first}” and “{second}” differ beyond chance.")
        if pair["apart"] is not None:
            verdict = "more than" if pair["beyond_chance"] else "no more than"
            said.append(
                f"On {pair['images']:,} images that both have, their pooled labels lie {pair['apart']:.3f} apart "
                f"(total variation), {verdict} what chance explains: annotators dealt anew give "
                f"{pair['by_chance']:.3f}."
            )
    return said

"""The forms of a study's rules and of its check images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

from django import forms
from django.core.exceptions import ValidationError

from annotations import selectors
from annotations.admin.builder import named_percentages
from annotations.models import CheckItem, CheckKind, QualityRule, Study
from annotations.selectors.quality import item_problem
from annotations.services.quality import WantedRule
from elicit.labels.quality import ABOUT, Measure

MOST_RULES = 20
MOST_CHECKS = 30
IN_PERCENT = {"share", "points"}


def scale(measure: Measure) -> float:
    """People give shares in per cent."""
    return 100.0 if ABOUT[measure].unit in IN_PERCENT else 1.0


class RuleRow(forms.Form):
    measure = forms.ChoiceField(
        choices=[
            ("", "choose a measure"),
            *((each.value, ABOUT[each].title + (", in %" if scale(each) > 1 else "")) for each in Measure),
        ]
    )
    way = forms.ChoiceField(label="is", choices=[("at_least", "at least"), ("at_most", "at most")])
    threshold = forms.FloatField(label="this much", widget=forms.NumberInput(attrs={"step": "any"}))
    least = forms.IntegerField(
        label="known from at least", min_value=1, max_value=1000, initial=1, help_text="answers, repeats or checks"
    )

    @property
    def wanted(self) -> WantedRule:
        data = self.cleaned_data
        measure = Measure(data["measure"])
        return WantedRule(measure, data["threshold"] / scale(measure), data["way"] == "at_least", data["least"])

    @staticmethod
    def of(rule: QualityRule) -> dict[str, Any]:
        return {
            "measure": rule.measure,
            "way": "at_least" if rule.at_least else "at_most",
            "threshold": float(f"{rule.threshold * scale(Measure(rule.measure)):.6g}"),
            "least": rule.least,
        }


Row = TypeVar("Row", bound=forms.Form)


class _Rows(forms.BaseFormSet[Row]):
    """Rows of which blank new ones and those ticked to be removed do not count."""

    @property
    def kept(self) -> list[Row]:
        gone = self.deleted_forms
        return [row for row in self.forms if row not in gone and (row in self.initial_forms or row.has_changed())]


class Rules(_Rows[RuleRow]):
    def clean(self) -> None:
        seen = set()
        for row in self.kept:
            if not row.errors:
                key = (row.cleaned_data["measure"], row.cleaned_data["way"])
                if key in seen:
                    row.add_error(None, "There is such a rule already.")
                seen.add(key)

    @property
    def wanted(self) -> list[WantedRule]:
        return [row.wanted for row in self.kept]


def rules_form(rules: Sequence[QualityRule], data: Mapping[str, Any] | None = None) -> Rules:
    made = forms.formset_factory(
        RuleRow,
        formset=Rules,
        extra=0 if rules else 1,
        can_delete=True,
        max_num=MOST_RULES,
        validate_max=True,
        absolute_max=MOST_RULES + 1,
    )
    return cast("type[Rules]", made)(data, initial=[RuleRow.of(rule) for rule in rules], prefix="row")


class CheckRow(forms.Form):
    """An image whose answer is known."""

    place = forms.IntegerField(required=False, widget=forms.HiddenInput)
    image = forms.IntegerField(
        min_value=0, help_text="Its number in the dataset.", widget=forms.NumberInput(attrs={"min": 0})
    )
    kind = forms.ChoiceField(
        label="kind",
        choices=[
            ("gold", "gold: it looks like any other image"),
            ("attention", "attention: the page says what to answer"),
        ],
    )
    note = forms.CharField(
        required=False,
        max_length=300,
        widget=forms.TextInput(attrs={"class": "vTextField"}),
        help_text="What the page says, such as “To show that you read this, name Dog at 100 %.”",
    )
    allowed = forms.CharField(
        label="categories that pass",
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="One per line: the most likely category has to be one of them.",
    )
    target = forms.CharField(
        label="or a target",
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="One category per line with its percentage, such as “Cat 70”; together 100.",
    )
    tolerance = forms.FloatField(
        label="tolerance",
        required=False,
        min_value=0,
        max_value=1,
        widget=forms.NumberInput(attrs={"step": "0.05"}),
        help_text="The most total variation from the target that passes: 0 the same, 1 nothing in common.",
    )

    def clean_target(self) -> dict[str, float]:
        return named_percentages(self.cleaned_data["target"])

    @staticmethod
    def of(item: CheckItem, names: Sequence[str]) -> dict[str, Any]:
        shares = sorted(((share, names[index]) for index, share in enumerate(item.target) if share), reverse=True)
        return {
            "image": item.image.index,
            "kind": item.kind,
            "note": item.note,
            "allowed": "\n".join(names[index] for index in item.allowed),
            "target": "\n".join(f"{name} {100 * share:g}" for share, name in shares),
            "tolerance": item.tolerance,
        }


class Checks(_Rows[CheckRow]):
    def __init__(self, *args: Any, study: Study, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.study = study
        self.items: list[CheckItem] = []

    def clean(self) -> None:
        names = selectors.category_names(self.study)
        index = {name.casefold(): place for place, name in enumerate(names)}
        seen: set[int] = set()
        practised = {item["image"] for item in self.study.practice}
        for row in self.kept:
            if row.errors:
                continue
            try:
                item = self._item(row.cleaned_data, index)
            except ValidationError as error:
                row.add_error(None, error)
                continue
            if item.image_id in seen:
                row.add_error("image", "This image is a check already.")
            elif self.study.study_images.filter(image_id=item.image_id).exists():
                row.add_error("image", "This image is one of the study’s own: choose another.")
            elif item.image.index in practised:
                row.add_error("image", "This image is one of the practice’s: choose another.")
            elif problem := item_problem(item, len(names)):
                row.add_error(None, problem[0].upper() + problem[1:])
            seen.add(item.image_id)
            self.items.append(item)

    def _item(self, data: Mapping[str, Any], index: Mapping[str, int]) -> CheckItem:
        image = selectors.dataset_image(self.study, data["image"]) if data["image"] < 2**31 else None
        if image is None:
            raise ValidationError({"image": "The dataset has no such image."})
        allowed = [line.strip() for line in data["allowed"].splitlines() if line.strip()]
        unknown = [name for name in [*allowed, *data["target"]] if name.casefold() not in index]
        if unknown:
            raise ValidationError(f"The dataset has no category “{unknown[0]}”.")
        attention = data["kind"] == CheckKind.ATTENTION
        if not attention and data["note"]:
            raise ValidationError({"note": "Only an attention check has a note: it would tell a gold image apart."})
        target = [0.0] * len(index) if data["target"] else []
        total = sum(data["target"].values())
        if data["target"] and abs(total - 100) > 0.01:
            raise ValidationError({"target": f"The percentages add up to {total:g}, not 100."})
        for name, percentage in data["target"].items():
            target[index[name.casefold()]] = percentage / total
        return CheckItem(
            study=self.study,
            image=image,
            kind=data["kind"],
            note=data["note"],
            allowed=sorted({index[name.casefold()] for name in allowed}),
            target=target,
            tolerance=data["tolerance"] if target else None,
        )


def checks_form(study: Study, items: Sequence[CheckItem], data: Mapping[str, Any] | None = None) -> Checks:
    made = forms.formset_factory(
        CheckRow,
        formset=Checks,
        extra=0 if items else 1,
        can_delete=True,
        max_num=MOST_CHECKS,
        validate_max=True,
        absolute_max=MOST_CHECKS + 1,
    )
    names = selectors.category_names(study)
    initial = [{**CheckRow.of(item, names), "place": place} for place, item in enumerate(items)]
    return cast("type[Checks]", made)(data, initial=initial, prefix="row", study=study)

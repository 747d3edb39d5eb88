"""Practice, comprehension check and questionnaire as forms, so that no curator has to write JSON.

A part is a list of objects on the study (see `annotations/practice.py` and `annotations/questionnaire.py`); each object
is a row of the form. What is wrong with a row is told beside it, in the words of those modules.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from django import forms
from django.contrib import messages
from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import URLPattern, path, reverse
from django.utils.text import slugify

from annotations import selectors
from annotations.links import image_url
from annotations.models import Study, StudyStatus
from annotations.practice import MOST_PRACTICE, practice_problems
from annotations.questionnaire import question_problems
from annotations.services import studies
from annotations.texts import picture_problems

MOST_ROWS = 100
LONGEST_JSON = 200_000
EXPECTED = re.compile(r"(?P<name>.+?)\s*[:=\s]\s*(?P<percentage>[0-9]+(?:[.,][0-9]+)?)\s*%?")


class Row(forms.Form):
    """One row. `item` is the object that it stands for, and `from_item` the row's values for an object."""

    place = forms.IntegerField(required=False, widget=forms.HiddenInput)

    @property
    def item(self) -> dict[str, Any]:
        raise NotImplementedError

    @staticmethod
    def from_item(item: Mapping[str, Any]) -> dict[str, Any]:
        raise NotImplementedError


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def named_percentages(text: str) -> dict[str, float]:
    """Lines such as “Cat 70”.

    Raises:
        ValidationError: a line is anything else, or names a category again.
    """
    percentages: dict[str, float] = {}
    for line in _lines(text):
        found = EXPECTED.fullmatch(line)
        if found is None:
            raise ValidationError(f"“{line}” should be a category and a percentage, such as “Cat 70”.")
        if found["name"] in percentages:
            raise ValidationError(f"{found['name']} is given twice.")
        percentage = float(found["percentage"].replace(",", "."))
        percentages[found["name"]] = int(percentage) if percentage.is_integer() else percentage
    return percentages


class QuestionRow(Row):
    question = forms.CharField(widget=forms.TextInput(attrs={"class": "vTextField"}))
    kind = forms.ChoiceField(
        choices=[
            ("scale", "scale: a row of numbers"),
            ("choice", "choice: one of several"),
            ("text", "text: free words"),
        ]
    )
    low = forms.IntegerField(label="from", required=False, initial=1)
    high = forms.IntegerField(label="to", required=False, initial=10)
    choices = forms.CharField(
        required=False, widget=forms.Textarea(attrs={"rows": 4}), help_text="One per line, at least two."
    )
    help = forms.CharField(
        label="explanation", required=False, widget=forms.TextInput(attrs={"class": "vTextField"}),
        help_text="A line under the question, such as what the ends of a scale mean.",
    )  # fmt: skip
    required = forms.BooleanField(label="has to be answered", required=False, initial=True)
    name = forms.CharField(
        required=False,
        max_length=40,
        help_text="Its column in the data: small letters, digits and _. Empty: made from the question.",
    )

    @property
    def item(self) -> dict[str, Any]:
        data = self.cleaned_data
        item: dict[str, Any] = {"name": data["name"], "question": data["question"], "kind": data["kind"]}
        if data["kind"] == "scale":
            item |= {"low": data["low"], "high": data["high"]}
        elif data["kind"] == "choice":
            item["choices"] = _lines(data["choices"])
        if data["required"] != (data["kind"] != "text"):
            item["required"] = data["required"]
        if data["help"]:
            item["help"] = data["help"]
        return item

    @staticmethod
    def from_item(item: Mapping[str, Any]) -> dict[str, Any]:
        required = item.get("required", item["kind"] != "text")
        return {**item, "choices": "\n".join(item.get("choices", [])), "required": required}


class CheckRow(Row):
    question = forms.CharField(widget=forms.TextInput(attrs={"class": "vTextField"}))
    choices = forms.CharField(
        widget=forms.Textarea(attrs={"rows": 4}),
        help_text="One per line, at least two. A * in front marks the right one: * 100 other people",
    )
    help = QuestionRow.base_fields["help"]
    name = QuestionRow.base_fields["name"]

    @property
    def item(self) -> dict[str, Any]:
        data = self.cleaned_data
        lines = _lines(data["choices"])
        choices = [line.removeprefix("*").strip() for line in lines]
        right = [choice for line, choice in zip(lines, choices, strict=True) if line.startswith("*")]
        item = {"name": data["name"], "question": data["question"], "kind": "choice", "choices": choices}
        if len(right) == 1:
            item["answer"] = right[0]
        return {**item, "help": data["help"]} if data["help"] else item

    @staticmethod
    def from_item(item: Mapping[str, Any]) -> dict[str, Any]:
        marked = [f"* {choice}" if choice == item["answer"] else choice for choice in item["choices"]]
        return {**item, "choices": "\n".join(marked)}


class PracticeRow(Row):
    image = forms.IntegerField(
        label="image", min_value=0, help_text="Its number in the dataset.", widget=forms.NumberInput(attrs={"min": 0})
    )
    feedback = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 3, "class": "vLargeTextField"}),
        help_text="Markdown, shown once the image is answered.",
    )
    expected = forms.CharField(
        label="percentages shown beside the answer",
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="One category per line, such as “Cat 70”. Empty: none are shown.",
    )

    def clean_expected(self) -> dict[str, float]:
        return named_percentages(self.cleaned_data["expected"])

    @property
    def item(self) -> dict[str, Any]:
        data = self.cleaned_data
        item = {"image": data["image"], "feedback": data["feedback"]}
        return {**item, "expected": data["expected"]} if data["expected"] else item

    @staticmethod
    def from_item(item: Mapping[str, Any]) -> dict[str, Any]:
        expected = sorted(item.get("expected", {}).items(), key=lambda pair: -pair[1])
        return {**item, "expected": "\n".join(f"{name} {percentage:g}" for name, percentage in expected)}


def _named(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Questions with names for those that have none."""
    taken = {item["name"] for item in items}
    named = []
    for number, item in enumerate(items, 1):
        if not item["name"]:
            base = re.sub(r"[^a-z0-9]+", "_", slugify(item["question"]))[:30].strip("_")
            base = base if re.match(r"[a-z]", base) else f"question_{number}"
            name = next(
                name for name in (base, *(f"{base}_{again}" for again in range(2, 2 * MOST_ROWS))) if name not in taken
            )
            taken.add(name)
            item = {**item, "name": name}
        named.append(item)
    return named


@dataclass(frozen=True)
class Part:
    """A list of rows on a study: what it is called and how it is read and judged."""

    key: str
    title: str
    what: str
    one: str
    row: type[Row]
    most: int = MOST_ROWS

    def finish(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return items if self.key == "practice" else _named(items)

    def problems(self, study: Study, items: list[Any], *, leave_out: bool) -> dict[int, list[str]]:
        """Sentences by the place of the item that they are about. `leave_out`: the practice's images are about to be
        taken out of the study's own."""
        if self.key != "practice":
            found = question_problems(items, comprehension=self.key == "comprehension")
            return {place: [problem] for place, problem in found.items()}
        problems = {place: [problem] for place, problem in practice_problems(items).items()}
        sound = [place for place in range(len(items)) if place not in problems]
        fitting = selectors.practice_problems(study, [items[place] for place in sound], leave_out=leave_out)
        for number, problem in fitting.items():
            problems[sound[number]] = [problem]
        for place in sound:
            for problem in picture_problems(items[place].get("feedback", ""), study):
                problems.setdefault(place, []).append(problem)
        return problems


PARTS = {
    part.key: part
    for part in (
        Part(
            "practice",
            "Practice",
            "Images to practise on before the trials. After each answer the annotator sees your words and, beside "
            "their own answer, the percentages that you give.",
            "image",
            PracticeRow,
            MOST_PRACTICE,
        ),
        Part(
            "comprehension",
            "Comprehension check",
            "Questions about the task, each with one right answer. Annotators have two attempts; the second comes with "
            "the instructions again. Nobody who fails takes a place.",
            "question",
            CheckRow,
        ),
        Part("questionnaire", "Questionnaire", "What is asked after the trials.", "question", QuestionRow),
    )
}


class RowSet(forms.BaseFormSet[Row]):
    """The rows of a part, and what is wrong with each."""

    def __init__(self, *args: Any, part: Part, study: Study, leave_out: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.part, self.study, self.leave_out = part, study, leave_out
        self.items: list[dict[str, Any]] = []

    def clean(self) -> None:
        kept = [
            form
            for form in self.forms
            if form not in self.deleted_forms and (form in self.initial_forms or form.has_changed())
        ]
        if any(form.errors for form in kept):
            return
        places = {id(form): form.cleaned_data["place"] for form in kept}
        kept.sort(key=lambda form: MOST_ROWS if places[id(form)] is None else places[id(form)])
        self.items = self.part.finish([form.item for form in kept])
        for place, problems in self.part.problems(self.study, self.items, leave_out=self.leave_out).items():
            for problem in problems:
                kept[place].add_error(None, problem[0].upper() + problem[1:])


def _rows(part: Part, study: Study, data: Mapping[str, Any] | None = None) -> RowSet:
    items = getattr(study, part.key)
    made = forms.formset_factory(
        part.row,
        formset=RowSet,
        extra=0 if items else 1,
        can_delete=True,
        max_num=part.most,
        validate_max=True,
        absolute_max=part.most + 1,
    )
    initial = [{**part.row.from_item(item), "place": number} for number, item in enumerate(items)]
    leave_out = data is not None and "leave_out" in data
    return cast("type[RowSet]", made)(data, initial=initial, prefix="row", part=part, study=study, leave_out=leave_out)


def _imported(part: Part, study: Study, text: str) -> list[Any]:
    """The items of some JSON.

    Raises:
        ValidationError: it is anything else, or something is wrong with an item.
    """
    if len(text) > LONGEST_JSON:
        raise ValidationError("The JSON is longer than 200,000 signs.")
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValidationError(f"This is not JSON: {error}.") from error
    if not isinstance(items, list) or len(items) > part.most:
        raise ValidationError(f"The JSON has to be a list of at most {part.most} objects.")
    found = part.problems(study, items, leave_out=False)
    problems = [f"{place + 1}: {problem}" for place, each in sorted(found.items()) for problem in each]
    if problems:
        raise ValidationError(problems)
    return items


class Builder:
    """The console's pages for the parts of a draft."""

    def __init__(self, site: AdminSite, log: Callable[[HttpRequest, Study, str], object]) -> None:
        self.site, self.log = site, log

    @property
    def urls(self) -> list[URLPattern]:
        return [
            *(
                path(f"<int:pk>/{key}/", self.site.admin_view(self._view(part)), name=f"annotations_study_{key}")
                for key, part in PARTS.items()
            ),
            path(
                "<int:pk>/images/<int:index>/",
                self.site.admin_view(self.thumbnail),
                name="annotations_study_thumbnail",
            ),
        ]

    def thumbnail(self, request: HttpRequest, pk: int, index: int) -> HttpResponse:
        """To an image of the study's dataset, by its number."""
        study = _editable(request, pk)
        image = selectors.dataset_image(study, index) if index < 2**31 else None
        if image is None:
            raise Http404
        return redirect(image_url(image, study))

    def _view(self, part: Part) -> Callable[[HttpRequest, int], HttpResponse]:
        def view(request: HttpRequest, pk: int) -> HttpResponse:
            study = _editable(request, pk)
            back = redirect("admin:annotations_study_change", pk)
            if study.status != StudyStatus.DRAFT:
                messages.error(request, "The settings of a launched study are fixed.")
                return back
            importing = "import" in request.POST
            text = request.POST.get("json", "")
            rows = _rows(part, study, request.POST if request.method == "POST" and not importing else None)
            problems: list[str] = []
            if importing:
                try:
                    return self._save(request, study, part, _imported(part, study, text))
                except ValidationError as error:
                    problems = error.messages
            elif rows.is_bound and rows.is_valid():
                if rows.leave_out:
                    studies.leave_out(pk, [item["image"] for item in rows.items])
                return self._save(request, study, part, rows.items)
            return render(
                request,
                "admin/annotations/study/builder.html",
                {
                    **self.site.each_context(request),
                    "title": f"{part.title}: {study.name}",
                    "opts": Study._meta,
                    "study": study,
                    "part": part,
                    "rows": rows,
                    "problems": problems,
                    "json": text or json.dumps(getattr(study, part.key), indent=2, ensure_ascii=False),
                    "thumbnails": reverse("admin:annotations_study_thumbnail", args=[pk, 0]).removesuffix("0/"),
                },
                status=422 if problems or (rows.is_bound and not rows.is_valid()) else 200,
            )

        return view

    def _save(self, request: HttpRequest, study: Study, part: Part, items: list[Any]) -> HttpResponse:
        studies.write_part(study.pk, part.key, items)
        self.log(request, study, f"{part.title}: {len(items)}")
        messages.success(request, f"{part.title}: saved.")
        here = f"admin:annotations_study_{part.key if 'stay' in request.POST else 'change'}"
        return redirect(here, study.pk)


def _editable(request: HttpRequest, pk: int) -> Study:
    if not request.user.has_perm("annotations.change_study"):
        raise PermissionDenied
    return get_object_or_404(Study.objects.select_related("dataset"), pk=pk)

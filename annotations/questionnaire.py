"""The questions before and after the trials: described as data on the study, asked by a Django form.

A questionnaire is a list of questions, each an object: `name` (letters, digits, `_`), `question`, `kind` (`scale` with
`low` and `high`, `choice` with `choices`, or `text`), optional `required` (default true; for `text` false) and `help`
(plain text). Those of a comprehension check are choices, each with its `answer`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.html import escape

LONGEST_TEXT = 2000
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def validate_questionnaire(questions: object) -> None:
    """Raise ValidationError, saying which question is wrong and how."""
    _validate(questions, comprehension=False)


def validate_comprehension(questions: object) -> None:
    """As `validate_questionnaire`; and every question is a choice whose `answer` is one of its choices."""
    _validate(questions, comprehension=True)


def _validate(questions: object, *, comprehension: bool) -> None:
    if not isinstance(questions, list):
        raise ValidationError("A questionnaire is a list of questions.")
    for place, problem in question_problems(questions, comprehension=comprehension).items():
        raise ValidationError(f"Question {place + 1}: {problem}")


def question_problems(questions: list[Any], *, comprehension: bool) -> dict[int, str]:
    """What is wrong with which question, by its place from 0."""
    found: dict[int, str] = {}
    seen: set[str] = set()
    for place, question in enumerate(questions):
        if problem := _problem(question, seen) or (_answer_problem(question) if comprehension else ""):
            found[place] = problem
        if isinstance(question, dict) and isinstance(question.get("name"), str):
            seen.add(question["name"])
    return found


def _answer_problem(question: dict[str, Any]) -> str:
    if question["kind"] != "choice":
        return "its kind must be choice."
    if question.get("answer") not in question["choices"]:
        return "its answer must be one of its choices."
    return ""


def _problem(question: Any, seen: set[str]) -> str:
    if not isinstance(question, dict):
        return "it must be an object."
    name = question.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return "its name must be a word of small letters, digits and _."
    if name in seen:
        return f"the name {name} is taken."
    if not isinstance(question.get("question"), str) or not question["question"].strip():
        return "it asks nothing."
    if not isinstance(question.get("help", ""), str):
        return "its help must be text."
    if not isinstance(question.get("required", True), bool):
        return "required must be true or false."
    match question.get("kind"):
        case "scale":
            low, high = question.get("low"), question.get("high")
            if not (type(low) is int and type(high) is int and low < high <= low + 100):
                return "a scale needs whole numbers low < high, at most 100 apart."
        case "choice":
            choices = question.get("choices")
            if (
                not isinstance(choices, list)
                or len(choices) < 2
                or not all(isinstance(choice, str) and choice for choice in choices)
                or len(set(choices)) < len(choices)
            ):
                return "a choice needs at least two different choices."
        case "text":
            pass
        case _:
            return "its kind must be scale, choice or text."
    return ""


class QuestionnaireForm(forms.Form):
    """Asks the questions of a validated questionnaire."""

    def __init__(self, questions: list[dict[str, Any]], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for question in questions:
            self.fields[question["name"]] = _field(question)


class ComprehensionForm(QuestionnaireForm):
    """Asks the questions of a comprehension check, all of them."""

    def __init__(self, questions: list[dict[str, Any]], *args: Any, **kwargs: Any) -> None:
        super().__init__([{**question, "required": True} for question in questions], *args, **kwargs)
        # Which attempt this is: a form that was sent twice, or found again by going back, counts once.
        self.fields["_attempt"] = forms.IntegerField(min_value=0, widget=forms.HiddenInput)

    @property
    def answers(self) -> dict[str, str]:
        return {name: answer for name, answer in self.cleaned_data.items() if name != "_attempt"}


def wrong_answers(questions: list[dict[str, Any]], answers: Mapping[str, object]) -> list[str]:
    """The names of the questions that were not answered rightly."""
    return [question["name"] for question in questions if answers.get(question["name"]) != question["answer"]]


def _field(question: dict[str, Any]) -> forms.Field:
    common: dict[str, Any] = {
        "label": question["question"],
        # Django takes a help text for HTML.
        "help_text": escape(question.get("help", "")),
        "required": question.get("required", question["kind"] != "text"),
    }
    if question["kind"] == "scale":
        values = [(str(value), str(value)) for value in range(question["low"], question["high"] + 1)]
        return forms.TypedChoiceField(choices=values, coerce=int, empty_value=None, widget=forms.RadioSelect, **common)
    if question["kind"] == "choice":
        return forms.ChoiceField(
            choices=[(choice, choice) for choice in question["choices"]], widget=forms.RadioSelect, **common
        )
    return forms.CharField(max_length=LONGEST_TEXT, widget=forms.Textarea(attrs={"rows": 3}), **common)

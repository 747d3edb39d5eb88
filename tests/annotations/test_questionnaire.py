from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError

from annotations.presets import PRESETS, QUESTIONNAIRE
from annotations.questionnaire import QuestionnaireForm, validate_questionnaire

SCALE = {"name": "clarity", "question": "How clear?", "kind": "scale", "low": 1, "high": 5}
CHOICE = {"name": "device", "question": "Which device?", "kind": "choice", "choices": ["phone", "laptop"]}
TEXT = {"name": "remarks", "question": "Anything else?", "kind": "text"}


@pytest.mark.parametrize("questions", [[], [SCALE], [SCALE, CHOICE, TEXT], QUESTIONNAIRE])
def test_a_list_of_questions_is_a_questionnaire(questions: list[dict[str, Any]]) -> None:
    validate_questionnaire(questions)
    assert list(QuestionnaireForm(questions).fields) == [question["name"] for question in questions]


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.key)
def test_every_preset_has_a_questionnaire_that_can_be_asked(preset: Any) -> None:
    validate_questionnaire(preset.settings["questionnaire"])


@pytest.mark.parametrize(
    ("questions", "words"),
    [
        ({}, "a list of questions"),
        ("text", "a list of questions"),
        (None, "a list of questions"),
        ([3], "Question 1: it must be an object"),
        ([SCALE, {}], "Question 2: its name"),
        ([{**SCALE, "name": "Clarity"}], "its name"),
        ([{**SCALE, "name": "a" * 41}], "its name"),
        ([{**SCALE, "name": "a\n"}], "its name"),
        ([{**SCALE, "name": 3}], "its name"),
        ([SCALE, SCALE], "the name clarity is taken"),
        ([{**SCALE, "question": " "}], "it asks nothing"),
        ([{**SCALE, "question": None}], "it asks nothing"),
        ([{**SCALE, "kind": "essay"}], "its kind"),
        ([{**SCALE, "kind": ["scale"]}], "its kind"),
        ([{**SCALE, "low": 5}], "low < high"),
        ([{**SCALE, "high": 102}], "at most 100 apart"),
        ([{**SCALE, "low": "1"}], "whole numbers"),
        ([{**SCALE, "low": False}], "whole numbers"),
        ([{**SCALE, "high": float("nan")}], "whole numbers"),
        ([{**CHOICE, "choices": ["phone"]}], "two different choices"),
        ([{**CHOICE, "choices": ["phone", "phone"]}], "two different choices"),
        ([{**CHOICE, "choices": ["phone", ""]}], "two different choices"),
        ([{**CHOICE, "choices": ["phone", ["x"]]}], "two different choices"),
        ([{**CHOICE, "choices": "phone"}], "two different choices"),
        ([{**TEXT, "help": 3}], "its help must be text"),
        ([{**TEXT, "required": "no"}], "required must be true or false"),
    ],
)
def test_what_is_wrong_with_a_questionnaire_is_told(questions: object, words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        validate_questionnaire(questions)

    assert words in refused.value.message


def test_answers_come_back_as_numbers_choices_and_text() -> None:
    form = QuestionnaireForm([SCALE, CHOICE, TEXT], {"clarity": "4", "device": "phone", "remarks": " Fine. "})

    assert form.is_valid()
    assert form.cleaned_data == {"clarity": 4, "device": "phone", "remarks": "Fine."}


def test_only_text_may_be_left_out_unless_the_question_says_otherwise() -> None:
    assert set(QuestionnaireForm([SCALE, CHOICE, TEXT], {}).errors) == {"clarity", "device"}
    optional = [{**SCALE, "required": False}, {**CHOICE, "required": False}, {**TEXT, "required": True}]
    form = QuestionnaireForm(optional, {"remarks": "x"})
    assert form.is_valid()
    assert form.cleaned_data == {"clarity": None, "device": "", "remarks": "x"}


@pytest.mark.parametrize("value", ["0", "6", "4.5", "four", "", "\0"])
def test_a_scale_takes_its_own_steps_alone(value: str) -> None:
    assert "clarity" in QuestionnaireForm([SCALE], {"clarity": value}).errors


def test_a_choice_takes_what_it_offers_alone() -> None:
    assert "device" in QuestionnaireForm([CHOICE], {"device": "fridge"}).errors


def test_words_of_the_curator_are_shown_as_text() -> None:
    question = {**TEXT, "question": "<b>Why</b>?", "help": "<script>alert(1)</script>"}

    html = QuestionnaireForm([question]).as_p()

    assert "<script>" not in html
    assert "<b>" not in html
    assert "&lt;script&gt;" in html

"""The short way of a serializer says what the serializer says."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
from rest_framework import serializers

from annotations.api import ResponseIn
from elicit.short_way import short_way

ODD: list[Any] = [
    None, True, False, 0, -1, 5, 10**9, 2**31, 1.0, 2.5, "", "5", "keyboard", "too_fast", "top", [], {}, [None], [[]],
    {"category": 3}, "0e5b2f1c-6a55-4f9c-8f39-1c2d3e4f5a6b", "0E5B2F1C6A554F9C8F391C2D3E4F5A6B", "x" * 36, "\0", "é",
]  # fmt: skip
TIMES = {"field": "top", "category": 3, "first_ms": 900, "last_ms": 1200, "changes": 0, "input": "keyboard"}
BODY: dict[str, Any] = {
    "named": [{"category": 3, "percentage": 80}, {"category": 5, "percentage": None}],
    "impossible": [0, 1],
    "duration_ms": 4200,
    "hidden_ms": 0,
    "revises": "0e5b2f1c-6a55-4f9c-8f39-1c2d3e4f5a6b",
    "process": {
        "input": "keyboard",
        "first_touch_ms": 900,
        "changes": 2,
        "fields": [TIMES, {**TIMES, "field": "percentage", "category": None}],
        "warnings": [{"code": "too_fast", "ms": 3, "kept": True}],
    },
}


def told(validate: Callable[[Any], Any], data: Any) -> Any:
    try:
        return validate(copy.deepcopy(data))
    except serializers.ValidationError as error:
        return error.get_full_details()


def places(body: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


def changed(body: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    body = copy.deepcopy(body)
    parent = body
    for key in path[:-1]:
        parent = parent[key]
    change(parent, path[-1])
    return body


def put(odd: Any) -> Callable[[Any, Any], None]:
    def change(parent: Any, key: Any) -> None:
        parent[key] = odd

    return change


def mutations() -> list[Any]:
    """Every place of a whole body taken away, and with everything odd in it; then many at once."""
    made: list[Any] = [BODY, *ODD]
    for path in places(BODY)[1:]:
        made.append(changed(BODY, path, lambda parent, key: parent.pop(key)))
        for odd in ODD:
            made.append(changed(BODY, path, put(odd)))
    draw = random.Random(1)
    for _ in range(300):
        body = BODY
        for _ in range(draw.randint(2, 4)):
            body = changed(body, draw.choice(places(body)[1:]), put(draw.choice(ODD)))
        made.append(body)
    return made


def test_an_answer_is_validated_and_refused_word_for_word_as_its_serializer_does() -> None:
    serializer = ResponseIn()
    short = short_way(serializer)

    said = [(told(short, body), told(serializer.run_validation, body)) for body in mutations()]

    assert [ours for ours, theirs in said if ours != theirs] == []
    # Values, not only equal ones: 1 == 1.0 == True.
    assert all(repr(ours) == repr(theirs) for ours, theirs in said)
    accepted = sum(isinstance(ours, dict) and "duration_ms" in ours and ours["duration_ms"] == 4200 for ours, _ in said)
    assert 50 < accepted < len(said) - 500


def test_a_good_answer_goes_the_short_way_and_a_bad_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    serializer = ResponseIn()
    short = short_way(serializer)
    asked: list[Any] = []
    monkeypatch.setattr(serializer, "run_validation", asked.append)

    short(BODY)
    assert asked == []
    short({**BODY, "duration_ms": -1})
    assert len(asked) == 1


class Even:
    def __call__(self, value: int) -> None:
        if value % 2:
            raise serializers.ValidationError("Odd.")


class Own(serializers.Serializer[Any]):
    """Rules of every kind that the short way can't read off."""

    even = serializers.IntegerField(validators=[Even()])
    renamed = serializers.IntegerField(source="other")
    word = serializers.CharField(max_length=3, default="no")
    unsaid = serializers.IntegerField(required=False)
    some = serializers.ListField(child=serializers.IntegerField(), allow_empty=False, min_length=2)

    def validate_even(self, value: int) -> int:
        return value * 2


class Whole(serializers.Serializer[Any]):
    inner = Own()
    several = Own(many=True, required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["inner"]["even"] == 8:
            raise serializers.ValidationError("Not four.")
        return attrs


class Outer(serializers.Serializer[Any]):
    whole = Whole()
    some = serializers.ListField(child=serializers.IntegerField(), allow_empty=False, min_length=2)


GOOD = {"even": 2, "renamed": 3, "some": [1, 2]}


@pytest.mark.parametrize(
    "inner",
    [
        GOOD, {**GOOD, "even": 3}, {**GOOD, "even": 4}, {**GOOD, "word": "yes"}, {**GOOD, "word": "long"},
        {**GOOD, "unsaid": 1}, {**GOOD, "some": []}, {**GOOD, "some": [1]}, {"even": 2}, None, [],
    ],
)  # fmt: skip
@pytest.mark.parametrize("some", [[1, 2], [1], [], None, [1, "2"]])
def test_rules_that_it_cannot_read_off_are_asked_for(inner: Any, some: Any) -> None:
    serializer = Outer()
    for whole in ({"inner": inner}, {"inner": GOOD, "several": [inner]}, {"inner": GOOD, "several": inner}):
        body = {"whole": whole, "some": some}

        assert repr(told(short_way(serializer), body)) == repr(told(serializer.run_validation, body))


def test_a_default_is_made_anew_for_each_body() -> None:
    short = short_way(ResponseIn())
    body = {"named": [], "duration_ms": 1}

    short(body)["impossible"].append(1)

    assert short(body)["impossible"] == []

"""`run_validation` of a serializer by a short way: `short_way`.

DRF asks each field of each item of a list a dozen questions, to be able to say what is wrong with it. Most bodies have
nothing wrong with them. What the short way has to ask is read off the serializer, once, so that the rules stand there
alone; and where it is not sure, DRF says what there is to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from django.core import validators
from rest_framework import serializers
from rest_framework.fields import Field, empty

Check = Callable[[Any], Any]
# What a field's own arguments ask for, which the short way knows of.
_LIMITS = (
    validators.MinValueValidator,
    validators.MaxValueValidator,
    validators.MinLengthValidator,
    validators.MaxLengthValidator,
)


class _Unsure(Exception):
    """DRF has to look."""


def short_way(serializer: serializers.Serializer[Any]) -> Check:
    """A function that takes what `serializer.run_validation` takes, and returns or raises the same.

    Whole numbers, words out of a list, yes and no, ids, lists and nested objects go the short way where they are of
    exactly that JSON type; other fields, and those with validators of their own, are asked themselves. The serializer
    must not change afterwards, nor depend on its context.
    """
    check = _check_of(serializer)

    def validated(data: Any) -> Any:
        try:
            return check(data)
        except (_Unsure, serializers.ValidationError):
            return serializer.run_validation(data)

    return validated


def _check_of(field: Field[Any, Any, Any, Any]) -> Check:
    makers: Mapping[type, Callable[[Any], Check]] = {
        serializers.IntegerField: _whole_number,
        serializers.ChoiceField: _choice,
        serializers.BooleanField: _yes_or_no,
        serializers.UUIDField: _id,
        serializers.ListField: _list,
    }
    asked: Check = field.run_validation
    if not all(isinstance(each, _LIMITS) for each in field.validators):
        return asked
    if isinstance(field, serializers.Serializer):
        return _or_null(field, _object(field)) if _only_has_fields(field) else asked
    maker = makers.get(type(field))
    return _or_null(field, maker(field)) if maker else asked


def _only_has_fields(serializer: serializers.Serializer[Any]) -> bool:
    """Whether a serializer checks nothing but its fields, and calls what it finds as the body does."""
    kind, base = type(serializer), serializers.Serializer
    steps = ("validate", "to_internal_value", "run_validation", "run_validators", "validate_empty_values")
    return all(getattr(kind, name) is getattr(base, name) for name in steps) and not any(
        hasattr(kind, f"validate_{name}") or each.source != name or each.read_only
        for name, each in serializer.fields.items()
    )


def _or_null(field: Field[Any, Any, Any, Any], check: Check) -> Check:
    if not field.allow_null:
        return check
    return lambda value: None if value is None else check(value)


def _object(field: serializers.Serializer[Any]) -> Check:
    rows = [(name, _check_of(each), each) for name, each in field.fields.items()]

    def check(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise _Unsure
        found = {}
        for name, inner, each in rows:
            given = value.get(name, empty)
            if given is not empty:
                found[name] = inner(given)
            elif each.required:
                raise _Unsure
            elif each.default is not empty:
                found[name] = each.get_default()
        return found

    return check


def _list(field: serializers.ListField) -> Check:
    inner = _check_of(field.child)
    least, most = field.min_length or 0, field.max_length
    empties = field.allow_empty

    def check(value: Any) -> list[Any]:
        if type(value) is not list or not (value or empties):
            raise _Unsure
        if len(value) < least or (most is not None and len(value) > most):
            raise _Unsure
        return [inner(each) for each in value]

    return check


def _whole_number(field: serializers.IntegerField) -> Check:
    low = float("-inf") if field.min_value is None else field.min_value
    high = float("inf") if field.max_value is None else field.max_value

    def check(value: Any) -> int:
        if type(value) is int and low <= value <= high:
            return value
        raise _Unsure

    return check


def _choice(field: serializers.ChoiceField) -> Check:
    known = field.choice_strings_to_values

    def check(value: Any) -> Any:
        if type(value) is str and value in known:
            return known[value]
        raise _Unsure

    return check


def _yes_or_no(field: serializers.BooleanField) -> Check:
    def check(value: Any) -> bool:
        if value is True or value is False:
            return value
        raise _Unsure

    return check


def _id(field: serializers.UUIDField) -> Check:
    def check(value: Any) -> UUID:
        if type(value) is str and len(value) == 36:
            try:
                return UUID(value)
            except ValueError:
                pass
        raise _Unsure

    return check

"""Statements that store: what they leave in the database, and what they say where they can't."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction

from annotations.models import Participant, Place, Session
from annotations.services import bulk
from annotations.statements import Change, Insertion
from tests import factories as make

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("returning", [True, False])
def test_a_row_whose_key_is_the_databases_comes_to_know_it(returning: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite before 3.35 does not return what it inserted."""
    if not returning and connection.vendor == "postgresql":
        pytest.skip("PostgreSQL always does")
    study = make.make_study()
    people = [Participant.of(study, platform_id) for platform_id in ("", "p-1")]
    monkeypatch.setattr(connection.features, "can_return_columns_from_insert", returning)
    insertion = Insertion(Participant)
    for person in people:
        insertion.store(person)
    assert len({person.pk for person in people}) == 2
    for person in people:
        stored = Participant.objects.get(pk=person.pk)
        assert (stored.annotator, stored.platform_id) == (person.annotator, person.platform_id)
        assert stored.created_at == person.created_at
        # It is a row from now on: saving it changes that one.
        person.save()
    assert Participant.objects.count() == 2


def test_a_row_that_a_constraint_refuses_is_not_stored() -> None:
    study = make.make_study()
    first, second = Participant.of(study, ""), Participant.of(study, "")
    second.annotator = first.annotator
    Insertion(Participant).store(first)
    with pytest.raises(IntegrityError), transaction.atomic():
        Insertion(Participant).store(second)
    assert second.pk is None
    assert Participant.objects.count() == 1


def test_a_change_stores_the_fields_that_it_names_of_the_row_alone() -> None:
    study = make.make_study()
    session, other = make.make_session(study), make.make_session(study)
    session.seen_at += timedelta(hours=1)
    session.comprehension_attempts = 7
    Change(Session, ["seen_at"]).store(session)
    stored = Session.objects.get(pk=session.pk)
    assert (stored.seen_at, stored.comprehension_attempts) == (session.seen_at, 0)
    assert Session.objects.get(pk=other.pk).seen_at == other.seen_at


def test_a_change_of_a_row_that_is_gone_is_an_error() -> None:
    session = make.make_session(make.make_study())
    gone = Session.objects.get(pk=session.pk)
    session.delete()
    with pytest.raises(DatabaseError, match="is gone"):
        Change(Session, ["seen_at"]).store(gone)


def test_rows_are_changed_by_their_keys_and_no_others() -> None:
    study = make.make_study()
    first, second, third = Place.objects.filter(study=study).order_by("pk")[:3]
    bulk.change(Place, [first.pk, third.pk], {"turn": None, "rank": 7_000})
    assert set(Place.objects.filter(rank=7_000, turn=None).values_list("pk", flat=True)) == {first.pk, third.pk}
    assert Place.objects.get(pk=second.pk).turn == second.turn

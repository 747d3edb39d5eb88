from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from pytest_django.fixtures import Settings

from annotations import sealing, selectors
from annotations.models import Participant, Study
from annotations.models.participation import pseudonym
from annotations.services import sessions
from tests import factories as make

OLD, NEW = "old key, old key, old key, old key", "new key, new key, new key, new key"
ID = "5f0c3b9a7d6e4f2a1b8c9d0e"


@pytest.fixture(autouse=True)
def keys(settings: Settings) -> Settings:
    settings.FIELD_KEYS = [OLD]
    return settings


@pytest.mark.parametrize("text", ["", "x", ID, "🐦 %00 ' --", "ä" * 120])
def test_what_is_sealed_can_be_unsealed(text: str) -> None:
    assert sealing.unseal(sealing.seal(text)) == text


def test_a_seal_shows_neither_the_text_nor_that_two_are_equal() -> None:
    one, other = sealing.seal(ID), sealing.seal(ID)

    assert ID not in one
    assert one != other


def test_another_key_opens_nothing(keys: Settings) -> None:
    sealed = sealing.seal(ID)
    keys.FIELD_KEYS = [NEW]

    with pytest.raises(sealing.Unreadable, match="holds no key"):
        sealing.unseal(sealed)


def test_a_changed_seal_is_refused() -> None:
    sealed = sealing.seal(ID)

    with pytest.raises(sealing.Unreadable):
        sealing.unseal(sealed[:-6] + "AAAAAA")


def test_a_fingerprint_depends_on_purpose_parts_and_key(keys: Settings) -> None:
    found = {
        sealing.fingerprint("a", "b", "cd"),
        sealing.fingerprint("a", "bc", "d"),
        sealing.fingerprint("ab", "c", "d"),
        sealing.fingerprint("a", "b", "cd", ""),
    }
    keys.FIELD_KEYS = [NEW]
    found.add(sealing.fingerprint("a", "b", "cd"))

    assert len(found) == 5
    assert all(len(each) == 64 for each in found)


# --- Participants


def columns() -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM annotations_participant")
        return list(cursor.fetchall())


@pytest.mark.django_db
def test_a_platform_id_is_unreadable_in_the_database() -> None:
    session = make.make_session(make.make_study(), platform_id=ID)

    assert Participant.objects.get().platform_id == ID
    assert ID not in str(columns())
    assert session.participant.platform_id_key != sealing.fingerprint("platform id", "another study", ID)


@pytest.mark.django_db
def test_the_pseudonym_is_that_of_the_person_in_this_study_alone() -> None:
    dataset = make.make_dataset()
    here, there = (make.make_study(dataset=dataset, name=name) for name in ("Birds", "Cats"))
    first, elsewhere = make.make_session(here, platform_id=ID), make.make_session(there, platform_id=ID)

    assert first.participant.annotator == pseudonym(here.pk, ID)
    assert elsewhere.participant.annotator == pseudonym(there.pk, ID) != first.participant.annotator
    # Even when every trace of the first visit is gone.
    first.participant.delete()
    assert make.make_session(here, platform_id=ID).participant.annotator == pseudonym(here.pk, ID)


@pytest.mark.django_db
def test_a_pseudonym_that_is_taken_gives_way_to_the_next() -> None:
    study = make.make_study()
    Participant.objects.create(study=study, annotator=pseudonym(study.pk, ID))

    assert make.make_session(study, platform_id=ID).participant.annotator == pseudonym(study.pk, ID, 1)


@pytest.mark.django_db
def test_people_without_an_id_are_drawn_anew() -> None:
    study = make.make_study()

    assert len({make.make_session(study).participant.annotator for _ in range(20)}) == 20


@pytest.mark.django_db
def test_a_person_keeps_their_pseudonym_when_their_id_is_erased_or_set_again() -> None:
    participant = make.make_session(make.make_study(), platform_id=ID).participant
    before = participant.annotator
    for value in ("", "another"):
        participant.platform_id = value
        participant.save()

    participant.refresh_from_db()
    assert (participant.platform_id, participant.annotator) == ("another", before)


# --- Rotation


@pytest.mark.django_db
def test_a_rotation_loses_nobody_at_any_step(keys: Settings) -> None:
    study = make.make_study()
    session = make.make_session(study, platform_id=ID)
    name = session.participant.annotator
    for step in ([OLD, NEW], [NEW, OLD]):
        keys.FIELD_KEYS = step
        assert selectors.resumable_session(study, ID) == session

    call_command("reseal", stdout=io.StringIO())
    keys.FIELD_KEYS = [NEW]

    known = selectors.resumable_session(study, ID)
    assert known == session
    assert known is not None
    assert (known.participant.platform_id, known.participant.annotator) == (ID, name)


@pytest.mark.django_db
def test_a_key_that_is_gone_too_early_is_told_and_nothing_is_lost(keys: Settings) -> None:
    make.make_session(make.make_study(), platform_id=ID)
    keys.FIELD_KEYS = [NEW]

    with pytest.raises(CommandError, match="holds no key"):
        call_command("reseal", stdout=io.StringIO())

    keys.FIELD_KEYS = [OLD]
    assert Participant.objects.get().platform_id == ID


@pytest.mark.django_db
def test_the_same_person_twice_at_once_gets_one_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second press finds nobody, and the database has somebody."""
    study = make.make_study()
    first = make.make_session(study, platform_id=ID)
    real = selectors.resumable_session
    answers: list[Any] = [None]
    monkeypatch.setattr(
        "annotations.services.sessions.selectors.resumable_session",
        lambda *args: answers.pop() if answers else real(*args),
    )

    def enrol(study: Study, platform_id: str) -> Participant:
        participant = Participant.of(study, platform_id)
        participant.save()
        return participant

    monkeypatch.setattr(sessions, "_enrol", enrol)

    assert make.make_session(study, platform_id=ID) == first


# --- Rows from before


@pytest.mark.django_db(transaction=True)
def test_ids_that_are_there_are_sealed_and_come_back_and_pseudonyms_stay() -> None:
    before = [("annotations", "0004_check_items")]
    sealed = [("annotations", "0007_drop_plain_ids")]
    latest = MigrationExecutor(connection).loader.graph.leaf_nodes()
    try:
        old = make.migrated_to(before)
        study = some_study(old)
        person = old.get_model("annotations", "Participant")
        person.objects.create(study=study, platform_id=ID, annotator="aold")
        person.objects.create(study=study, platform_id="", annotator="aopen")

        new = make.migrated_to(sealed).get_model("annotations", "Participant")
        row = new.objects.get(annotator="aold")
        assert sealing.unseal(row.platform_id_sealed) == ID
        assert row.platform_id_key == Participant.platform_keys(study.pk, ID)[0]
        assert new.objects.get(annotator="aopen").platform_id_key == ""
        assert ID not in str(columns())

        back = make.migrated_to(before).get_model("annotations", "Participant")
        assert set(back.objects.values_list("annotator", "platform_id")) == {("aold", ID), ("aopen", "")}
        back.objects.all().delete()
        old.get_model("annotations", "Study").objects.all().delete()
        old.get_model("annotations", "Dataset").objects.all().delete()
    finally:
        make.migrated_to(latest)


def some_study(apps: Any) -> Study:
    dataset = apps.get_model("annotations", "Dataset").objects.create(slug="d", name="D", origin="made up")
    study: Study = apps.get_model("annotations", "Study").objects.create(name="S", slug="s", dataset=dataset)
    return study

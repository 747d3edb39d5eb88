"""Erased means erased: of whoever withdraws nothing is left in any table or file but that somebody did, and when."""

from __future__ import annotations

import logging
import os
import runpy
import uuid
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from auditlog.models import LogEntry
from django.apps import apps
from django.conf import settings
from django.db import connection, models
from django.test import Client
from django.urls import reverse
from pytest_django.fixtures import Settings

from annotations import selectors
from annotations.models import (
    Appeal,
    Arrival,
    Invitation,
    Participant,
    Payment,
    Platform,
    Response,
    Session,
    SessionStatus,
    Study,
    StudyStatus,
)
from annotations.sealing import fingerprint, seal
from annotations.selectors import retention as kept
from annotations.services import erasing, leaving
from annotations.services.erasing import FATES, DeLinked
from exports.models import Release
from jobs.models import Job
from tests import factories as make
from tests.plugin import ON_SQLITE

pytestmark = pytest.mark.django_db

ID = "PLATFORM-5f0c3b9a7d6e4f2a"
SUBMISSION = "SUBMISSION-60d9aadeb86739de"
REMARK = "my cat's name is Mieze-Katharina"
# Percentages that nobody else gives.
ODD = ((3, 71.37), (5, 13.59))


@pytest.fixture(autouse=True)
def files(settings: Settings, tmp_path: Path) -> Path:
    settings.RELEASES_ROOT = tmp_path / "releases"
    return tmp_path


def a_study() -> Study:
    dataset = make.make_dataset(4)
    return make.make_study(dataset=dataset, images_per_session=4, repeats_per_session=1, labels_per_image=3)


def a_person(study: Study, *, paid: bool = True) -> Session:
    """Somebody of whom everything is there that can be there."""
    session = make.complete_session(study, ODD, ((3, 61.37),), platform_id=ID)
    Session.objects.filter(pk=session.pk).update(questionnaire={"remarks": REMARK}, exclusion_note=REMARK)
    arrival = Arrival.objects.create(
        study=study, participant=session.participant, session=session, platform=Platform.PROLIFIC, arrived_at=make.NOON,
        submission_sealed=seal(SUBMISSION), submission_key=fingerprint("submission", SUBMISSION),
    )  # fmt: skip
    Payment.objects.create(
        study=study, session=session, arrival=arrival, kind="base", amount_minor=123, currency="GBP",
        key=uuid.uuid4().hex, state="paid" if paid else "due", due_at=make.NOON, settled_at=make.NOON if paid else None,
        reference=SUBMISSION, note=REMARK,
    )  # fmt: skip
    Appeal.objects.create(session=session, text=REMARK, written_at=make.NOON)
    Invitation.objects.create(
        study=study, token_hash="0" * 64, label=REMARK, created_at=make.NOON, used_by=session, used_at=make.NOON
    )
    make.run_jobs()
    return Session.objects.get(pk=session.pk)


def withdraw(session: Session) -> Session:
    return leaving.withdraw(session_id=session.pk, now=make.NOON)


# --- Nothing is forgotten


def ours() -> Iterator[type[models.Model]]:
    for app in ("annotations", "exports", "jobs"):
        yield from apps.get_app_config(app).get_models()


def leads_to_a_person(model: type[models.Model], seen: frozenset[type[models.Model]] = frozenset()) -> bool:
    """Whether a row of it belongs to somebody, by whatever way."""
    if model in (Session, Participant):
        return True
    return any(
        field.is_relation
        and isinstance(field.related_model, type)
        and field.related_model not in seen
        and leads_to_a_person(field.related_model, seen | {model})
        for field in model._meta.concrete_fields
    )


def test_every_model_that_leads_to_a_person_has_its_fate() -> None:
    assert {model._meta.label for model in ours() if leads_to_a_person(model)} == set(FATES)


@pytest.mark.parametrize("label", [label for label, fate in FATES.items() if isinstance(fate, DeLinked)])
def test_what_stays_says_of_each_text_and_link_whether_it_is_emptied(label: str) -> None:
    fate = FATES[label]
    assert isinstance(fate, DeLinked)
    telling = models.CharField, models.TextField, models.JSONField, models.ForeignKey
    fields = {field.name for field in apps.get_model(label)._meta.concrete_fields if isinstance(field, telling)}

    assert fields - set(fate.empty) - set(fate.keeps) == set()
    assert fate.why


@pytest.mark.parametrize("label", FATES)
def test_the_path_of_a_fate_leads_to_the_session(label: str) -> None:
    path = FATES[label].path
    list(apps.get_model(label)._default_manager.filter(**{path: uuid.uuid4()}))


# --- Erased means erased


def whole_database() -> bytes:
    """Every row of every table, as text."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
            found = []
            for (table,) in cursor.fetchall():
                cursor.execute(f'SELECT t::text FROM "{table}" AS t')  # noqa: S608 (names of the catalogue)
                found += [row[0] for row in cursor.fetchall()]
        return "\n".join(found).encode()
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        rows = []
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608 (names of the catalogue)
            rows += [repr(row) for row in cursor.fetchall()]
    return "\n".join(rows).encode()


def all_files(*roots: Path) -> bytes:
    read = []
    for root in roots:
        for folder, _, names in os.walk(root):
            for name in names:
                path = Path(folder) / name
                if not path.name.startswith("elicit.sqlite3"):
                    read += [str(path).encode(), path.read_bytes()]
    return b"\n".join(read)


def of_the_person(session: Session) -> list[bytes]:
    trials = session.trials.values_list("pk", flat=True)
    responses = Response.objects.filter(trial__in=trials).values_list("pk", flat=True)
    words = [ID, SUBMISSION, REMARK, "Mieze-Katharina", "71.37", "13.59", "61.37", session.participant.annotator]
    words += [session.participant.platform_id_key, fingerprint("submission", SUBMISSION)]
    words += [text for pk in (*trials, *responses) for text in (str(pk), pk.hex)]
    return [word.encode() for word in words]


def test_of_whoever_withdraws_nothing_is_found_in_any_table_or_file(files: Path) -> None:
    study = a_study()
    make.complete_session(study, platform_id="somebody else", seed=1)
    session = a_person(study)
    release = make.make_release(study)
    Client().get(f"/session/{session.token}/")
    words = of_the_person(session)
    before = whole_database() + all_files(files)
    # The control: the search does find what is there, but for ids, which nobody can read.
    sealed = [ID.encode(), SUBMISSION.encode()]
    as_stored = [word for word in words if word not in sealed and (len(word) != (36 if ON_SQLITE else 32))]
    assert [word for word in as_stored if word not in before] == []
    assert ID.encode() not in before

    withdraw(session)
    make.run_jobs()

    after = whole_database() + all_files(files, Path(settings.VAR))
    assert [word for word in words if word in after] == []
    session.refresh_from_db()
    assert (session.status, session.withdrawn_at) == (SessionStatus.WITHDRAWN, make.NOON)
    release.refresh_from_db()
    assert release.withheld
    assert Release.objects.exclude(pk=release.pk).get().is_ready


@pytest.mark.skipif(not ON_SQLITE, reason="is about the file of SQLite")
@pytest.mark.django_db(transaction=True)
def test_nothing_is_found_in_the_file_of_sqlite_after_a_vacuum(tmp_path: Path) -> None:
    session = a_person(a_study())
    words = [word for word in of_the_person(session) if len(word) > 8]
    withdraw(session)
    make.run_jobs()
    with connection.cursor() as cursor:
        cursor.execute("VACUUM INTO %s", [str(tmp_path / "vacuumed")])
    body = (tmp_path / "vacuumed").read_bytes()
    assert [word for word in words if word in body] == []


def test_what_was_paid_stays_without_the_person() -> None:
    session = a_person(a_study())

    withdraw(session)

    payment = Payment.objects.get()
    assert (payment.amount_minor, payment.state, payment.arrival, payment.reference, payment.note) == (
        123, "paid", None, "", "",
    )  # fmt: skip
    assert not Arrival.objects.exists()


def test_whoever_withdraws_before_being_paid_can_still_be_paid_and_is_forgotten_then() -> None:
    session = a_person(a_study(), paid=False)

    withdraw(session)

    assert Payment.objects.get().arrival is not None
    assert erasing.erase_what_is_due(make.NOON) == 0
    Payment.objects.update(state="paid", settled_at=make.NOON)
    assert erasing.erase_what_is_due(make.NOON) == 1
    payment = Payment.objects.get()
    assert (payment.arrival, payment.reference) == (None, "")
    assert not Arrival.objects.exists()
    assert erasing.erase_what_is_due(make.NOON) == 0


def test_the_pseudonym_is_drawn_anew_and_the_next_visit_is_a_new_persons() -> None:
    study = a_study()
    session = a_person(study)
    before = session.participant.annotator

    withdraw(session)

    session.participant.refresh_from_db()
    assert session.participant.annotator != before
    assert selectors.resumable_session(study, ID) is None
    assert make.make_session(study, platform_id=ID).participant != session.participant


# --- Never in logs


def test_a_whole_session_leaves_no_id_in_logs_entries_or_releases(
    caplog: pytest.LogCaptureFixture, files: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    study = a_study()
    client = Client()
    client.post(reverse("study", args=[study.slug]) + f"?pid={ID}", {"agree": "on", "version": "1"}, follow=True)
    session = study.sessions.get()
    assert session.participant.platform_id == ID
    make.answer_all(make.begin(session))
    make.run_jobs()
    Session.objects.update(status=SessionStatus.COMPLETED, completed_at=make.NOON)
    make.make_release(study)
    leaving.exclude(session_id=session.pk, reason="other", note=REMARK, by=None, now=make.NOON)  # type: ignore[arg-type]

    # What is said is seen here.
    logging.getLogger("annotations").debug("said")
    assert "said" in caplog.messages
    assert ID not in caplog.text
    told = str(list(LogEntry.objects.values())) + str(list(Job.objects.values()))
    assert ID not in told
    assert REMARK not in told
    assert LogEntry.objects.filter(additional_data__what="excluded").exists()
    assert ID.encode() not in all_files(files)


@pytest.mark.filterwarnings("ignore")
def test_a_page_that_fails_shows_no_id_even_while_debugging(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    study = a_study()
    settings.DEBUG = True

    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("no more")

    monkeypatch.setattr("annotations.pages.selectors.current_consent", fail)
    client = Client(raise_request_exception=False)
    client.cookies["elicit-1"] = ID
    address = reverse("study", args=[study.slug]) + f"?pid={ID}"
    response = client.get(address, HTTP_REFERER=f"http://testserver{address}")

    assert response.status_code == 500
    assert "no more" in response.content.decode()
    assert ID not in response.content.decode()
    assert ID not in caplog.text


def test_gunicorn_logs_no_query_no_referrer_and_no_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Else it would name a folder for the processes' counts, and later tests would inherit it.
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    namespace = runpy.run_path(str(settings.BASE_DIR / "gunicorn.conf.py"))

    assert not {"%(r)s", "%(q)s", "%(f)s", "%(h)s", "%(a)s"} & set(namespace["access_log_format"].split())
    for part in ("%(r)", "%(q)", "%(f)", "%(h)", "%(a)"):
        assert part not in namespace["access_log_format"]


# --- Retention


def closed(study: Study) -> Study:
    study.status, study.closed_at = StudyStatus.CLOSED, make.NOON
    study.save()
    return study


def days(number: int) -> timedelta:
    return timedelta(days=number)


def test_ids_go_when_their_time_is_over_and_not_before() -> None:
    session = a_person(a_study())
    name, study = session.participant.annotator, closed(session.study)
    erasing.set_retention(study, ids_days=30, answers_until=None)

    assert erasing.erase_what_is_due(make.NOON + days(30) - timedelta(seconds=1)) == 0
    assert erasing.erase_what_is_due(make.NOON + days(30)) > 0

    session.participant.refresh_from_db()
    assert (session.participant.platform_id, session.participant.annotator) == ("", name)
    assert Arrival.objects.get().submission_sealed == ""
    assert SUBMISSION.encode() not in whole_database()
    assert Response.objects.exists()
    assert erasing.erase_what_is_due(make.NOON + days(31)) == 0


def test_an_open_payment_keeps_the_id_and_the_console_says_so() -> None:
    session = a_person(a_study(), paid=False)
    study = closed(session.study)
    study.invitations.all().delete()

    assert erasing.erase_what_is_due(make.NOON + days(61)) == 0
    [(of, told)] = kept.reminders(make.NOON + days(61))
    assert (of, told) == (
        study,
        ["1 platform id is kept past 2026-03-02, since payments are open: settle or cancel them."],
    )

    Payment.objects.update(state="cancelled")
    assert erasing.erase_what_is_due(make.NOON + days(61)) == 1


def test_a_live_study_keeps_its_ids() -> None:
    a_person(a_study())

    assert erasing.erase_what_is_due(make.NOON + days(4000)) == 0


def test_answers_go_on_their_day_and_releases_stay() -> None:
    session = a_person(a_study())
    release = make.make_release(session.study)
    study = closed(session.study)
    erasing.set_retention(study, ids_days=3650, answers_until=date(2026, 6, 1))

    assert erasing.erase_what_is_due(make.NOON + days(150)) == 0
    assert erasing.erase_what_is_due(make.NOON + days(151)) == 1

    session.refresh_from_db()
    assert (session.status, session.questionnaire) == (SessionStatus.COMPLETED, {})
    assert not Response.objects.exists()
    release.refresh_from_db()
    assert (release.superseded_at, release.withheld) == (None, False)


def test_the_console_reminds_a_fortnight_before() -> None:
    study = closed(a_person(a_study()).study)
    client = Client()
    client.force_login(make.make_curator())

    assert kept.reminders(make.NOON + days(45)) == []
    assert len(kept.reminders(make.NOON + days(47))) == 1
    text = client.get(f"/admin/annotations/study/{study.pk}/privacy/").content.decode()
    assert "Platform ids, encrypted" in text


def test_a_curator_chooses_how_long(client: Client) -> None:
    study = a_study()
    client.force_login(make.make_curator())
    address = f"/admin/annotations/study/{study.pk}/privacy/"

    assert client.post(address, {"ids_days": "9999", "answers_until": ""}).status_code == 422
    assert client.post(address, {"ids_days": "7", "answers_until": "2030-01-02"}).status_code == 302

    found = kept.of_study(study)
    assert (found.ids_days, found.answers_until) == (7, date(2030, 1, 2))


def test_the_beat_knows_of_it() -> None:
    schedule = settings.CELERY_BEAT_SCHEDULE
    assert "annotations.erase_what_is_due" in {entry["task"] for entry in schedule.values()}

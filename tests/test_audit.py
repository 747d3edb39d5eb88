"""Who did what, when, and what changed: of every action of a curator, and nothing of what must not be told."""

from __future__ import annotations

import io

import pytest
from auditlog.models import LogEntry
from auditlog.registry import auditlog
from django.apps import apps
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.db.models import CharField, QuerySet
from django.test import Client
from knox.models import get_token_model

from annotations import audit
from annotations.models import Appeal, Study
from annotations.services import erasing, leaving
from elicit.audited import AUDITED, LEFT_OUT, MASKED, UNWATCHED
from tests import factories as make

pytestmark = pytest.mark.django_db

LOG = "/admin/auditlog/logentry/"


@pytest.fixture
def curator() -> User:
    return make.make_curator()


@pytest.fixture
def console(client: Client, curator: User) -> Client:
    client.force_login(curator)
    return client


def newest() -> int:
    """The last line so far: nobody can clear the log for a test."""
    last = LogEntry.objects.order_by("pk").last()
    return last.pk if last else 0


def lines(after: int) -> QuerySet[LogEntry]:
    found: QuerySet[LogEntry] = LogEntry.objects.filter(pk__gt=after).order_by("pk")
    return found


def told(after: int) -> list[tuple[str, str]]:
    """Who and what, oldest first."""
    return [
        (entry.additional_data["by"], entry.additional_data.get("what") or entry.content_type.model)
        for entry in lines(after)
    ]


def test_every_model_is_watched_or_said_why_not() -> None:
    labels = {model._meta.label for model in apps.get_models()}

    assert labels == set(AUDITED) | set(UNWATCHED)
    assert set(AUDITED) & set(UNWATCHED) == set()
    assert {model._meta.label for model in auditlog.get_models()} == set(AUDITED)


@pytest.mark.parametrize(("label", "names"), [*MASKED.items(), *LEFT_OUT.items()])
def test_what_is_masked_or_left_out_is_there(label: str, names: list[str]) -> None:
    model = apps.get_model(label)

    assert label in AUDITED
    assert set(names) <= {field.name for field in model._meta.get_fields()}


def test_a_change_in_the_console_says_who_when_and_what(console: Client, curator: User) -> None:
    study = make.make_study(launch=False)
    before = newest()
    Study.objects.get(pk=study.pk)

    with audit.acting(lambda: curator):
        study.time_estimate = "about 12 minutes"
        study.save()

    [entry] = lines(before)
    assert (entry.actor, entry.additional_data["by"]) == (curator, "curator")
    assert entry.changes == {"time_estimate": ["", "about 12 minutes"]} or "about 12 minutes" in str(entry.changes)
    text = console.get(LOG).content.decode()
    assert "changed study Birds" in text
    assert "about 12 minutes" in text


def test_what_a_command_does_is_signed_so() -> None:
    make.make_dataset(slug="cifar10-test")
    before = newest()

    call_command("create_study", "--name", "Birds", "--launch", "--seed", "1", stdout=io.StringIO())

    assert {by for by, _ in told(before)} == {"command line"}
    assert lines(before).filter(content_type__model="study").exists()


def test_what_an_api_token_does_is_its_owners(client: Client, curator: User) -> None:
    _, token = get_token_model().objects.create(curator)
    study = make.make_study(dataset=make.make_dataset(4), images_per_session=4, repeats_per_session=1)
    make.complete_session(study)
    before = newest()

    response = client.get("/api/releases", headers={"Authorization": f"Token {token}"})

    assert response.status_code == 200
    assert token[:8] not in str(list(lines(before).values()))


def test_exclusions_and_withdrawals_are_noted_without_anybodys_words(console: Client, curator: User) -> None:
    study = make.make_study(dataset=make.make_dataset(4), images_per_session=4, repeats_per_session=1)
    session = make.complete_session(study, platform_id="PLATFORM-1")
    before = newest()
    leaving.exclude(session_id=session.pk, reason="other", note="my own words", by=curator, now=make.NOON)  # type: ignore[arg-type]
    leaving.reinstate(session_id=session.pk)
    Appeal.objects.create(session=session, text="their own words", written_at=make.NOON)
    Client().post(f"/session/{session.token}/withdraw", {"sure": "on"})

    assert told(before)[0] == ("curator", "excluded")
    assert ("command line", "took back in") in told(before)
    assert ("nobody signed in", "withdrew") in told(before)
    everything = str(list(lines(before).values()))
    for secret in ("own words", "PLATFORM-1", session.participant.annotator):
        assert secret not in everything
    assert set(lines(before).values_list("additional_data__study", flat=True)) == {study.pk}


def test_looks_at_platform_ids_are_noted(console: Client) -> None:
    session = make.make_session(make.make_study(), platform_id="PLATFORM-1")
    before = newest()

    found = console.post("/admin/annotations/participant/find/", {"platform_id": "PLATFORM-1"})
    assert found["Location"] == f"/admin/annotations/participant/{session.participant_id}/change/"
    assert "PLATFORM-1" in console.get(found["Location"]).content.decode()
    console.post("/admin/annotations/participant/find/", {"platform_id": "PLATFORM"})

    assert told(before) == [
        ("curator", "looked for a platform id"),
        ("curator", "saw a platform id"),
        ("curator", "looked for a platform id"),
    ]
    assert "PLATFORM" not in str(list(lines(before).values()))


def test_a_list_of_people_shows_no_id(console: Client) -> None:
    make.make_session(make.make_study(), platform_id="PLATFORM-1")

    assert "PLATFORM-1" not in console.get("/admin/annotations/participant/").content.decode()


def test_users_groups_and_tokens_are_noted_without_their_secrets(console: Client, curator: User) -> None:
    before = newest()
    with audit.acting(lambda: curator):
        user = User.objects.create_user("new", password="a secret of theirs")
        user.groups.add(Group.objects.get(name="reviewer"))
        user.set_password("another secret")
        user.save()
        _, token = get_token_model().objects.create(user)

    everything = str(list(lines(before).values()))
    assert {kind for _, kind in told(before)} == {"user", "authtoken"}
    assert "reviewer" in everything
    assert "(not shown)" in everything
    for secret in ("secret", user.password, token, token[:8]):
        assert secret not in everything
    assert "gained reviewer" in console.get(LOG).content.decode()


@pytest.mark.parametrize("wanted", ["study", "person"])
def test_the_log_can_be_narrowed_down(console: Client, curator: User, wanted: str) -> None:
    dataset = make.make_dataset()
    birds, _ = (make.make_study(dataset=dataset, name=name, launch=False) for name in ("Birds", "Cats"))
    with audit.acting(lambda: curator):
        erasing.set_retention(birds, ids_days=1, answers_until=None)
    query = f"study={birds.pk}" if wanted == "study" else f"person={curator.pk}"

    text = console.get(f"{LOG}?{query}").content.decode()

    assert "retention of Birds" in text
    assert "study Cats" not in text


@pytest.mark.parametrize("query", ["study=x", "study=99999999", "person=%00", "q=%00", "p=99", "timestamp__year=x"])
def test_a_filter_that_is_none_does_no_harm(console: Client, query: str) -> None:
    assert console.get(f"{LOG}?{query}", follow=True).status_code == 200


def test_nobody_changes_or_deletes_an_entry_in_the_console(console: Client) -> None:
    make.make_study()
    entry = LogEntry.objects.order_by("pk")[0]

    assert console.get(f"{LOG}{entry.pk}/change/").status_code == 200
    assert console.post(f"{LOG}{entry.pk}/change/", {"object_repr": "x"}).status_code == 403
    assert console.post(f"{LOG}{entry.pk}/delete/", {"post": "yes"}).status_code == 403
    assert console.get(f"{LOG}add/").status_code == 403
    console.post(LOG, {"action": "delete_selected", "_selected_action": [entry.pk], "post": "yes"})
    assert LogEntry.objects.filter(pk=entry.pk).exists()


def test_what_somebody_did_stays_signed_when_their_account_is_gone(console: Client, curator: User) -> None:
    other = make.make_staff("leaver")
    with audit.acting(lambda: other):
        make.make_study(launch=False)
    other.delete()

    assert "leaver" in console.get(LOG).content.decode()


# --- In the database itself


ATTACKS = (
    "UPDATE auditlog_logentry SET object_repr = 'something else'",
    "UPDATE auditlog_logentry SET timestamp = '2001-01-01 00:00:00+00:00'",
    "UPDATE auditlog_logentry SET actor_id = NULL, additional_data = '{}'",
    "UPDATE auditlog_logentry SET id = id + 1000000",
    "DELETE FROM auditlog_logentry",
    "DELETE FROM auditlog_logentry WHERE id = (SELECT max(id) FROM auditlog_logentry)",
)
UPSERTS = {
    "postgresql": (
        "TRUNCATE auditlog_logentry",
        "TRUNCATE auth_user CASCADE",
        "INSERT INTO auditlog_logentry SELECT * FROM auditlog_logentry WHERE true "
        "ON CONFLICT (id) DO UPDATE SET object_repr = 'something else'",
    ),
    "sqlite": (
        "REPLACE INTO auditlog_logentry SELECT * FROM auditlog_logentry",
        "UPDATE OR REPLACE auditlog_logentry SET id = id + 1",
    ),
}


def test_the_database_refuses_to_change_or_delete_a_line(console: Client) -> None:
    make.make_study()
    before = list(LogEntry.objects.order_by("pk").values())
    assert before
    # Links that wait to be checked would refuse a TRUNCATE of themselves.
    connection.check_constraints()

    for attack in (*ATTACKS, *UPSERTS[connection.vendor]):
        with pytest.raises(IntegrityError, match="only grows"), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(attack)

    assert list(LogEntry.objects.order_by("pk").values()) == before


def test_neither_a_row_nor_a_queryset_nor_the_command_of_the_library_gets_round_it(console: Client) -> None:
    entry = LogEntry.objects.order_by("pk")[0]
    entry.object_repr = "something else"
    for attempt in (
        entry.save,
        entry.delete,
        LogEntry.objects.all().delete,
        lambda: LogEntry.objects.update(changes={}),
        lambda: entry.content_type.delete(),
        lambda: call_command("auditlogflush", yes=True, stdout=io.StringIO()),
    ):
        with pytest.raises(IntegrityError, match="only grows"), transaction.atomic():
            attempt()


def test_a_deleted_account_leaves_its_lines_and_nothing_but_its_link_changes(console: Client) -> None:
    other = make.make_staff("leaver")
    before = newest()
    with audit.acting(lambda: other):
        make.make_study(launch=False)
    lasting = [{**row, "actor_id": None} for row in lines(before).values()]

    other.delete()

    assert list(lines(before).values())[: len(lasting)] == lasting


def test_a_withdrawal_erases_all_the_same() -> None:
    study = make.make_study(dataset=make.make_dataset(4), images_per_session=4, repeats_per_session=1)
    session = make.complete_session(study, platform_id="PLATFORM-1")

    leaving.withdraw(session_id=session.pk, now=make.NOON)

    session.refresh_from_db()
    assert (session.participant.platform_id, session.trials.count()) == ("", 0)
    assert LogEntry.objects.filter(additional_data__what="withdrew").exists()


@pytest.mark.django_db(transaction=True)
def test_the_triggers_go_and_come_with_their_migration() -> None:
    make.make_curator()
    try:
        call_command("migrate", "elicit", "0002_seal_authenticators", verbosity=0)
        assert LogEntry.objects.update(object_repr="something else")
    finally:
        call_command("migrate", verbosity=0)

    with pytest.raises(IntegrityError, match="only grows"):
        LogEntry.objects.update(object_repr="something else again")


@pytest.mark.django_db(transaction=True)
def test_the_triggers_outlive_a_table_that_is_built_anew() -> None:
    """As SQLite does it for most changes of a column."""
    make.make_curator()
    old = LogEntry._meta.get_field("cid")
    new: CharField[str, str] = CharField(max_length=300, null=True)
    new.set_attributes_from_name("cid")
    for source, target in ((old, new), (new, old)):
        with connection.schema_editor() as editor:
            editor.alter_field(LogEntry, source, target, strict=False)
    call_command("migrate", verbosity=0)

    with pytest.raises(IntegrityError, match="only grows"):
        LogEntry.objects.update(object_repr="something else again")

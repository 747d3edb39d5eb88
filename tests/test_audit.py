"""Who did what, when, and what changed: of every action of a curator, and nothing of what must not be told."""

from __future__ import annotations

import io

import pytest
from auditlog.models import LogEntry
from auditlog.registry import auditlog
from django.apps import apps
from django.contrib.auth.models import Group, User
from django.core.management import call_command
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
    LogEntry.objects.all().delete()
    return client


def told() -> list[tuple[str, str]]:
    """Who and what, oldest first."""
    return [
        (entry.additional_data["by"], entry.additional_data.get("what") or entry.content_type.model)
        for entry in LogEntry.objects.order_by("pk")
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
    LogEntry.objects.all().delete()
    Study.objects.get(pk=study.pk)

    with audit.acting(lambda: curator):
        study.time_estimate = "about 12 minutes"
        study.save()

    [entry] = LogEntry.objects.all()
    assert (entry.actor, entry.additional_data["by"]) == (curator, "curator")
    assert entry.changes == {"time_estimate": ["", "about 12 minutes"]} or "about 12 minutes" in str(entry.changes)
    text = console.get(LOG).content.decode()
    assert "changed study Birds" in text
    assert "about 12 minutes" in text


def test_what_a_command_does_is_signed_so() -> None:
    make.make_dataset(slug="cifar10-test")
    LogEntry.objects.all().delete()

    call_command("create_study", "--name", "Birds", "--launch", "--seed", "1", stdout=io.StringIO())

    assert {by for by, _ in told()} == {"command line"}
    assert LogEntry.objects.filter(content_type__model="study").exists()


def test_what_an_api_token_does_is_its_owners(client: Client, curator: User) -> None:
    _, token = get_token_model().objects.create(curator)
    study = make.make_study(dataset=make.make_dataset(4), images_per_session=4, repeats_per_session=1)
    make.complete_session(study)
    LogEntry.objects.all().delete()

    response = client.get("/api/releases", headers={"Authorization": f"Token {token}"})

    assert response.status_code == 200
    assert token[:8] not in str(list(LogEntry.objects.values()))


def test_exclusions_and_withdrawals_are_noted_without_anybodys_words(console: Client, curator: User) -> None:
    study = make.make_study(dataset=make.make_dataset(4), images_per_session=4, repeats_per_session=1)
    session = make.complete_session(study, platform_id="PLATFORM-1")
    LogEntry.objects.all().delete()
    leaving.exclude(session_id=session.pk, reason="other", note="my own words", by=curator, now=make.NOON)  # type: ignore[arg-type]
    leaving.reinstate(session_id=session.pk)
    Appeal.objects.create(session=session, text="their own words", written_at=make.NOON)
    Client().post(f"/session/{session.token}/withdraw", {"sure": "on"})

    assert told()[0] == ("curator", "excluded")
    assert ("command line", "took back in") in told()
    assert ("nobody signed in", "withdrew") in told()
    everything = str(list(LogEntry.objects.values()))
    for secret in ("own words", "PLATFORM-1", session.participant.annotator):
        assert secret not in everything
    assert set(LogEntry.objects.values_list("additional_data__study", flat=True)) == {study.pk}


def test_looks_at_platform_ids_are_noted(console: Client) -> None:
    session = make.make_session(make.make_study(), platform_id="PLATFORM-1")
    LogEntry.objects.all().delete()

    found = console.post("/admin/annotations/participant/find/", {"platform_id": "PLATFORM-1"})
    assert found["Location"] == f"/admin/annotations/participant/{session.participant_id}/change/"
    assert "PLATFORM-1" in console.get(found["Location"]).content.decode()
    console.post("/admin/annotations/participant/find/", {"platform_id": "PLATFORM"})

    assert told() == [
        ("curator", "looked for a platform id"),
        ("curator", "saw a platform id"),
        ("curator", "looked for a platform id"),
    ]
    assert "PLATFORM" not in str(list(LogEntry.objects.values()))


def test_a_list_of_people_shows_no_id(console: Client) -> None:
    make.make_session(make.make_study(), platform_id="PLATFORM-1")

    assert "PLATFORM-1" not in console.get("/admin/annotations/participant/").content.decode()


def test_users_groups_and_tokens_are_noted_without_their_secrets(console: Client, curator: User) -> None:
    with audit.acting(lambda: curator):
        user = User.objects.create_user("new", password="a secret of theirs")
        user.groups.add(Group.objects.get(name="reviewer"))
        user.set_password("another secret")
        user.save()
        _, token = get_token_model().objects.create(user)

    everything = str(list(LogEntry.objects.values()))
    assert {kind for _, kind in told()} == {"user", "authtoken"}
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

from __future__ import annotations

import pytest
from django.test import Client

from annotations.models import Session
from tests import factories as make

pytestmark = pytest.mark.django_db


@pytest.fixture
def curator() -> Client:
    client = Client()
    client.force_login(make.make_curator())
    return client


@pytest.fixture
def session() -> Session:
    study = make.make_study(dataset=make.make_dataset(4), images_per_session=4, repeats_per_session=1)
    session = make.complete_session(study, ((3, 80.5), (5, 10.0)), platform_id="PLATFORM-1")
    make.run_jobs()
    return session


def page(session: Session) -> str:
    return f"/admin/annotations/session/{session.pk}/change/"


def test_the_page_of_a_session_shows_what_was_said(curator: Client, session: Session) -> None:
    text = curator.get(page(session)).content.decode()

    assert text.count("Cat 80.5 %, Dog 10 %") == 5
    assert session.participant.annotator in text
    assert "consistent (1 of 1 repeats alike)" in text
    assert "0.00" in text
    assert "5.0" in text


def test_a_session_under_way_can_be_looked_at(curator: Client) -> None:
    session = make.begin(make.make_session(make.make_study()))

    assert curator.get(page(session)).status_code == 200


def test_what_people_said_can_not_be_edited_or_deleted_or_made_up(curator: Client, session: Session) -> None:
    assert curator.post(page(session), {"status": "abandoned"}).status_code == 403
    assert curator.post(page(session).replace("change", "delete"), {"post": "yes"}).status_code == 403
    assert curator.get("/admin/annotations/session/add/").status_code == 403
    assert Session.objects.get().status == "completed"


def test_the_list_shows_how_far_and_how_consistent_everyone_was(curator: Client, session: Session) -> None:
    make.begin(make.make_session(session.study))

    text = curator.get("/admin/annotations/session/").content.decode()

    assert "5 of 5" in text
    assert "0 of 5" in text
    assert "consistent (1 of 1 repeats alike)" in text


@pytest.mark.parametrize(
    "query", ["q=a", "q=%00", "consistency__verdict=consistent", "status__exact=completed", "p=99"]
)
def test_sessions_can_be_searched_and_filtered(curator: Client, session: Session, query: str) -> None:
    response = curator.get(f"/admin/annotations/session/?{query}", follow=True)

    assert response.status_code == 200


def test_the_platforms_id_is_shown_to_whoever_pays_and_nowhere_else(curator: Client, session: Session) -> None:
    for address in (page(session), "/admin/annotations/session/", "/admin/annotations/study/"):
        assert "PLATFORM-1" not in curator.get(address).content.decode()
    people = "/admin/annotations/participant/"
    assert "PLATFORM-1" not in curator.get(people).content.decode()
    assert "PLATFORM-1" in curator.get(f"{people}{session.participant_id}/change/").content.decode()

    reviewer = Client()
    reviewer.force_login(make.make_staff("reviewer", "annotations.view_session"))
    assert reviewer.get(page(session)).status_code == 200
    assert reviewer.get("/admin/annotations/participant/").status_code == 403


def test_participants_can_not_be_edited(curator: Client, session: Session) -> None:
    address = f"/admin/annotations/participant/{session.participant_id}/"

    assert curator.get(address + "change/").status_code == 200
    assert curator.post(address + "change/", {"platform_id": "x"}).status_code == 403
    assert curator.post(address + "delete/", {"post": "yes"}).status_code == 403

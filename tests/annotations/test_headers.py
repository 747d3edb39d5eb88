"""Headers that every page carries, whoever asks for it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from annotations.models import Session, Study
from tests import factories as make

pytestmark = pytest.mark.django_db

Page = Callable[[Client, Study, Session], Any]


def get(address: str) -> Page:
    return lambda client, study, session: client.get(
        address.format(study=study.pk, slug=study.slug, token=session.token, session=session.pk)
    )


PAGES: dict[str, Page] = {
    "front": get("/"),
    "consent": get("/study/{slug}/"),
    "no study": get("/study/nothing/"),
    "session": get("/session/{token}/"),
    "no session": get("/session/nobody/"),
    "questionnaire by get": get("/session/{token}/questionnaire"),
    "no page": get("/nothing/"),
    "no image": get("/image/" + "0" * 64 + "-5x.png"),
    "api": get("/api/releases"),
    "schema": get("/api/schema"),
    "healthz": get("/healthz"),
    "readyz": get("/readyz"),
    "metrics": get("/metrics"),
    "releases": get("/releases/"),
    "sign in": get("/admin/login/"),
    "admin": get("/admin/"),
    "admin study": get("/admin/annotations/study/{study}/change/"),
    "admin new study": get("/admin/annotations/study/add/"),
    "admin studies": get("/admin/annotations/study/"),
    "admin session": get("/admin/annotations/session/{session}/change/"),
    "admin new dataset": get("/admin/annotations/dataset/add/"),
    "admin new release": get("/admin/exports/release/add/"),
    "admin jobs": get("/admin/jobs/job/"),
}


@pytest.fixture
def session() -> Session:
    study = make.make_study(dataset=make.make_dataset(4), images_per_session=4)
    return make.begin(make.make_session(study))


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("curator", [False, True], ids=["anybody", "curator"])
def test_every_page_allows_only_what_comes_from_this_site(session: Session, name: str, curator: bool) -> None:
    client = Client()
    if curator:
        client.force_login(make.make_curator())

    response = PAGES[name](client, session.study, session)

    assert response.status_code < 500
    policy = dict(part.strip().partition(" ")[::2] for part in response["Content-Security-Policy"].split(";"))
    assert "unsafe" not in response["Content-Security-Policy"]
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["form-action"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["X-Frame-Options"] == "DENY"
    assert response["Referrer-Policy"] == "same-origin"


@pytest.mark.parametrize("name", [name for name in PAGES if name not in {"schema", "api"}])
def test_no_page_needs_what_its_policy_forbids(session: Session, name: str) -> None:
    curator = Client()
    curator.force_login(make.make_curator())

    html = PAGES[name](curator, session.study, session).content.decode()

    for attributes, content in re.findall(r"<script\b([^>]*)>(.*?)</script>", html, re.DOTALL):
        assert "src=" in attributes or "application/json" in attributes, content
    assert "<style" not in html
    assert not re.findall(r"<[^>]+\s(?:style|on\w+)=", html)
    assert not re.findall(
        r"""(?:src|href|action)=["'](?:https?:)?//(?!testserver)""", html.replace("docs.djangoproject", "")
    )


@pytest.mark.parametrize("name", ["consent", "no study", "session", "no session", "releases"])
def test_pages_about_a_person_are_not_kept_by_caches(session: Session, name: str) -> None:
    for client in (Client(), Client()):
        response = PAGES[name](client, session.study, session)
        assert "no-store" in response["Cache-Control"]
        assert "private" in response["Cache-Control"]


def test_the_way_back_is_not_kept_by_caches_either(session: Session) -> None:
    for action in ("instructions", "questionnaire"):
        response = Client().post(reverse("session", args=[session.token]) + action)
        assert "no-store" in response["Cache-Control"]


def test_health_is_told_to_anybody() -> None:
    for address in ("/healthz", "/readyz"):
        response = Client().get(address)
        assert (response.status_code, response.json()) == (200, {"status": "ok"})
        assert "no-store" in response["Cache-Control"]


def test_search_engines_are_sent_away(session: Session) -> None:
    assert (
        '<meta name="robots" content="noindex">' in PAGES["session"](Client(), session.study, session).content.decode()
    )

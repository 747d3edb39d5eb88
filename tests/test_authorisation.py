"""Every address, asked for by everybody.

The tables, here and for the console in tests/console.txt, are compared with the URL conf: an address that nobody
decided about fails a test. tests/test_roles.py says in words what the roles may.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.test import Client

from annotations import image_store
from annotations.models import Session, Study
from exports.models import Release
from tests import factories as make
from tests.pictures import picture
from tests.services import ROOT
from tests.test_roles import filled, walk_addresses

pytestmark = pytest.mark.django_db

ACTORS = ("anonymous", "other", "participant", "reviewer", "researcher", "curator")
STAFF = ACTORS[3:]
RESPONSE = UUID(int=7)
# By method and address, what each of the actors gets; of what is not here, 401, 403 or 405.
TABLE = {
    "GET ": "200 200 200 200 200 200",
    r"GET ^image/(?P<sha256>[0-9a-f]{64})-(?P<scale>[1-9]|10)x\.png$": "200 200 200 200 200 200",
    "GET api/releases": "401 401 401 403 200 200",
    "GET api/releases/<slug:study>/<int:version>": "401 401 401 403 200 200",
    "GET api/releases/<slug:study>/<int:version>/differences": "401 401 401 403 200 200",
    "GET api/releases/<slug:study>/<int:version>/files/<path:name>": "401 401 401 403 200 200",
    "GET api/schema": "200 200 200 200 200 200",
    "GET api/session": "401 200 200 401 401 401",
    "DELETE api/session": "401 204 204 401 401 401",
    "POST api/session/step": "401 200 200 401 401 401",
    "GET api/studies/<slug:slug>": "200 200 200 200 200 200",
    "GET api/studies/<slug:slug>/dashboard": "401 401 401 200 200 200",
    "POST api/studies/<slug:slug>/sessions": "201 201 201 201 201 201",
    "PUT api/trials/<uuid:trial_id>/responses/<uuid:response_id>": "401 404 201 401 401 401",
    "PUT api/trials/<uuid:trial_id>/skip": "401 404 200 401 401 401",
    "GET healthz": "200 200 200 200 200 200",
    "GET language/": "302 302 302 302 302 302",
    "POST language/": "302 302 302 302 302 302",
    "PUT language/": "302 302 302 302 302 302",
    "PATCH language/": "302 302 302 302 302 302",
    "DELETE language/": "302 302 302 302 302 302",
    "GET login/": "200 200 200 200 200 200",
    "POST login/": "200 200 200 200 200 200",
    "PUT login/": "200 200 200 200 200 200",
    "GET login/code/": "login login login login login login",
    "POST login/code/": "login login login login login login",
    "GET login/two-factor/": "login login login 200 200 200",
    "POST login/two-factor/": "login login login 422 422 422",
    "POST login/two-factor/codes/": "login login login login login login",
    "POST logout/": "login login login login login login",
    # Those who may have a token of its own: tests/test_metrics.py.
    "GET metrics": "404 404 404 404 404 404",
    "GET readyz": "200 200 200 200 200 200",
    "GET releases/": "login login login 403 200 200",
    "GET releases/<slug:study>/<int:version>/": "login login login 403 200 200",
    "GET releases/<slug:study>/<int:version>/figures/<slug:name>.svg": "login login login 403 200 200",
    "GET releases/<slug:study>/<int:version>/files/<path:name>": "login login login 403 200 200",
    "GET releases/<slug:study>/<int:version>/images": "login login login 403 200 200",
    "GET releases/<slug:study>/<int:version>/images/<int:index>": "login login login 403 200 200",
    "GET releases/compare": "login login login 403 200 200",
    "GET releases/compare/moved.svg": "login login login 403 404 404",
    "POST releases/token": "login login login 403 200 200",
    "GET session/<str:token>/": "404 200 200 404 404 404",
    "GET session/<str:token>/comprehension": "404 302 302 404 404 404",
    "POST session/<str:token>/comprehension": "404 302 302 404 404 404",
    "GET session/<str:token>/instructions": "404 302 302 404 404 404",
    "POST session/<str:token>/instructions": "404 302 302 404 404 404",
    "GET session/<str:token>/practice": "404 302 302 404 404 404",
    "POST session/<str:token>/practice": "404 302 302 404 404 404",
    "GET session/<str:token>/questionnaire": "404 302 302 404 404 404",
    "POST session/<str:token>/questionnaire": "404 302 302 404 404 404",
    "GET session/<str:token>/withdraw": "404 200 200 404 404 404",
    "POST session/<str:token>/withdraw": "404 422 422 404 404 404",
    "GET study/<slug:slug>/": "200 200 200 200 200 200",
    "POST study/<slug:slug>/": "422 422 422 422 422 422",
    "GET study/<slug:slug>/no-thanks": "200 200 200 200 200 200",
}  # fmt: skip


@dataclass
class Site:
    """A study with a session at its trials, somebody else's session, and a release."""

    session: Session
    other: Session
    release: Release

    def client(self, actor: str) -> Client:
        client = Client(raise_request_exception=False)
        if actor in STAFF:
            client.force_login(User.objects.get(username=actor))
        return client

    def token(self, actor: str) -> str:
        """Of the link that somebody holds; everybody else makes one up."""
        return {"participant": self.session.token, "other": self.other.token}.get(actor, "x" * 32)

    def address(self, route: str, actor: str) -> str:
        trial = self.session.trials.order_by("position").first()
        assert trial is not None
        blanks = {
            "slug": self.session.study.slug,
            "study": self.release.study.slug,
            "version": self.release.version,
            "token": self.token(actor),
            "trial_id": trial.pk,
            "response_id": RESPONSE,
            "sha256": trial.image.sha256,
            "scale": self.session.study.image_scale,
            "index": 0,
        }
        blanks["name"] = "entropy" if route.endswith(".svg") else "manifest.json"
        filled = re.sub(
            r"\(\?P<(\w+)>[^()]*\)|<(?:\w+:)?(\w+)>", lambda found: str(blanks[found[1] or found[2]]), route
        )
        # One of the addresses needs it: what to compare with.
        return "/" + filled.strip("^$").replace("\\.", ".") + "?with=1"


@pytest.fixture
def site() -> Site:
    for name in STAFF:
        user = User.objects.create_user(name, password="correct horse battery", is_staff=True)
        user.groups.add(Group.objects.get(name=name))
    study = make.make_study(
        dataset=make.make_dataset(4), images_per_session=4, repeats_per_session=0, labels_per_image=9
    )
    make.complete_session(study, platform_id="PLATFORM-1")
    make.run_jobs()
    release = make.make_release(study)
    session = make.begin(make.make_session(study, platform_id="one"))
    trial = session.trials.order_by("position").first()
    assert trial is not None
    trial.image.sha256 = image_store.put(picture(1))
    trial.image.save()
    return Site(
        session,
        make.begin(make.make_session(study, platform_id="two")),
        release,
    )


BODIES: dict[str, dict[str, Any]] = {
    "put-response": {"named": [{"category": 0, "percentage": 60}], "duration_ms": 900},
    "skip-trial": {"reason": "image_failed"},
    "session-step": {"step": "instructions"},
    "begin-session": {"consent_version": 1},
}


def ask(site: Site, actor: str, method: str, name: str, route: str) -> str:
    """The status, or `login` for whoever is led there. What it changed is taken back."""
    headers = {"Authorization": f"Session {site.token(actor)}"} if actor in ("participant", "other") else {}
    options: dict[str, Any] = {"headers": headers}
    if name in BODIES:
        options |= {"data": BODIES[name], "content_type": "application/json"}
    before = transaction.savepoint()
    response = getattr(site.client(actor), method.lower())(site.address(route, actor), **options)
    if response.streaming:
        # Closed unread it would take the test's own connection with it.
        b"".join(response)
    transaction.savepoint_rollback(before)
    return "login" if "/login/" in response.headers.get("Location", "") else str(response.status_code)


ADDRESSES = sorted((route, name) for name, route in walk_addresses() if not route.startswith("admin/"))
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@pytest.mark.timeout(600)
def test_every_address_outside_the_console_answers_everybody_as_decided(site: Site) -> None:
    found = {}
    for route, name in ADDRESSES:
        for method in METHODS:
            told = [ask(site, actor, method, name, route) for actor in ACTORS]
            # A method that the address does not take. The API asks who it is before it says so.
            if f"{method} {route}" in TABLE or not set(told) <= {"401", "403", "405"}:
                found[f"{method} {route}"] = " ".join(told)

    assert found == TABLE


def test_the_table_tells_apart_whose_trial_it_is_and_who_may_read_releases() -> None:
    """That the table above was filled in by somebody who read it."""
    for key, told in TABLE.items():
        by = dict(zip(ACTORS, told.split(), strict=True))
        assert not [status for status in by.values() if status.startswith("5")], key
        if "/trials/" in key:
            assert (by["other"], by["anonymous"], by["curator"]) == ("404", "401", "401"), key
        if "releases" in key:
            assert {by[each] for each in ("anonymous", "other", "participant")} <= {"401", "login"}, key
            assert by["reviewer"] in {"403", "login"}, key
        if "session/<" in key:
            assert {by[each] for each in ("anonymous", *STAFF)} == {"404"}, key


# --- The console


CONSOLE_ACTORS = ("anonymous", "annotator", "reviewer", "researcher", "curator", "superuser")
CONSOLE = ROOT / "tests" / "console.txt"
CONSOLE_ADDRESSES = sorted({route for _, route in walk_addresses() if route.startswith("admin/")})


def console_table() -> dict[str, tuple[str, ...]]:
    """What each actor gets for a look and for an empty form, by address."""
    lines = [line for line in CONSOLE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return {line.split()[0]: tuple(line.split()[1:]) for line in lines}


def console_client(actor: str, session: Session) -> Client:
    client = Client(raise_request_exception=False)
    if actor == "annotator":
        client.defaults["HTTP_AUTHORIZATION"] = f"Session {session.token}"
        client.get(f"/session/{session.token}/")
    elif actor != "anonymous":
        if actor == "superuser":
            User.objects.create_superuser(actor)
        client.force_login(User.objects.get(username=actor))
    return client


def console_address(route: str, study: Study) -> str:
    """With rows that are there in its blanks, and a word where a pattern takes any."""
    route = re.sub(r"\(\?P<(\w+)>.*?\)", lambda found: "annotations" if found[1] == "app_label" else "nothing/", route)
    return filled(route, study)


def console_answers(client: Client, address: str) -> str:
    """The status of a look and of an empty form. What they changed is taken back.

    `login` and `first`: led to the sign-in, or to the first page of the console, as where there is no such row.
    """
    told = []
    cookies = {name: morsel.value for name, morsel in client.cookies.items()}
    for method in ("get", "post"):
        before = transaction.savepoint()
        response = getattr(client, method)(address)
        if response.streaming:
            b"".join(response)
        transaction.savepoint_rollback(before)
        # One of the addresses logs out.
        client.cookies.load(cookies)
        where = response.headers.get("Location", "")
        told.append("login" if "/login/" in where else "first" if where == "/admin/" else str(response.status_code))
    return "/".join(told)


@pytest.fixture
def filled_study(site: Site) -> Study:
    return site.session.study


@pytest.mark.timeout(600)
@pytest.mark.parametrize("actor", CONSOLE_ACTORS)
def test_every_address_of_the_console_answers_everybody_as_decided(actor: str, site: Site, filled_study: Study) -> None:
    client = console_client(actor, site.session)
    column = CONSOLE_ACTORS.index(actor)

    found = {route: console_answers(client, console_address(route, filled_study)) for route in CONSOLE_ADDRESSES}

    assert found == {route: told[column] for route, told in console_table().items()}


def test_the_table_of_the_console_lets_nobody_in_who_is_not_meant() -> None:
    """That it was filled in by somebody who read it."""
    table = console_table()
    assert set(table) == set(CONSOLE_ADDRESSES)
    for route, told in table.items():
        by = dict(zip(CONSOLE_ACTORS, told, strict=True))
        assert "500" not in " ".join(told), route
        assert by["annotator"] == by["anonymous"], route
        if route not in ("admin/login/", "admin/logout/"):
            assert by["anonymous"] == "login/login", route
        if route.endswith("<path:object_id>/") and route != "admin/r/<path:content_type_id>/<path:object_id>/":
            # Short for what ends in change/, which is asked for too.
            assert set(told[2:]) == {"302/302"}, route
            continue
        if route.startswith(("admin/auth/", "admin/access/")):
            assert {by["reviewer"], by["researcher"], by["curator"]} <= {"403/403", "403/405"}, route
        if re.search("/people/|/privacy/|^admin/annotations/participant/|^admin/auditlog/", route):
            assert set(by["reviewer"].split("/")) | set(by["researcher"].split("/")) <= {"403", "405"}, route
        for role in ("reviewer", "researcher"):
            # A form may be refused for what it says, and a look given; nothing is added or deleted.
            if route.endswith(("/add/", "/delete/")):
                assert by[role].endswith("403"), route

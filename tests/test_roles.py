"""Who gets where: every address of the console and of the researchers, by every role."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from annotations.models import Session, Study
from elicit.roles import ROLES, keep_roles, permissions_of
from tests import factories as make

pytestmark = pytest.mark.django_db


def member(role: str) -> Client:
    client = Client(raise_request_exception=False)
    if role != "anonymous":
        user = User.objects.create_user(role, password="correct horse battery", is_staff=True)
        user.groups.add(Group.objects.get(name=role))
        client.force_login(user)
    return client


# --- The table is kept


@pytest.mark.parametrize("role", ROLES)
def test_a_group_has_what_the_table_says_and_nothing_else(role: str) -> None:
    group = Group.objects.get(name=role)
    group.permissions.clear()
    keep_roles()

    assert set(group.permissions.all()) == set(permissions_of(ROLES[role]))
    names = {f"{each.content_type.app_label}.{each.codename}" for each in group.permissions.all()}
    assert {name for name in ROLES[role].may if not name.endswith("*")} <= names


def test_only_the_curator_sees_ids_and_pays() -> None:
    for name in ("view_platform_id", "pay_annotators"):
        assert list(Group.objects.filter(permissions__codename=name).values_list("name", flat=True)) == ["curator"]


def test_no_role_touches_users_tokens_or_authenticators() -> None:
    for group in Group.objects.filter(name__in=ROLES):
        apps = set(group.permissions.values_list("content_type__app_label", flat=True))
        assert not apps & {"auth", "knox", "otp_totp", "otp_static", "sessions", "admin"}


# --- Every address


def walk_addresses() -> Iterator[tuple[str, str]]:
    """Each address of the site: its name and pattern."""

    def walk(patterns: list[Any], prefix: str) -> Iterator[tuple[str, str]]:
        for pattern in patterns:
            here = prefix + str(pattern.pattern)
            if isinstance(pattern, URLResolver):
                yield from walk(pattern.url_patterns, here)
            elif isinstance(pattern, URLPattern):
                yield pattern.name or here, here

    yield from walk(list(get_resolver().url_patterns), "")


# For whoever signs in, whatever their role; what is before the sign-in; and what leads to other addresses.
EVERYBODYS = {
    "admin/login/", "login", "logout", "index", "jsi18n", "password_change", "password_change_done", "autocomplete",
    "view_on_site", "app_list",
}  # fmt: skip
ADDRESSES = sorted(
    (name, route)
    for name, route in walk_addresses()
    if route.startswith(("admin/", "releases/", "api/releases"))
    # The console's short addresses have no name: they lead to `change/`.
    and name not in EVERYBODYS
    and "(?P<url>" not in route
    and not name.endswith("<path:object_id>/")
)
NOBODY_BUT_SUPERUSERS = ("auth_", "access")
# What each role may open; everything else of the console is closed to it. `*` stands for the rest of a name.
A_STUDY = (
    "annotations_study_changelist", "annotations_study_change", "annotations_study_history", "annotations_study_image",
    "annotations_study_images", "annotations_study_pictures", "annotations_study_plan", "annotations_study_plan_curve",
    "annotations_study_preview*", "annotations_study_dashboard", "annotations_study_figure", "annotations_study_arms",
)  # fmt: skip
OPEN: dict[str, tuple[str, ...]] = {
    "reviewer": (
        *A_STUDY, "annotations_study_quality", "annotations_study_quality_apply", "annotations_study_quality_c[as]*",
        "annotations_study_quality_spread", "annotations_study_quality_rules",
        "annotations_session_changelist", "annotations_session_change",
        "annotations_session_history",
    ),
    "researcher": (
        *A_STUDY, "exports_release_changelist", "exports_release_change", "exports_release_history", "release*",
        "exports_trainingrun_changelist", "exports_trainingrun_change", "exports_trainingrun_history",
        "exports_trainingrun_figure", "exports_trainingrun_report", "exports_trainingrun_result",
    ),
}  # fmt: skip


@pytest.fixture
def study() -> Study:
    study = make.make_study(dataset=make.make_dataset(4), images_per_session=4, repeats_per_session=1)
    make.complete_session(study, platform_id="PLATFORM-1")
    make.make_release(study, build=False)
    return study


def filled(route: str, study: Study) -> str:
    """The address, with rows that are there in its blanks, as far as they are of a study, a session or a release."""
    session = Session.objects.filter(study=study).order_by("consented_at", "pk").first()
    assert session is not None
    of_model = re.match(r"admin/([a-z]+)/([a-z]+)/", route)
    first = apps.get_model(of_model[1], of_model[2])._default_manager.order_by("pk").first() if of_model else None

    def blank(match: re.Match[str]) -> str:
        kind, name = match.group(1), match.group(2)
        if name in {"pk", "object_id", "id"}:
            return str(first.pk if first else 1)
        if kind == "uuid" or name == "session":
            return str(session.pk)
        if name == "step":
            return "instructions"
        return study.slug if name == "study" and kind != "int" else "1"

    address = re.sub(r"<(?:(\w+):)?(\w+)>", blank, route)
    return "/" + re.sub(r"[\^$]|\\Z", "", address)


def answer(client: Client, address: str) -> int:
    """What a look at the address gives; of one that takes forms only, what a form gives."""
    response = client.get(address)
    if response.status_code == 405:
        response = client.post(address)
    where = response.headers.get("Location", "")
    if "/login/" in where:
        return 401
    # Where a row is not there the console leads to its first page.
    return 0 if where == "/admin/" else response.status_code


def is_open(role: str, name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in OPEN.get(role, ()))


@pytest.mark.parametrize("role", ["anonymous", "reviewer", "researcher"])
def test_every_address_of_the_console_is_closed_to_whoever_has_no_business_there(role: str, study: Study) -> None:
    client = member(role)
    refused = {401} if role == "anonymous" else {0, 403}
    found = {route: answer(client, filled(route, study)) for name, route in ADDRESSES if not is_open(role, name)}

    assert len(found) > 40
    assert {route: status for route, status in found.items() if status not in refused} == {}


@pytest.mark.parametrize("role", ["reviewer", "researcher"])
def test_what_a_role_is_for_is_open_to_it(role: str, study: Study) -> None:
    client = member(role)
    found = {route: answer(client, filled(route, study)) for name, route in ADDRESSES if is_open(role, name)}

    assert found
    assert {route: status for route, status in found.items() if status in {401, 403, 500}} == {}


def test_a_curator_gets_everywhere_but_to_the_users(study: Study) -> None:
    client = member("curator")
    users = {route for name, route in ADDRESSES if name.startswith(NOBODY_BUT_SUPERUSERS)}
    found = {route: answer(client, filled(route, study)) for _, route in ADDRESSES}

    assert {route for route in users if found[route] != 403} == set()
    # What nobody may do, such as to delete what people said.
    never = re.compile(r"/(add|delete)/$")
    closed = {route for route, status in found.items() if status in {401, 403} and not never.search(route)}
    assert closed - users == set()
    assert {route for route, status in found.items() if status >= 500} == set()


@pytest.mark.parametrize("role", ["reviewer", "researcher"])
def test_a_look_by_others_than_the_curator_changes_nothing(role: str, study: Study) -> None:
    """A form sent to every address that is open to them, and to those that are not."""
    client = member(role)
    before = list(Study.objects.values())
    for _, route in ADDRESSES:
        client.post(filled(route, study), {"name": "changed", "ids_days": "1", "status": "closed"})

    assert list(Study.objects.values()) == before


def test_a_platform_id_is_on_no_page_that_others_than_the_curator_see(study: Study) -> None:
    for role in ("reviewer", "researcher"):
        client = member(role)
        for name, route in ADDRESSES:
            if is_open(role, name):
                response = client.get(filled(route, study))
                assert "PLATFORM-1" not in getattr(response, "content", b"").decode(errors="replace"), route


def test_people_with_access_are_listed_with_their_roles(client: Client) -> None:
    member("reviewer")
    client.force_login(make.make_curator())

    text = client.get("/admin/access/").content.decode()

    assert ROLES["reviewer"].words in text
    assert "reviewer" in text
    assert "not set up" in text

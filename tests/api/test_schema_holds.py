"""What docs/openapi.yaml promises, tried out by schemathesis: as nobody, as an annotator, as a researcher with a token.

Seeded, so that a failure comes again. `ELICIT_TEST_API_EXAMPLES=500` tries so many requests of each operation instead
of a few.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import pytest
import schemathesis
import yaml
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis.stateful import run_state_machine_as_test
from knox.models import get_token_model
from pytest_django.fixtures import Settings
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis import Response as Answer
from schemathesis.config import SchemathesisConfig
from schemathesis.core.errors import InvalidSchema
from schemathesis.core.result import Ok, Result
from schemathesis.specs.openapi.checks import ignored_auth, negative_data_rejection

from annotations.models import Response, Session
from exports.models import Release
from tests import factories as make
from tests.services import ROOT

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

EXAMPLES = int(os.environ.get("ELICIT_TEST_API_EXAMPLES", 30))
RULES = {
    "generation": {"deterministic": True},
    "checks": {
        # What the schema can't say: an answer that contradicts itself, a session that stands at another step, a release
        # that is not there.
        "positive_data_acceptance": {"expected-statuses": ["2xx", "400", "401", "403", "404", "409", "422"]},
        "negative_data_rejection": {
            "expected-statuses": ["400", "401", "403", "404", "405", "406", "409", "415", "422"]
        },
    },
}
TOLD = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text(encoding="utf-8"))
# schemathesis adds links that it guesses.
LINKS = {
    (operation["operationId"], int(status), name): link
    for operations in TOLD["paths"].values()
    for operation in operations.values()
    for status, answer in operation["responses"].items()
    for name, link in answer.get("links", {}).items()
}
SCHEMA = schemathesis.openapi.from_dict(TOLD, config=SchemathesisConfig.from_dict(RULES))
QUIET = settings(
    max_examples=EXAMPLES,
    stateful_step_count=12,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
DJANGO = get_wsgi_application()
Operation: TypeAlias = APIOperation[Any, Any, Any, Any]


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """The site, each answer read and closed, as a server would and werkzeug's client does not."""
    answer = DJANGO(environ, start_response)
    try:
        return [b"".join(answer)]
    finally:
        answer.close()


def sound(read: Result[Operation, InvalidSchema]) -> Operation:
    assert isinstance(read, Ok), read
    return read.ok()


SCHEMA.app = application
OPERATIONS = [sound(operation) for operation in SCHEMA.get_all_operations()]


@dataclass
class Site:
    """A study that people answer, two releases of another, and who may do what."""

    headers: dict[str, dict[str, str]]
    session: Session
    releases: list[Release]


@pytest.fixture
def site(settings: Settings, tmp_path: Path) -> Iterator[Site]:
    settings.RELEASES_ROOT = tmp_path / "releases"
    study = make.make_study(
        dataset=make.make_dataset(8), images_per_session=8, repeats_per_session=0, labels_per_image=300, practice=[]
    )
    session = make.begin(make.make_session(study))
    other = make.make_study(
        dataset=make.make_dataset(4, slug="others"), name="Done", images_per_session=4, labels_per_image=2
    )
    make.complete_session(other)
    make.run_jobs()
    releases = [make.make_release(other)]
    make.complete_session(other, ((4, 90.0),), seed=2)
    make.run_jobs()
    releases.append(make.make_release(other))
    researcher = make.make_staff("reader", "exports.view_release", "annotations.view_study")
    _, token = get_token_model().objects.create(user=researcher)
    # The requests run in the test's own transaction, whose connection has to stay.
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield Site(
        {
            "nobody": {},
            "annotator": {"Authorization": f"Session {session.token}"},
            "researcher": {"Authorization": f"Token {token}"},
        },
        session,
        releases,
    )
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


def send(case: Case[Any], headers: dict[str, str]) -> Answer:
    return case.call_and_validate(headers=headers, app=application)


@pytest.mark.parametrize("actor", ["nobody", "annotator", "researcher"])
def test_every_operation_does_as_the_schema_says(site: Site, actor: str) -> None:
    for operation in OPERATIONS:
        strange = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

        @QUIET
        @given(case=operation.as_strategy() | strange)
        def holds(case: Case[Any]) -> None:
            send(case, site.headers[actor])

        holds()


def test_whoever_follows_the_links_is_never_led_astray(site: Site) -> None:
    """From the consent to the withdrawal, and from the list of releases to files and differences."""
    seen: Counter[tuple[str, int]] = Counter()

    class Walk(SCHEMA.as_state_machine()):  # type: ignore[misc]
        token = ""

        def setup(self) -> None:
            super().setup()
            # Every walk begins with the same rows, else the same walk taken twice would not go the same way.
            self.before = transaction.savepoint()
            self.stored, self.answered = Response.objects.count(), 0

        def teardown(self) -> None:
            assert Response.objects.count() <= self.stored + self.answered
            transaction.savepoint_rollback(self.before)
            super().teardown()

        def before_call(self, case: Case[Any]) -> None:
            # Links lead on from a study; which there are, a link from a curator says.
            if case.operation.definition.raw["operationId"] in ("get_study", "begin_session", "get_dashboard"):
                case.path_parameters["slug"] = site.session.study.slug

        def get_call_kwargs(self, case: Case[Any]) -> dict[str, Any]:
            releases = "/releases" in case.operation.path or "dashboard" in case.operation.path
            mine = {"Authorization": f"Session {self.token or site.session.token}"}
            return {"headers": site.headers["researcher"] if releases else mine, "app": application}

        def validate_response(self, response: Answer, case: Case[Any], **options: Any) -> None:
            # The header is ours here and the body a link's, whatever was made up before; that a made-up one opens
            # nothing and is refused is the other test's to see.
            case.validate_response(response, excluded_checks=[ignored_auth, negative_data_rejection])

        def after_call(self, response: Answer, case: Case[Any]) -> None:
            name = case.operation.definition.raw["operationId"]
            seen[name, response.status_code] += 1
            self.answered += (name, response.status_code) == ("put_response", 201)
            if (name, response.status_code) == ("begin_session", 201):
                self.token = response.json()["token"]

    # Few walks come far: that each link leads where it says is the next test's to see.
    run_state_machine_as_test(Walk, settings=settings(QUIET, max_examples=3 * EXAMPLES))
    assert len({name for name, status in seen if status < 300}) > 1


class NothingThere(LookupError):
    """A link's expression finds nothing in the answer, as after the last trial."""


def value(told: Any, asked: Case[Any], answer: Answer) -> Any:
    """What a link tells, its runtime expressions (OpenAPI 3.0.3, Link Object) replaced by what they find."""
    if isinstance(told, dict):
        return {key: value(each, asked, answer) for key, each in told.items()}
    if isinstance(told, list):
        return [value(each, asked, answer) for each in told]
    if not isinstance(told, str):
        return told
    if "{" in told:
        return re.sub(r"\{(.+?)\}", lambda found: str(value(found[1], asked, answer)), told)
    if told == "$request.body":
        return asked.body
    if told.startswith("$request.path."):
        return asked.path_parameters[told.removeprefix("$request.path.")]
    if not told.startswith("$response.body#/"):
        return told
    found = answer.json()
    for step in told.removeprefix("$response.body#/").split("/"):
        if found is None or (isinstance(found, list) and int(step) >= len(found)):
            raise NothingThere(told)
        found = found[int(step) if isinstance(found, list) else step]
    return found


def test_every_link_leads_to_the_operation_that_it_names(site: Site) -> None:
    """From where somebody begins, each link of each answer is followed four steps deep."""
    named = {operation.definition.raw["operationId"]: operation for operation in OPERATIONS}
    fresh = count(1)
    reached: Counter[str] = Counter()
    followed: Counter[tuple[str, int, str]] = Counter()

    def follow(name: str, given: dict[str, Any], body: Any, headers: dict[str, str], deep: int) -> int:
        places = {each["name"]: each["in"] for each in named[name].definition.raw.get("parameters", [])}
        if "response_id" in places:
            given = {"response_id": str(UUID(int=next(fresh))), **given}
        case = named[name].Case(
            path_parameters={key: each for key, each in given.items() if places[key] == "path"},
            query={key: each for key, each in given.items() if places[key] == "query"},
            media_type="application/json",
            **({} if body is None else {"body": body}),
        )
        answer = send(case, headers)
        if answer.status_code >= 300:
            return answer.status_code
        reached[name] += 1
        if name == "begin_session":
            headers = {"Authorization": f"Session {answer.json()['token']}"}
        for link, told in LINKS.items() if deep else ():
            if link[:2] != (name, answer.status_code):
                continue
            try:
                given, body = (value(told.get(part), case, answer) for part in ("parameters", "requestBody"))
            except NothingThere:
                continue
            before = transaction.savepoint()
            status = follow(told["operationId"], given or {}, body, headers, deep - 1)
            transaction.savepoint_rollback(before)
            # To leave a step while at the trials, or to answer while at a step, is refused and leads nobody astray.
            assert status < 300 or status in (400, 409), (link, status)
            followed[link] += status < 300
        return answer.status_code

    study = {"slug": site.session.study.slug}
    for name, path, actor in (
        ("get_study", study, "nobody"),
        ("get_session", {}, "annotator"),
        ("get_dashboard", study, "researcher"),
        ("releases_list", {}, "researcher"),
    ):
        assert follow(name, path, None, site.headers[actor], 4) == 200

    assert reached.keys() == named.keys()
    assert {link for link, times in followed.items() if times} == LINKS.keys()

"""The Python client against the site on a port, and against its schema."""

from __future__ import annotations

import inspect
import io
import re
import uuid
from collections.abc import Callable, Iterator
from hashlib import sha256
from json import dumps
from pathlib import Path
from typing import Any, NotRequired, get_origin, get_type_hints, is_typeddict
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
import yaml
from elicit_client import Elicit, ElicitError, Sitting, types
from knox.models import get_token_model
from pytest_django.fixtures import Settings
from pytest_django.live_server_helper import LiveServer

from annotations import image_store
from annotations.models import Response, Session
from exports.models import Release
from tests import factories as make
from tests.services import ROOT

SCHEMA: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text(encoding="utf-8"))
HERE = "http://localhost:8000"
PATIENT: dict[str, Any] = {"sleep": lambda seconds: None}


class Recorder(requests.Session):
    """No network: remembers what was asked, and answers with a little of everything."""

    FILE = b"x"

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, str, dict[str, Any], Any]] = []

    def request(self, method: Any, url: Any, *_: Any, params: Any = None, json: Any = None, **__: Any) -> Any:
        self.asked.append((method, urlsplit(url).path, params, json))
        listed = {"name": "a.csv", "bytes": 1, "sha256": sha256(self.FILE).hexdigest(), "url": ""}
        answer = requests.Response()
        answer.status_code = 200
        answer.raw = io.BytesIO(
            self.FILE if url.endswith("a.csv") else dumps({"files": [listed], "results": [], "token": "x"}).encode()
        )
        return answer


Call = Callable[[Elicit, Sitting, Path], object]
TRIAL = str(uuid.UUID(int=7))
CALLS: dict[str, Call] = {
    "releases_list": lambda elicit, _, __: list(elicit.releases(study="birds", variety="t2-clamp")),
    "get_release": lambda elicit, _, __: elicit.release("birds", 1),
    "get_release_file": lambda elicit, _, folder: elicit.download("birds", 1, folder, "a.csv"),
    "get_release_differences": lambda elicit, _, __: elicit.differences("birds", 1, 2),
    "get_dashboard": lambda elicit, _, __: elicit.dashboard("birds"),
    "get_study": lambda _, sitting, __: Sitting.study(HERE, "birds", http=sitting.caller.http),
    "begin_session": lambda _, sitting, __: Sitting.begin(HERE, "birds", consent_version=1, http=sitting.caller.http),
    "get_session": lambda _, sitting, __: sitting.standing(),
    "leave_step": lambda _, sitting, __: sitting.leave_step("comprehension", answers={"whose": "Theirs"}, attempt=1),
    "put_response": lambda _, sitting, __: sitting.respond(
        TRIAL,
        [(3, 80)],
        duration_ms=9,
        hidden_ms=1,
        impossible=[0],
        revises=TRIAL,
        process={"input": "keyboard", "first_touch_ms": 2, "changes": 1, "fields": [], "warnings": []},
    ),
    "skip_trial": lambda _, sitting, __: sitting.skip(TRIAL),
    "withdraw": lambda _, sitting, __: sitting.withdraw(),
}
OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, operations in SCHEMA["paths"].items()
    for method, operation in operations.items()
}


def test_every_operation_has_a_method() -> None:
    assert OPERATIONS.keys() == CALLS.keys()


@pytest.mark.parametrize("name", CALLS)
def test_a_method_asks_for_what_the_schema_takes(name: str, tmp_path: Path) -> None:
    method, path, operation = OPERATIONS[name]
    http = Recorder()

    CALLS[name](Elicit(HERE, "KEY", http=http), Sitting(HERE, "TOKEN", http=http), tmp_path)

    asked_method, asked_path, query, body = http.asked[-1]
    assert asked_method == method
    assert re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), asked_path)
    assert set(query or {}) <= {each["name"] for each in operation.get("parameters", []) if each["in"] == "query"}
    if "requestBody" in operation:
        _is_taken(body, operation["requestBody"]["content"]["application/json"]["schema"])
    else:
        assert body is None


def _is_taken(value: Any, schema: dict[str, Any]) -> None:
    """Every field is one that the schema knows, and none is missing that it knows."""
    schema = schema["allOf"][0] if "allOf" in schema else schema
    if "$ref" in schema:
        schema = SCHEMA["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "properties" in schema:
        assert value.keys() == schema["properties"].keys()
        for field, inner in schema["properties"].items():
            _is_taken(value[field], inner)
    elif schema.get("type") == "array":
        for each in value:
            _is_taken(each, schema["items"])


def forms() -> list[str]:
    return [name for name, value in inspect.getmembers(types) if is_typeddict(value)]


def test_every_form_of_an_answer_has_a_type() -> None:
    told = {name for name in SCHEMA["components"]["schemas"] if not name.endswith(("Enum", "Request"))}

    assert set(forms()) == told


@pytest.mark.parametrize("name", forms())
def test_a_type_agrees_with_the_schema(name: str) -> None:
    form, schema = getattr(types, name), SCHEMA["components"]["schemas"][name]
    hints = get_type_hints(form)

    assert hints.keys() == schema["properties"].keys()
    # Not __required_keys__: it can't read annotations that are text.
    optional = {
        field for field, hint in get_type_hints(form, include_extras=True).items() if get_origin(hint) is NotRequired
    }
    assert hints.keys() - optional == set(schema["required"])
    for field, told in schema["properties"].items():
        assert _agrees(str(hints[field]), told), f"{name}.{field}: {hints[field]} is not {told}"


def _agrees(hint: str, told: dict[str, Any]) -> bool:
    told = {**told, **(told["allOf"][0] if "allOf" in told else {})}
    if told.get("nullable") and "None" not in hint and "Any" not in hint:
        return False
    if reference := told.get("$ref"):
        name = reference.rpartition("/")[2]
        return name in hint or ("str" in hint and "enum" in SCHEMA["components"]["schemas"][name])
    words = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "array": "list", "object": "dict"}
    if told.get("type") == "array":
        return hint.startswith("list") and _agrees(hint[len("list") :], told["items"])
    return "type" not in told or re.search(rf"\b{words[told['type']]}\b", hint) is not None


@pytest.fixture
def releases(settings: Settings, tmp_path: Path, live_server: LiveServer, transactional_db: None) -> Iterator[Elicit]:
    settings.RELEASES_ROOT = tmp_path / "releases"
    study = make.make_study(dataset=make.make_dataset(4), images_per_session=4, labels_per_image=4)
    for number in range(2):
        make.complete_session(study, ((3 + number, 80.0),), seed=number)
        make.run_jobs()
        make.make_release(study)
    _, token = get_token_model().objects.create(user=make.make_staff("reader", "exports.view_release"))
    with Elicit(live_server.url, token, **PATIENT) as elicit:
        yield elicit


def test_releases_are_listed_fetched_checked_and_compared(releases: Elicit, tmp_path: Path) -> None:
    newest, oldest = releases.releases(study="birds")
    assert releases.release("birds", 2) == newest
    assert releases.differences("birds", oldest["version"], newest["version"])["responses_added"] > 0

    whole = releases.download("birds", 2, tmp_path / "here")
    files = releases.download_all("birds", 2, tmp_path / "here")

    assert whole.read_bytes()[:2] == b"PK"
    assert len(files) == len(newest["files"]) - 1
    assert not list((tmp_path / "here").rglob("*.part"))


def test_a_broken_download_is_gone_on_with(releases: Elicit, tmp_path: Path) -> None:
    whole = releases.download("birds", 1, tmp_path).read_bytes()
    (entry,) = (file for file in releases.release("birds", 1)["files"] if file["name"] == "release.zip")
    (tmp_path / "again").mkdir()
    part = tmp_path / "again" / f"release.zip.{entry['sha256'][:16]}.part"
    part.write_bytes(whole[: len(whole) // 2])
    asked = []
    releases.caller.http.hooks["response"].append(lambda answer, **_: asked.append(answer.status_code))

    again = releases.download("birds", 1, tmp_path / "again")

    assert again.read_bytes() == whole
    assert asked == [200, 206]


def test_bytes_that_are_not_the_release_are_not_kept(releases: Elicit, tmp_path: Path) -> None:
    release = Release.objects.get(version=1)
    Release.objects.filter(pk=release.pk).update(zip_sha256="0" * 64)

    with pytest.raises(ElicitError, match="wrong_hash"):
        releases.download("birds", 1, tmp_path)

    assert not list(tmp_path.glob("release.zip*"))


def test_a_refusal_says_its_code(releases: Elicit) -> None:
    with pytest.raises(ElicitError) as refused:
        releases.release("birds", 9)

    assert (refused.value.status, refused.value.code) == (404, "not_found")


def test_a_key_is_not_sent_in_the_clear() -> None:
    with pytest.raises(ValueError, match="https only"):
        Elicit("http://elicit.example.org", "KEY")


def test_a_program_takes_part_from_consent_to_withdrawal(live_server: LiveServer, transactional_db: None) -> None:
    make.make_study(dataset=make.make_dataset(3), images_per_session=3, practice=[], comprehension=[])
    study = Sitting.study(live_server.url, "birds")
    with Sitting.begin(live_server.url, "birds", consent_version=study["consent"]["version"], **PATIENT) as sitting:
        assert sitting.standing()["status"] == "instructions"
        sitting.leave_step("instructions")

        for trial in sitting.trials():
            said = sitting.respond(trial["id"], [(3, 80), (5, 15)], impossible=[0], duration_ms=900)

        assert said["next"] is None
        assert Response.objects.count() == said["done"] == said["total"]
        assert sitting.standing()["status"] == "questionnaire"
        sitting.withdraw()
        sitting.withdraw()
        assert Response.objects.count() == 0
        assert sitting.standing()["status"] == "withdrawn"


def test_an_answer_whose_receipt_was_lost_is_stored_once(
    live_server: LiveServer, transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make.begin(make.make_session(make.make_study()))
    sitting = Sitting(live_server.url, session.token, **PATIENT)
    http, request = sitting.caller.http, sitting.caller.http.request
    lost: list[int] = []

    def loses_the_first(*arguments: Any, **options: Any) -> requests.Response:
        answer = request(*arguments, **options)
        if not lost:
            lost.append(answer.status_code)
            raise requests.ConnectionError("the receipt was lost")
        return answer

    monkeypatch.setattr(http, "request", loses_the_first)
    trial = session.trials.order_by("position")[0]
    key = str(uuid.uuid4())

    with sitting:
        said = sitting.respond(str(trial.pk), [(3, 80)], duration_ms=900, response_id=key)

    assert (lost, said["id"]) == ([201], key)
    assert Response.objects.filter(trial=trial).count() == 1


def test_a_study_that_is_full_or_changed_lets_nobody_in(live_server: LiveServer, transactional_db: None) -> None:
    make.make_study(dataset=make.make_dataset(3), images_per_session=3)

    with pytest.raises(ElicitError) as refused:
        Sitting.begin(live_server.url, "birds", consent_version=7, **PATIENT)

    assert (refused.value.status, refused.value.code) == (409, "consent_missing")
    assert not Session.objects.exists()


def test_the_readme_s_examples_work(
    live_server: LiveServer,
    transactional_db: None,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings.RELEASES_ROOT = tmp_path / "releases"
    plain: dict[str, Any] = {"practice": [], "comprehension": [], "questionnaire": []}
    dataset = make.make_dataset(3)
    for image in dataset.images.all():
        image.sha256 = image_store.put(np.full((32, 32, 3), image.index, dtype=np.uint8))
        image.save()
    study = make.make_study(dataset=dataset, images_per_session=3, labels_per_image=2, **plain)
    make.complete_session(study)
    make.run_jobs()
    make.make_release(study)
    _, key = get_token_model().objects.create(user=make.make_staff("reader", "exports.view_release"))
    readme = (ROOT / "client" / "README.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}

    try:
        for example in examples:
            exec(example.replace("https://elicit.example.org", live_server.url).replace("KEY", key), names)  # noqa: S102
    finally:
        for mine in {"elicit", "sitting"} & names.keys():
            names[mine].close()

    assert len(examples) == 2
    assert names["path"].read_bytes()[:2] == b"PK"
    assert names["picture"].startswith(b"\x89PNG")
    assert capsys.readouterr().out == "completed\n"


def test_a_trial_whose_image_does_not_load_is_passed_over(live_server: LiveServer, transactional_db: None) -> None:
    session = make.begin(make.make_session(make.make_study()))

    with Sitting(live_server.url, session.token, **PATIENT) as sitting:
        first = next(sitting.trials())
        standing = sitting.skip(first["id"])

    assert standing["next"] is not None
    assert standing["next"]["id"] != first["id"]
    assert session.trials.exclude(skipped_at=None).count() == 1


def test_a_busy_server_is_given_the_time_that_it_asks_for() -> None:
    waited: list[float] = []
    http = Recorder()
    statuses = iter([(429, "7"), (503, ""), (429, "9999"), (200, "")])
    send = http.request

    def busy(*arguments: Any, **options: Any) -> Any:
        answer = send(*arguments, **options)
        answer.status_code, answer.headers["Retry-After"] = next(statuses)
        return answer

    http.request = busy  # type: ignore[method-assign]

    Elicit(HERE, "KEY", http=http, sleep=waited.append).release("birds", 1)

    assert waited == [7.0, 1.0, 60.0]
    assert len(http.asked) == 4

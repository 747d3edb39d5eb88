"""What the documents say is what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from annotations.errors import REFUSALS
from elicit.labels.release_files import Recipe, write_release
from tests import services
from tests.labels import releases

ROOT = services.ROOT
DOCS = ROOT / "docs"


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_the_committed_api_schema_is_the_one_that_the_site_serves(tmp_path: Path) -> None:
    made = tmp_path / "openapi.yaml"
    call_command("spectacular", validate=True, fail_on_warn=True, file=str(made))
    assert made.read_text(encoding="utf-8") == read("docs/openapi.yaml"), (
        "run: .venv/bin/python manage.py spectacular --file docs/openapi.yaml"
    )


def test_every_code_of_a_refused_answer_is_documented() -> None:
    code = read("elicit/labels/elicited.py")
    codes = set(re.findall(r'"([a-z]+(?:_[a-z]+)+)"', code)) - {"most_named", "sum_limit", "ask_impossible"}
    assert "named_and_impossible" in codes
    documented = read("docs/api.md")
    assert [each for each in sorted(codes) if f"`{each}`" not in documented] == []


@pytest.mark.parametrize(
    "code", ["trial_already_answered", "response_id_taken", "session_not_at_trials", "place_given_away"]
)
def test_every_conflict_of_the_api_is_documented(code: str) -> None:
    assert code in REFUSALS
    assert f"`{code}`" in read("docs/api.md")


def test_every_setting_is_described_in_the_example_environment() -> None:
    read_by_code = set(re.findall(r'"(ELICIT_[A-Z_]+)"', read("elicit/settings.py") + read("elicit/env.py")))
    assert "ELICIT_SECRET_KEY" in read_by_code
    described = read(".env.example")
    assert [name for name in sorted(read_by_code) if name not in described] == []


def test_every_file_of_a_release_is_described(tmp_path: Path) -> None:
    manifest: dict[str, Any] = write_release(
        tmp_path / "release",
        categories=releases.CATEGORIES,
        responses=releases.study(),
        recipe=Recipe(),
        facts={},
        version=1,
    )
    described = read("docs/release-format.md")
    assert [name for name in manifest["files"] if f"`{name}`" not in described] == []


def test_links_between_documents_lead_somewhere() -> None:
    dead = []
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                dead.append(f"{page.relative_to(ROOT)}: {target}")
    assert dead == []

"""The front end's modules have tests of their own, run by Node; Playwright's package carries one."""

from __future__ import annotations

import subprocess

import pytest
from playwright._impl._driver import compute_driver_executable

from tests import services


def test_the_modules_pass_their_own_tests() -> None:
    node = compute_driver_executable()[0]
    done = subprocess.run(
        [node, "--test", *sorted(map(str, (services.ROOT / "frontend" / "tests").glob("*.test.js")))],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " pass " in done.stdout


@pytest.mark.parametrize("folder", ["annotate", "console"])
def test_no_page_needs_inline_code_or_another_host(folder: str) -> None:
    found = []
    for path in (services.ROOT / "frontend").rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        if " style=" in text or " onclick=" in text or "<style" in text or 'src="http' in text:
            found.append(path.name)
    for path in (services.ROOT / "frontend" / "static" / folder).rglob("*.*"):
        if path.suffix in {".js", ".css"} and (
            "http://" in (text := path.read_text(encoding="utf-8")) or "eval(" in text
        ):
            found.append(path.name)
    assert found == []

"""What collectstatic makes of the front end."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

import pytest
from playwright._impl._driver import compute_driver_executable

from elicit.static_files import ENTRIES, join
from tests import services

NODE = compute_driver_executable()[0]


def run(script: str) -> str:
    done = subprocess.run(
        [NODE, "--input-type=module", "-"], input=script, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_page_loads_one_compressed_module_that_imports_nothing(collected: Path, entry: str) -> None:
    text = (collected / entry).read_text(encoding="utf-8")
    source = (services.ROOT / "frontend" / "static" / entry).read_text(encoding="utf-8")
    assert 'from "./' in source
    assert 'from "./' not in text
    assert gzip.decompress((collected / f"{entry}.gz").read_bytes()) == text.encode()
    checked = subprocess.run(
        [NODE, "--input-type=module", "--check", "-"], input=text, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_joined_modules_do_what_they_do_apart_and_their_names_do_not_collide() -> None:
    modules = {
        "entry": 'import { double, Counter as Tally } from "./left.js";\nimport { LIMIT } from "./right.js";\n'
        'import "./said.js";\nconst own = 1;\nconsole.log(double(LIMIT), new Tally().next(), own);\n',
        "left": '/** Says {@link LIMIT}. */\nimport {\n  LIMIT,\n} from "./right.js";\nconst own = 2;\n'
        "export async function later() {}\nexport function double(n) {\n  return own * n + LIMIT;\n}\n"
        "export class Counter {\n  next() {\n    return own;\n  }\n}\n",
        "right": "const own = 3;\nexport const LIMIT = own;\n",
        "said": 'console.log("said once");\n',
    }
    text = join("entry", modules.__getitem__)
    assert run(text) == "said once\n9 2 1\n"
    assert "/**" not in text


@pytest.mark.parametrize(
    "text",
    [
        "export default 1;\n",
        "const a = 1;\nexport { a };\n",
        'import all from "./other.js";\n',
        'import { a } from "elsewhere";\n',
        'export * from "./other.js";\n',
    ],
)
def test_a_module_of_another_form_is_refused_and_not_broken(text: str) -> None:
    with pytest.raises(ValueError, match="can't be joined"):
        join("entry", {"entry": text, "other": "export const a = 1;\n"}.__getitem__)


def test_modules_in_a_circle_are_refused() -> None:
    circle = {"a": 'import { b } from "./b.js";\n', "b": 'import { a } from "./a.js";\n'}
    with pytest.raises(ValueError, match="imports itself"):
        join("a", circle.__getitem__)

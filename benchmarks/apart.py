"""Parts of a benchmark that run in processes of their own, with settings of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from tests import services


def forget_settings() -> None:
    """Leave the settings of an installation of the reader's own aside."""
    for name in [name for name in os.environ if name.startswith("ELICIT_") and not name.startswith("ELICIT_TEST_")]:
        del os.environ[name]


def run(script: str, environment: Mapping[str, str], *command: object) -> Any:
    """What `python -m benchmarks.SCRIPT COMMAND ...` prints, as JSON in its last line, in just this environment.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    ran = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{script}", *map(str, command)],
        env=environment,
        cwd=services.ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(ran.stdout.splitlines()[-1])

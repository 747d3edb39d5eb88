"""How gunicorn starts and logs, wherever it is started from this folder.

Of an address only the path is logged: its query may hold the id that a recruiting platform gave, and so may the page
that a request came from. The token of a personal link is left out, and people's network addresses are not kept either.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger

sys.path.insert(0, str(Path(__file__).parent))
from elicit.logs import redacted

access_log_format = '%(t)s "%(m)s %(U)s %(H)s" %(s)s %(b)s %(M)sms'


class RedactingLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's own, without the tokens of links."""

    def atoms(self, *told: Any) -> dict[str, Any]:
        atoms: dict[str, Any] = super().atoms(*told)
        return {**atoms, "U": redacted(str(atoms["U"]))}


logger_class = RedactingLogger


def on_starting(server: object) -> None:
    """Serve no site with a public address that Django's deployment checks find unsafe; they say what is wrong."""
    if not os.environ.get("ELICIT_PUBLIC_URL"):
        return
    check = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    if subprocess.run(check, check=False, cwd=Path(__file__).parent).returncode:
        raise SystemExit("The site does not start: the checks above found it unsafe. docs/security.md says more.")

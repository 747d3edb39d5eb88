"""How gunicorn starts and logs, wherever it is started from this folder.

Of an address only the path is logged: its query may hold the id that a recruiting platform gave, and so may the page
that a request came from. The token of a personal link is left out, and people's network addresses are not kept either.
"""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger

sys.path.insert(0, str(Path(__file__).parent))
from elicit import logs

access_log_format = '%(t)s "%(m)s %(U)s %(H)s" %(s)s %(b)s %(M)sms %(i)s'


class RedactingLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's own, without the tokens of links, and in the format that ELICIT_LOG_FORMAT names."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in [*self.error_log.handlers, *self.access_log.handlers]:
            handler.addFilter(logs.Redact())
            if logs.as_json():
                handler.setFormatter(logs.Json())

    def atoms(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> dict[str, Any]:
        """Of gunicorn's own, which holds every header, what `access_log_format` names."""
        about = logs.present()
        return {
            "t": self.now(),
            "m": about.method,
            "U": about.path,
            "H": environ.get("SERVER_PROTOCOL"),
            "s": resp.status_code,
            "b": str(resp.sent) if resp.sent is not None else "-",
            "M": round(request_time.total_seconds() * 1000),
            "i": about.request_id or "-",
        }

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> None:
        about = environ.get(logs.IN_ENVIRON) or logs.About()
        about.method, about.path = environ.get("REQUEST_METHOD", ""), logs.redacted(environ.get("PATH_INFO", ""))
        about.status, about.duration_ms = resp.status_code, round(request_time.total_seconds() * 1000, 1)
        with logs.concerning(about):
            super().access(resp, req, environ, request_time)


logger_class = RedactingLogger

# Where this site's processes keep what they count, see elicit/counters.py. In memory where there is such a place: a
# full disk would end whoever writes there.
if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    _shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 (mkdtemp's own, readable by us alone)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = _counts = tempfile.mkdtemp(prefix="elicit-counts-", dir=_shared)
    _master = os.getpid()
    # The workers, which are forks, end the same way.
    atexit.register(lambda: os.getpid() == _master and shutil.rmtree(_counts, ignore_errors=True))


# The site is loaded once, and its workers, which are forks, share the memory that it takes.
preload_app = True


def pre_fork(server: object, worker: object) -> None:
    """The collector marks what it looks at, and so would give each worker a copy of its own."""
    gc.collect()
    gc.freeze()


def on_starting(server: object) -> None:
    """Serve no site with a public address that Django's deployment checks find unsafe; they say what is wrong."""
    if not os.environ.get("ELICIT_PUBLIC_URL"):
        return
    check = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    if subprocess.run(check, check=False, cwd=Path(__file__).parent).returncode:
        raise SystemExit("The site does not start: the checks above found it unsafe. docs/security.md says more.")

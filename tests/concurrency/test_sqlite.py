"""The default database under several processes: SQLite in a file, whose IMMEDIATE transactions queue up."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from tests.concurrency.site import Site

PROCESSES = 8
SESSIONS_EACH = 3
PLACES = 10


def test_processes_that_begin_sessions_at_the_same_moment_share_the_places_of_a_file_database(tmp_path: Path) -> None:
    site = Site(tmp_path)
    sessions = site("prepare", PROCESSES * SESSIONS_EACH, PLACES)["sessions"]
    with ExitStack() as stack:
        rivals = [stack.enter_context(site.start("begin", *sessions[number::PROCESSES])) for number in range(PROCESSES)]
        try:
            for rival in rivals:
                assert rival.stdout is not None
                assert rival.stdout.readline() == "ready\n"
            outputs = _go(rivals)
        finally:
            for rival in rivals:
                rival.kill()
    said = Counter(word for output in outputs for word in json.loads(output)["said"])
    assert said == {"trials": PLACES, "study_full": PROCESSES * SESSIONS_EACH - PLACES}
    found = site("look")
    assert found["journal"] == "wal"
    assert found["places_taken"] == found["main_trials"] == found["sessions_with_trials"] == PLACES


def _go(rivals: list[subprocess.Popen[str]]) -> list[str]:
    """Give the sign to all, then read what each says."""
    for rival in rivals:
        assert rival.stdin is not None
        rival.stdin.write("go\n")
        rival.stdin.flush()
    outputs = [rival.communicate(timeout=60)[0] for rival in rivals]
    assert [rival.returncode for rival in rivals] == [0] * len(rivals)
    return outputs

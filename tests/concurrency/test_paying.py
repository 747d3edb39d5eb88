"""Whole processes that pay the same bonus on a database in a file: at the same moment, and killed in between."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.concurrency.site import Site
from tests.prolific_server import STUDY, TOKEN, FakeProlific, Row, fake_prolific

PROCESSES = 4
PATIENCE = 30.0


def a_site(folder: Path, prolific: FakeProlific) -> tuple[Site, Row, int]:
    """A site that owes one bonus, its submission on Prolific, and the payment's number."""
    site, row = Site(folder), prolific.add(1, status="APPROVED")
    owed = site("owe", STUDY, row.id, row.person)
    site.environment |= {"ELICIT_PROLIFIC_URL": prolific.url, "ELICIT_PROLIFIC_TOKEN": TOKEN}
    return site, row, owed["payment"]


def test_processes_that_send_one_bonus_at_the_same_moment_pay_it_once(tmp_path: Path) -> None:
    with fake_prolific() as prolific, ExitStack() as stack:
        site, row, payment = a_site(tmp_path, prolific)
        rivals = [stack.enter_context(site.start("pay", payment)) for _ in range(PROCESSES)]
        try:
            for rival in rivals:
                assert rival.stdout is not None
                assert rival.stdout.readline() == "ready\n"
            for rival in rivals:
                assert rival.stdin is not None
                rival.stdin.write("go\n")
                rival.stdin.flush()
            said = [json.loads(rival.communicate(timeout=60)[0])["paid"] for rival in rivals]
        finally:
            for rival in rivals:
                rival.kill()
        assert sorted(said) == [False] * (PROCESSES - 1) + [True]
        assert row.bonuses == [40]


@pytest.mark.parametrize("request_path", ["/submissions/bonus-payments/", "/pay/"], ids=["setting up", "paying"])
def test_a_process_killed_between_request_and_answer_leaves_a_bonus_that_is_paid_once(
    tmp_path: Path, request_path: str
) -> None:
    with fake_prolific() as prolific:
        site, row, payment = a_site(tmp_path, prolific)
        prolific.fail(f"POST .*{request_path}", acts=True, hangs=5.0)
        with site.start("pay", payment) as doomed:
            assert doomed.stdin is not None
            doomed.stdin.write("go\n")
            doomed.stdin.flush()
            deadline = time.monotonic() + PATIENCE
            while not any(request_path in each for each in prolific.requests):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            time.sleep(0.2)  # the server has acted, and is about to answer
            doomed.kill()

        assert site("settle", payment) == {"state": "paid"}
        assert row.bonuses == [40]

"""The site is told to stop, as at every update."""

from __future__ import annotations

import signal
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction

from annotations import selectors
from annotations.models import Response, Session
from tests import factories as make
from tests import services
from tests.faults.conftest import Until
from tests.faults.test_web import put

pytestmark = pytest.mark.worker


def waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(cursor.fetchone()[0])


def test_a_site_that_is_told_to_stop_finishes_the_answer_at_hand(
    server_environment: dict[str, str], until: Until
) -> None:
    study = make.make_study(dataset=make.make_dataset(4), images_per_session=4)
    session = make.begin(make.make_session(study))
    trial = selectors.open_trials(session)[0]
    with services.web(server_environment) as site, ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            # Whoever answers waits for this row.
            Session.objects.select_for_update().get(pk=session.pk)
            sent = pool.submit(put, site, session, trial, uuid.uuid4())
            until(waits_for_a_lock)
            site.process.send_signal(signal.SIGTERM)
            # The process that had nothing to do.
            until(lambda: "Worker exiting" in site.output())
            assert not sent.done()
        assert sent.result(30) == 201
        assert site.process.wait(30) == 0
    assert Response.objects.filter(trial=trial, current=True).count() == 1

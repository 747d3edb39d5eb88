from __future__ import annotations

import os

import pytest
import time_machine
from celery import current_app
from django.conf import settings
from redis import Redis

from annotations.kinds import CHECK_SESSION, IMPORT_IMAGES
from exports.kinds import BUILD_RELEASE
from jobs import services
from jobs.models import Job, Status
from jobs.tasks import TRANSIENT, durable, sweep
from tests import factories as make
from tests import services as started
from tests.jobs.conftest import KIND, Broker, ringing

pytestmark = pytest.mark.django_db


def test_a_kind_of_work_becomes_a_task_of_its_name() -> None:
    done: list[str] = []
    task = durable("tests.good")(lambda job: done.append(job.subject))
    job = services.enqueue("tests.good", 7)

    task(job.pk)

    assert task.name == "tests.good"
    assert done == ["7"]
    assert Job.objects.get().status == Status.DONE


@pytest.mark.parametrize("error", TRANSIENT)
def test_work_is_tried_again_when_the_database_or_the_disk_was_away(error: type[Exception]) -> None:
    def work(job: Job) -> None:
        raise error("away")

    # Tasks stay registered: each needs a name of its own.
    kind = f"tests.{error.__name__}"
    durable(kind)(work)(services.enqueue(kind, 7).pk)

    assert Job.objects.get().status == Status.QUEUED


def test_every_kind_of_work_and_every_beat_has_a_task() -> None:
    current_app.loader.import_default_modules()
    scheduled = {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}

    assert {CHECK_SESSION, IMPORT_IMAGES, BUILD_RELEASE, *scheduled} <= set(current_app.tasks)


def test_the_sweep_is_a_task(broker: Broker) -> None:
    job = services.enqueue(KIND, 7)

    assert sweep() == 1
    assert broker.messages() == [(KIND, [job.pk])]


def test_places_are_given_back_by_a_task() -> None:
    make.begin(make.make_session(make.make_study()))
    current_app.loader.import_default_modules()

    with time_machine.travel(make.NOON.replace(year=2027)):
        assert current_app.tasks["annotations.give_back_places"]() == 1


def test_a_broker_that_dies_between_two_messages_troubles_nobody() -> None:
    if os.environ.get("ELICIT_TEST_REDIS_URL"):
        pytest.skip("needs a Redis of its own to stop: unset ELICIT_TEST_REDIS_URL")
    url = started.redis()
    with ringing(url):
        assert services.ring(services.enqueue(KIND, 1)) is True
        with Redis.from_url(url) as redis:
            redis.shutdown(nosave=True)
        assert services.ring(services.enqueue(KIND, 2)) is False
    assert Job.objects.filter(status=Status.QUEUED).count() == 2

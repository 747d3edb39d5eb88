from __future__ import annotations

import pytest
from django.test import Client

from jobs import services
from jobs.models import Job, Status
from tests import factories as make
from tests.jobs.conftest import KIND

pytestmark = pytest.mark.django_db

LIST = "/admin/jobs/job/"


@pytest.fixture
def failed() -> Job:
    job = services.claim(services.enqueue(KIND, 7).pk)
    assert job is not None
    services.report(job, "packing", 1, 4)
    services.fail(job, "OSError: no disk")
    return job


def try_again(client: Client, job: Job) -> int:
    return client.post(LIST, {"action": "try_again", "_selected_action": job.pk}).status_code


def test_the_list_shows_how_far_each_job_is_and_what_went_wrong(admin_client: Client, failed: Job) -> None:
    text = admin_client.get(LIST).content.decode()

    assert "packing 25 %" in text
    assert "OSError: no disk" in text


def test_a_failed_job_can_be_tried_again_once(admin_client: Client, failed: Job) -> None:
    for _ in range(2):
        assert try_again(admin_client, failed) == 302

    assert Job.objects.filter(status=Status.QUEUED, subject="7").count() == 1


def test_work_that_did_not_fail_is_not_tried_again(admin_client: Client) -> None:
    job = services.enqueue(KIND, 7)

    try_again(admin_client, job)

    assert Job.objects.count() == 1


def test_who_may_only_look_tries_nothing_again(failed: Job) -> None:
    client = Client()
    client.force_login(make.make_staff("looker", "jobs.view_job"))

    assert client.get(LIST).status_code == 200
    try_again(client, failed)

    assert Job.objects.count() == 1


def test_jobs_can_not_be_made_up_or_edited(admin_client: Client, failed: Job) -> None:
    assert admin_client.get(f"{LIST}add/").status_code == 403
    assert admin_client.get(f"{LIST}{failed.pk}/change/").status_code == 200
    admin_client.post(f"{LIST}{failed.pk}/change/", {"status": "done", "error": ""})
    failed.refresh_from_db()
    assert (failed.status, failed.error) == (Status.FAILED, "OSError: no disk")

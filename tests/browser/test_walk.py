"""A curator who has never seen the console: from a folder of images to a link to share, in few actions."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from pytest_django.live_server_helper import LiveServer

from annotations.models import Dataset, Study, StudyStatus
from docs.walk import walk
from tests import factories as make
from tests import services
from tests.pictures import png, unpacked

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.xdist_group("browser"),
    pytest.mark.worker,
]

MOST_ACTIONS = 12
PETS = {f"{category}/{n}.png": png(n + 100 * (category == "dog")) for n in range(6) for category in ("cat", "dog")}


def test_a_folder_becomes_a_live_study_in_at_most_twelve_actions(
    browser: Browser,
    no_console_errors: Page,
    live_server: LiveServer,
    server_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    page = no_console_errors
    page.set_default_timeout(20_000)
    make.make_curator()
    seen: list[str] = []
    with services.worker(server_environment):
        actions, link = walk(
            page, live_server.url, "curator", "correct horse battery", unpacked(tmp_path / "pets", PETS), seen.append
        )

    assert len(actions) <= MOST_ACTIONS, actions
    assert seen == ["start", "import", "dataset", "study", "checks", "live"]
    study = Study.objects.get()
    assert study.status == StudyStatus.LIVE
    assert [category.name for category in Dataset.objects.get().categories.all()] == ["cat", "dog"]
    assert study.study_images.count() == len(PETS)
    # The link is good for somebody who knows nothing of the console.
    stranger = browser.new_context().new_page()
    stranger.goto(link)
    stranger.get_by_label("I agree to take part").check()
    stranger.get_by_role("button", name="Continue").click()
    expect(stranger.get_by_role("button", name="Start")).to_be_visible()
    stranger.context.close()

"""The whole chain on ten thousand real images, by the script that measures it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import services

pytestmark = [pytest.mark.worker, pytest.mark.timeout(400)]

SESSIONS = 24
IMAGES_EACH, REPEATS_EACH = 25, 2
MOST_MB = 400


def test_ten_thousand_images_become_a_release_of_what_two_dozen_people_said(shared_data: Path) -> None:
    servers = {
        "ELICIT_TEST_DATABASE_URL": os.environ["ELICIT_DATABASE_URL"],
        "ELICIT_TEST_REDIS_URL": os.environ["ELICIT_BROKER_URL"],
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.real_input", "--json", "--data", shared_data, "--sessions", str(SESSIONS)],
        cwd=services.ROOT,
        env={**os.environ, **servers},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert (found["images"], found["study_images"]) == (10_000, 1_000)
    assert found["import_peak_mb"] < MOST_MB
    assert found["answers"] == SESSIONS * (IMAGES_EACH + REPEATS_EACH)
    assert found["refused"] > 0
    assert found["checks"] == SESSIONS
    # 24 sessions on 40 batches: no image is shown to a second person while another has been shown to nobody.
    assert found["most_labels_of_an_image"] == 1 <= found["labels_per_image_wanted"] == 6
    assert found["release_images"] == SESSIONS * IMAGES_EACH
    assert found["release_responses"] == found["answers"]
    assert found["release_annotators"] == SESSIONS
    assert found["images_that_differ"] == 0

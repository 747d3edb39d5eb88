from __future__ import annotations

from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from annotations.models import Study
from tests import factories as make


@pytest.fixture(autouse=True)
def releases(settings: Settings, tmp_path: Path) -> Path:
    """The folder of releases, this test's own."""
    settings.RELEASES_ROOT = tmp_path / "releases"
    return tmp_path / "releases"


@pytest.fixture
def study() -> Study:
    """Four images, a repeat, and two completed sessions: one consistent, one not."""
    study = make.make_study(
        dataset=make.make_dataset(4), images_per_session=4, repeats_per_session=1, labels_per_image=4
    )
    make.complete_session(study, ((3, 80.0), (5, 10.0)), platform_id="PLATFORM-ID-1", seed=1)
    make.complete_session(study, ((3, 100.0),), ((4, 100.0),), platform_id="PLATFORM-ID-2", seed=2)
    make.run_jobs()
    return study

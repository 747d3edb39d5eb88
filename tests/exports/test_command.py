from __future__ import annotations

import time
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from annotations.models import Study
from elicit.labels import read_release
from exports.models import Release
from jobs import services as jobs
from jobs.models import Job
from tests import factories as make

pytestmark = pytest.mark.django_db


def request_release(*arguments: str) -> str:
    out = StringIO()
    call_command("request_release", *arguments, stdout=out)
    return out.getvalue().strip()


def test_a_release_is_asked_for_and_left_to_the_worker(study: Study) -> None:
    assert request_release("--study", "birds") == "Asked for birds-v1."

    assert not Release.objects.get().is_ready


def test_the_options_are_the_recipe(study: Study) -> None:
    request_release(
        "--study", "birds", "--recipe", "tall-none", "--gamma", "0.2", "--include-repeats", "--leave-out-inconsistent"
    )

    assert Release.objects.get().recipe == {
        "variety": {"slug": "tall-none", "gamma": 0.2},
        "pool": "mean",
        "include_repeats": True,
        "leave_out_inconsistent": True,
    }


@pytest.mark.parametrize(
    ("arguments", "variety", "pool"),
    [
        ((), {"slug": "t2-clamp-s0.75", "gamma": 0.05}, "confusion"),
        (("--recipe", "published"), {"slug": "t2-clamp", "gamma": 0.1}, "mean"),
        (("--recipe", "published", "--pool", "reliability"), {"slug": "t2-clamp", "gamma": 0.1}, "reliability"),
        (("--recipe", "t1-uniform"), {"slug": "t1-uniform", "gamma": 0.1}, "mean"),
    ],
)
def test_recipes_are_known_by_name_and_the_recommended_one_is_taken_unless_another_is_asked_for(
    study: Study, arguments: tuple[str, ...], variety: dict[str, object], pool: str
) -> None:
    request_release("--study", "birds", *arguments)

    recipe = Release.objects.get().recipe
    assert (recipe["variety"], recipe["pool"]) == (variety, pool)


def test_the_command_waits_and_says_where_the_release_lies(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    # The wait is the worker's chance.
    monkeypatch.setattr(time, "sleep", lambda _: make.run_jobs())

    said = request_release("--study", "birds", "--wait")

    assert len(read_release(Path(said)).images) == 4


def test_a_build_that_fails_ends_the_wait(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: float) -> None:
        job = jobs.claim(Job.objects.latest("pk").pk)
        assert job is not None
        jobs.fail(job, "OSError: no disk")

    monkeypatch.setattr(time, "sleep", fail)

    with pytest.raises(CommandError, match="birds-v1 could not be built: OSError: no disk"):
        request_release("--study", "birds", "--wait")


def test_the_wait_has_an_end(study: Study) -> None:
    with pytest.raises(CommandError, match="still requested"):
        request_release("--study", "birds", "--wait", "0")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--study", "nothing"], "no launched study"),
        (["--study", "birds", "--recipe", "t9-clamp"], "t9-clamp"),
        (["--study", "birds", "--gamma", "1"], "gamma"),
        (["--study", "birds", "--gamma", "nan"], "gamma"),
        (["--study", "empty"], "No session is completed"),
    ],
)
def test_what_can_not_be_released_is_told(study: Study, arguments: list[str], words: str) -> None:
    make.make_study(dataset=study.dataset, name="Empty")

    with pytest.raises(CommandError, match=words):
        request_release(*arguments)

    assert not Release.objects.exists()

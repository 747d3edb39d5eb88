from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from annotations.models import ConsistencyCheck, Session, Study
from annotations.services.quality import check_session
from elicit.labels.consistency import RULE_VERSION
from jobs.models import Job, Status
from tests import factories as make

pytestmark = pytest.mark.django_db


def study(**settings: Any) -> Study:
    wanted: dict[str, Any] = {"images_per_session": 4, "repeats_per_session": 2, **settings}
    return make.make_study(dataset=make.make_dataset(4), **wanted)


def checked(session: Session) -> ConsistencyCheck:
    assert [job.status for job in make.run_jobs()] == [Status.DONE]
    return ConsistencyCheck.objects.get(session=session)


def test_who_says_the_same_again_is_consistent() -> None:
    check = checked(make.complete_session(study()))

    assert (check.verdict, check.repeats, check.same_top) == ("consistent", 2, 2)
    assert (check.mean_distance, check.mean_change) == (0.0, 0.0)
    assert check.rule_version == RULE_VERSION


def test_who_names_another_category_again_is_inconsistent() -> None:
    check = checked(make.complete_session(study(), ((3, 100.0),), ((4, 100.0),)))

    assert (check.verdict, check.repeats, check.same_top) == ("inconsistent", 2, 0)
    assert check.mean_distance == pytest.approx(1.0)
    assert check.mean_change is None


def test_the_change_of_the_percentage_is_told_in_points() -> None:
    check = checked(make.complete_session(study(), ((3, 80.0),), ((3, 65.0),)))

    assert (check.verdict, check.mean_change) == ("consistent", 15.0)
    # 20 points spread over nine others against 35 over nine: what moved is 15 points.
    assert check.mean_distance == pytest.approx(0.15)


@pytest.mark.parametrize(("most", "verdict"), [(0.15, "consistent"), (0.14, "inconsistent")])
def test_the_study_says_how_far_is_too_far(most: float, verdict: str) -> None:
    session = make.complete_session(study(repeat_distance=most), ((3, 80.0),), ((3, 65.0),))

    assert checked(session).verdict == verdict


def test_without_repeats_nothing_can_be_said() -> None:
    check = checked(make.complete_session(study(repeats_per_session=0)))

    assert (check.verdict, check.repeats, check.mean_distance) == ("undetermined", 0, None)


def test_checking_again_gives_the_same_row() -> None:
    session = make.complete_session(study())
    first = check_session(str(session.pk), make.NOON)

    again = check_session(str(session.pk), make.NOON + timedelta(days=1))

    assert again.pk == first.pk
    assert (again.verdict, again.mean_distance) == (first.verdict, first.mean_distance)
    assert ConsistencyCheck.objects.count() == 1


def test_the_check_runs_once_even_where_its_job_is_claimed_twice() -> None:
    make.complete_session(study())
    (job,) = make.run_jobs()

    assert make.run_jobs() == []
    assert Job.objects.get(pk=job.pk).attempts == 1

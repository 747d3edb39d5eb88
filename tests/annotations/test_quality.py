from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from annotations.kinds import MEASURE_STUDY
from annotations.models import (
    CheckOutcome,
    ConsistencyCheck,
    ExclusionReason,
    Session,
    SessionQuality,
    Study,
    TrialKind,
)
from annotations.selectors import quality as found_out
from annotations.services import leaving
from annotations.services.quality import check_session, measure_study, write_rules
from annotations.simulation.characters import CAREFUL, CARELESS
from elicit.labels.consistency import RULE_VERSION
from elicit.labels.quality import RECOMMENDED
from jobs.models import Job, Status
from tests import crowds
from tests import factories as make
from tests.shown import trial_data

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


# --- Known images


def with_checks(**settings: Any) -> Study:
    return crowds.checked_study(make.make_dataset(16), **settings)


def test_outcomes_of_check_items_are_stored_and_stay_the_same() -> None:
    study = with_checks()
    for seed, character in enumerate((CAREFUL, CARELESS)):
        session = crowds.take_part(study, character, seed)
        for _ in range(2):
            check_session(str(session.pk), make.NOON)
    outcomes = CheckOutcome.objects.filter(trial__kind=TrialKind.ATTENTION)
    careful, careless = study.sessions.order_by("participant__pk")
    assert CheckOutcome.objects.count() == 8
    assert outcomes.filter(trial__session=careful, passed=True).count() == 2
    assert outcomes.filter(trial__session=careless, passed=False).exists()
    golden = CheckOutcome.objects.filter(trial__kind=TrialKind.GOLD)
    assert all(0 <= (distance or 0) <= 1 for distance in golden.values_list("distance", flat=True))
    assert set(outcomes.values_list("distance", flat=True)) == {None}


def test_neither_kind_nor_target_of_a_gold_image_reaches_the_browser(client: Client) -> None:
    study = with_checks()
    session = make.begin(make.make_session(study))
    page = client.get(reverse("session", args=[session.token]))
    shown = trial_data(page)["trials"]
    kinds = dict(session.trials.values_list("pk", "kind"))
    gold = [trial for trial in shown if kinds[UUID(trial["id"])] == TrialKind.GOLD]
    main = [trial for trial in shown if kinds[UUID(trial["id"])] == TrialKind.MAIN]
    assert len(gold) == 2
    assert {frozenset(trial) for trial in gold} == {frozenset(trial) for trial in main}
    assert {trial["note"] for trial in [*gold, *main]} == {""}
    assert len([trial for trial in shown if trial["note"]]) == 2
    for word in ("gold", "tolerance", "check_item", "allowed"):
        assert word not in page.content.decode().lower()


def test_what_comes_next_tells_no_more_through_the_api(client: Client) -> None:
    session = make.begin(make.make_session(with_checks()))
    keys = set()
    for trial in session.trials.order_by("position"):
        body = {"named": [{"category": 3, "percentage": 80}], "duration_ms": 5000}
        answered = client.put(
            f"/api/trials/{trial.pk}/responses/{uuid4()}",
            body,
            "application/json",
            headers={"Authorization": f"Session {session.token}"},
        )
        following = answered.json()["next"]
        if following:
            keys.add(frozenset(following))
            kind = session.trials.get(pk=following["id"]).kind
            assert bool(following["note"]) == (kind == TrialKind.ATTENTION)
    assert keys == {frozenset({"id", "image_url", "position", "framing", "note"})}


# --- Measures


def test_sessions_that_complete_together_are_measured_once_and_not_before_the_half_minute_is_over() -> None:
    wide = study(labels_per_image=3)
    for seed in range(3):
        session = make.complete_session(wide, seed=seed)
        check_session(str(session.pk), make.NOON)
    jobs = Job.objects.filter(kind=MEASURE_STUDY)
    assert jobs.count() == 1
    assert jobs.get().due_at > timezone.now()

    jobs.update(due_at=timezone.now())
    current = {job.kind: job.status for job in make.run_jobs()}

    assert current[MEASURE_STUDY] == Status.DONE
    assert SessionQuality.objects.count() == 3


def test_a_completion_after_the_measuring_began_is_measured_by_another_job() -> None:
    wide = study(labels_per_image=2)
    first, second = (make.complete_session(wide, seed=seed) for seed in range(2))
    check_session(str(first.pk), make.NOON)
    Job.objects.filter(kind=MEASURE_STUDY).update(status=Status.RUNNING, lease_until=timezone.now())

    check_session(str(second.pk), make.NOON + timedelta(seconds=31))

    assert Job.objects.filter(kind=MEASURE_STUDY).count() == 2


def test_a_session_that_completes_while_answers_are_read_is_left_to_the_next_measuring() -> None:
    study = make.make_study(dataset=make.make_dataset(4), images_per_session=4, repeats_per_session=0)
    before = make.complete_session(study)
    late: list[str] = []

    def come_between(execute: Any, sql: str, *rest: Any) -> Any:
        if not late and "annotations_response" in sql:
            late.append(sql)
            make.complete_session(study, seed=1)
        return execute(sql, *rest)

    with connection.execute_wrapper(come_between):
        assert measure_study(study.pk, make.NOON) == 1
    assert late
    assert set(SessionQuality.objects.values_list("session", flat=True)) == {before.pk}
    assert measure_study(study.pk, make.NOON) == 2


def test_measuring_again_gives_the_same_and_leaves_out_who_withdrew() -> None:
    crowd = crowds.crowded_study(make.make_dataset(16))
    rows = dict(SessionQuality.objects.values_list("session_id", "measures"))
    assert measure_study(crowd.pk, make.NOON) == 8
    assert dict(SessionQuality.objects.values_list("session_id", "measures")) == rows

    gone = crowd.sessions.all()[0]
    leaving.withdraw(session_id=gone.pk, now=make.NOON)

    assert measure_study(crowd.pk, make.NOON) == 7
    assert not SessionQuality.objects.filter(session=gone).exists()


def test_rules_flag_who_breaks_them_and_exclude_nobody() -> None:
    crowd = crowds.crowded_study(make.make_dataset(16))
    write_rules(crowd.pk, RECOMMENDED)
    assert found_out.flagged(crowd).count() == 3
    measure_study(crowd.pk, make.NOON)
    assert found_out.flagged(crowd).count() == 3
    assert not crowd.sessions.filter(excluded_at__isnull=False).exists()
    out = found_out.flagged(crowd)[0]
    leaving.exclude(session_id=out.pk, reason=ExclusionReason.OTHER, note="", by=None, now=make.NOON)
    assert found_out.flagged(crowd).count() == 2

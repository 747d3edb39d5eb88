"""The dashboard: who sees it, what it counts now and what a worker counts, and when it raises an alarm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from xml.etree import ElementTree

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import Settings

from annotations import selectors, watching
from annotations.kinds import SUMMARISE_STUDY
from annotations.models import (
    InputDevice,
    Recruitment,
    Response,
    Session,
    SessionStatus,
    Study,
    StudyStatus,
    StudySummary,
    Trial,
    TrialKind,
)
from annotations.selectors import dashboard
from annotations.selectors.dashboard import Limits, Live, Machine, Step
from annotations.selectors.recruitment import Cost
from annotations.services import sessions, studies, summaries
from jobs.models import Job, Status
from tests import crowds
from tests import factories as make

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
HEALTHY = Machine({}, None, 900 << 30, 1000 << 30)


@pytest.fixture
def curator() -> Client:
    client = Client()
    client.force_login(make.make_curator())
    return client


def address(study: Study, name: str = "dashboard", *more: object) -> str:
    return reverse(f"admin:annotations_study_{name}", args=[study.pk, *more])


def page(client: Client, study: Study, **query: str) -> str:
    response = client.get(address(study), query)
    assert response.status_code == 200
    return response.content.decode()


def small_study(**settings: Any) -> Study:
    settings = {"images_per_session": 4, "repeats_per_session": 1, "labels_per_image": 3} | settings
    return make.make_study(dataset=make.make_dataset(8), **settings)


def summed_up(study: Study, now: datetime = make.NOON) -> dict[str, Any]:
    row = summaries.summarise(study.pk, lambda: now)
    assert row is not None
    return dict(row.data)


def steps(study: Study, now: datetime = make.NOON) -> dict[str, Step]:
    return {step.key: step for step in dashboard.people_by_step(study, now)}


# --- Who sees it


def test_only_who_may_see_studies_sees_it() -> None:
    study = small_study()
    client = Client()
    for user, status in ((make.make_staff("nobody"), 403), (make.make_staff("reader", "annotations.view_study"), 200)):
        client.force_login(user)
        assert client.get(address(study)).status_code == status
        assert client.get(address(study, "figure", "people")).status_code == status
        assert client.get(address(study, "image", 1)).status_code == status


def test_only_who_may_change_studies_asks_for_a_summary() -> None:
    study = small_study()
    client = Client()
    client.force_login(make.make_staff("reader", "annotations.view_study"))
    assert "Sum up now" not in page(client, study)
    assert client.post(address(study)).status_code == 403


def test_no_platform_id_is_on_it(curator: Client) -> None:
    study = small_study()
    make.complete_session(study, platform_id="prolific-4711")
    make.run_jobs()
    image = Trial.objects.first()
    assert image is not None
    assert "4711" not in page(curator, study)
    assert "4711" not in curator.get(address(study, "image", image.image.index)).content.decode()


# --- Its states


@pytest.mark.parametrize(
    ("launch", "words"), [(False, "Launch the study under Settings"), (True, "Nobody has come yet")]
)
def test_an_empty_study_says_what_to_do(curator: Client, launch: bool, words: str) -> None:
    study = small_study(launch=launch)
    assert words in page(curator, study)
    make.run_jobs()
    assert words in page(curator, study)


def test_a_study_of_one_answer_is_shown(curator: Client) -> None:
    study = small_study()
    session = make.begin(make.make_session(study))
    make.respond(session.trials.get(position=1), ((3, 80.0), (5, 10.0)))
    page(curator, study)
    make.run_jobs()
    shown = page(curator, study)
    assert "1 of 24 labels" in shown
    assert StudySummary.objects.get().data["answers"] == 1
    assert "1 label, " in shown
    for name in ("people", "pace", "coverage", "times", "entropy", "accuracy"):
        assert curator.get(address(study, "figure", name)).status_code == 200, name


@pytest.mark.parametrize("status", [StudyStatus.PAUSED, StudyStatus.CLOSED])
def test_a_study_at_rest_is_shown_without_alarms_about_silence(curator: Client, status: StudyStatus) -> None:
    study = small_study()
    make.complete_session(study)
    Study.objects.update(status=status)
    shown = page(curator, study)
    assert f'badge {status}"' in shown
    assert "Nobody has come for" not in shown


def test_it_fetches_its_own_middle_alone(curator: Client) -> None:
    study = small_study()
    whole, part = page(curator, study), page(curator, study, part="1")
    assert 'data-part="tile-labels"' in whole
    assert part.lstrip().startswith('<div data-part="head"')
    assert "<html" not in part


@pytest.mark.parametrize("window", ["hour", "day", "whole", "for ever"])
def test_answers_as_they_came_over_a_span_that_is_chosen(curator: Client, window: str) -> None:
    study = small_study()
    make.complete_session(study)
    page(curator, study)
    make.run_jobs()
    shown = page(curator, study, pace=window)
    assert shown.count('aria-current="true"') == 1
    assert "answers in " in shown


def test_its_drawings_are_svg_and_change_their_address_with_their_content(curator: Client) -> None:
    study = small_study()
    live = dashboard.live(study, make.NOON)
    before = watching.digest(watching.covered(live.coverage))
    make.complete_session(study)
    after = watching.digest(watching.covered(dashboard.coverage(study)))
    assert before != after
    for _ in range(2):
        drawing = curator.get(address(study, "figure", "coverage"), {"of": after})
        assert drawing["Content-Type"] == "image/svg+xml"
        assert ElementTree.fromstring(drawing.content).tag.endswith("svg")  # noqa: S314 - drawn by ourselves
        assert "private" in drawing["Cache-Control"]
    assert curator.get(address(study, "figure", "agreement")).status_code == 404


def test_a_drawing_that_has_changed_meanwhile_is_not_kept_under_the_old_address(curator: Client) -> None:
    study = small_study()
    stale = watching.digest(watching.covered(dashboard.coverage(study)))
    make.complete_session(study)
    first = curator.get(address(study, "figure", "coverage"), {"of": stale}).content
    make.complete_session(study, seed=1)
    assert curator.get(address(study, "figure", "coverage"), {"of": stale}).content != first


def test_all_answers_on_an_image_are_shown_with_what_became_of_them(curator: Client) -> None:
    study = small_study(repeats_per_session=0)
    session = make.complete_session(study, ((3, 80.0), (5, 12.5)))
    trial = session.trials.filter(kind=TrialKind.MAIN).first()
    assert trial is not None
    here = address(study, "image", trial.image.index)
    shown = curator.get(here).content.decode()
    assert "Cat 80 %, Dog 12.50 %" in shown
    assert session.participant.annotator in shown
    Session.objects.update(excluded_at=make.NOON, exclusion_reason="inattentive")
    assert "main, excluded" in " ".join(curator.get(here).content.decode().split())
    assert curator.get(address(study, "image", 4711)).status_code == 404


# --- What is counted now


def test_people_by_step_are_a_funnel() -> None:
    study = small_study(
        comprehension=[{"name": "q", "question": "?", "kind": "choice", "choices": ["a", "b"], "answer": "a"}]
    )
    for seed in range(3):
        make.make_session(study, seed=seed)
    make.complete_session(study, seed=3)
    failed = make.make_session(study, seed=4)
    Session.objects.filter(pk=failed.pk).update(status=SessionStatus.SCREENED_OUT, comprehension_attempts=2)
    gone = make.begin(make.make_session(study, seed=5), seed=5)
    Session.objects.filter(pk=gone.pk).update(status=SessionStatus.ABANDONED)
    make.begin(make.make_session(study, seed=6), seed=6)

    found = steps(study)
    assert [step.reached for step in found.values()] == [7, 4, 3, 1, 1]
    assert [step.lost for step in found.values()] == [0, 1, 1, 0, 0]
    assert found["instructions"].at_work == 3
    assert steps(study, make.NOON + HOUR)["instructions"].at_work == 0


def test_steps_that_a_study_lacks_are_passed_over() -> None:
    assert list(steps(small_study(questionnaire=[]))) == ["instructions", "trials", "completed"]


def test_coverage_counts_the_labels_that_count() -> None:
    study = small_study()
    make.complete_session(study)
    abandoned = make.begin(make.make_session(study, seed=1), seed=1)
    make.respond(abandoned.trials.get(position=1))
    assert dashboard.coverage(study).images[:3] in ([3, 5, 0], [4, 3, 1])
    assert dashboard.coverage(study).labels == 5
    sessions.give_back_places(make.NOON + 2 * HOUR)
    found = dashboard.coverage(study)
    assert (found.images, found.labels, found.wanted, found.median) == ([4, 4, 0, 0], 4, 3, 0)
    assert (found.full, found.below(1)) == (0, 4)


def test_a_study_that_asks_twice_counts_an_image_once() -> None:
    study = small_study(framing="both", repeats_per_session=0)
    make.complete_session(study)
    assert dashboard.coverage(study).images == [4, 4, 0, 0]


def test_the_last_hour_is_counted_minute_by_minute() -> None:
    study = small_study()
    session = make.begin(make.make_session(study))
    now = make.NOON + timedelta(seconds=90)
    for trial, minute in zip(selectors.open_trials(session), (-70, 0, 0, 1), strict=False):
        make.respond(trial, now=make.NOON + minute * make.MINUTE)
    found = dashboard.rate(study, "hour", now, None)
    assert (len(found.answers), found.answers[-2:], sum(found.answers)) == (60, [2, 1], 3)
    assert found.names[-1] == "12:01"


def test_longer_spans_are_read_from_the_summary() -> None:
    study = small_study()
    make.complete_session(study)
    summed_up(study)
    summary = StudySummary.objects.get()
    day = dashboard.rate(study, "day", make.NOON + HOUR, summary)
    assert (len(day.answers), sum(day.answers), day.answers[-7]) == (144, 5, 5)
    assert dashboard.rate(study, "whole", make.NOON, summary).answers == [5]
    assert dashboard.rate(study, "whole", make.NOON, None).answers == []


def test_a_long_study_is_shown_in_spans_that_can_be_drawn() -> None:
    start = int(make.NOON.timestamp())
    hours = [(start + 3600 * number, 1) for number in range(0, 24 * 400, 7)]
    summary = StudySummary(data={"by_hour": hours, "by_ten_minutes": []})
    found = dashboard.rate(Study(), "whole", make.NOON, summary)
    assert len(found.answers) <= dashboard.MOST_SPANS
    assert sum(found.answers) == len(hours)
    assert found.minutes == 7 * 24 * 60


def test_the_number_of_queries_does_not_grow_with_the_answers(curator: Client) -> None:
    def queries(study: Study) -> int:
        page(curator, study)
        make.run_jobs()
        with CaptureQueriesContext(
            connection,
        ) as seen:
            page(curator, study)
        return len(seen)

    few = queries(crowds.answered_study(4, 2))
    Study.objects.update(slug="few", name="few")
    type(Study.objects.get().dataset).objects.update(slug="few")
    many = crowds.answered_study(40, 10)
    assert queries(many) <= few <= 45


# --- What a worker counts


def test_a_summary_is_asked_for_when_something_came_and_it_is_not_too_fresh(settings: Settings) -> None:
    settings.SUMMARY_SECONDS = 30
    study = small_study()
    now = make.NOON
    assert summaries.ask(study, now) is not None
    assert summaries.ask(study, now) is not None
    assert Job.objects.filter(kind=SUMMARISE_STUDY).count() == 1
    Job.objects.all().delete()
    summed_up(study, now)

    make.make_session(study, now=now + timedelta(seconds=5))
    assert summaries.ask(study, now + timedelta(seconds=29)) is None
    assert summaries.ask(study, now + timedelta(seconds=31)) is not None
    Job.objects.all().delete()
    summed_up(study, now + timedelta(seconds=31))
    assert summaries.ask(study, now + HOUR) is None
    assert summaries.ask(study, now + HOUR, at_once=True) is not None


def test_a_summary_that_took_long_is_made_less_often() -> None:
    study = small_study()
    summed_up(study)
    StudySummary.objects.update(seconds=60)
    make.make_session(study, now=make.NOON + make.MINUTE)
    assert summaries.ask(study, make.NOON + 8 * make.MINUTE) is None
    assert summaries.ask(study, make.NOON + 10 * make.MINUTE) is not None


def test_a_summary_of_an_older_form_is_neither_shown_nor_left(curator: Client) -> None:
    study = small_study()
    make.complete_session(study)
    summed_up(study)
    StudySummary.objects.update(version=dashboard.SUMMARY_VERSION - 1, data={})
    assert "for the first time" in page(curator, study)
    make.run_jobs()
    assert StudySummary.objects.get().version == dashboard.SUMMARY_VERSION


def test_an_exclusion_is_reason_enough_for_a_new_summary() -> None:
    study = small_study()
    make.complete_session(study)
    summed_up(study)
    Session.objects.update(excluded_at=make.NOON + HOUR, exclusion_reason="inattentive")
    assert summaries.ask(study, make.NOON + HOUR) is not None
    assert summed_up(study, make.NOON + HOUR)["answers"] == 0


def test_live_and_paused_studies_are_summed_up_by_the_clock() -> None:
    for name in ("draft", "live", "paused", "closed"):
        study = make.make_study(dataset=make.make_dataset(4, slug=name), name=name, images_per_session=4)
        Study.objects.filter(pk=study.pk).update(status=name)
    assert summaries.ask_for_live(make.NOON) == 2
    make.run_jobs()
    assert set(StudySummary.objects.values_list("study__name", flat=True)) == {"live", "paused"}
    assert summaries.ask_for_live(timezone.now()) == 0


def test_a_study_that_is_gone_is_no_failure() -> None:
    assert summaries.summarise(4711, lambda: make.NOON) is None


def test_practice_and_excluded_sessions_are_not_in_it() -> None:
    study = small_study()
    make.complete_session(study, ((3, 80.0),))
    Session.objects.update(excluded_at=make.NOON, exclusion_reason="other")
    make.complete_session(study, ((4, 60.0),), ((5, 70.0),), seed=1)
    data = summed_up(study)
    assert (data["answers"], data["counting"]) == (5, 4)
    assert data["repeats"]["pairs"] == data["repeats"]["flips"] == 1
    assert data["repeats"]["mean_change"] is None


def test_a_wage_is_pay_over_active_and_over_wall_time() -> None:
    study = small_study(questionnaire=[])
    Recruitment.objects.create(study=study, base_minor=50, currency="GBP")
    session = make.begin(make.make_session(study))
    for trial in selectors.open_trials(session):
        make.respond(trial, duration_ms=30_000, now=make.NOON + 10 * make.MINUTE)
    work = summed_up(study)["work"]
    assert (work["paid"], work["currency"], work["completed"]) == (True, "GBP", 1)
    assert work["active"]["wages_minor"][1] == pytest.approx(50 * 3600 / 150)
    assert work["wall"]["wages_minor"][1] == pytest.approx(50 * 6)
    assert work["wall"]["minutes"][1] == pytest.approx(10)


def test_without_pay_the_wage_says_so(curator: Client) -> None:
    study = small_study()
    make.complete_session(study)
    summed_up(study)
    assert "no pay is set" in page(curator, study)


def test_questions_asked_back_are_counted_with_how_often_the_answer_was_kept() -> None:
    study = small_study()
    make.complete_session(study)
    rows = list(Response.objects.all())
    warned = [[("too_fast", True), ("scale_mix_up", False)], [("too_fast", False)]]
    for row, warnings in zip(rows, warned, strict=False):
        row.process = {"warnings": [{"code": code, "ms": 1, "kept": kept} for code, kept in warnings], "fields": []}
        row.input_device = InputDevice.MOUSE
        row.save()
    rows[2].process = {"mended": ["category_named_twice", "nothing_likely"]}
    rows[2].save()
    data = summed_up(study)
    assert {code: (shown, kept) for code, shown, kept in data["warnings"]} == {
        "too_fast": (2, 1),
        "scale_mix_up": (1, 0),
    }
    assert dict(data["mended"]) == {"category_named_twice": 1, "nothing_likely": 1}
    assert data["answers_mended"] == 1


# --- Alarms


def a_live(study: Study, **changes: Any) -> Live:
    return replace(dashboard.live(study, make.NOON), **changes)


def codes(study: Study, live: Live, machine: Machine = HEALTHY) -> list[str]:
    return [alarm.code for alarm in dashboard.alarms(study, live, machine, Limits())]


@pytest.fixture
def study() -> Study:
    """Live since noon, with room, and nobody there."""
    study = small_study()
    Study.objects.update(launched_at=make.NOON)
    study.refresh_from_db()
    return study


def summary(**data: Any) -> StudySummary:
    return StudySummary(data={"answers": 0, **data})


def work(currency: str = "GBP", minor: float = 599, sessions: int = 3) -> dict[str, Any]:
    return {"paid": True, "currency": currency, "wall": {"sessions": sessions, "wages_minor": [0, minor, 0]}}


def lost(reached: int, open_: int, gone: int) -> list[Step]:
    return [
        Step("instructions", "agreed to take part", reached, open_, 0, gone),
        Step("completed", "completed", reached - open_ - gone, 0, 0, 0),
    ]


Change = Callable[[Live], Live]


@pytest.mark.parametrize(
    ("code", "below", "above"),
    [
        (
            "nobody_arrives",
            lambda live: replace(live, now=make.NOON + timedelta(minutes=179)),
            lambda live: replace(live, now=make.NOON + timedelta(minutes=180)),
        ),
        (
            "drop_out_instructions",
            lambda live: replace(live, steps=lost(20, 10, 4)),
            lambda live: replace(live, steps=lost(20, 10, 5)),
        ),
        (
            "answers_too_fast",
            lambda live: replace(live, summary=summary(times={"count": 50, "median": 3.0})),
            lambda live: replace(live, summary=summary(times={"count": 50, "median": 2.9})),
        ),
        (
            "wage_too_low",
            lambda live: replace(live, summary=summary(work=work(minor=600))),
            lambda live: replace(live, summary=summary(work=work(minor=599))),
        ),
        (
            "wage_too_low",
            lambda live: replace(live, summary=summary(work=work("EUR", 1))),
            lambda live: replace(live, summary=summary(work=work("USD", 799))),
        ),
        (
            "many_flagged",
            lambda live: replace(live, steps=lost(20, 0, 0), flagged=3),
            lambda live: replace(live, steps=lost(20, 0, 0), flagged=4),
        ),
        (
            "images_behind",
            lambda live: replace(live, coverage=dashboard.Coverage([0, 1, 7, 0], 3)),
            lambda live: replace(live, coverage=dashboard.Coverage([1, 0, 7, 0], 3)),
        ),
        (
            "study_nearly_full",
            lambda live: replace(live, places=30, places_free=4),
            lambda live: replace(live, places=30, places_free=3),
        ),
        (
            "study_full",
            lambda live: replace(live, places=30, places_free=1),
            lambda live: replace(live, places=30, places_free=0),
        ),
    ],
)
def test_an_alarm_is_raised_at_its_threshold_and_not_before(
    study: Study, code: str, below: Change, above: Change
) -> None:
    live = a_live(study)
    assert code not in codes(study, live)
    assert code not in codes(study, below(live))
    assert code in codes(study, above(live))


@pytest.mark.parametrize(
    ("code", "below", "above"),
    [
        (
            "no_worker",
            replace(HEALTHY, waiting_since=make.NOON - 3 * make.MINUTE),
            replace(HEALTHY, waiting_since=make.NOON - 4 * make.MINUTE),
        ),
        ("disk_nearly_full", replace(HEALTHY, disk_free=50 << 30), replace(HEALTHY, disk_free=(50 << 30) - 1)),
        ("jobs_failing", HEALTHY, replace(HEALTHY, failed={"annotations.check_session": 1})),
    ],
)
def test_the_installations_own_alarms_are_raised_whatever_the_study(
    study: Study, code: str, below: Machine, above: Machine
) -> None:
    live = a_live(study)
    assert codes(study, live, below) == []
    assert codes(study, live, above) == [code]
    study.status = StudyStatus.CLOSED
    assert codes(study, live, above) == [code]


def test_a_paused_study_may_be_quiet_and_a_closed_one_has_no_alarms_of_its_own(study: Study) -> None:
    late = a_live(study, now=make.NOON + 9 * HOUR, summary=summary(work=work()))
    assert codes(study, late) == ["nobody_arrives", "wage_too_low"]
    study.status = StudyStatus.PAUSED
    assert codes(study, late) == ["wage_too_low"]
    study.status = StudyStatus.CLOSED
    assert codes(study, late) == []


def test_the_urgent_alarms_come_first_and_each_says_what_to_do(study: Study) -> None:
    live = a_live(study, places=30, places_free=3, summary=summary(work=work()))
    raised = dashboard.alarms(study, live, HEALTHY, Limits())
    assert [alarm.urgent for alarm in raised] == [True, False]
    assert all(alarm.says.endswith(".") and len(alarm.do) > 20 for alarm in raised)


def test_the_machine_is_read_from_its_jobs_and_its_disk() -> None:
    Job.objects.create(kind="a.b", subject="1", due_at=make.NOON - HOUR)
    Job.objects.create(kind="a.b", subject="2", due_at=make.NOON + HOUR)
    for subject, ago in (("3", HOUR), ("4", 25 * HOUR)):
        Job.objects.create(
            kind="a.b", subject=subject, due_at=make.NOON, status=Status.FAILED, finished_at=make.NOON - ago
        )
    found = dashboard.machine(make.NOON, Limits())
    assert (found.failed, found.waiting_since) == ({"a.b": 1}, make.NOON - HOUR)
    assert 0 < found.disk_free < found.disk_total


def test_the_least_wage_is_a_setting(settings: Settings) -> None:
    settings.LEAST_WAGE_MINOR = {"CNY": 3000}
    assert dashboard.limits().least_wage_minor == (("CNY", 3000),)


def test_the_start_page_shows_each_studys_alarms(curator: Client) -> None:
    study = small_study()
    Study.objects.update(launched_at=timezone.now() - 5 * HOUR)
    start = curator.get("/admin/").content.decode()
    assert "Nobody has come for 5 hours" in start
    assert address(study) in start
    Job.objects.create(kind="a.b", subject="1", due_at=timezone.now() - HOUR)
    assert "no worker takes it" in curator.get("/admin/").content.decode()
    studies.pause(study.pk)
    assert "Nobody has come for" not in curator.get("/admin/").content.decode()


def test_costs_are_shown_beside_the_plan() -> None:
    cost, cover = Cost(1000, 200, 300, "GBP"), dashboard.Coverage([0, 10], 1)
    alone = watching.costs(cost, cover, None)
    assert alone is not None
    assert "£15.00 for 10 labels, £1.50 a label" in alone.finding
    beside = watching.costs(cost, cover, ([10, 20], [1000, 2000], [0.2, 0.1], "TV"))
    assert beside is not None
    assert beside.rows[-1] == ("planned", "20", "£20.00", "TV 0.1000")
    assert b"planned" in beside.svg()
    assert watching.costs(Cost(0, 0, 0, "GBP"), cover, None) is None


# --- The same over the API


def test_the_api_tells_the_same_numbers_to_whoever_may_see_studies() -> None:
    study = small_study()
    session = make.complete_session(study, platform_id="prolific-4711")
    client = Client()
    here = reverse("dashboard-api", args=[study.slug])
    assert client.get(here).status_code == 401
    client.force_login(make.make_staff("nobody"))
    assert client.get(here).status_code == 403
    client.force_login(make.make_staff("reader", "annotations.view_study"))
    assert client.get(here).json()["summary"] is None
    make.run_jobs()
    told = client.get(here)
    body = told.json()
    assert (body["coverage"]["labels"], body["steps"][-1]["reached"]) == (4, 1)
    assert body["summary"]["data"]["answers"] == 5
    assert session.participant.annotator not in told.content.decode()
    assert "4711" not in told.content.decode()
    assert client.get(reverse("dashboard-api", args=["nowhere"])).status_code == 404

"""Studies too large for a page to count or a worker to read at once: made so here by moving the limits."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from annotations import selectors
from annotations.admin.sessions import SessionAdmin
from annotations.errors import AnnotationError
from annotations.kinds import LAUNCH_STUDY, MEASURE_STUDY
from annotations.models import Arrival, Place, Session, SessionQuality, Study, StudyStatus
from annotations.selectors import counted, dashboard, recruitment, samples
from annotations.selectors import quality as found_out
from annotations.services import quality, studies, summaries
from elicit.labels.quality import RECOMMENDED, Measure
from jobs.models import Job
from tests import crowds
from tests import factories as make

pytestmark = pytest.mark.django_db


@pytest.fixture
def curator() -> Client:
    client = Client()
    client.force_login(make.make_curator())
    return client


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counted, "MOST_COUNTED", 0)


def loaded(study: Study) -> Study:
    return Study.objects.select_related("dataset").get(pk=study.pk)


def queries(client: Client, address: str) -> list[str]:
    client.get(address)
    with CaptureQueriesContext(connection) as seen:
        assert client.get(address).status_code == 200
    return [each["sql"] for each in seen.captured_queries]


# --- Counted by a worker


@pytest.mark.usefixtures("everything_is_large")
def test_a_large_study_shows_what_the_worker_counted() -> None:
    study = crowds.answered_study(8, 3, per_session=4, until=make.NOON)
    now = make.NOON
    truth = dashboard.count(loaded(study), now)
    summaries.summarise(study.pk, timezone.now)
    live = dashboard.live(loaded(study), now)
    assert live.coverage.images == truth["coverage"]["images"] == [0, 0, 0, 8]
    assert [step.reached for step in live.steps] == [step["reached"] for step in truth["steps"]]
    assert (live.places, live.places_free, live.completed) == (6, 0, 6)
    progress = selectors.study_progress(loaded(study))
    assert (progress.labels, progress.labels_wanted, progress.completed) == (24, 24, 6)


@pytest.mark.usefixtures("everything_is_large")
def test_before_the_worker_was_there_a_large_study_shows_nothing_counted() -> None:
    study = crowds.answered_study(4, 2)
    live = dashboard.live(loaded(study), make.NOON)
    assert (live.came, live.coverage.labels, live.places, live.cost.total_minor) == (0, 0, 0, 0)
    assert selectors.study_progress(loaded(study)).labels == 0


@pytest.mark.usefixtures("everything_is_large")
def test_who_is_at_work_in_a_large_study_is_of_this_moment() -> None:
    study = make.make_study()
    summaries.summarise(study.pk, timezone.now)
    now = timezone.now()
    make.begin(make.make_session(loaded(study), now=now), now=now)
    summaries.summarise(study.pk, timezone.now)
    make.begin(make.make_session(loaded(study), now=now), now=now)
    steps = {step.key: step for step in dashboard.people_by_step(loaded(study), now)}
    assert (steps["trials"].reached, steps["trials"].open, steps["trials"].at_work) == (1, 2, 2)


def test_a_study_is_large_by_the_labels_that_it_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    study = make.make_study(dataset=make.make_dataset(20), labels_per_image=3, images_per_session=5)
    monkeypatch.setattr(counted, "MOST_COUNTED", 60)
    assert not counted.is_large(loaded(study))
    monkeypatch.setattr(counted, "MOST_COUNTED", 59)
    assert counted.is_large(loaded(study))


@pytest.mark.parametrize("tab", ["change", "dashboard"])
@pytest.mark.usefixtures("everything_is_large")
def test_no_page_of_a_large_study_counts_its_answers_or_places(curator: Client, tab: str) -> None:
    study = crowds.answered_study(8, 3, per_session=4)
    summaries.summarise(study.pk, timezone.now)
    asked = queries(curator, reverse(f"admin:annotations_study_{tab}", args=[study.pk]))
    assert not [sql for sql in asked if "COUNT(" in sql and '"annotations_place"' in sql]
    # The last hour's answers alone are counted as they came, of whoever was seen in it.
    counting = [sql for sql in asked if "COUNT(" in sql and '"annotations_response"' in sql]
    assert all('"seen_at" >=' in sql for sql in counting)


@pytest.mark.parametrize("tab", ["change", "dashboard", "people", "plan", "privacy", "quality"])
def test_a_study_page_asks_as_often_with_many_people_as_with_few(curator: Client, tab: str) -> None:
    few = crowds.answered_study(4, 2, per_session=2)
    before = len(queries(curator, reverse(f"admin:annotations_study_{tab}", args=[few.pk])))
    Study.objects.all().update(slug="other")
    many = make.make_study(dataset=make.make_dataset(8, slug="more"), images_per_session=2, repeats_per_session=0)
    for seed in range(9):
        make.complete_session(many, seed=seed)
    if tab == "quality":
        for each in (few, many):
            quality.measure_study(each.pk, make.NOON)
        before = len(queries(curator, reverse(f"admin:annotations_study_{tab}", args=[few.pk])))
    assert len(queries(curator, reverse(f"admin:annotations_study_{tab}", args=[many.pk]))) <= before + 1


# --- Drawn at random


def test_sessions_are_drawn_with_everybody_who_saw_the_same_images() -> None:
    study = crowds.answered_study(40, 3, per_session=4)
    drawn = samples.draw(study, make.rng(), 24)
    assert drawn is not None
    # Two are drawn, each with the two others of its batch; both may be of one.
    assert len(drawn.sessions) in (3, 6)
    for batch in Place.objects.filter(session__in=drawn.sessions).values("batch"):
        sat = Place.objects.filter(batch=batch["batch"]).values_list("session_id", flat=True)
        assert set(sat) <= set(drawn.sessions)
    assert study.study_images.filter(image__in=drawn.images).count() == len(drawn.images) > 0


def test_nobody_is_drawn_where_all_can_be_read() -> None:
    assert samples.draw(crowds.answered_study(4, 2), make.rng()) is None


def test_a_summary_of_drawn_sessions_says_so_and_counts_what_came_when_of_all(
    monkeypatch: pytest.MonkeyPatch, curator: Client
) -> None:
    study = crowds.answered_study(40, 3, per_session=4, until=timezone.now(), over=timedelta(hours=5))
    whole = summaries.summarise(study.pk, timezone.now)
    assert whole is not None
    assert whole.data["drawn_from"] is None
    monkeypatch.setattr(samples, "MOST_ANSWERS", 36)
    some = summaries.summarise(study.pk, timezone.now)
    assert some is not None
    assert some.data["drawn_from"] == 120 > some.data["answers"]
    assert [tuple(each) for each in some.data["by_hour"]] == [tuple(each) for each in whole.data["by_hour"]]
    assert [tuple(each) for each in some.data["by_ten_minutes"]] == [
        tuple(each) for each in whole.data["by_ten_minutes"]
    ]
    page = curator.get(reverse("admin:annotations_study_dashboard", args=[study.pk])).content.decode()
    assert "drawn at random from 120" in page


# --- Measured some at a time


def test_sessions_measured_some_at_a_time_have_the_measures_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    study = crowds.crowded_study(make.make_dataset(16))
    quality.write_rules(study.pk, RECOMMENDED)
    quality.measure_study(study.pk, make.NOON)
    whole = {row.session_id: (row.measures, row.breaks.count()) for row in SessionQuality.objects.all()}
    SessionQuality.objects.all().delete()
    monkeypatch.setattr(samples, "MOST_ANSWERS", 1)
    monkeypatch.setattr(quality, "SESSIONS_AT_ONCE", 3)
    assert quality.measure_study(study.pk, make.NOON) == len(whole)
    for row in SessionQuality.objects.all():
        measures, breaks = whole[row.session_id]
        ranked = Measure.CROWD_PERCENTILE.value
        assert {**row.measures, ranked: None} == {**measures, ranked: None}
        assert row.breaks.count() == breaks
    assert quality.measure_study(study.pk, make.NOON + make.MINUTE) == 0


def test_asked_for_a_worker_measures_everybody_of_a_large_study_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    study = crowds.crowded_study(make.make_dataset(16))
    monkeypatch.setattr(samples, "MOST_ANSWERS", 1)
    before = timezone.now()
    quality.measure_now(study.pk)
    make.run_jobs()
    assert Job.objects.get(kind=MEASURE_STUDY, subject=f"{study.pk} now").status == "done"
    assert not SessionQuality.objects.filter(computed_at__lt=before).exists()


def test_the_list_of_qualities_is_sorted_and_cut_by_the_database() -> None:
    study = crowds.crowded_study(make.make_dataset(16))
    every = list(found_out.measured_sessions(study))
    name = Measure.MEDIAN_SECONDS.value
    first = found_out.listed_sessions(study, "all", name, True, 0, 3)
    second = found_out.listed_sessions(study, "all", name, True, 3, 3)
    assert found_out.count_measured(study).shown("all", 0) == len(every) == 8
    values = [row.measures[name][0] for row in (*first, *second)]
    assert values == sorted((row.measures[name][0] for row in every), reverse=True)[:6]


def test_the_file_of_qualities_is_read_in_parts_and_holds_everybody_once(monkeypatch: pytest.MonkeyPatch) -> None:
    study = crowds.crowded_study(make.make_dataset(16))
    # Several began at the same moment.
    Session.objects.filter(study=study).update(consented_at=make.NOON)
    late = study.sessions.order_by("pk").first()
    assert late is not None
    Session.objects.filter(pk=late.pk).update(consented_at=make.NOON + make.MINUTE)
    whole = [row.annotator for row in found_out.measured_sessions(study)]
    monkeypatch.setattr(found_out, "AT_ONCE", 3)

    assert [row.annotator for row in found_out.measured_sessions(study)] == whole
    assert len(set(whole)) == 8
    assert whole[-1] == late.participant.annotator


# --- Launched by a worker


def test_a_launch_of_many_places_is_left_to_a_worker(monkeypatch: pytest.MonkeyPatch, curator: Client) -> None:
    monkeypatch.setattr(studies, "AT_ONCE", 10)
    study = make.make_study(launch=False, images_per_session=5)
    for _ in range(2):
        curator.post(reverse("admin:annotations_study_launch", args=[study.pk]))
    assert Job.objects.filter(kind=LAUNCH_STUDY).count() == 1
    assert loaded(study).status == StudyStatus.DRAFT
    page = curator.get(reverse("admin:annotations_study_change", args=[study.pk])).content.decode()
    assert "A worker makes the study" in page
    make.run_jobs()
    assert loaded(study).status == StudyStatus.LIVE
    assert study.places.count() == study.batches.count() * study.labels_per_image


def test_a_launch_that_was_done_before_its_job_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "AT_ONCE", 0)
    study = make.make_study(launch=False)
    studies.ask_for_launch(study.pk, make.rng())
    studies.launch(study.pk, make.rng())
    places = study.places.count()
    make.run_jobs()
    assert Job.objects.get(kind=LAUNCH_STUDY).status == "done"
    assert study.places.count() == places


def test_what_is_missing_is_said_before_a_worker_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "AT_ONCE", 0)
    study = make.make_study(launch=False)
    Study.objects.filter(pk=study.pk).update(instructions="")
    with pytest.raises(AnnotationError, match="instructions"):
        studies.ask_for_launch(study.pk, make.rng())
    assert not Job.objects.filter(kind=LAUNCH_STUDY).exists()


# --- The hand-out


def started(images: int) -> tuple[list[str], Study]:
    """The queries of a session's start in a study of so many images."""
    dataset = make.make_dataset(images, slug=f"of-{images}")
    study = make.make_study(
        dataset=dataset, name=f"Of {images}", assignment="least_filled", images_per_session=5, labels_per_image=2
    )
    with CaptureQueriesContext(connection) as seen:
        make.begin(make.make_session(study))
    return [each["sql"] for each in seen.captured_queries], study


def test_a_session_start_asks_the_same_of_many_images_as_of_few() -> None:
    few, _ = started(10)
    many, _ = started(2000)
    assert len(many) == len(few)


@pytest.mark.parametrize("assignment", ["batches", "least_filled"])
def test_no_page_of_an_annotator_counts_all_images_of_a_study(assignment: str) -> None:
    study = make.make_study(assignment=assignment, images_per_session=5, practice=[], comprehension=[])
    session = make.make_session(study)
    asked = queries(Client(), reverse("study", args=[study.slug])) + queries(
        Client(), reverse("session", args=[session.token])
    )
    counting = [sql for sql in asked if "COUNT(" in sql and '"annotations_studyimage"' in sql]
    assert all("LIMIT 5" in sql for sql in counting)
    assert selectors.trials_in_session(loaded(study)) == 7


@pytest.mark.postgres
def test_a_free_place_is_found_by_an_index_however_many_are_taken() -> None:
    study = make.make_study(dataset=make.make_dataset(2000), assignment="least_filled", labels_per_image=2)
    session = make.make_session(study)
    taken = study.places.order_by("turn", "rank").values_list("pk", flat=True)[:2000]
    Place.objects.filter(pk__in=list(taken)).update(session=session)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE annotations_place")
    with CaptureQueriesContext(connection) as seen:
        assert selectors.has_free_place(loaded(study))
    [asked] = [each["sql"] for each in seen.captured_queries if '"annotations_place"' in each["sql"]]
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {asked}")
        assert "place_free" in cursor.fetchone()[0] + "".join(line for (line,) in cursor.fetchall())


@pytest.mark.postgres
def test_a_session_start_takes_its_places_in_the_order_of_an_index() -> None:
    asked, _ = started(2000)
    [hand_out] = [sql for sql in asked if "SKIP LOCKED" in sql]
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE annotations_place")
        cursor.execute("EXPLAIN " + hand_out.replace("%", "%%"))
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "place_free" in plan
    assert "Sort" not in plan


# --- Lists


def test_the_list_of_sessions_counts_answers_for_those_that_it_shows_alone(curator: Client) -> None:
    study = make.make_study(images_per_session=4, repeats_per_session=0)
    make.complete_session(study)
    address = reverse("admin:annotations_session_changelist")
    asked = queries(curator, address)
    grouping = [sql for sql in asked if "GROUP BY" in sql]
    assert all('"annotations_trial"."session_id" IN (' in sql for sql in grouping)
    make.begin(make.make_session(study, seed=2), seed=2)
    assert len(queries(curator, address)) == len(asked)
    page = curator.get(address).content.decode()
    assert "4 of 4" in page
    assert "0 of 4" in page


def test_a_deep_page_of_sessions_reads_its_own_rows_alone_and_in_order(
    curator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make.make_study(images_per_session=4, repeats_per_session=0)
    for number in range(5):
        session = make.make_session(study, seed=number)
        Session.objects.filter(pk=session.pk).update(consented_at=make.NOON + number * make.MINUTE)
    monkeypatch.setattr(SessionAdmin, "list_per_page", 2)
    address = reverse("admin:annotations_session_changelist")

    shown = [session.pk for page in "123" for session in curator.get(f"{address}?p={page}").context["cl"].result_list]
    assert shown == list(study.sessions.order_by("-consented_at").values_list("pk", flat=True))
    passing = [sql for sql in queries(curator, f"{address}?p=2") if "OFFSET 2" in sql]
    assert passing
    assert all("JOIN" not in sql for sql in passing)


def test_discrepancies_are_read_as_far_as_they_are_shown(django_assert_num_queries: Any) -> None:
    study = make.make_study(images_per_session=2, repeats_per_session=0)
    for seed in range(4):
        session = make.complete_session(study, seed=seed)
        Arrival.objects.create(
            study=study, participant=session.participant, session=session, platform="prolific",
            submission_key=f"{seed:064}", status="APPROVED" if seed == 0 else "RETURNED", arrived_at=make.NOON,
        )  # fmt: skip
    with django_assert_num_queries(1):
        assert len(recruitment.discrepancies(study, make.NOON)) == 3
    assert len(recruitment.discrepancies(study, make.NOON, 2)) == 2
    assert recruitment.arrival_counts(study) == [("returned", 3), ("approved", 1)]


def test_a_response_is_found_by_its_trial_in_the_indexes_that_are_left() -> None:
    with connection.cursor() as cursor:
        of_responses = connection.introspection.get_constraints(cursor, "annotations_response")
        of_trials = connection.introspection.get_constraints(cursor, "annotations_trial")
    indexes = [each["columns"] for each in of_responses.values() if each["index"] or each["unique"]]
    assert sorted(columns for columns in indexes if columns[:1] == ["trial_id"]) == [
        ["trial_id"],
        ["trial_id", "revision"],
    ]
    assert of_responses["one_current_response_per_trial"]["unique"]
    assert {"trial_repeats", "trial_checks", "trial_image_once_per_place"} <= set(of_trials)
    assert not [name for name, each in of_trials.items() if each["columns"] == ["place_id"] and each["index"]]

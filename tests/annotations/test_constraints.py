"""What the database itself refuses, whoever writes."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from django.apps import apps
from django.db import IntegrityError, models, transaction

from annotations.models import (
    Appeal,
    Arm,
    Arrival,
    Batch,
    Category,
    CheckItem,
    Consent,
    ConsistencyCheck,
    Dataset,
    Image,
    ImageImport,
    ImportProblem,
    Invitation,
    Participant,
    Payment,
    PaymentState,
    Place,
    Plan,
    QualityRule,
    Recruitment,
    Response,
    Retention,
    Session,
    SessionStatus,
    Study,
    StudyImage,
    StudySummary,
    Trial,
    TrialKind,
    WebhookEvent,
)
from exports.models import Release, TrainingRun
from jobs.models import Job, Status
from tests import factories as make

pytestmark = pytest.mark.django_db


@pytest.fixture
def session() -> Session:
    """One that has answered its first trial, and a study with all that belongs to it."""
    study = make.make_study(dataset=make.make_dataset(4), images_per_session=2, repeats_per_session=1)
    session = make.begin(make.make_session(study, platform_id="p1"))
    make.respond(session.trials.get(position=1))
    ConsistencyCheck.objects.create(
        session=session, rule_version=1, verdict="consistent", repeats=1, same_top=1, checked_at=make.NOON
    )
    Arm.objects.create(study=study, name="typed", settings={"input_mode": "typed"})
    CheckItem.objects.create(study=study, image=study.dataset.images.get(index=0), allowed=[3])
    QualityRule.objects.create(study=study, measure="median_seconds", threshold=2, at_least=False)
    Appeal.objects.create(session=session, text="I read it.", written_at=make.NOON)
    Recruitment.objects.create(study=study)
    Plan.objects.create(
        study=study, labels_per_image=6, seconds_from="typed", seconds_per_response=7, minutes_per_session=5,
        pay_per_hour_minor=900, currency="GBP", fee_share=0.3, metric="tv", errors_from="paper",
        curve={"labels": [1], "errors": [0.2], "low": [None], "high": [None]}, saved_at=make.NOON,
    )  # fmt: skip
    Invitation.objects.create(study=study, token_hash="a" * 64, created_at=make.NOON)
    arrival = Arrival.objects.create(
        study=study,
        participant=session.participant,
        session=session,
        platform="prolific",
        submission_key="k1",
        arrived_at=make.NOON,
    )
    Payment.objects.create(
        study=study,
        session=session,
        arrival=arrival,
        kind="base",
        amount_minor=0,
        currency="GBP",
        key="k1",
        due_at=make.NOON,
    )
    WebhookEvent.objects.create(event_id="e1", kind="k", sent_at=make.NOON, received_at=make.NOON)
    wanted = ImageImport.objects.create(dataset=study.dataset, source="archive", split="all")
    ImportProblem.objects.create(wanted=wanted, position=0, file="a.png", what="is empty", todo="leave it out")
    Retention.objects.create(study=study)
    Job.objects.create(kind="k", subject="1", due_at=make.NOON)
    release = Release.objects.create(study=study, version=1, recipe={}, requested_at=make.NOON)
    TrainingRun.objects.create(release=release, label_sets=["hard"], requested_at=make.NOON)
    StudySummary.objects.create(study=study, version=1, until=make.NOON, computed_at=make.NOON, seconds=0.1, data={})
    return session


def again(model: type[models.Model], **changes: object) -> Callable[[], object]:
    """A second row like the first of this model, but for some fields."""

    def write() -> None:
        row = model._default_manager.first()
        assert row is not None
        values = {f.attname: getattr(row, f.attname) for f in model._meta.concrete_fields if not f.primary_key}
        primary_key = model._meta.pk
        if isinstance(primary_key, models.UUIDField):
            values[primary_key.attname] = uuid.uuid4()
        model._default_manager.create(**{**values, **changes})

    return write


def change(model: type[models.Model], **changes: object) -> Callable[[], object]:
    return lambda: model._default_manager.update(**changes)


def main_as_repeat() -> None:
    Trial.objects.filter(kind=TrialKind.MAIN).update(kind=TrialKind.REPEAT, place=None)


def repeat_without_first() -> None:
    Trial.objects.filter(kind=TrialKind.REPEAT).update(repeat_of=None)


def repeat_with_a_place() -> None:
    Trial.objects.filter(kind=TrialKind.REPEAT).update(place=Place.objects.exclude(session=None).get())


def image_twice_in_a_place() -> None:
    first, second = Trial.objects.filter(kind=TrialKind.MAIN).order_by("position")
    Trial.objects.filter(pk=second.pk).update(image=first.image)


def gold_without_an_item() -> None:
    again(Trial, place_id=None, kind=TrialKind.GOLD, position=90)()


def main_with_a_check_item() -> None:
    Trial.objects.filter(kind=TrialKind.MAIN).update(check_item=CheckItem.objects.first())


def practice_twice() -> None:
    for _ in range(2):
        again(Trial, place_id=None, kind=TrialKind.PRACTICE)()


def again_for_another_session() -> None:
    again(Participant, platform_id_key="", platform_id_sealed="", annotator="another")()
    another = Participant.objects.get(annotator="another")
    again(Session, token="another", participant_id=another.pk)()
    again(Payment, key="another", session_id=Session.objects.get(token="another").pk)()


def invitation_used_at_no_time() -> None:
    Invitation.objects.update(used_by=Session.objects.first())


def place_twice_in_an_arm() -> None:
    for _ in range(2):
        again(Place, session_id=None, arm_id=Arm.objects.get().pk)()


BAD_ROWS: dict[str, list[Callable[[], object]]] = {
    # Unique
    "category_index_once_per_dataset": [again(Category, name="Another")],
    "category_name_once_per_dataset": [again(Category, index=99)],
    "image_index_once_per_dataset": [again(Image)],
    "import_problem_once_per_position": [again(ImportProblem)],
    "consent_version_once_per_study": [again(Consent)],
    "batch_number_once_per_study": [again(Batch)],
    "image_once_per_study": [again(StudyImage)],
    "place_number_once_per_batch": [again(Place, session_id=None)],
    "place_number_once_per_batch_and_arm": [place_twice_in_an_arm],
    "session_once_per_batch": [again(Place, number=90)],
    "arm_name_once_per_study": [again(Arm)],
    "arm_weight_from_1": [change(Arm, weight=0)],
    "participant_platform_id_once_per_study": [again(Participant, annotator="another")],
    "annotator_once_per_study": [again(Participant, platform_id_key="another")],
    "one_open_session_per_participant": [again(Session, token="another")],
    "trial_position_once_per_session": [again(Trial, place_id=None)],
    "practice_position_once_per_session": [practice_twice],
    "revision_once_per_trial": [again(Response, current=False)],
    "one_current_response_per_trial": [again(Response, revision=2)],
    "response_revision_from_1": [change(Response, revision=0)],
    "trial_image_once_per_place": [image_twice_in_a_place],
    "job_unfinished_once_per_subject": [
        again(Job),
        again(Job, status=Status.RUNNING, lease_until=make.NOON),
    ],
    "release_version_once_per_study": [again(Release)],
    "check_image_once_per_study": [again(CheckItem)],
    "rule_once_per_measure": [again(QualityRule, threshold=1)],
    # Check
    "rule_needs_an_observation": [change(QualityRule, least=0)],
    "appeal_decided_has_time": [change(Appeal, outcome="stands"), change(Appeal, decided_at=make.NOON)],
    "check_tolerance_0_to_1": [change(CheckItem, tolerance=-0.1), change(CheckItem, tolerance=1.1)],
    "check_attention_has_a_note": [change(CheckItem, kind="attention"), change(CheckItem, note="Name Dog.")],
    "trial_check_names_its_item": [gold_without_an_item, main_with_a_check_item],
    "summary_made_after_what_it_holds": [change(StudySummary, computed_at=make.NOON - make.MINUTE)],
    "summary_took_some_time": [change(StudySummary, seconds=-1)],
    "participant_sealed_id_has_key": [
        change(Participant, platform_id_key=""),
        change(Participant, platform_id_sealed=""),
    ],
    "retention_of_ids_has_an_end": [change(Retention, ids_days=3651)],
    "image_has_pixels": [change(Image, width=0), change(Image, height=0)],
    "study_k_at_least_1": [change(Study, labels_per_image=0)],
    "study_session_has_images": [change(Study, images_per_session=0, repeats_per_session=0)],
    "study_repeats_fit_session": [change(Study, repeats_per_session=3)],
    "study_image_scale_1_to_10": [change(Study, image_scale=0), change(Study, image_scale=11)],
    "study_sum_limit_at_least_100": [change(Study, sum_limit=99)],
    "study_least_labels_at_least_2": [change(Study, least_labels=1)],
    "study_settled_within_0_to_1": [change(Study, settled_within=-0.1), change(Study, settled_within=1.1)],
    "study_labels_left_within_budget": [change(Study, budget_labels=5, labels_left=6)],
    "study_repeat_distance_0_to_1": [change(Study, repeat_distance=-0.1), change(Study, repeat_distance=1.1)],
    "place_number_from_1": [again(Place, number=0, session_id=None)],
    "session_completed_has_time": [change(Session, status=SessionStatus.COMPLETED)],
    "session_withdrawn_has_time": [
        change(Session, status=SessionStatus.WITHDRAWN),
        change(Session, withdrawn_at=make.NOON),
    ],
    "session_excluded_for_a_reason": [
        change(Session, excluded_at=make.NOON),
        change(Session, exclusion_reason="technical"),
    ],
    "trial_only_main_has_place": [repeat_with_a_place],
    "trial_repeat_names_its_first": [main_as_repeat, repeat_without_first],
    "response_top_percentage_0_to_100": [
        change(Response, top_percentage=0),
        change(Response, top_percentage=100.5, sum_percentage=101),
    ],
    "response_sum_covers_top": [change(Response, sum_percentage=1)],
    "consistency_same_top_within_repeats": [change(ConsistencyCheck, same_top=2)],
    "job_running_has_lease": [change(Job, status=Status.RUNNING)],
    "submission_once_per_study": [again(Arrival)],
    "arrival_has_submission": [change(Arrival, submission_key="")],
    "payment_once_per_session_and_kind": [again(Payment, key="another", arrival_id=None)],
    "payment_once_per_submission_and_kind": [again_for_another_session],
    "payment_paid_has_time": [change(Payment, state=PaymentState.PAID)],
    "payment_sending_has_time": [
        change(Payment, state=PaymentState.SENDING, amount_minor=1),
        change(Payment, state=PaymentState.UNKNOWN, amount_minor=1),
    ],
    "payment_sent_has_amount": [change(Payment, state=PaymentState.SENDING, sending_at=make.NOON)],
    "payment_score_0_to_1": [change(Payment, score=-0.1), change(Payment, score=1.1)],
    "recruitment_fee_0_to_2": [change(Recruitment, fee_share=-0.1), change(Recruitment, fee_share=2.1)],
    "plan_labels_1_to_1000": [change(Plan, labels_per_image=0), change(Plan, labels_per_image=1001)],
    "plan_takes_time": [change(Plan, seconds_per_response=0), change(Plan, minutes_per_session=-1)],
    "plan_fee_0_to_2": [change(Plan, fee_share=-0.1), change(Plan, fee_share=2.1)],
    "recruitment_takes_a_minute": [change(Recruitment, expected_minutes=0)],
    "invitation_used_has_time": [invitation_used_at_no_time],
    "release_superseded_for_a_reason": [
        change(Release, superseded_at=make.NOON),
        change(Release, withheld=True),
    ],
    "release_ready_has_digest": [change(Release, ready_at=make.NOON)],
    "training_run_trains": [change(TrainingRun, seeds=0), change(TrainingRun, epochs=0)],
    "training_run_holds_some_out": [change(TrainingRun, holdout=0), change(TrainingRun, holdout=1)],
    "training_run_ends_once": [change(TrainingRun, finished_at=make.NOON, cancelled_at=make.NOON)],
    "training_run_withheld_tells_nothing": [change(TrainingRun, withheld_reason="withdrawn", summary={"best": 1})],
}
OURS = [model for app in ("annotations", "exports", "jobs") for model in apps.get_app_config(app).get_models()]


def test_every_constraint_has_a_bad_row_below() -> None:
    assert {constraint.name for model in OURS for constraint in model._meta.constraints} == set(BAD_ROWS)


@pytest.mark.parametrize("name", BAD_ROWS)
def test_the_database_refuses_a_bad_row(session: Session, name: str) -> None:
    for write in BAD_ROWS[name]:
        with pytest.raises(IntegrityError) as refused, transaction.atomic():
            write()
        # SQLite names the columns of a plain unique constraint, not the constraint.
        assert name in str(refused.value) or "UNIQUE constraint failed" in str(refused.value)


@pytest.mark.parametrize(
    "write",
    [
        again(Dataset),
        again(Study),
        again(Session, status=SessionStatus.COMPLETED, completed_at=make.NOON),
        again(ConsistencyCheck),
    ],
    ids=["dataset slug", "study slug", "session token", "check of a session"],
)
def test_what_is_unique_by_itself_is_so_in_the_database(session: Session, write: Callable[[], object]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        write()


def test_a_session_holds_one_place_of_a_batch(session: Session) -> None:
    place = Place.objects.filter(session=None, batch=session.places.get().batch).first()
    assert place is not None
    place.session = session
    with pytest.raises(IntegrityError), transaction.atomic():
        place.save()


def test_finished_work_may_be_asked_for_again(session: Session) -> None:
    Job.objects.update(status=Status.DONE)

    again(Job, status=Status.QUEUED)()

    assert Job.objects.count() == 2


@pytest.mark.parametrize("row", ["dataset", "consent", "image"])
def test_what_answers_hang_on_can_not_be_deleted(session: Session, row: str) -> None:
    rows: dict[str, models.Model] = {
        "dataset": session.study.dataset,
        "consent": session.consent,
        "image": session.trials.get(position=1).image,
    }

    with pytest.raises(models.ProtectedError):
        rows[row].delete()


def test_a_study_with_a_release_can_not_be_deleted(session: Session) -> None:
    with pytest.raises(models.ProtectedError):
        session.study.delete()

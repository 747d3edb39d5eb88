"""What the database itself refuses, whoever writes."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from django.apps import apps
from django.db import IntegrityError, models, transaction

from annotations.models import (
    Batch,
    Category,
    CheckItem,
    Consent,
    ConsistencyCheck,
    Dataset,
    Image,
    Participant,
    Place,
    Response,
    Session,
    SessionStatus,
    Study,
    StudyImage,
    Trial,
    TrialKind,
)
from exports.models import Release
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
    CheckItem.objects.create(study=study, image=study.dataset.images.get(index=0), allowed=[3])
    Job.objects.create(kind="k", subject="1", due_at=make.NOON)
    Release.objects.create(study=study, version=1, recipe={}, requested_at=make.NOON)
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


BAD_ROWS: dict[str, list[Callable[[], object]]] = {
    # Unique
    "category_index_once_per_dataset": [again(Category, name="Another")],
    "category_name_once_per_dataset": [again(Category, index=99)],
    "image_index_once_per_dataset": [again(Image)],
    "consent_version_once_per_study": [again(Consent)],
    "batch_number_once_per_study": [again(Batch)],
    "image_once_per_study": [again(StudyImage)],
    "place_number_once_per_batch": [again(Place, session_id=None)],
    "participant_platform_id_once_per_study": [again(Participant, annotator="another")],
    "annotator_once_per_study": [again(Participant, platform_id="p2")],
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
    # Check
    "check_tolerance_0_to_1": [change(CheckItem, tolerance=-0.1), change(CheckItem, tolerance=1.1)],
    "check_attention_has_a_note": [change(CheckItem, kind="attention"), change(CheckItem, note="Name Dog.")],
    "trial_check_names_its_item": [gold_without_an_item, main_with_a_check_item],
    "image_has_pixels": [change(Image, width=0), change(Image, height=0)],
    "study_k_at_least_1": [change(Study, labels_per_image=0)],
    "study_session_has_images": [change(Study, images_per_session=0, repeats_per_session=0)],
    "study_repeats_fit_session": [change(Study, repeats_per_session=3)],
    "study_image_scale_1_to_10": [change(Study, image_scale=0), change(Study, image_scale=11)],
    "study_sum_limit_at_least_100": [change(Study, sum_limit=99)],
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
    "release_superseded_for_a_reason": [
        change(Release, superseded_at=make.NOON),
        change(Release, withheld=True),
    ],
    "release_ready_has_digest": [change(Release, ready_at=make.NOON)],
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


def test_one_session_holds_one_place(session: Session) -> None:
    free = Place.objects.filter(session=None).order_by("pk")[:1]

    with pytest.raises(IntegrityError), transaction.atomic():
        Place.objects.filter(pk__in=free.values_list("pk")).update(session=session)


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

"""How images are handed out: in batches, one by one, to the least settled first; and what comes back."""

from __future__ import annotations

import uuid
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from annotations import selectors
from annotations.assignment import PlannedTrial, plan_session, turns, with_checks
from annotations.errors import AnnotationError
from annotations.models import Batch, CheckItem, Place, Response, Session, SessionStatus, Study, Trial, TrialKind
from annotations.presets import CIFAR10S
from annotations.selectors import dashboard
from annotations.selectors.sessions import Standing
from annotations.services import leaving, places, responses, sessions, studies
from jobs.models import Job
from tests import factories as make

SURE, ANOTHER = ((3, 100.0),), ((5, 100.0),)


def one_by_one(images: int = 6, **settings: Any) -> Study:
    wanted: dict[str, Any] = {
        "assignment": "least_filled",
        "labels_per_image": 2,
        "images_per_session": 4,
        "repeats_per_session": 0,
        "questionnaire": [],
    }
    return make.make_study(dataset=make.make_dataset(images), **{**wanted, **settings})


def begun(study: Study, seed: int = 0) -> Session:
    return make.begin(make.make_session(study, seed=seed), seed=seed)


def shown(session: Session) -> list[int]:
    return list(session.trials.filter(kind=TrialKind.MAIN).order_by("position").values_list("image__index", flat=True))


def labels(study: Study) -> Counter[int]:
    return Counter(
        Trial.objects.filter(session__study=study, place__isnull=False).values_list("image__index", flat=True)
    )


# --- Pure


@given(
    gain=st.floats(0, 10),
    labels=st.integers(0, 30),
    under_way=st.integers(0, 30),
    free=st.integers(0, 30),
    least=st.integers(2, 10),
)
def test_turns_rise_and_those_of_an_image_without_its_least_labels_come_before_all_others(
    gain: float, labels: int, under_way: int, free: int, least: int
) -> None:
    found = turns(gain=gain, labels=labels, under_way=under_way, free=free, least=least)
    assert len(found) == free
    assert found == sorted(found)
    owed = max(0, least - labels - under_way)
    assert all(turn <= least for turn in found[:owed])
    assert all(least < turn <= least + 1 for turn in found[owed:])


@given(gain=st.floats(0.001, 0.5), labels=st.integers(2, 20), under_way=st.integers(0, 10))
def test_labels_under_way_make_the_next_one_less_urgent(gain: float, labels: int, under_way: int) -> None:
    [now] = turns(gain=gain, labels=labels, under_way=under_way, free=1, least=2)
    [later] = turns(gain=gain, labels=labels, under_way=under_way + 1, free=1, least=2)
    assert now < later


@given(images=st.integers(1, 30), repeats=st.integers(0, 10), checks=st.integers(0, 12), seed=st.integers(0, 2**32 - 1))
def test_checks_lie_neither_first_nor_last_nor_side_by_side_where_there_is_room(
    images: int, repeats: int, checks: int, seed: int
) -> None:
    rng = make.rng(seed)
    plan = plan_session(range(images), repeats, rng)
    full = with_checks(plan, [1000 + number for number in range(checks)], rng)
    assert [trial.image for trial in full if trial.check is None] == [trial.image for trial in plan]
    assert sorted(trial.check for trial in full if trial.check is not None) == list(range(checks))
    for trial in full:
        if trial.repeat_of is not None:
            assert full[trial.repeat_of].image == trial.image
            assert full[trial.repeat_of].repeat_of is None
        if trial.check is not None:
            assert trial.image == 1000 + trial.check
    at = [place for place, trial in enumerate(full) if trial.check is not None]
    if checks and len(plan) > 1:
        assert at[0] > 0
        assert at[-1] < len(full) - 1
    if checks <= len(plan) - 1:
        assert all(later - earlier > 1 for earlier, later in pairwise(at))


def test_a_plan_of_one_trial_takes_its_checks_somewhere() -> None:
    full = with_checks([PlannedTrial(7)], [8, 9], make.rng())
    assert sorted(trial.image for trial in full) == [7, 8, 9]


# --- One by one


@pytest.mark.django_db
def test_each_image_is_a_batch_of_its_own() -> None:
    study = one_by_one(images=6)
    assert study.batches.count() == 6
    assert study.places.count() == 12


@pytest.mark.django_db
def test_a_session_shows_as_many_images_as_the_study_says_each_in_a_place() -> None:
    study = one_by_one()
    session = begun(study)
    assert len(set(shown(session))) == 4
    assert session.places.count() == 4
    assert all(trial.place is not None for trial in session.trials.all())


@pytest.mark.django_db
def test_the_images_with_the_fewest_labels_are_handed_out_first() -> None:
    study = one_by_one(images=6, labels_per_image=3)
    for seed in range(3):
        begun(study, seed)
        counts = labels(study)
        assert max(counts.values()) - min(counts.get(index, 0) for index in range(6)) <= 1


@pytest.mark.django_db
def test_a_session_is_shown_fewer_images_where_fewer_are_left() -> None:
    study = one_by_one(images=5, labels_per_image=1)
    begun(study)
    last = begun(study, 1)
    assert len(shown(last)) == 1
    assert selectors.trial_counts(last) == (0, 1)
    with pytest.raises(AnnotationError, match="all the annotators"):
        make.make_session(study, seed=2)


@pytest.mark.django_db
def test_nobody_gets_an_image_twice_though_several_of_its_places_come_first() -> None:
    study = one_by_one(images=2, labels_per_image=5, images_per_session=2)
    last_image = study.batches.first()
    Place.objects.exclude(batch=last_image).update(turn=99)
    assert sorted(shown(begun(study))) == [0, 1]


@pytest.mark.django_db
def test_what_a_start_asks_of_the_database_does_not_grow_with_the_images() -> None:
    counts = []
    for slug, images in (("few", 8), ("many", 400)):
        study = studies.create_study(
            name=slug,
            dataset=make.make_dataset(images, slug=slug),
            preset=CIFAR10S,
            overrides={"assignment": "adaptive", "images_per_session": 4, "questionnaire": []},
        )
        studies.choose_images(study, None, make.rng())
        session = make.make_session(studies.launch(study.pk, make.rng()))
        with CaptureQueriesContext(connection) as asked:
            make.begin(session)
        counts.append(len(asked))
    assert counts[0] == counts[1] <= 20


# --- Places that come back


@pytest.mark.django_db
def test_an_abandoned_session_gives_all_its_images_back_and_takes_up_those_that_are_left() -> None:
    study = one_by_one(images=4, labels_per_image=1)
    gone = begun(study)
    first = gone.trials.get(position=1)
    make.respond(first)
    assert sessions.give_up(session_id=gone.pk)
    assert study.places.filter(session__isnull=False).count() == 0
    taker = make.begin(make.make_session(study, seed=1), seed=1)
    kept = shown(taker)[:2]
    # Two of them come free again.
    Trial.objects.filter(session=taker).exclude(image__index__in=kept).delete()
    Place.objects.filter(session=taker).exclude(batch__study_images__image__index__in=kept).update(session=None)
    back = sessions.come_back(session_id=gone.pk, now=make.NOON)
    assert back.status in (SessionStatus.TRIALS, SessionStatus.COMPLETED)
    assert back.places.count() == 2
    placed = back.trials.filter(place__isnull=False)
    assert set(placed.values_list("image__index", flat=True)) == set(range(4)) - set(kept)
    # What nobody needs is passed over, what was said is kept.
    assert all(trial.skipped_at is not None for trial in back.trials.filter(place=None) if trial != first)
    assert first.responses.count() == 1
    assert max(labels(study).values()) == 1


@pytest.mark.django_db
@pytest.mark.parametrize("way", ["comes back", "is reinstated"])
def test_no_place_is_taken_on_an_image_that_was_passed_over(way: str) -> None:
    """They would hold it without ever being asked: the image would stay one label short."""
    study = one_by_one(images=4, labels_per_image=1)
    gone = begun(study)
    sessions.give_up(session_id=gone.pk)
    taker = make.begin(make.make_session(study, seed=1), seed=1)
    lost, left = shown(taker)[:2], shown(taker)[2:]
    taker.trials.filter(image__index__in=left).delete()
    Place.objects.filter(session=taker, batch__study_images__image__index__in=left).update(session=None)
    back = sessions.come_back(session_id=gone.pk, now=make.NOON)
    assert back.trials.filter(skipped_at__isnull=False, image__index__in=lost).count() == 2

    # They leave once more, and so does who took the others.
    if way == "comes back":
        sessions.give_up(session_id=gone.pk)
    else:
        leaving.exclude(session_id=gone.pk, reason="other", note="", by=None, now=make.NOON)  # type: ignore[arg-type]
    sessions.give_up(session_id=taker.pk)
    if way == "comes back":
        sessions.come_back(session_id=gone.pk, now=make.NOON)
    else:
        leaving.reinstate(session_id=gone.pk)

    held = gone.places.values_list("batch__study_images__image__index", flat=True)
    assert set(held) == set(left)
    assert not gone.trials.filter(place__isnull=False, skipped_at__isnull=False).exists()


@pytest.mark.django_db
def test_who_was_left_nothing_to_answer_and_comes_back_is_done() -> None:
    study = one_by_one(images=4, labels_per_image=1)
    gone = begun(study)
    gone.trials.update(skipped_at=make.NOON)
    sessions.give_up(session_id=gone.pk)
    back = sessions.come_back(session_id=gone.pk, now=make.NOON)
    assert back.status in (SessionStatus.QUESTIONNAIRE, SessionStatus.COMPLETED)
    assert back.trials.filter(kind=TrialKind.MAIN).count() == 4
    assert not back.places.exists()


@pytest.mark.django_db
def test_an_answer_to_the_one_image_that_was_lost_meanwhile_is_kept_however_often_it_is_sent() -> None:
    study = one_by_one(images=4, labels_per_image=1)
    gone = begun(study)
    *answered, last = selectors.open_trials(gone)
    for trial in answered:
        make.respond(trial)
    sessions.give_up(session_id=gone.pk)
    taker = begun(study, 1)
    free = Place.objects.filter(session=taker).exclude(batch__study_images__image=last.image)
    taker.trials.filter(place__in=free).delete()
    free.update(session=None)

    gone.refresh_from_db()
    first, again = (make.respond(last, response_id=uuid.UUID(int=1)) for _ in range(2))

    assert (first.created, again.created) == (True, False)
    assert first.standing == again.standing == Standing(4, 4, None)
    gone.refresh_from_db()
    assert gone.status == SessionStatus.COMPLETED
    assert gone.places.count() == 3
    assert gone.trials.get(place=None) == last
    assert max(labels(study).values()) == 1


@pytest.mark.django_db
def test_whoever_comes_back_to_a_full_study_is_told() -> None:
    study = one_by_one(images=4, labels_per_image=1)
    gone = begun(study)
    sessions.give_up(session_id=gone.pk)
    begun(study, 1)
    with pytest.raises(AnnotationError) as refused:
        sessions.come_back(session_id=gone.pk, now=make.NOON)
    assert refused.value.code == "place_given_away"


@pytest.mark.django_db
def test_withdrawing_and_excluding_offer_the_images_anew_and_reinstating_takes_what_is_free() -> None:
    study = one_by_one(images=4, labels_per_image=1)
    session = make.answer_all(begun(study))
    leaving.exclude(session_id=session.pk, reason="other", note="", by=None, now=make.NOON)  # type: ignore[arg-type]
    assert not study.places.filter(session__isnull=False).exists()
    Place.objects.filter(pk=study.places.first().pk).update(session=make.make_session(study, seed=3))  # type: ignore[union-attr]
    leaving.reinstate(session_id=session.pk)
    assert session.places.count() == 3
    assert session.trials.filter(place__isnull=False).count() == 3
    leaving.withdraw(session_id=session.pk, now=make.NOON)
    assert session.places.count() == 0


@pytest.mark.django_db
def test_a_release_holds_what_was_said_in_a_place_alone() -> None:
    study = one_by_one(images=4, labels_per_image=2, repeats_per_session=2)
    session = make.answer_all(begun(study))
    lost = session.places.first()
    assert lost is not None
    lost.trials.update(place=None)
    Place.objects.filter(pk=lost.pk).update(session=None)
    [columns] = selectors.released_responses(study.pk, until=make.NOON, leave_out_inconsistent=False)
    gone = lost.batch.study_images.get().image.index
    assert gone not in columns.images
    assert columns.kinds.count("main") == 3


# --- Images that could not be shown


def pass_over(session: Session, image: int) -> None:
    for trial in session.trials.filter(image__index=image, kind=TrialKind.MAIN):
        responses.skip_trial(session=session, trial_id=trial.pk, now=make.NOON)


@pytest.mark.django_db
def test_an_image_that_could_not_be_shown_is_offered_to_somebody_else() -> None:
    study = one_by_one(images=4, labels_per_image=1)
    unlucky = begun(study)
    pass_over(unlucky, 2)
    assert unlucky.places.count() == 3
    assert not unlucky.trials.filter(place__isnull=False, skipped_at__isnull=False).exists()
    make.answer_all(unlucky)
    make.answer_all(begun(study, 1))
    assert labels(study) == dict.fromkeys(range(4), 1)
    assert dashboard.count_coverage(study).images == [0, 4]


@pytest.mark.django_db
def test_an_image_that_shows_to_nobody_is_not_offered_for_ever() -> None:
    study = one_by_one(images=4, labels_per_image=2)
    seed = 0
    while selectors.has_free_place(study):
        session = begun(study, seed)
        for trial in selectors.open_trials(session):
            if trial.image.index == 2:
                pass_over(session, 2)
            else:
                make.respond(trial)
        seed += 1
        assert seed < 8
    assert Trial.objects.filter(skipped_at__isnull=False).count() == 4
    assert Response.objects.count() == 6


@pytest.mark.django_db
def test_where_both_questions_are_asked_a_place_is_offered_once_neither_could_be() -> None:
    study = one_by_one(images=4, labels_per_image=1, framing="both")
    session = begun(study)
    one, other = session.trials.filter(image__index=2, kind=TrialKind.MAIN)
    responses.skip_trial(session=session, trial_id=one.pk, now=make.NOON)
    assert session.places.count() == 4
    responses.skip_trial(session=session, trial_id=other.pk, now=make.NOON)
    assert session.places.count() == 3


@pytest.mark.django_db
def test_a_place_on_which_one_of_two_questions_was_answered_stays() -> None:
    study = one_by_one(images=4, labels_per_image=1, framing="both")
    session = begun(study)
    one, other = session.trials.filter(image__index=2, kind=TrialKind.MAIN)
    make.respond(one)
    responses.skip_trial(session=session, trial_id=other.pk, now=make.NOON)
    assert session.places.count() == 4


@pytest.mark.django_db
def test_what_is_said_later_of_an_image_that_was_passed_over_counts_towards_no_k() -> None:
    study = one_by_one(images=4, labels_per_image=1)
    session = begun(study)
    pass_over(session, 2)
    make.respond(session.trials.get(image__index=2))
    assert 2 not in labels(study)
    assert 2 in shown(begun(study, 1))


@pytest.mark.django_db
def test_what_an_image_that_could_not_be_shown_would_have_cost_can_be_spent_again() -> None:
    study = one_by_one(images=4, budget_labels=4)
    session = begun(study)
    pass_over(session, 2)
    study.refresh_from_db()
    assert study.labels_left == 1


@pytest.mark.django_db
def test_an_image_of_a_batch_that_could_not_be_shown_leaves_the_batch_where_it_is() -> None:
    study = one_by_one(images=4, assignment="batches")
    session = begun(study)
    pass_over(session, 2)
    assert session.places.count() == 1


# --- Budget


@pytest.mark.django_db
def test_a_budget_ends_the_study_and_a_place_that_comes_back_can_be_spent_again() -> None:
    study = one_by_one(images=6, budget_labels=6)
    assert study.labels_left == 6
    gone = begun(study)
    assert len(shown(begun(study, 1))) == 2
    study.refresh_from_db()
    assert study.labels_left == 0
    with pytest.raises(AnnotationError, match="all the annotators"):
        make.make_session(study, seed=2)
    sessions.give_up(session_id=gone.pk)
    study.refresh_from_db()
    assert study.labels_left == 4
    assert len(shown(begun(study, 2))) == 4


@pytest.mark.django_db
def test_where_both_questions_are_asked_a_place_costs_two_labels() -> None:
    study = one_by_one(images=6, budget_labels=5, framing="both")
    assert Counter(Counter(shown(begun(study))).values()) == {2: 2}
    study.refresh_from_db()
    assert study.labels_left == 1
    assert not selectors.has_free_place(study)


# --- Adaptive


def adaptive(**settings: Any) -> Study:
    return one_by_one(assignment="adaptive", **{"labels_per_image": 6, "least_labels": 2, **settings})


@pytest.mark.django_db
def test_a_completed_session_queues_one_job_that_reads_what_it_touched() -> None:
    study = adaptive(images=6)
    make.answer_all(begun(study))
    make.answer_all(begun(study, 1))
    assert Job.objects.filter(kind="annotations.order_places").count() == 1
    touched = Batch.objects.filter(study=study, touched=True).count()
    assert places.put_in_order(study.pk) == touched > 0
    assert places.put_in_order(study.pk) == 0


@pytest.mark.django_db
def test_images_on_which_people_agree_are_settled_and_the_next_one_goes_to_the_others() -> None:
    study = adaptive(images=4, settled_within=0.15, labels_per_image=12)
    seed = 0
    while not study.batches.filter(settled=True).exists():
        session = make.begin(make.make_session(study, seed=seed), seed=seed)
        for trial in selectors.open_trials(session):
            make.respond(trial, (((seed % 5) if trial.image.index == 2 else 3, 100.0),))
        places.put_in_order(study.pk)
        seed += 1
        assert seed < 12
    settled = set(study.batches.filter(settled=True).values_list("study_images__image__index", flat=True))
    assert 2 not in settled
    following = shown(begun(study, 50))
    assert 2 in following
    assert not settled & set(following)
    assert selectors.study_progress(study).words.startswith(f"settled {len(settled)} of 4 images, ")


@pytest.mark.django_db
def test_a_study_whose_images_are_all_settled_takes_nobody_any_more() -> None:
    study = adaptive(images=4, settled_within=1.0)
    for seed in range(2):
        make.answer_all(begun(study, seed))
    places.put_in_order(study.pk)
    assert study.batches.filter(settled=True).count() == 4
    with pytest.raises(AnnotationError) as refused:
        make.make_session(study, seed=9)
    assert refused.value.code == "study_full"


@pytest.mark.django_db
def test_an_image_that_loses_answers_is_open_again() -> None:
    study = adaptive(images=4, settled_within=1.0)
    first = make.answer_all(begun(study))
    make.answer_all(begun(study, 1))
    places.put_in_order(study.pk)
    leaving.withdraw(session_id=first.pk, now=make.NOON)
    places.put_in_order(study.pk)
    assert not study.batches.filter(settled=True).exists()
    assert len(shown(begun(study, 2))) == 4


@pytest.mark.django_db
def test_a_rush_spreads_over_the_images_though_one_is_the_least_settled() -> None:
    study = adaptive(images=8, images_per_session=2, labels_per_image=20, settled_within=0.0)
    for seed in range(8):
        session = begun(study, seed)
        for trial in selectors.open_trials(session):
            make.respond(trial, ANOTHER if trial.image.index == 0 and seed % 2 else SURE)
    places.put_in_order(study.pk)
    before = labels(study)
    for seed in range(20, 28):
        begun(study, seed)
    given = labels(study) - before
    assert len(given) >= 6
    assert max(given.values()) < 8


# --- Check items


@pytest.mark.django_db
def test_every_session_meets_the_study_s_checks_without_a_place() -> None:
    dataset = make.make_dataset(10)
    study = make.make_study(dataset=dataset, launch=False, images_per_session=4, repeats_per_session=1)
    studies.choose_batches(study, [[0, 1, 2, 3]])
    gold = CheckItem.objects.create(study=study, image=dataset.images.get(index=8), allowed=[3])
    note = CheckItem.objects.create(
        study=study, image=dataset.images.get(index=9), kind="attention", note="Name dog.", allowed=[5]
    )
    session = begun(studies.launch(study.pk, make.rng()))
    found = {trial.check_item: trial for trial in session.trials.filter(check_item__isnull=False)}
    assert set(found) == {gold, note}
    assert (found[gold].kind, found[note].kind) == (TrialKind.GOLD, TrialKind.ATTENTION)
    assert all(trial.place is None for trial in found.values())
    assert selectors.trial_counts(session) == (0, 7)
    assert selectors.trials_in_session(study) == 7

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from annotations import selectors
from annotations.errors import AnnotationError
from annotations.kinds import CHECK_SESSION
from annotations.models import Participant, Place, Response, Session, SessionStatus, Study, Trial, TrialKind
from annotations.services import sessions, studies
from jobs.models import Job
from tests import factories as make

pytestmark = pytest.mark.django_db

LATER = make.NOON + timedelta(minutes=61)


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(AnnotationError) as refusal:
        act()
    return refusal.value.code


def small_study(**settings: Any) -> Study:
    """One batch of four images and a repeat, two annotators an image."""
    wanted: dict[str, Any] = {"labels_per_image": 2, "images_per_session": 4, "repeats_per_session": 1, **settings}
    return make.make_study(dataset=make.make_dataset(4), **wanted)


def abandon(session: Session, answered: int = 0) -> Session:
    """Let the session answer some trials and then stay away for too long."""
    for trial in selectors.open_trials(session)[:answered]:
        make.respond(trial)
    sessions.give_back_places(LATER)
    session.refresh_from_db()
    assert session.status == SessionStatus.ABANDONED
    return session


def fill(study: Study) -> None:
    """Take every place that is left."""
    while selectors.has_free_place(study):
        make.begin(make.make_session(study, now=LATER), now=LATER)


# --- From arrival to completion


def test_a_session_walks_from_instructions_to_completion() -> None:
    study = make.make_study()
    session = make.make_session(study)
    assert session.status == SessionStatus.INSTRUCTIONS
    session = make.begin(session)
    assert session.status == SessionStatus.TRIALS
    session = make.answer_all(session)
    assert session.status == SessionStatus.QUESTIONNAIRE
    session = sessions.save_questionnaire(session_id=session.pk, answers={"clarity": 9}, now=LATER)
    assert (session.status, session.completed_at) == (SessionStatus.COMPLETED, LATER)
    assert session.questionnaire == {"clarity": 9}


def test_a_study_without_a_questionnaire_ends_with_the_last_answer() -> None:
    session = make.answer_all(make.begin(make.make_session(make.make_study(questionnaire=[]))))

    assert (session.status, session.completed_at) == (SessionStatus.COMPLETED, make.NOON)


def test_the_consent_is_stored_with_its_version_and_its_time() -> None:
    study = make.make_study()
    studies.add_consent(study, "A second text.")

    session = make.make_session(study, now=LATER)

    assert (session.consent.version, session.consented_at) == (2, LATER)


def test_consent_to_a_text_that_has_changed_meanwhile_is_refused() -> None:
    study = make.make_study()
    studies.add_consent(study, "Another text.")

    code = refused(
        lambda: sessions.begin_session(study=study, consent_version=1, platform_id="p", now=make.NOON, rng=make.rng())
    )

    assert code == "consent_missing"
    assert not Session.objects.exists()
    assert not Participant.objects.exists()


def test_a_person_of_a_platform_gets_the_same_session_again() -> None:
    study = make.make_study()

    first, again = make.make_session(study, platform_id="p1"), make.make_session(study, platform_id="p1", seed=1)

    assert again.pk == first.pk
    assert make.make_session(study, platform_id="p2").pk != first.pk
    assert Participant.objects.count() == 2


def test_a_person_who_has_completed_gets_no_second_session() -> None:
    study = make.make_study()
    done = make.complete_session(study, platform_id="p1")

    assert make.make_session(study, platform_id="p1").pk == done.pk


def test_a_person_may_take_part_in_two_studies_under_two_pseudonyms() -> None:
    dataset = make.make_dataset()
    first = make.make_session(make.make_study(dataset=dataset), platform_id="p1")
    second = make.make_session(make.make_study(dataset=dataset, name="Cats"), platform_id="p1")

    assert first.participant.annotator != second.participant.annotator


def test_people_without_a_platform_are_strangers_to_each_other() -> None:
    study = make.make_study()

    assert make.make_session(study).pk != make.make_session(study).pk


@pytest.mark.parametrize("move", [studies.pause, studies.close])
def test_a_study_that_is_not_live_takes_nobody_new_but_knows_who_came_before(move: Callable[[int], Study]) -> None:
    study = make.make_study()
    before = make.make_session(study, platform_id="p1")
    study = move(study.pk)

    assert refused(lambda: make.make_session(study, platform_id="p2")) == "study_not_live"
    assert make.make_session(study, platform_id="p1").pk == before.pk
    assert refused(lambda: make.begin(before)) == "study_not_live"


def test_who_is_at_the_trials_may_finish_after_the_study_is_closed() -> None:
    study = small_study()
    session = make.begin(make.make_session(study))
    studies.close(study.pk)

    assert make.answer_all(session).status == SessionStatus.QUESTIONNAIRE


def test_each_annotator_has_an_order_of_the_categories() -> None:
    study = make.make_study()

    orders = [make.make_session(study, seed=seed).category_order for seed in range(3)]

    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_a_full_study_is_refused_at_the_door() -> None:
    study = small_study()
    fill(study)

    assert refused(lambda: make.make_session(study)) == "study_full"


def test_the_session_after_the_last_place_is_refused() -> None:
    study = make.make_study(labels_per_image=1)
    first, second = make.make_session(study), make.make_session(study)
    make.begin(first)
    with pytest.raises(AnnotationError) as refusal:
        make.begin(second)
    assert refusal.value.code == "study_full"
    second.refresh_from_db()
    assert second.status == SessionStatus.INSTRUCTIONS
    assert not second.trials.exists()


# --- Trials


def test_the_trials_are_the_batch_in_random_order_and_then_repeats() -> None:
    study = make.make_study(images_per_session=5, repeats_per_session=2)
    session = make.begin(make.make_session(study))

    trials = list(session.trials.order_by("position"))
    assert [trial.position for trial in trials] == list(range(1, 8))
    assert [trial.kind for trial in trials] == [TrialKind.MAIN] * 5 + [TrialKind.REPEAT] * 2
    batch = session.places.get().batch.study_images.values_list("image_id", flat=True)
    assert sorted(trial.image_id for trial in trials[:5]) == sorted(batch)
    for trial in trials[5:]:
        assert trial.repeat_of is not None
        assert (trial.repeat_of.session_id, trial.repeat_of.image_id) == (session.pk, trial.image_id)
        assert trial.place_id is None


def test_a_study_with_two_questions_shows_each_image_twice_in_a_row() -> None:
    session = make.begin(make.make_session(small_study(framing="both")))

    trials = list(session.trials.order_by("position"))
    assert [trial.position for trial in trials] == list(range(1, 11))
    assert [trial.framing for trial in trials] == ["others", "self"] * 5
    assert all(first.image_id == second.image_id for first, second in zip(trials[::2], trials[1::2], strict=True))
    for repeat in trials[8:]:
        assert repeat.repeat_of is not None
        assert (repeat.repeat_of.image_id, repeat.repeat_of.framing) == (repeat.image_id, repeat.framing)


def test_beginning_the_trials_twice_changes_nothing() -> None:
    study = make.make_study()
    session = make.begin(make.make_session(study))
    before = list(Trial.objects.values())

    again = make.begin(session, now=LATER, seed=1)

    assert again.trials_begun_at == make.NOON
    assert list(Trial.objects.values()) == before
    assert study.places.exclude(session=None).count() == 1


def test_beginning_the_trials_of_a_completed_session_changes_nothing() -> None:
    session = make.complete_session(make.make_study())

    assert make.begin(session).status == SessionStatus.COMPLETED


def test_the_batch_with_the_fewest_annotators_comes_first() -> None:
    study = make.make_study(images_per_session=5, labels_per_image=3)

    for taken in range(1, 13):
        make.begin(make.make_session(study, seed=taken), seed=taken)
        filled = Counter(Place.objects.exclude(session=None).values_list("batch_id", flat=True))
        assert max(filled.values()) == -(-taken // 4)

    assert not selectors.has_free_place(study)


def test_no_image_ever_gets_more_labels_than_the_study_wants() -> None:
    study = small_study(labels_per_image=2)
    for number in range(2):
        make.complete_session(study, seed=number)

    assert refused(lambda: make.make_session(study)) == "study_full"
    labels = Counter(Trial.objects.filter(kind=TrialKind.MAIN, place__isnull=False).values_list("image", flat=True))
    assert set(labels.values()) == {2}


# --- The questionnaire


def test_the_questionnaire_is_stored_once() -> None:
    session = make.complete_session(make.make_study())

    again = sessions.save_questionnaire(session_id=session.pk, answers={"clarity": 1}, now=LATER)

    assert again.questionnaire == {"clarity": 9}
    assert again.completed_at == make.NOON
    assert Job.objects.filter(kind=CHECK_SESSION).count() == 1


def test_the_questionnaire_does_not_come_before_the_trials() -> None:
    session = make.begin(make.make_session(make.make_study()))

    again = sessions.save_questionnaire(session_id=session.pk, answers={"clarity": 1}, now=LATER)

    assert (again.status, again.questionnaire) == (SessionStatus.TRIALS, {})


def test_a_completed_session_has_its_check_queued() -> None:
    session = make.complete_session(make.make_study())

    assert Job.objects.get().subject == str(session.pk)
    assert Job.objects.get().kind == CHECK_SESSION


# --- Signs of life


def test_a_sign_of_life_is_noted_once_a_minute_at_most() -> None:
    session = make.make_session(make.make_study())

    for seconds, noted in ((30, make.NOON), (90, make.NOON + timedelta(seconds=90))):
        sessions.saw(session, make.NOON + timedelta(seconds=seconds))
        session.refresh_from_db()
        assert session.seen_at == noted


def test_no_sign_of_life_is_noted_of_who_has_completed() -> None:
    session = make.complete_session(make.make_study())

    sessions.saw(session, LATER)

    session.refresh_from_db()
    assert session.seen_at == make.NOON


# --- Places that are given back


def test_an_abandoned_session_gives_its_place_back_and_keeps_its_answers() -> None:
    study = small_study()
    session = abandon(make.begin(make.make_session(study)), answered=2)

    assert not Place.objects.filter(session=session).exists()
    assert not session.trials.filter(place__isnull=False).exists()
    assert Response.objects.filter(trial__session=session).count() == 2
    assert selectors.study_progress(study).labels == 0


def test_giving_back_twice_gives_back_once() -> None:
    make.begin(make.make_session(small_study()))

    assert [sessions.give_back_places(LATER) for _ in range(3)] == [1, 0, 0]


@pytest.mark.parametrize(("minutes", "given"), [(9, 0), (10, 0), (11, 1)])
def test_a_place_is_kept_for_as_long_as_the_study_says(minutes: int, given: int) -> None:
    make.begin(make.make_session(small_study(idle_minutes=10)))

    assert sessions.give_back_places(make.NOON + timedelta(minutes=minutes)) == given


def test_a_fresh_sign_of_life_keeps_the_place() -> None:
    session = make.begin(make.make_session(small_study()))
    sessions.saw(session, LATER - make.MINUTE)

    assert sessions.give_back_places(LATER) == 0
    session.refresh_from_db()
    assert session.status == SessionStatus.TRIALS


def test_an_answer_is_a_sign_of_life() -> None:
    session = make.begin(make.make_session(small_study()))
    make.respond(selectors.open_trials(session)[0], now=LATER - make.MINUTE)

    assert sessions.give_back_places(LATER) == 0


def test_completed_sessions_never_lose_their_places() -> None:
    session = make.complete_session(small_study())

    assert sessions.give_back_places(make.NOON + timedelta(days=365)) == 0
    assert Place.objects.filter(session=session).exists()


def test_every_study_has_its_own_patience() -> None:
    dataset = make.make_dataset(4)
    quick, slow = (
        make.make_study(dataset=dataset, name=name, idle_minutes=minutes) for name, minutes in (("Q", 5), ("S", 500))
    )
    for study in (quick, slow):
        make.begin(make.make_session(study))

    assert sessions.give_back_places(LATER) == 1
    assert selectors.study_progress(slow).open_sessions == 1


# --- Coming back


def test_who_comes_back_while_the_batch_has_a_place_goes_on_where_they_were() -> None:
    study = small_study()
    session = abandon(make.begin(make.make_session(study)), answered=2)

    session = sessions.come_back(session_id=session.pk, now=LATER)

    assert (session.status, session.seen_at) == (SessionStatus.TRIALS, LATER)
    place = Place.objects.get(session=session)
    assert set(session.trials.filter(kind=TrialKind.MAIN).values_list("place", flat=True)) == {place.pk}
    assert [trial.position for trial in selectors.open_trials(session)] == [3, 4, 5]
    assert selectors.study_progress(study).labels == 2


def test_who_comes_back_gets_a_place_on_their_own_batch_only() -> None:
    study = make.make_study(images_per_session=5, labels_per_image=1)
    session = make.begin(make.make_session(study))
    mine = session.places.get().batch_id
    abandon(session)
    taker = make.begin(make.make_session(study, now=LATER), now=LATER)
    while taker.places.get().batch_id != mine:
        taker = make.begin(make.make_session(study, now=LATER), now=LATER)

    assert refused(lambda: sessions.come_back(session_id=session.pk, now=LATER)) == "place_given_away"
    session.refresh_from_db()
    assert session.status == SessionStatus.ABANDONED


def test_who_comes_back_after_the_place_is_gone_is_told_and_nothing_is_lost() -> None:
    study = small_study()
    session = abandon(make.begin(make.make_session(study)), answered=2)
    fill(study)

    assert refused(lambda: sessions.come_back(session_id=session.pk, now=LATER)) == "place_given_away"
    assert Response.objects.filter(trial__session=session).count() == 2
    assert study.places.count() == 2


def test_who_comes_back_before_the_trials_reads_the_instructions_again() -> None:
    session = abandon(make.make_session(small_study()))

    session = sessions.come_back(session_id=session.pk, now=LATER)

    assert (session.status, session.seen_at) == (SessionStatus.INSTRUCTIONS, LATER)


@pytest.mark.parametrize("room", [True, False])
def test_who_had_answered_everything_comes_back_to_the_questionnaire_in_any_case(room: bool) -> None:
    study = small_study()
    session = abandon(make.begin(make.make_session(study)), answered=5)
    if not room:
        fill(study)

    session = sessions.come_back(session_id=session.pk, now=LATER)

    assert session.status == SessionStatus.QUESTIONNAIRE
    assert Place.objects.filter(session=session).exists() is room
    assert study.places.count() == 2


def test_coming_back_when_one_never_left_changes_nothing() -> None:
    session = make.begin(make.make_session(small_study()))

    assert sessions.come_back(session_id=session.pk, now=LATER).status == SessionStatus.TRIALS
    assert Place.objects.filter(session=session).count() == 1


def test_a_late_answer_brings_the_session_back_while_there_is_room() -> None:
    study = small_study()
    session = abandon(make.begin(make.make_session(study)), answered=1)

    accepted = make.respond(selectors.open_trials(session)[0], now=LATER)

    session.refresh_from_db()
    assert accepted.created
    assert session.status == SessionStatus.TRIALS
    assert selectors.study_progress(study).labels == 2


def test_a_late_answer_without_room_is_stored_and_counts_towards_no_k() -> None:
    study = small_study()
    session = abandon(make.begin(make.make_session(study)), answered=1)
    fill(study)
    labels = selectors.study_progress(study).labels

    make.respond(selectors.open_trials(session)[0], now=LATER)

    session.refresh_from_db()
    assert Response.objects.filter(trial__session=session).count() == 2
    assert selectors.study_progress(study).labels == labels
    assert session.seen_at == LATER


def test_the_last_answer_of_an_abandoned_session_completes_its_trials() -> None:
    session = abandon(make.begin(make.make_session(small_study())), answered=4)

    make.respond(selectors.open_trials(session)[0], now=LATER)

    session.refresh_from_db()
    assert session.status == SessionStatus.QUESTIONNAIRE


# --- Identities


def test_tokens_and_pseudonyms_are_drawn_anew_each_time() -> None:
    study = make.make_study()
    made = [make.make_session(study) for _ in range(20)]

    assert len({session.token for session in made}) == 20
    assert min(len(session.token) for session in made) >= 32
    assert len({session.participant.annotator for session in made}) == 20
    assert len({session.participant.annotator for session in made} & {str(session.pk)[:8] for session in made}) == 0


@pytest.mark.parametrize("token", ["", "x", "\0", "a" * 1000, "é"])
def test_a_link_that_nobody_was_given_leads_to_no_session(token: str) -> None:
    make.make_session(make.make_study())

    assert selectors.session_by_token(token) is None

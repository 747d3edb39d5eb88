"""No image gets more than K answers, however many people press at the same moment."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import Count, Q

from annotations import selectors
from annotations.errors import AnnotationError
from annotations.models import Place, Session, SessionStatus, Study, Trial, TrialKind
from annotations.services import places, sessions
from annotations.simulation.characters import CAREFUL
from annotations.simulation.walker import Walker, _Page
from tests import factories as make
from tests import services
from tests.concurrency.together import PATIENCE, meanwhile, together

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]

K = 6
BATCHES = 2
SESSIONS = 40
PLACES = K * BATCHES


def small_study(labels: int = K, batches: int = BATCHES) -> Study:
    """Batches of four images, with `labels` places each."""
    return make.make_study(
        dataset=make.make_dataset(4 * batches), labels_per_image=labels, images_per_session=4, repeats_per_session=1
    )


def one_by_one(images: int = 8, **settings: Any) -> Study:
    """Images handed out one by one, four a session."""
    wanted = {"assignment": "least_filled", "labels_per_image": K, "images_per_session": 4, "repeats_per_session": 0}
    return make.make_study(dataset=make.make_dataset(images), **{**wanted, **settings})


def crowd(study: Study, size: int = SESSIONS) -> list[Session]:
    """That many sessions at the instructions, all let in while there was room."""
    return [make.make_session(study, seed=number) for number in range(size)]


def most_labels(study: Study) -> int:
    """The number of main trials with a place on the image that has most of them."""
    has_place = Q(trials__kind=TrialKind.MAIN, trials__place__isnull=False, trials__session__study=study)
    images = study.dataset.images.annotate(labels=Count("trials", filter=has_place))
    return max(int(image.labels) for image in images)


def assert_places_are_kept(study: Study, begun: int) -> None:
    """Exactly `begun` places are taken, each by one session that shows its images; nobody else shows any."""
    taken = study.places.filter(session__isnull=False)
    assert taken.count() == begun
    assert most_labels(study) <= study.labels_per_image
    for place in taken.select_related("session"):
        shown_by = set(place.trials.values_list("session_id", flat=True))
        assert shown_by == {place.session_id}
        shown = set(place.trials.values_list("image_id", flat=True))
        assert shown == set(place.batch.study_images.values_list("image_id", flat=True))
    with_trials = study.sessions.filter(trials__isnull=False).distinct()
    assert set(with_trials) == set(study.sessions.filter(status=SessionStatus.TRIALS))
    assert set(with_trials) == set(study.sessions.filter(places__isnull=False))


@contextmanager
def without_constraint(name: str) -> Iterator[None]:
    """The database as it would be without this constraint on trials. What breaks it goes at the end."""
    constraint = next(each for each in Trial._meta.constraints if each.name == name)
    with connection.schema_editor() as editor:
        editor.remove_constraint(Trial, constraint)
    try:
        yield
    finally:
        Trial.objects.all().delete()
        with connection.schema_editor() as editor:
            editor.add_constraint(Trial, constraint)


class UnguardedClaim:
    """What `places.claim` would be without its lock: read, then write. Nobody writes before everybody has read."""

    def __init__(self, people: int) -> None:
        self.everybody_has_read = threading.Barrier(people)

    def __call__(self, session: Session) -> list[Place]:
        most = session.study.images_per_session if session.study.one_by_one else 1
        free = Place.objects.filter(study_id=session.study_id, session__isnull=True).order_by("turn", "rank")
        held = list(free[:most])
        self.everybody_has_read.wait(PATIENCE)
        for place in held:
            place.session = session
            place.save(update_fields=["session"])
        return held


def test_without_lock_and_constraint_the_race_gives_an_image_more_than_k_labels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: the load below is enough to break an allocation that is not guarded."""
    study = small_study()
    people = crowd(study)
    monkeypatch.setattr(places, "claim", UnguardedClaim(SESSIONS))
    with without_constraint("trial_image_once_per_place"):
        outcomes = together([partial(make.begin, person, seed=number) for number, person in enumerate(people)])
        assert [outcome for outcome in outcomes if isinstance(outcome, Exception)] == []
        assert most_labels(study) == SESSIONS > K


def test_without_the_lock_the_constraint_still_keeps_the_second_session_out(monkeypatch: pytest.MonkeyPatch) -> None:
    study = small_study()
    people = crowd(study)
    monkeypatch.setattr(places, "claim", UnguardedClaim(SESSIONS))
    outcomes = together([partial(make.begin, person, seed=number) for number, person in enumerate(people)])
    assert Counter(type(outcome) for outcome in outcomes) == {Session: 1, IntegrityError: SESSIONS - 1}
    assert_places_are_kept(study, begun=1)


def test_of_forty_sessions_that_begin_at_the_same_moment_as_many_begin_as_there_are_places() -> None:
    study = small_study()
    people = crowd(study)
    outcomes = together([partial(make.begin, person, seed=number) for number, person in enumerate(people)])
    refused = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert len(outcomes) - len(refused) == PLACES
    assert [getattr(error, "code", error) for error in refused] == ["study_full"] * (SESSIONS - PLACES)
    assert_places_are_kept(study, begun=PLACES)
    assert most_labels(study) == K


def assert_images_are_kept(study: Study) -> None:
    """No image has more labels than K, nobody has one twice, and each trial lies in its session's place."""
    assert most_labels(study) <= study.labels_per_image
    main = Trial.objects.filter(session__study=study, kind=TrialKind.MAIN)
    assert not main.filter(place__isnull=True).exists()
    assert all(trial.place is not None and trial.place.session_id == trial.session_id for trial in main)
    shown = Counter(main.values_list("session_id", "image_id"))
    assert set(shown.values()) <= {1}
    assert study.places.filter(session__isnull=False).count() == main.count()


def test_without_lock_and_constraint_the_race_gives_single_images_more_than_k_labels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control of the next: the load is enough to break a hand-out of single images that is not guarded."""
    study = one_by_one()
    people = crowd(study)
    monkeypatch.setattr(places, "claim", UnguardedClaim(SESSIONS))
    with without_constraint("trial_image_once_per_place"):
        together([partial(make.begin, person, seed=number) for number, person in enumerate(people)])
        assert most_labels(study) > K


@pytest.mark.parametrize("assignment", ["least_filled", "adaptive"])
def test_of_forty_sessions_that_take_single_images_at_once_no_image_gets_more_than_k(assignment: str) -> None:
    study = one_by_one(assignment=assignment)
    people = crowd(study)
    outcomes = together([partial(make.begin, person, seed=number) for number, person in enumerate(people)])
    refused = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert {getattr(error, "code", error) for error in refused} <= {"study_full"}
    assert_images_are_kept(study)
    # Whoever was refused met every place taken: none stays free.
    assert not study.places.filter(session__isnull=True).exists()


def test_a_budget_is_kept_to_the_label_however_many_begin_at_once() -> None:
    study = one_by_one(budget_labels=22)
    people = crowd(study, 20)
    outcomes = together([partial(make.begin, person, seed=number) for number, person in enumerate(people)])
    refused = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert [getattr(error, "code", error) for error in refused] == ["study_full"] * len(refused)
    study.refresh_from_db()
    assert (study.places.filter(session__isnull=False).count(), study.labels_left) == (22, 0)
    assert_images_are_kept(study)


def test_sessions_that_begin_end_and_leave_while_places_are_put_in_order_wait_for_nobody_in_a_circle() -> None:
    study = one_by_one(assignment="adaptive", images=12, labels_per_image=10, least_labels=2)
    begun = [make.begin(person, seed=number) for number, person in enumerate(crowd(study, 12))]
    newcomers = [make.make_session(study, seed=100 + number) for number in range(8)]
    for session in begun[:6]:
        make.answer_all(session)
    rivals: list[Callable[[], object]] = [
        *(
            partial(sessions.save_questionnaire, session_id=session.pk, answers={}, now=make.NOON)
            for session in begun[:6]
        ),
        *(partial(sessions.give_up, session_id=session.pk) for session in begun[6:]),
        *(partial(make.begin, person, seed=number) for number, person in enumerate(newcomers)),
        *[partial(places.put_in_order, study.pk)] * 4,
    ]
    outcomes = together(rivals)
    assert [outcome for outcome in outcomes if isinstance(outcome, Exception)] == []
    assert most_labels(study) <= 10
    assert study.sessions.filter(status=SessionStatus.COMPLETED).count() == 6


def test_forty_people_who_press_begin_at_the_same_moment_share_the_places_over_http(
    server_environment: dict[str, str],
) -> None:
    study = small_study()
    people = crowd(study)
    with services.web(server_environment) as site:

        def open_link(session: Session) -> Callable[[], tuple[int, str, str]]:
            """Open the personal link; what presses the button there."""
            walker = Walker(site.url, study.slug, CAREFUL, 0, lambda _: None)
            _, address, html = walker._open(f"/session/{session.token}/")
            return partial(walker._send, address, _Page(html).forms[0], {})

        outcomes = together([open_link(session) for session in people])
    pages = [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
    assert Counter(status for status, _, _ in pages) == {200: PLACES, 409: SESSIONS - PLACES}
    for status, _, html in pages:
        assert ("trial-data" in _Page(html).scripts) == (status == 200)
        assert ("This study is complete" in html) == (status == 409)
    assert_places_are_kept(study, begun=PLACES)
    assert most_labels(study) == K


def test_a_place_whose_taker_fails_goes_to_the_one_who_waited_for_it() -> None:
    """Passing over locked rows alone would turn people away from places that come free a moment later."""
    study = small_study(labels=1, batches=1)
    unlucky, waiting = crowd(study, 2)
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            make.begin(unlucky)
            outcome = pool.submit(meanwhile, partial(make.begin, waiting, seed=1))
            deadline = time.monotonic() + PATIENCE
            while not (outcome.done() or somebody_waits()):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            transaction.set_rollback(True)
        assert outcome.result(PATIENCE).status == SessionStatus.TRIALS
    assert_places_are_kept(study, begun=1)


def test_who_waited_for_a_place_in_vain_leaves_no_lock_on_it() -> None:
    """Two who hold such locks would wait for each other's: PostgreSQL calls that a deadlock and ends one of them."""
    study = make.make_study(dataset=make.make_dataset(4), images_per_session=4, labels_per_image=1)
    taker, late = crowd(study, 2)
    taken, gone = threading.Event(), threading.Event()

    def take() -> None:
        with transaction.atomic():
            assert places.claim(taker)
            taken.set()
            deadline = time.monotonic() + PATIENCE
            while not somebody_waits():
                assert time.monotonic() < deadline
                time.sleep(0.01)

    def wait_in_vain() -> None:
        with transaction.atomic():
            taken.wait(PATIENCE)
            assert not places.claim(late)
            # Still in the same transaction: can anybody else have the row?
            meanwhile(lock_the_place_at_once)

    def lock_the_place_at_once() -> None:
        with transaction.atomic():
            Place.objects.select_for_update(nowait=True).get(study=study)
        gone.set()

    assert [outcome for outcome in together([take, wait_in_vain]) if outcome is not None] == []
    assert gone.is_set()


def somebody_waits() -> bool:
    """Whether a transaction in this database waits for another."""
    with connection.cursor() as cursor:
        # Within a transaction PostgreSQL goes on showing the sessions that were there at the first look.
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) "
            "WHERE NOT granted AND pg_stat_activity.datname = current_database()"
        )
        [count] = cursor.fetchone()
    return bool(count)


def test_pressing_begin_twice_at_once_takes_one_place_and_lays_out_one_set_of_trials() -> None:
    study = small_study()
    [session] = crowd(study, 1)
    outcomes = together([partial(make.begin, session, seed=press) for press in range(8)])
    assert [outcome for outcome in outcomes if isinstance(outcome, Exception)] == []
    assert session.trials.count() == selectors.trials_in_session(study) == 5
    assert_places_are_kept(study, begun=1)


def test_a_person_who_agrees_twice_at_once_gets_one_session() -> None:
    study = small_study()
    outcomes = together([partial(make.make_session, study, platform_id="P1", seed=press) for press in range(8)])
    assert {outcome.pk for outcome in outcomes if isinstance(outcome, Session)} == {study.sessions.get().pk}
    assert len([outcome for outcome in outcomes if isinstance(outcome, Session)]) == 8


# --- Places that come back


LATE = make.NOON + 90 * make.MINUTE


def test_an_answer_that_arrives_while_idle_sessions_are_hunted_keeps_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = small_study()
    session = make.begin(make.make_session(study))
    place = Place.objects.get(session=session)
    first = selectors.open_trials(session)[0]
    real = sessions.lock
    hunter = threading.get_ident()

    def lock_after_the_answer(session_id: UUID) -> Session:
        if threading.get_ident() == hunter:
            meanwhile(partial(make.respond, first, now=LATE))
        return real(session_id)

    monkeypatch.setattr(sessions, "lock", lock_after_the_answer)
    assert sessions.give_back_places(LATE) == 0
    session.refresh_from_db()
    assert session.status == SessionStatus.TRIALS
    assert Place.objects.get(session=session) == place
    assert_places_are_kept(study, begun=1)


@pytest.mark.parametrize("attempt", range(5))
def test_an_answer_that_races_with_the_hunt_is_stored_with_a_place(attempt: int) -> None:
    study = small_study()
    session = make.begin(make.make_session(study))
    first = selectors.open_trials(session)[0]
    rivals: list[Callable[[], object]] = [
        partial(make.respond, first, now=LATE),
        partial(sessions.give_back_places, LATE),
    ]
    outcomes = together(rivals)
    assert [outcome for outcome in outcomes if isinstance(outcome, Exception)] == []
    session.refresh_from_db()
    assert session.status == SessionStatus.TRIALS
    assert session.trials.filter(responses__current=True).count() == 1
    assert_places_are_kept(study, begun=1)


@pytest.mark.parametrize("attempt", range(5))
def test_of_a_newcomer_and_one_who_comes_back_one_gets_the_last_place(attempt: int) -> None:
    study = small_study(labels=1, batches=1)
    gone, newcomer = crowd(study, 2)
    gone = make.begin(gone)
    Session.objects.filter(pk=newcomer.pk).update(seen_at=LATE)
    first = selectors.open_trials(gone)[0]
    assert sessions.give_back_places(LATE) == 1
    rivals: list[Callable[[], object]] = [
        partial(make.respond, first, now=LATE),
        partial(make.begin, newcomer, now=LATE),
    ]
    outcomes = together(rivals)
    refusals = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert [error.code for error in refusals if isinstance(error, AnnotationError)] in ([], ["study_full"])
    assert study.places.filter(session__isnull=False).count() == 1
    assert most_labels(study) == 1
    # The answer is kept whoever has the place: it counts only with it.
    [stored] = gone.trials.filter(responses__current=True)
    assert (stored.place is not None) == bool(refusals)


def test_several_hunts_at_once_give_back_each_place_once() -> None:
    study = small_study()
    for person in crowd(study, PLACES):
        make.begin(person)
    given = together([partial(sessions.give_back_places, LATE)] * 4)
    assert sum(count for count in given if isinstance(count, int)) == PLACES
    assert study.places.filter(session__isnull=True).count() == PLACES
    assert study.sessions.filter(status=SessionStatus.ABANDONED).count() == PLACES
    assert most_labels(study) == 0

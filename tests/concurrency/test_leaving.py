"""People answer while others withdraw, are excluded and taken back, and releases are asked for, all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from django.db.models import Q
from pytest_django.fixtures import Settings

from annotations.errors import AnnotationError
from annotations.models import ExclusionReason, Participant, Response, Session, SessionStatus, Study, Trial
from annotations.services import leaving, places
from elicit.labels import read_release
from exports import selectors as released
from exports.models import Release
from tests import factories as make
from tests.concurrency.test_places import UnguardedClaim, most_labels, without_constraint
from tests.concurrency.together import together

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]

K = 6
LEAVERS = EXCLUDED = TAKEN_BACK = 2
NEWCOMERS = 8


@pytest.fixture(autouse=True)
def files(settings: Settings, tmp_path: Path) -> Path:
    settings.RELEASES_ROOT = tmp_path / "releases"
    return tmp_path


def name(number: int) -> str:
    return f"PLATFORM-{number:02d}"


@pytest.fixture
def study() -> Study:
    """Six of six places taken by sessions that are complete, of which two are excluded, so that two are free again."""
    study = make.make_study(
        dataset=make.make_dataset(4), labels_per_image=K, images_per_session=4, repeats_per_session=1
    )
    for number in range(K):
        make.complete_session(study, platform_id=name(number), seed=number)
    for session in of(study, range(4, 6)):
        exclude(session)
    make.run_jobs()
    return study


def of(study: Study, numbers: range) -> Iterator[Session]:
    """The sessions of these people."""
    known = {each.platform_id: each for each in Participant.objects.filter(study=study)}
    for number in numbers:
        yield known[name(number)].sessions.get()


def exclude(session: Session) -> Session:
    return leaving.exclude(
        session_id=session.pk, reason=ExclusionReason.TECHNICAL, note="", by=None, now=make.NOON + make.MINUTE
    )


def come(study: Study, number: int) -> Session:
    """Somebody new, from the consent to the last answer."""
    session = make.begin(make.make_session(study, platform_id=name(number), seed=number), seed=number)
    return make.answer_all(session)


def rivals(study: Study) -> list[Callable[[], object]]:
    people: list[Callable[[], object]] = []
    people += [partial(leaving.withdraw, session_id=each.pk, now=make.NOON) for each in of(study, range(2))]
    people += [partial(exclude, each) for each in of(study, range(2, 4))]
    people += [partial(leaving.reinstate, session_id=each.pk) for each in of(study, range(4, 6))]
    people += [partial(come, study, 10 + number) for number in range(NEWCOMERS)]
    people += [partial(make.make_release, study, build=False) for _ in range(2)]
    return people


def faults(outcomes: list[object]) -> list[object]:
    """What was not refused in the product's own words."""
    fine = {"study_full", "place_taken"}
    return [
        each
        for each in outcomes
        if isinstance(each, Exception) and not (isinstance(each, AnnotationError) and each.code in fine)
    ]


@pytest.mark.parametrize("attempt", range(3))
def test_places_are_exact_releases_superseded_and_the_gone_are_gone(study: Study, attempt: int) -> None:
    older = make.make_release(study)
    leavers = list(of(study, range(2)))
    names = {each.pk: each.participant.annotator for each in study.sessions.select_related("participant")}
    pseudonyms = [each.participant.annotator for each in leavers]

    outcomes = together(rivals(study))
    make.run_jobs()
    make.run_jobs()

    assert faults(list(outcomes)) == []
    # No image above K, and whoever came took what was free: nobody was turned away beside an empty place.
    assert most_labels(study) <= K
    free = study.places.filter(session__isnull=True).count()
    turned_away = [each for each in outcomes if isinstance(each, AnnotationError) and each.code == "study_full"]
    come_later = 0
    while study.places.filter(session__isnull=True).exists():
        come(study, 40 + come_later)
        come_later += 1
    assert come_later == free
    assert most_labels(study) == K
    assert not turned_away or free <= 4
    # Gone means gone.
    for session in leavers:
        session.refresh_from_db()
        assert session.status == SessionStatus.WITHDRAWN
        assert not Trial.objects.filter(session=session).exists()
        assert session.participant.annotator not in pseudonyms or session.participant.platform_id_sealed == ""
    assert not Participant.objects.filter(annotator__in=pseudonyms).exists()
    # Whatever held their answers is superseded, and what is not holds none of them.
    older.refresh_from_db()
    assert older.withheld
    assert older.superseded_by is not None
    for release in Release.objects.filter(superseded_at__isnull=True, ready_at__isnull=False):
        held = set(read_release(released.folder(release)).annotators)
        assert not held & set(pseudonyms)
        # Others are whom they were.
        staying = dict(study.sessions.exclude(withdrawn_at__isnull=False).values_list("pk", "participant__annotator"))
        assert held <= set(staying.values())
        assert {pk: names[pk] for pk in names if pk in staying} == {pk: staying[pk] for pk in staying if pk in names}
    assert Response.objects.filter(trial__session__withdrawn_at__isnull=False).count() == 0
    excluded = Q(session__excluded_at__isnull=False)
    assert not Trial.objects.filter(excluded, place__isnull=False).exists()


def test_without_its_lock_a_place_that_is_given_back_goes_to_two(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the load above is enough to break an allocation that is not guarded."""

    comers = 4
    sessions = [make.make_session(study, platform_id=name(20 + number), seed=number) for number in range(comers)]
    monkeypatch.setattr(places, "claim", UnguardedClaim(comers))
    with without_constraint("trial_image_once_per_place"):
        together([partial(make.begin, each, seed=number) for number, each in enumerate(sessions)])
        assert most_labels(study) > K

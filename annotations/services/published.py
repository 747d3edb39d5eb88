"""Make a published study a study in the database, to be looked at and released like any other."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from django.db import transaction

from annotations import selectors
from annotations.errors import refuse
from annotations.models import (
    Consent,
    Dataset,
    Participant,
    Place,
    Response,
    Session,
    SessionStatus,
    Study,
    StudyStatus,
    Trial,
    TrialKind,
)
from annotations.presets import CIFAR10S
from annotations.services import bulk, quality, studies
from annotations.services.responses import columns
from elicit.labels import cifar10s
from elicit.labels.cifar10s import RawResponse, Repair
from elicit.labels.elicited import Elicited

PRESET = replace(
    CIFAR10S,
    consent="Imported from a published study: its participants agreed to the words of its authors, not to these.",
)
ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class Imported:
    """The study, how many sessions and responses it got, and every repair that was made on the way."""

    study: Study
    sessions: int
    responses: int
    repairs: Sequence[Repair]


@transaction.atomic
def import_cifar10s(
    *,
    raw: Sequence[RawResponse],
    dataset: Dataset,
    name: str,
    slug: str,
    now: datetime,
    by_hand: Sequence[Repair] = (),
) -> Imported:
    """The raw responses of CIFAR-10S as a closed study: all of them or none.

    Whoever is in the file twice comes in once. Answers that contradict themselves are mended by the rules of
    `cifar10s.repaired`, each repair reported, and its code kept in the response's `process` under `mended`; so are
    those that reading the file made `by_hand`. The order in which the classes were shown was not published and stays
    empty; times of day were not either, so everything carries the time of the import.

    Raises:
        Contradiction: an answer that no rule mends, named by its image.
        AnnotationError: `responses_do_not_fit`: an image that the dataset does not have, or a person in no batch.
        ValidationError: the slug is taken.
    """
    firsts, twice = cifar10s.first_answers(raw)
    first_of = {again.row: first.row for first, again in cifar10s.retest_pairs(raw)}
    main = {response.row for response in firsts}
    kept = [response for response in raw if response.row in main or response.row in first_of]
    said, mended = _elicited(kept)
    codes = _codes(kept, [*by_hand, *mended])

    people: dict[str, list[RawResponse]] = {}
    for response in kept:
        people.setdefault(response.subject, []).append(response)
    study = _closed_study(people, dataset, name, slug, now)
    sessions = _sessions(study, people, now)
    _trials(study, sessions, people, first_of, said, codes, now)
    bulk.now_known(Session, Trial, Response)
    for session in sessions.values():
        quality.check_session(str(session.pk), now)
    return Imported(study, len(sessions), len(kept), [*twice, *mended])


def _elicited(kept: Sequence[RawResponse]) -> tuple[dict[int, Elicited], list[Repair]]:
    """What each row says, mended, by row number; and the repairs, which name rows."""
    said: dict[int, Elicited] = {}
    repairs: list[Repair] = []
    for response in kept:
        mended, made = cifar10s.repaired({response.image: [response.answer]})
        said[response.row] = mended[response.image][0]
        repairs += [replace(repair, where=f"row {response.row}", annotator=response.subject) for repair in made]
    return said, repairs


def _codes(kept: Sequence[RawResponse], repairs: Sequence[Repair]) -> dict[int, list[str]]:
    """What was mended in each row that came in, by row number."""
    rows = {f"row {response.row}": response.row for response in kept}
    codes: dict[int, list[str]] = {}
    for repair in repairs:
        if repair.where in rows:
            codes.setdefault(rows[repair.where], []).append(repair.what)
    return codes


def _closed_study(people: dict[str, list[RawResponse]], dataset: Dataset, name: str, slug: str, now: datetime) -> Study:
    batches: dict[int, dict[int, None]] = {}
    crowd: dict[int, int] = {}
    for subject, those in people.items():
        numbers = {response.batch for response in those}
        (number,) = numbers if len(numbers) == 1 else (None,)
        if number is None:
            raise refuse("responses_do_not_fit", f"Row {those[0].row}: {subject} is in no batch, or in several.")
        crowd[number] = crowd.get(number, 0) + 1
        batches.setdefault(number, {}).update(dict.fromkeys(response.image for response in those))
    study = studies.create_study(
        name=name,
        slug=slug,
        dataset=dataset,
        preset=PRESET,
        overrides={"labels_per_image": max(crowd.values()), "most_named": 2, "questionnaire": []},
    )
    studies.choose_batches(study, [list(batches[number]) for number in sorted(batches)])
    study.status, study.launched_at, study.closed_at = StudyStatus.CLOSED, now, now
    study.save()
    return study


def _sessions(study: Study, people: dict[str, list[RawResponse]], now: datetime) -> dict[str, Session]:
    """A completed session for each person, in a place of its own."""
    consent: Consent | None = selectors.current_consent(study)
    assert consent is not None  # noqa: S101 (create_study made it)
    participants = Participant.objects.bulk_create(Participant.of(study, subject) for subject in people)
    sessions = Session.objects.bulk_create(
        Session(
            study=study,
            participant=participant,
            status=SessionStatus.COMPLETED,
            consent=consent,
            consented_at=now,
            seen_at=now,
            completed_at=now,
            category_order=[],
        )
        for participant in participants
    )
    batch_of = {row.image.index: row.batch_id for row in study.study_images.select_related("image")}
    filled: dict[int, int] = {}
    places = []
    for rank, (session, those) in enumerate(zip(sessions, people.values(), strict=True)):
        batch_id = batch_of[those[0].image]
        filled[batch_id] = filled.get(batch_id, 0) + 1
        places.append(Place(study=study, batch_id=batch_id, number=filled[batch_id], rank=rank, session=session))
    Place.objects.bulk_create(places)
    return dict(zip(people, sessions, strict=True))


def _trials(
    study: Study,
    sessions: dict[str, Session],
    people: dict[str, list[RawResponse]],
    first_of: dict[int, int],
    said: dict[int, Elicited],
    codes: dict[int, list[str]],
    now: datetime,
) -> None:
    images = {row.image.index: row.image for row in study.study_images.select_related("image")}
    places = {place.session_id: place for place in study.places.all()}
    trials: dict[int, Trial] = {}
    answers = []
    for subject, those in people.items():
        session = sessions[subject]
        # The log's own order; repeats come after their first answers in it.
        for position, response in enumerate(sorted(those, key=lambda each: (each.position or 0, each.row)), 1):
            first = first_of.get(response.row)
            trials[response.row] = trial = Trial(
                session=session,
                image=images[response.image],
                position=position,
                kind=TrialKind.MAIN if first is None else TrialKind.REPEAT,
                place=places[session.pk] if first is None else None,
                repeat_of=None if first is None else trials[first],
            )
            answers.append(
                Response(
                    pk=uuid.uuid4(),
                    trial=trial,
                    received_at=now,
                    duration_ms=round(response.milliseconds or 0),
                    process={"mended": codes[response.row]} if response.row in codes else {},
                    **columns(said[response.row]),
                )
            )
    # First answers before their repeats, which point to them.
    ordered = sorted(trials.values(), key=lambda trial: trial.repeat_of is not None)
    Trial.objects.bulk_create(ordered, batch_size=ROWS_AT_ONCE)
    Response.objects.bulk_create(answers, batch_size=ROWS_AT_ONCE)

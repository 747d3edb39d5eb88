"""What was said in a study, as arrays: for everything that is worked out over many answers at once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import chain
from typing import Any
from uuid import UUID

import numpy as np
from django.db.models import F, Q, TextField
from django.db.models.functions import Cast
from numpy.typing import NDArray

from annotations.models import Response, Session, Study, TrialKind
from annotations.selectors.studies import category_count
from elicit.labels import Answers

Integers = NDArray[np.int64]

# Of a warning that was answered all the same, as both databases write a JSON column's text.
_KEPT = '"kept": true'


@dataclass(frozen=True, slots=True, eq=False)
class StudyAnswers:
    """The R current responses of S sessions on N images, session by session in the order shown. No practice trials.

    ``sessions`` (S): their keys, and ``annotators`` (S): their pseudonyms. ``image_keys`` and ``image_numbers`` (N):
    primary key, and number in the dataset. ``session``, ``image`` (R,): rows of those. ``trials`` (R): keys of trials.
    ``kind`` (R,): main, repeat, attention or gold. ``framing`` (R,). ``position`` (R,): from 1. ``first`` (R,): of a
    repeat the row that it repeats, -1 where there is none. ``check_item`` (R,): primary key, 0 for none. ``counts``
    (R,): whether the response counts towards K. ``duration_ms``, ``changes``, ``warnings_kept`` (R,): how it was made.
    ``received`` (R,): when, in seconds since 1970. ``answers``: (R, K) what was said.
    """

    sessions: list[UUID]
    annotators: list[str]
    image_keys: Integers
    image_numbers: Integers
    trials: list[UUID]
    session: Integers
    image: Integers
    kind: NDArray[np.str_]
    framing: NDArray[np.str_]
    position: Integers
    first: Integers
    check_item: Integers
    counts: NDArray[np.bool_]
    duration_ms: Integers
    changes: Integers
    warnings_kept: Integers
    received: NDArray[np.float64]
    answers: Answers

    def __len__(self) -> int:
        return len(self.session)


def study_answers(study: Study, which: Q | None = None, besides: Q | None = None) -> StudyAnswers:
    """Every session's answers, or those of the sessions that `which` (a condition on `Session`) picks; and those that
    `besides` does (a condition on `Response`)."""
    chosen = Session.objects.filter(study=study)
    if which is not None:
        chosen = chosen.filter(which)
    names = ("pk", "participant__annotator")
    sessions = list(chosen.order_by("consented_at", "pk").values_list(*names).distinct())
    rows = _rows(Q(trial__session__in=chosen.values("pk")))
    if besides is not None:
        # By itself: a database that has to find either of two things goes through everything.
        known = {row[0] for row in rows}
        rows += [row for row in _rows(Q(trial__session__study=study) & besides) if row[0] not in known]
        others = Session.objects.filter(pk__in={row[1] for row in rows} - {pk for pk, _ in sessions})
        sessions += list(others.order_by("consented_at", "pk").values_list(*names))
    number = {pk: place for place, (pk, _) in enumerate(sessions)}
    # Who came between the two queries is left to the next time.
    rows = [row for row in rows if row[1] in number]
    rows.sort(key=lambda row: (number[row[1]], row[6]))
    images = dict(sorted({(row[3], row[2]) for row in rows}))
    image_row = {pk: place for place, pk in enumerate(images.values())}
    trial_row = {row[0]: place for place, row in enumerate(rows)}
    named = _parsed(rows, 14)
    impossible = _parsed(rows, 15)
    flat = [pair for each in named for pair in each]
    return StudyAnswers(
        sessions=[pk for pk, _ in sessions],
        annotators=[annotator for _, annotator in sessions],
        image_keys=_integers(images.values()),
        image_numbers=_integers(images),
        trials=list(trial_row),
        session=_integers(number[row[1]] for row in rows),
        image=_integers(image_row[row[2]] for row in rows),
        kind=np.array([row[4] for row in rows], dtype=np.str_),
        framing=np.array([row[5] for row in rows], dtype=np.str_),
        position=_integers(row[6] for row in rows),
        first=_integers(trial_row.get(row[7], -1) for row in rows),
        check_item=_integers(row[8] or 0 for row in rows),
        counts=np.array([row[9] is not None for row in rows], dtype=np.bool_),
        duration_ms=_integers(row[10] for row in rows),
        changes=_integers(row[11] for row in rows),
        warnings_kept=_integers(row[12].count(_KEPT) for row in rows),
        received=np.array([row[13].timestamp() for row in rows], dtype=np.float64),
        answers=Answers.from_flat(
            _integers(map(len, named)),
            _integers(category for category, _ in flat),
            np.array([percentage for _, percentage in flat], dtype=np.float64),
            _integers(map(len, impossible)),
            _integers(chain.from_iterable(impossible)),
            categories=category_count(study),
        ),
    )


def _rows(which: Q) -> list[tuple[Any, ...]]:
    """The current responses of this condition, practice left out, as `study_answers` reads them."""
    return list(
        Response.objects.filter(which, current=True)
        .exclude(trial__kind=TrialKind.PRACTICE)
        .order_by()
        .values_list(
            "trial_id",
            "trial__session_id",
            "trial__image_id",
            "trial__image__index",
            "trial__kind",
            "trial__framing",
            "trial__position",
            "trial__repeat_of_id",
            "trial__check_item_id",
            "trial__place_id",
            "duration_ms",
            "changes",
            Cast(F("process"), TextField()),
            "received_at",
            Cast(F("named"), TextField()),
            Cast(F("impossible"), TextField()),
        )
    )


def _integers(values: Any) -> Integers:
    return np.fromiter(values, dtype=np.int64)


def _parsed(rows: list[tuple[Any, ...]], column: int) -> list[list[Any]]:
    """A column of JSON texts, read at once rather than each by itself."""
    parsed: list[list[Any]] = json.loads(f"[{','.join(row[column] for row in rows)}]")
    return parsed

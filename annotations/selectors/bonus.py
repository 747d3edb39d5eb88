"""What everybody's bonus comes to, by the rule that was announced.

The bonus is ``most * share``, rounded to a minor unit, and the share lies in 0..1. Of one image, with q an annotator's
soft label, p the mean of the other people's and S the proper score's expectation::

    share = 1 - (S(p, p) - S(q, p)) / range

S(p, p) is the most that anybody could get on that image, so an image on which people differ costs nobody anything.
It does not depend on q: the share is a rising straight line of a proper score, and whoever wants most of it says what
they believe the others say. For Brier this is ``1 - |q - p|^2 / 2``. ``range`` is the largest difference there can
be: 2 for Brier; log(K / floor), the distance between the ends of the logarithmic score; 1 for the spherical one.
The share of a session is the mean over its images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from django.db.models import Q
from numpy.typing import NDArray

from annotations.models import Framing, Session, SessionStatus, Study, TrialKind
from annotations.selectors import recruitment as recruited
from annotations.selectors.answers import study_answers
from elicit.labels import Depth, LabelVariety
from elicit.labels.scoring import Score, expected_score, leave_one_out
from elicit.labels.simplex import KL_FLOOR

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
VARIETY = LabelVariety(depth=Depth.TALL)
"""All named classes count, and what they leave is spread over those neither named nor impossible."""


@dataclass(frozen=True, slots=True)
class Bonus:
    """One session's: its share 0..1 of the most, on how many images, and the amount."""

    session: Session
    annotator: str
    share: float
    images: int
    amount_minor: int


def shares(
    labels: Floats, images: Integers, persons: Integers, counted: NDArray[np.bool_], score: Score
) -> dict[int, tuple[float, int]]:
    """(share, images) of each person; whose images nobody else saw gets the whole share: it is not their doing.

    ``labels`` (R, K) on ``images`` (R,) by ``persons`` (R,). The crowd are the ``counted`` (R,) rows: whoever was
    excluded is scored against the others and no part of anybody's crowd.
    """
    result: dict[int, tuple[float, int]] = {}
    groups = [(counted, np.unique(persons[counted]))]
    for outsider in np.unique(persons[~counted]).tolist():
        own = persons == outsider
        groups.append((own | (counted & np.isin(images, images[own])), np.array([outsider])))
    for rows, wanted in groups:
        crowd, others = leave_one_out(labels[rows], images[rows], persons[rows])
        known = others > 0
        ours = np.zeros(len(known))
        ours[known] = 1.0 - _regret(labels[rows][known], crowd[known], score)
        for person in wanted.tolist():
            mine = (persons[rows] == person) & known
            number = int(mine.sum())
            share = float(np.clip(ours[mine].mean(), 0.0, 1.0)) if number else 1.0
            result[int(person)] = (share, number)
    return result


def _regret(forecast: Floats, crowd: Floats, score: Score) -> Floats:
    """(R,) how far a score stays behind the best on its image, as a share of the most it could."""
    best = expected_score(crowd, crowd, score=score)
    largest = {
        Score.BRIER: 2.0,
        Score.LOG: float(np.log(forecast.shape[-1] / KL_FLOOR)),
        Score.SPHERICAL: 1.0,
    }
    return np.asarray((best - expected_score(forecast, crowd, score=score)) / largest[score])


def preview(study: Study) -> list[Bonus]:
    """The bonus of every completed session as things stand, by pseudonym. What is fixed is in `Payment`."""
    recruiting = recruited.of_study(study)
    completed = Q(status=SessionStatus.COMPLETED)
    found = study_answers(study, completed)
    sessions = {each.pk: each for each in study.sessions.filter(completed).select_related("participant")}
    # Of a study that asks two questions, the one about others: that is what the others' answers can tell.
    framing = Framing.OTHERS if Framing.OTHERS in Framing(study.framing).asked else Framing.SELF
    main = (found.kind == TrialKind.MAIN.value) & (found.framing == framing.value)
    excluded = np.array([sessions[pk].excluded_at is not None for pk in found.sessions], dtype=np.bool_)
    scored: dict[int, tuple[float, int]] = {}
    if main.any():
        rows = np.flatnonzero(main)
        labels = VARIETY.soft_labels(found.answers)[rows]
        person = found.session[rows]
        scored = shares(labels, found.image[rows], person, ~excluded[person], Score(recruiting.bonus_rule))
    result = []
    for number, pk in enumerate(found.sessions):
        share, images = scored.get(number, (1.0, 0))
        amount = int(share * recruiting.bonus_most_minor + 0.5)
        result.append(Bonus(sessions[pk], found.annotators[number], share, images, amount))
    return sorted(result, key=lambda each: each.annotator)


def histogram(values: list[float], bins: int = 10) -> list[dict[str, int]]:
    """How many shares lie in each tenth, for a small picture: `low` and `high` in percent, `count`, `height` 0..100."""
    counts, edges = np.histogram(values, bins=bins, range=(0.0, 1.0))
    tallest = max(int(counts.max()), 1)
    return [
        {
            "low": round(100 * low),
            "high": round(100 * high),
            "count": int(count),
            "height": round(100 * int(count) / tallest),
        }
        for low, high, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)
    ]

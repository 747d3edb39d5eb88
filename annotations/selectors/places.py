"""What is known of images whose places are handed out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotations.models import Framing, Place, Response, Study
from elicit.labels import RECOMMENDED, Answers, Elicited

Group = tuple[int, int | None]


@dataclass(frozen=True, slots=True, eq=False)
class LabelsSoFar:
    """The R answers that count, of G groups: a batch of one image in one arm (None where the study has none).

    ``labels`` (R, K) on the simplex, ``group`` (R,) in 0..G-1. ``taken`` (G,): places that somebody holds, answered
    or not.
    """

    groups: list[Group]
    labels: NDArray[np.float64]
    group: NDArray[np.int64]
    taken: NDArray[np.int64]


def labels_so_far(
    study: Study, batches: Collection[int], framings: Mapping[int | None, Framing], categories: int
) -> LabelsSoFar:
    """Of these batches, each one image; of an arm's two questions the one in `framings`."""
    arms: list[int | None] = [arm.pk for arm in study.arms.all()] or [None]
    groups: list[Group] = [(batch, arm) for batch in sorted(batches) for arm in arms]
    row = {group: number for number, group in enumerate(groups)}
    taken = np.zeros(len(groups), dtype=np.int64)
    places: dict[int, int] = {}
    for pk, batch, arm in Place.objects.filter(batch_id__in=list(batches), session__isnull=False).values_list(
        "pk", "batch_id", "arm_id"
    ):
        places[pk] = row[batch, arm]
        taken[places[pk]] += 1
    said = Response.objects.filter(trial__place_id__in=list(places), current=True).values_list(
        "trial__place_id", "trial__framing", "named", "impossible"
    )
    answers: list[Elicited] = []
    of: list[int] = []
    for place, framing, named, impossible in said:
        group = places[place]
        if framing == framings[groups[group][1]]:
            answers.append(Elicited(tuple((int(c), float(p)) for c, p in named), frozenset(impossible)))
            of.append(group)
    labels = (
        RECOMMENDED.soft_labels(Answers.from_elicited(answers, categories=categories))
        if answers
        else np.zeros((0, categories))
    )
    return LabelsSoFar(groups, labels, np.array(of, dtype=np.int64), taken)

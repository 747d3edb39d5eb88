"""Who gets which image: places are taken, given back, and in adaptive studies put in order.

Locks are taken in one order, so that nobody waits in a circle: the session, the study's budget, batches, places; of
several rows the one with the lower key first. Whoever holds a free place never waits for another of the same hand-out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache, partial

import numpy as np
from django.db import connection, transaction
from django.db.models import F

from annotations import selectors
from annotations.assignment import turns
from annotations.kinds import ORDER_PLACES
from annotations.models import Assignment, Batch, Framing, Place, Session, Study, Trial
from annotations.selectors import places as read
from annotations.services import bulk
from annotations.statements import Statement
from elicit.labels import allocation
from jobs.services import enqueue

# Images that one transaction puts in order: their free places can't be taken meanwhile.
AT_ONCE = 200


def claim(session: Session) -> list[Place]:
    """Give the session free places of its study and arm, by their turn: one batch, or as many images as a session
    shows where these are handed out one by one. Fewer where fewer are left, none where the study is full.

    Rows that another transaction is just taking are passed over; only when no other is free does it wait for one, in
    case that transaction fails.
    """
    study = session.study
    most = _within_budget(study, study.images_per_session if study.one_by_one else 1)
    # On SQLite the transaction itself, IMMEDIATE, is the lock.
    skip = connection.features.has_select_for_update_skip_locked
    held: dict[int, Place] = {}
    while len(held) < most:
        rows = _locked(partial(_free, session, most - len(held)))
        if not rows and skip and not held:
            rows = _locked(partial(_free, session, 1, wait=True))
        if not rows:
            break
        # Nobody labels an image twice.
        new = {place.batch_id: place for place in reversed(rows)}
        _take(session, list(new.values()))
        held |= new
    _spend(study, len(held))
    return list(held.values())


def _free(session: Session, most: int, *, wait: bool = False) -> list[Place]:
    """The next free places of the session's study and arm on batches of which it has none."""
    found = _next_free(session.arm_id is not None, wait).all(
        session.study_id, *([] if session.arm_id is None else [session.arm_id]), session.pk, most
    )
    return [models["place"] for models, _ in found]


@cache
def _next_free(of_arm: bool, wait: bool) -> Statement:
    return Statement(
        "SELECT {columns} FROM {place} WHERE place.study_id = %s "  # noqa: S608 (all of it stands here)
        f"AND place.arm_id {'= %s' if of_arm else 'IS NULL'} AND place.session_id IS NULL AND place.turn IS NOT NULL "
        "AND place.batch_id NOT IN (SELECT own.batch_id FROM {own} WHERE own.session_id = %s) "
        "ORDER BY place.turn, place.rank LIMIT %s",
        tables={"place": Place, "own": Place},
        columns="place.id place.batch",
        # What counts is that the last is a number.
        parameters=f"place.study {'place.arm' if of_arm else ''} place.session place.id",
        lock="place",
        skip_locked=not wait,
        keep=False,
    )


def claim_again(session: Session, batches: Collection[int]) -> list[Place]:
    """Give the session a free place on each of these batches that has one, its turn or not: it was there before."""
    most = _within_budget(session.study, len(batches))
    _lock_batches(batches)
    skip = connection.features.has_select_for_update_skip_locked
    held = []
    for batch in sorted(batches)[:most]:
        free = Place.objects.filter(batch_id=batch, arm=session.arm, session__isnull=True)
        free = free.order_by("number", "rank")
        rows = _locked(partial(list, free.select_for_update(skip_locked=skip)[:1]))
        if not rows and skip:
            rows = _locked(partial(list, free.select_for_update()[:1]))
        held += rows
    _take(session, held)
    _spend(session.study, len(held))
    if held:
        _touched(session.study, [place.batch_id for place in held])
    return held


def give_back(session: Session) -> None:
    """Offer a locked session's places to others. Its answers stay, but count towards no K."""
    _give_back(session, list(session.places.order_by("batch_id").values_list("batch_id", flat=True)))


def passed_over(trial: Trial) -> None:
    """Offer the place of a locked session's trial to others, as its image could not be shown.

    Only where images are handed out one by one: a batch's place is for all its images. An image that as many others
    were not shown as it takes labels will be shown to nobody, and would be offered for ever: its places stay taken.
    """
    session, place = trial.session, trial.place
    study = session.study
    if place is None or not study.one_by_one or place.batch_id in selectors.batches_of(session):
        return
    others = Trial.objects.filter(image=trial.image_id, session__study=study, skipped_at__isnull=False)
    if others.exclude(session=session).values("session").distinct().count() < study.labels_per_image:
        _give_back(session, [place.batch_id])


def _give_back(session: Session, batches: Sequence[int]) -> None:
    study = session.study
    if study.budget_labels is not None:
        Study.objects.select_for_update(no_key=True).get(pk=study.pk)
    _lock_batches(batches)
    session.trials.filter(place__batch_id__in=batches).update(place=None)
    given = Place.objects.filter(session=session, batch_id__in=batches).update(session=None)
    if given and study.budget_labels is not None:
        Study.objects.filter(pk=study.pk).update(labels_left=F("labels_left") + given * _labels_of_a_place(study))
    if given:
        _touched(study, batches)


def answered(session: Session) -> None:
    """Let an adaptive study learn from a session that is complete."""
    if session.study.assignment == Assignment.ADAPTIVE:
        batches = list(session.places.order_by("batch_id").values_list("batch_id", flat=True))
        _lock_batches(batches)
        _touched(session.study, batches)


def put_in_order(study_id: int) -> int:
    """Set the turns of an adaptive study's free places anew on all images that were touched since the last time, and
    close those images that are settled. Returns how many images it went through.

    Idempotent, and safe in several processes at once: each image is dealt with under its lock.
    """
    study = Study.objects.select_related("dataset").get(pk=study_id)
    categories = selectors.category_count(study)
    framings: dict[int | None, Framing] = {None: Framing(study.framing).asked[0]}
    for arm in study.arms.all():
        framings[arm.pk] = Framing(arm.settings.get("framing", study.framing)).asked[0]
    done = 0
    while True:
        with transaction.atomic():
            touched = Batch.objects.filter(study=study, touched=True).order_by("pk")
            batches = list(touched.select_for_update().values_list("pk", flat=True)[:AT_ONCE])
            if not batches:
                return done
            _put_batches_in_order(study, batches, framings, categories)
            done += len(batches)


def _put_batches_in_order(
    study: Study, batches: list[int], framings: dict[int | None, Framing], categories: int
) -> None:
    free = list(
        Place.objects.select_for_update()
        .filter(batch_id__in=batches, session__isnull=True)
        .order_by("batch_id", "number", "rank")
    )
    seen = read.labels_so_far(study, batches, framings, categories)
    gains = allocation.unsettled(seen.labels, seen.group, images_in_all=len(seen.groups))
    enough = allocation.settled(
        seen.labels, seen.group, images_in_all=len(seen.groups), within=study.settled_within, least=study.least_labels
    )
    row = {group: number for number, group in enumerate(seen.groups)}
    counts = np.bincount(seen.group, minlength=len(seen.groups))
    free_of: dict[int, list[Place]] = {}
    for place in free:
        free_of.setdefault(row[place.batch_id, place.arm_id], []).append(place)
    for number, places in free_of.items():
        new: Sequence[float | None] = [None] * len(places)
        if not enough[number]:
            new = turns(
                gain=float(gains[number]),
                labels=int(counts[number]),
                under_way=int(seen.taken[number] - counts[number]),
                free=len(places),
                least=study.least_labels,
            )
        for place, turn in zip(places, new, strict=True):
            place.turn = turn
    Place.objects.bulk_update(free, ["turn"], batch_size=500)
    open_still = {group[0] for number, group in enumerate(seen.groups) if not enough[number]}
    Batch.objects.filter(pk__in=batches).update(touched=False, settled=False)
    Batch.objects.filter(pk__in=set(batches) - open_still).update(settled=True)


def ring_for_touched() -> int:
    """Queue the ordering of each study that waits for it, should the first call have met one just ending."""
    waiting = Batch.objects.filter(touched=True, study__assignment=Assignment.ADAPTIVE).order_by()
    studies = list(waiting.values_list("study_id", flat=True).distinct())
    for study_id in studies:
        enqueue(ORDER_PLACES, study_id)
    return len(studies)


def _take(session: Session, held: Sequence[Place]) -> None:
    if held:
        bulk.change(Place, [place.pk for place in held], {"session_id": session.pk})
    for place in held:
        place.session = session


def _spend(study: Study, taken: int) -> None:
    if taken and study.budget_labels is not None:
        spent = taken * _labels_of_a_place(study)
        Study.objects.filter(pk=study.pk).update(labels_left=F("labels_left") - spent)


def _within_budget(study: Study, wanted: int) -> int:
    """How many of the places wanted the budget allows; nobody else draws on it before this transaction ends."""
    if study.budget_labels is None:
        return wanted
    left = Study.objects.select_for_update(no_key=True).values_list("labels_left", flat=True).get(pk=study.pk)
    return min(wanted, (left or 0) // _labels_of_a_place(study))


def _labels_of_a_place(study: Study) -> int:
    """Where there is a budget, a place is room for one image, asked about in one way or two."""
    return len(Framing(study.framing).asked)


def _lock_batches(batches: Collection[int]) -> None:
    """In one order, before any of their places."""
    list(Batch.objects.select_for_update(no_key=True).filter(pk__in=list(batches)).order_by("pk").values_list("pk"))


def _touched(study: Study, batches: Collection[int]) -> None:
    if study.assignment == Assignment.ADAPTIVE:
        Batch.objects.filter(pk__in=list(batches)).update(touched=True)
        enqueue(ORDER_PLACES, study.pk)


def _locked(ask: Callable[[], list[Place]]) -> list[Place]:
    """The rows of a locking query; no lock stays behind where there is none.

    PostgreSQL keeps the lock on a row that turns out to be taken meanwhile. Two who found nothing would go on to wait
    for each other's: only going back to a savepoint gives such locks back.
    """
    before = transaction.savepoint()
    places = ask()
    if not places:
        transaction.savepoint_rollback(before)
    return places

"""The dear half of a study's dashboard, worked out by a worker, and when that is due."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from django.conf import settings
from django.db.models import Count, Q, Sum
from django.db.models.functions import TruncHour
from numpy.typing import NDArray

from annotations.kinds import SUMMARISE_STUDY
from annotations.models import (
    Framing,
    Image,
    PaymentState,
    Response,
    Session,
    SessionStatus,
    Study,
    StudyStatus,
    StudySummary,
    TrialKind,
)
from annotations.selectors import counted, dashboard, recruitment, samples
from annotations.selectors.answers import StudyAnswers, study_answers
from elicit.figures import Entropies
from elicit.labels import summary
from elicit.labels.summary import as_json
from jobs.models import Job
from jobs.services import enqueue

Told = Callable[[str], None]

# A summary that takes long is made less often: a worker spends a tenth of its time on one study at most.
REST = 9
MS_AN_HOUR = 3_600_000


def ask(study: Study, now: datetime, *, at_once: bool = False) -> Job | None:
    """Queue a summary if one is due, or in any case if it is wanted `at_once`. Asking twice queues once."""
    if not at_once and not _due(study, now):
        return None
    return enqueue(SUMMARISE_STUDY, study.pk)


def ask_for_live(now: datetime) -> int:
    """`ask` for every study that people may be answering; how many were queued."""
    studies = Study.objects.filter(status__in=[StudyStatus.LIVE, StudyStatus.PAUSED])
    return sum(ask(study, now) is not None for study in studies)


def _due(study: Study, now: datetime) -> bool:
    """Something came since the last summary, and that is not too fresh."""
    if study.status == StudyStatus.DRAFT:
        return False
    last = StudySummary.objects.filter(study=study).only("version", "until", "computed_at", "seconds").first()
    if last is None or last.version != dashboard.SUMMARY_VERSION:
        return True
    rest = timedelta(seconds=max(settings.SUMMARY_SECONDS, REST * last.seconds))
    changed = dashboard.last_change(study)
    return now - last.computed_at >= rest and changed is not None and changed > last.until


def summarise(study_id: int, now: Callable[[], datetime], told: Told = lambda stage: None) -> StudySummary | None:
    """Work the summary out and keep it; None where the study is gone."""
    study = Study.objects.select_related("dataset").filter(pk=study_id).first()
    if study is None:
        return None
    until, began = now(), time.perf_counter()
    data = _worked_out(study, told, until)
    row, _ = StudySummary.objects.update_or_create(
        study=study,
        defaults={
            "version": dashboard.SUMMARY_VERSION,
            "until": until,
            "computed_at": max(now(), until),
            "seconds": time.perf_counter() - began,
            "data": data,
        },
    )
    return row


def _worked_out(study: Study, told: Told, now: datetime) -> dict[str, Any]:
    """Of all answers or, where they are too many to be read at once, of sessions drawn at random: then images are
    compared and pooled where everybody who saw them was drawn, and what was received when is counted of all."""
    told("reading the answers")
    drawn = samples.draw(study, np.random.default_rng([study.pk, int(now.timestamp())]))
    of_these = Q(excluded_at__isnull=True) if drawn is None else Q(excluded_at__isnull=True, pk__in=drawn.sessions)
    found = study_answers(study, of_these)
    whole = np.ones(len(found), dtype=np.bool_)
    if drawn is not None:
        whole = np.isin(found.image_keys, np.array(drawn.images, dtype=np.int64))[found.image]
    person = np.unique(np.array(found.annotators, dtype=np.str_), return_inverse=True)[1][found.session]
    asked = found.framing == Framing(study.framing).asked[0]
    main = (found.kind == TrialKind.MAIN) & asked
    pairs = ((found.kind == TrialKind.REPEAT) | (found.kind == TrialKind.MAIN)) & asked & whole
    counting = main & found.counts & whole
    told("comparing people")
    labels = summary.compared(found.answers)
    both = np.flatnonzero(pairs)
    agreement = summary.agreement(labels[both], found.image[both], person[both], main[both])
    told("pooling the labels")
    rows = np.flatnonzero(counting)
    pooled = summary.pooled(summary.select(found.answers, rows), found.image[rows], person[rows])
    told("counting")
    images = {row.pk: row for row in Image.objects.filter(pk__in=_disputed(found, pooled)).only("index", "sha256")}
    firsts = np.flatnonzero(main)
    by_hour = _by_time(found, 3600, None) if drawn is None else _hours(study)
    counts = {}
    if counted.is_large(study):
        told("counting people, places and labels")
        counts = {"counted": dashboard.count(study, now)}
    return {
        **counts,
        "drawn_from": None if drawn is None else sum(number for _, number in by_hour),
        "answers": len(found),
        "counting": int(counting.sum()),
        "times": as_json(summary.times(found.duration_ms, found.position)),
        "repeats": as_json(summary.repeats(found.answers, labels, found.first)),
        "agreement": as_json(agreement),
        "entropy": None if pooled is None else asdict(Entropies.of(pooled.entropies, found.answers.categories)),
        "accuracy": as_json(
            summary.accuracy(summary.select(found.answers, firsts), _references(found)[found.image[firsts]])
        ),
        "disputed": []
        if pooled is None
        else [
            {
                "image": images[key].index,
                "sha256": images[key].sha256,
                "labels": each.labels,
                "entropy": each.entropy,
                "label": [round(share, 5) for share in each.label],
            }
            for each, key in zip(pooled.disputed, _disputed(found, pooled), strict=True)
        ],
        "work": _work(study, found, of_these),
        "by_hour": by_hour,
        "by_ten_minutes": _by_time(found, 600, 24 * 3600) if drawn is None else _ten_minutes(study, now),
        **_remarks(study, of_these),
    }


def _disputed(found: StudyAnswers, pooled: summary.Pooled | None) -> list[int]:
    return [] if pooled is None else [int(found.image_keys[each.image]) for each in pooled.disputed]


def _references(found: StudyAnswers) -> NDArray[np.int64]:
    """(N,) the dataset's own label of each image, -1 where it has none."""
    shown = Image.objects.filter(pk__in=found.image_keys.tolist(), reference__isnull=False)
    known = dict(shown.order_by().values_list("pk", "reference"))
    return np.array([known.get(key, -1) for key in found.image_keys.tolist()], dtype=np.int64)


def _work(study: Study, found: StudyAnswers, of_these: Q) -> dict[str, Any]:
    """Time and pay of the completed sessions, by session: minutes of active and of wall time, and what an hour earned.

    What a session earns is the sum of its payments, or the study's base pay where none was made out yet.
    """
    recruiting = recruitment.of_study(study)
    active = np.bincount(found.session, found.duration_ms, len(found.sessions)).tolist()
    by_session = dict(zip(found.sessions, active, strict=True))
    finished = Session.objects.filter(of_these, study=study, status=SessionStatus.COMPLETED)
    completed = finished.values_list("pk", "consented_at", "completed_at")
    paid = dict(
        study.payments.filter(session__in=finished.values("pk"))
        .exclude(state__in=[PaymentState.CANCELLED, PaymentState.FAILED])
        .order_by()
        .values_list("session_id")
        .annotate(sum=Sum("amount_minor"))
    )
    active_ms, wall_ms, pay = [], [], []
    for pk, begun, ended in completed:
        active_ms.append(by_session.get(pk, 0.0))
        wall_ms.append((ended - begun) / timedelta(milliseconds=1) if ended else 0.0)
        pay.append(paid.get(pk, recruiting.base_minor))

    def of(milliseconds: list[float]) -> dict[str, Any]:
        known = [(each, minor) for each, minor in zip(milliseconds, pay, strict=True) if each > 0]
        whole = sum(each for each, _ in known)
        return {
            "sessions": len(known),
            "minutes": summary.quartiles([each / 60_000 for each, _ in known]),
            "mean_minutes": whole / len(known) / 60_000 if known else None,
            "wages_minor": summary.quartiles([minor * MS_AN_HOUR / each for each, minor in known]),
            "mean_wage_minor": sum(minor for _, minor in known) * MS_AN_HOUR / whole if known else None,
        }

    return {
        "completed": len(pay),
        "paid": any(pay),
        "currency": recruiting.currency,
        "active": of(active_ms),
        "wall": of(wall_ms),
    }


def _by_time(found: StudyAnswers, step: int, last: int | None) -> list[tuple[int, int]]:
    """(seconds since 1970, answers received in the `step` seconds from then), where there are any; the last ones."""
    received = found.received
    if last is not None and len(received):
        received = received[received > received.max() - last]
    starts, counts = np.unique(np.floor(received / step).astype(np.int64) * step, return_counts=True)
    return list(zip(starts.tolist(), counts.tolist(), strict=True))


def _hours(study: Study) -> list[tuple[int, int]]:
    """`_by_time` of all answers by the hour, counted by the database."""
    said = Response.objects.filter(trial__session__study=study, trial__session__excluded_at__isnull=True, current=True)
    hours = said.exclude(trial__kind=TrialKind.PRACTICE).order_by().values_list(TruncHour("received_at", tzinfo=UTC))
    return sorted((int(hour.timestamp()), number) for hour, number in hours.annotate(Count("pk")))


def _ten_minutes(study: Study, now: datetime) -> list[tuple[int, int]]:
    """`_by_time` of the last day's answers: only whoever was seen since then can have answered since then."""
    since = now - timedelta(days=1)
    said = Response.objects.filter(
        trial__session__study=study,
        trial__session__seen_at__gte=since,
        trial__session__excluded_at__isnull=True,
        received_at__gte=since,
        current=True,
    ).exclude(trial__kind=TrialKind.PRACTICE)
    spans = Counter(int(at.timestamp()) // 600 * 600 for at in said.order_by().values_list("received_at", flat=True))
    return sorted(spans.items())


def _remarks(study: Study, of_these: Q) -> dict[str, Any]:
    """Questions that the screen asked back, and contradictions that an import mended."""
    remarked = (
        Response.objects.filter(trial__session__in=Session.objects.filter(of_these, study=study), current=True)
        .exclude(trial__kind=TrialKind.PRACTICE)
        .filter(Q(process__warnings__0__isnull=False) | Q(process__mended__0__isnull=False))
        .order_by()
        .values_list("process", flat=True)
    )
    asked: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    mended: Counter[str] = Counter()
    answers_mended = 0
    for process in remarked.iterator():
        warnings = process.get("warnings", [])
        asked.update(each["code"] for each in warnings)
        kept.update(each["code"] for each in warnings if each["kept"])
        codes = process.get("mended", [])
        mended.update(codes)
        answers_mended += bool(codes)
    return {
        "warnings": [(code, number, kept[code]) for code, number in asked.most_common()],
        "mended": mended.most_common(),
        "answers_mended": answers_mended,
    }

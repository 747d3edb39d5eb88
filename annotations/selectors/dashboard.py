"""What a study's dashboard shows: cheap things counted now, dear ones read from the worker's summary."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Count, Exists, Max, Min, OuterRef, Q
from django.db.models.functions import TruncMinute

from annotations.kinds import SUMMARISE_STUDY
from annotations.models import (
    Response,
    Session,
    SessionStatus,
    Study,
    StudyStatus,
    StudySummary,
    Trial,
    TrialKind,
)
from annotations.models.participation import OPEN_STATUSES, SIGN_OF_LIFE
from annotations.selectors import choosing, counted, quality, recruitment
from annotations.selectors.recruitment import Cost
from annotations.selectors.studies import count_progress
from elicit.labels.consistency import Verdict
from jobs.models import Job, Status

SUMMARY_VERSION = 2
"""Stored beside each summary; raised whenever its data has another form or means something else."""

PRESENT = timedelta(minutes=5)
"""Whoever gave a sign of life within this is at work."""


@dataclass(frozen=True)
class Step:
    """``reached``: sessions that came as far; ``open``: those that stand there and may go on; ``at_work``: of these,
    who gave a sign of life lately."""

    key: str
    name: str
    reached: int
    open: int
    at_work: int
    lost: int

    @property
    def lost_share(self) -> float:
        """Of those who came as far and have left the step, one way or the other; 0..1."""
        decided = self.reached - self.open
        return self.lost / decided if decided > 0 else 0.0


def people_by_step(study: Study, now: datetime) -> list[Step]:
    """From the consent on. Steps that the study lacks are passed over. Excluded sessions count: they came, too.

    Of a large study who came as far and who was lost as a worker counted it last, who is there now.
    """
    if not counted.is_large(study):
        return count_steps(study, now)
    known = [Step(**each) for each in counted.counts(study).get("steps", [])]
    if not known:
        return [Step(str(SessionStatus.INSTRUCTIONS), "agreed to take part", 0, 0, 0, 0),
                Step(str(SessionStatus.COMPLETED), "completed", 0, 0, 0, 0)]  # fmt: skip
    there = study.sessions.filter(status__in=OPEN_STATUSES).order_by().values_list("status")
    at_work = Count("pk", filter=Q(seen_at__gte=now - PRESENT))
    here = {key: (every, some) for key, every, some in there.annotate(open=Count("pk"), at_work=at_work)}
    return [replace(step, open=here.get(step.key, (0, 0))[0], at_work=here.get(step.key, (0, 0))[1]) for step in known]


def count_steps(study: Study, now: datetime) -> list[Step]:
    """`people_by_step` of this moment, whatever that takes."""
    trials = Q(trials_begun_at__isnull=False) | Q(
        status__in=[SessionStatus.TRIALS, SessionStatus.QUESTIONNAIRE, SessionStatus.COMPLETED]
    )
    checked = trials | Q(comprehension_attempts__gt=0) | Q(status=SessionStatus.COMPREHENSION)
    practised = checked | Q(status=SessionStatus.PRACTICE) | Q(practised=True)
    # Withdrawn sessions keep the time at which they were completed.
    completed = Q(completed_at__isnull=False)
    steps = [(SessionStatus.INSTRUCTIONS, "agreed to take part", Q())]
    if study.practice:
        steps.append((SessionStatus.PRACTICE, "began to practise", practised))
    if study.comprehension:
        steps.append((SessionStatus.COMPREHENSION, "came to the comprehension check", checked))
    steps.append((SessionStatus.TRIALS, "began the trials", trials))
    if study.questionnaire:
        steps.append((SessionStatus.QUESTIONNAIRE, "came to the questionnaire", completed | Q(status="questionnaire")))
    steps.append((SessionStatus.COMPLETED, "completed", completed))
    sessions = study.sessions.all()
    if study.practice:
        practice = Trial.objects.filter(session=OuterRef("pk"), kind=TrialKind.PRACTICE)
        sessions = sessions.annotate(practised=Exists(practice))
    counted = sessions.aggregate(
        **{f"reached_{key}": Count("pk", filter=reached) if reached else Count("pk") for key, _, reached in steps},
        **{f"open_{key}": Count("pk", filter=Q(status=key)) for key in OPEN_STATUSES},
        **{f"at_work_{key}": Count("pk", filter=Q(status=key, seen_at__gte=now - PRESENT)) for key in OPEN_STATUSES},
    )
    found = []
    for place, (key, name, _) in enumerate(steps):
        reached = counted[f"reached_{key}"]
        waiting = counted.get(f"open_{key}", 0)
        onward = counted[f"reached_{steps[place + 1][0]}"] if place + 1 < len(steps) else reached
        lost = max(0, reached - onward - waiting)
        found.append(Step(str(key), name, reached, waiting, counted.get(f"at_work_{key}", 0), lost))
    return found


@dataclass(frozen=True)
class Coverage:
    """``images[n]``: how many images have n labels that count towards ``wanted``; ``labels`` in all."""

    images: list[int]
    wanted: int

    @property
    def labels(self) -> int:
        return sum(count * number for count, number in enumerate(self.images))

    @property
    def all_images(self) -> int:
        return sum(self.images)

    @property
    def labels_wanted(self) -> int:
        return self.all_images * self.wanted

    @property
    def full(self) -> int:
        """Images that have all labels wanted."""
        return sum(self.images[self.wanted :])

    @property
    def share(self) -> float:
        return min(1.0, self.labels / self.labels_wanted) if self.labels_wanted else 0.0

    @property
    def median(self) -> int:
        """Labels of the image in the middle, the lower of two."""
        seen = 0
        for count, number in enumerate(self.images):
            seen += number
            if 2 * seen >= self.all_images:
                return count
        return 0

    def below(self, labels: float) -> int:
        """How many images have fewer labels."""
        return sum(number for count, number in enumerate(self.images) if count < labels)


def coverage(study: Study) -> Coverage:
    """How many of its labels each image has; of a large study as a worker counted it last."""
    if not counted.is_large(study):
        return count_coverage(study)
    known = counted.counts(study).get("coverage")
    return Coverage(**known) if known else Coverage([0], study.labels_per_image)


def count_coverage(study: Study) -> Coverage:
    """`coverage` of this moment. A place gives an image one label, even where it is asked about twice."""
    several = study.framing == "both" or study.arms.exists()
    labels = Count("place", distinct=True) if several else Count("pk")
    trials = Trial.objects.filter(session__study=study, place__isnull=False)
    completed = Q(session__status=SessionStatus.COMPLETED)
    per_image: Counter[int] = Counter()
    # A completed session has answered whatever it did not pass over: to look for those answers would be dear.
    for some in (
        trials.filter(completed, skipped_at__isnull=True),
        trials.exclude(completed).filter(responses__current=True),
    ):
        per_image.update(dict(some.order_by().values_list("image").annotate(labels=labels)))
    counted = Counter(per_image.values())
    wanted = study.labels_per_image * max(1, study.arms.count() if several else 1)
    images = study.study_images.count()
    heights = [counted.get(labels, 0) for labels in range(max([wanted, *counted]) + 1)]
    heights[0] = max(0, images - sum(heights))
    return Coverage(heights, wanted)


WINDOWS = {"hour": "the last hour", "day": "the last 24 hours", "whole": "the whole study"}


@dataclass(frozen=True)
class Rate:
    """Answers per minute: ``names`` of equal spans of ``minutes``, and ``answers`` received in each."""

    window: str
    minutes: int
    names: list[str]
    answers: list[int]

    @property
    def per_minute(self) -> list[float]:
        return [each / self.minutes for each in self.answers]


def rate(study: Study, window: str, now: datetime, summary: StudySummary | None) -> Rate:
    """The last hour counted now, minute by minute; what is longer from the summary."""
    if window == "hour":
        since = now.replace(second=0, microsecond=0) - timedelta(minutes=59)
        # Only whoever was seen since then can have answered since then.
        counted = dict(
            Response.objects.filter(
                trial__session__study=study,
                trial__session__seen_at__gte=since - SIGN_OF_LIFE,
                received_at__gte=since,
            )
            .order_by()
            .values_list(TruncMinute("received_at", tzinfo=UTC))
            .annotate(answers=Count("pk"))
        )
        minutes = [since + timedelta(minutes=number) for number in range(60)]
        return Rate(window, 1, [f"{each:%H:%M}" for each in minutes], [counted.get(each, 0) for each in minutes])
    data = summary.data if summary else {"by_hour": [], "by_ten_minutes": []}
    if window == "day":
        step, last = 600, int(now.timestamp()) // 600 * 600
        starts = [last - 600 * number for number in range(143, -1, -1)]
        known = dict(data["by_ten_minutes"])
        return Rate(window, 10, [_clock(each, "%H:%M") for each in starts], [known.get(each, 0) for each in starts])
    hours = data["by_hour"]
    if not hours:
        return Rate(window, 60, [], [])
    # Hours while that can be drawn, else days, weeks, ...
    first, last = hours[0][0], hours[-1][0]
    step = next(each for each in _SPANS if (last - first) // each < MOST_SPANS or each == _SPANS[-1])
    first -= first % step
    counts: Counter[int] = Counter()
    for start, number in hours:
        counts[(start - first) // step] += number
    spans = range((last - first) // step + 1)
    form = "%d %b %H:%M" if step == _SPANS[0] else "%d %b %Y"
    return Rate(window, step // 60, [_clock(first + step * each, form) for each in spans], [counts[n] for n in spans])


_SPANS = (3600, 86_400, 7 * 86_400, 28 * 86_400)
MOST_SPANS = 96


def _clock(seconds: int, form: str) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(form)


def last_change(study: Study) -> datetime | None:
    """The latest that somebody may have given a sign of life, left, or was excluded; None where nobody was there."""
    at_work = Q(status__in=[SessionStatus.PRACTICE, SessionStatus.TRIALS])
    found = study.sessions.aggregate(
        seen=Max("seen_at"), at_work=Max("seen_at", filter=at_work), left=Max("withdrawn_at"), out=Max("excluded_at")
    )
    if found["at_work"] is not None:
        # Not every answer is a sign of life.
        found["at_work"] += SIGN_OF_LIFE
    return max((each for each in found.values() if each is not None), default=None)


@dataclass(frozen=True)
class Live:
    """A study at this moment. Times are ``None`` where there was no such thing yet."""

    now: datetime
    steps: list[Step]
    coverage: Coverage
    places_free: int
    places: int
    last_answer: datetime | None
    last_arrival: datetime | None
    inconsistent: int
    checked: int
    excluded: int
    flagged: int
    cost: Cost
    summary: StudySummary | None
    in_the_works: bool

    @property
    def came(self) -> int:
        return self.steps[0].reached

    @property
    def completed(self) -> int:
        return self.steps[-1].reached

    @property
    def at_work(self) -> int:
        return sum(step.at_work for step in self.steps)


def live(study: Study, now: datetime) -> Live:
    """Everything that is cheap, in a fixed number of queries, whatever the number of answers; of a large study with the
    rest as a worker counted it last."""
    numbers = counted.counts(study).get("numbers", _NO_NUMBERS) if counted.is_large(study) else count_numbers(study)
    return Live(
        now=now,
        steps=people_by_step(study, now),
        coverage=coverage(study),
        places_free=numbers["places_free"],
        places=numbers["places"],
        last_answer=last_answer(study),
        last_arrival=last_arrival(study),
        inconsistent=numbers["inconsistent"],
        checked=numbers["checked"],
        excluded=numbers["excluded"],
        flagged=numbers["flagged"],
        cost=recruitment.cost_so_far(study),
        summary=StudySummary.objects.filter(study=study, version=SUMMARY_VERSION).first(),
        in_the_works=Job.objects.filter(
            kind=SUMMARISE_STUDY, subject=str(study.pk), status__in=[Status.QUEUED, Status.RUNNING]
        ).exists(),
    )


_NO_NUMBERS = {"places_free": 0, "places": 0, "inconsistent": 0, "checked": 0, "excluded": 0, "flagged": 0}


def count_numbers(study: Study) -> dict[str, int]:
    """Places and verdicts of this moment, whatever that takes."""
    sessions = study.sessions.aggregate(
        excluded=Count("pk", filter=Q(excluded_at__isnull=False)),
        checked=Count("pk", filter=Q(consistency__isnull=False) & ~Q(consistency__verdict=Verdict.UNDETERMINED)),
        inconsistent=Count("pk", filter=Q(consistency__verdict=Verdict.INCONSISTENT)),
    )
    places = study.places.aggregate(
        free=Count("pk", filter=Q(session__isnull=True, turn__isnull=False)), all=Count("pk")
    )
    return {
        "places_free": places["free"],
        "places": places["all"],
        "inconsistent": sessions["inconsistent"],
        "checked": sessions["checked"],
        "excluded": sessions["excluded"],
        "flagged": quality.flagged(study).count(),
    }


def count(study: Study, now: datetime) -> dict[str, Any]:
    """Everything that pages of a large study read from `counted.counts`."""
    cover = count_coverage(study)
    return {
        "progress": asdict(count_progress(study)),
        "steps": [asdict(step) for step in count_steps(study, now)],
        "coverage": {"images": cover.images, "wanted": cover.wanted},
        "numbers": count_numbers(study),
        "cost": asdict(recruitment.count_cost(study)),
        "classes": [asdict(each) for each in choosing.count_classes(study)],
    }


def last_arrival(study: Study) -> datetime | None:
    """When somebody agreed last."""
    return study.sessions.order_by("-consented_at").values_list("consented_at", flat=True).first()


# Sessions to look at for the last answer: whoever was seen last need not have answered.
_LAST_SEEN = 20


def last_answer(study: Study) -> datetime | None:
    """When the last answer came, by the sessions seen last: through all answers would be dear."""
    latest = list(study.sessions.order_by("-seen_at").values_list("pk", flat=True)[:_LAST_SEEN])
    found = Response.objects.filter(trial__session__in=latest).aggregate(last=Max("received_at"))
    last: datetime | None = found["last"]
    return last


# --- Alarms


@dataclass(frozen=True)
class Limits:
    """When something is an alarm. See docs/how-to/watch.md."""

    quiet: timedelta = timedelta(hours=3)
    lost_share: float = 0.4
    lost_people: int = 10
    fastest_median: float = 3.0
    timed_answers: int = 50
    least_wage_minor: tuple[tuple[str, int], ...] = (("GBP", 600), ("USD", 800))
    paid_sessions: int = 3
    flagged_share: float = 0.15
    flagged_people: int = 3
    behind: float = 0.5
    places_left: float = 0.1
    waiting: timedelta = timedelta(minutes=3)
    failed_within: timedelta = timedelta(days=1)
    disk_share: float = 0.05


@dataclass(frozen=True)
class Alarm:
    """``code`` for programs; what is the matter and what to do, for people. ``urgent``: it costs data or money now."""

    code: str
    says: str
    do: str
    urgent: bool = False


@dataclass(frozen=True)
class Machine:
    """What the whole installation lacks: failed jobs by kind, how long the longest due job waits, and the disk."""

    failed: dict[str, int]
    waiting_since: datetime | None
    disk_free: int
    disk_total: int


def machine(now: datetime, limits: Limits) -> Machine:
    failed = dict(
        Job.objects.filter(status=Status.FAILED, finished_at__gte=now - limits.failed_within)
        .order_by()
        .values_list("kind")
        .annotate(number=Count("pk"))
    )
    # What has a queue of its own may wait there for hours.
    due = Job.objects.filter(status=Status.QUEUED, due_at__lte=now).exclude(kind__in=list(settings.CELERY_TASK_ROUTES))
    waiting = due.aggregate(since=Min("due_at"))
    disk = shutil.disk_usage(settings.VAR)
    return Machine(failed, waiting["since"], disk.free, disk.total)


def limits() -> Limits:
    """Those of this installation."""
    return Limits(least_wage_minor=tuple(sorted(settings.LEAST_WAGE_MINOR.items())))


def alarms(study: Study, found: Live, computer: Machine, limit: Limits) -> list[Alarm]:
    """What somebody should look at, the urgent first."""
    raised = machine_alarms(computer, found.now, limit) + study_alarms(study, found, limit)
    return sorted(raised, key=lambda alarm: not alarm.urgent)


def all_alarms(study: Study, found: Live) -> list[Alarm]:
    """`alarms` as things stand, by the limits of this installation."""
    limit = limits()
    return alarms(study, found, machine(found.now, limit), limit)


def study_alarms(study: Study, found: Live, limit: Limits) -> list[Alarm]:
    """Those of the study itself; none where nobody can answer it."""
    if study.status not in (StudyStatus.LIVE, StudyStatus.PAUSED):
        return []
    return [*_of_people(study, found, limit), *_of_answers(found, limit)]


def machine_alarms(computer: Machine, now: datetime, limit: Limits) -> list[Alarm]:
    """Those of the whole installation."""
    raised = []
    if computer.waiting_since is not None and now - computer.waiting_since > limit.waiting:
        minutes = (now - computer.waiting_since) // timedelta(minutes=1)
        raised.append(
            Alarm(
                "no_worker",
                f"Background work has waited for {_count(minutes, 'minute')}: no worker takes it.",
                "Start a worker (make run starts one; in Compose: docker compose up -d worker). No answer is lost "
                "meanwhile.",
                urgent=True,
            )
        )
    if computer.disk_free < max(limit.disk_share * computer.disk_total, settings.LEAST_FREE_MB << 20):
        raised.append(
            Alarm(
                "disk_nearly_full",
                f"The disk has {computer.disk_free / 2**30:.1f} GB left.",
                "Free some room, or move to a larger disk, before answers can't be stored any more.",
                urgent=True,
            )
        )
    if computer.failed:
        kinds = ", ".join(
            f"{kind.rpartition('.')[2].replace('_', ' ')} ({number})"
            for kind, number in sorted(computer.failed.items())
        )
        raised.append(
            Alarm(
                "jobs_failing",
                f"Background work failed in the last 24 hours: {kinds}.",
                "Read what went wrong in the list of jobs, mend it, and try them again there.",
            )
        )
    return raised


def _of_people(study: Study, found: Live, limit: Limits) -> Sequence[Alarm]:
    raised = []
    begun = max((each for each in (study.launched_at, found.last_arrival) if each is not None), default=None)
    quiet = found.now - begun if begun is not None else timedelta()
    if study.status == StudyStatus.LIVE and found.places_free and quiet >= limit.quiet and not found.at_work:
        raised.append(
            Alarm(
                "nobody_arrives",
                f"Nobody has come for {_count(quiet // timedelta(hours=1), 'hour')}, though there is room.",
                "See whether the link is shared and the recruiting platform's study is active.",
                urgent=True,
            )
        )
    for step in found.steps[:-1]:
        decided = step.reached - step.open
        if decided >= limit.lost_people and step.lost_share > limit.lost_share:
            raised.append(
                Alarm(
                    f"drop_out_{step.key}",
                    f"{step.lost} of {decided} who {step.name} went no further ({100 * step.lost_share:.0f} %).",
                    "Look at that step as an annotator sees it: is it clear, does it work on a phone, is it what the "
                    "pay and the time promised?",
                )
            )
    share = found.flagged / found.completed if found.completed else 0.0
    if found.flagged >= limit.flagged_people and share > limit.flagged_share:
        raised.append(
            Alarm(
                "many_flagged",
                f"{found.flagged} of {_count(found.completed, 'completed session')} are flagged ({100 * share:.0f} %).",
                "Look through them under Quality. If many fail alike, the instructions may be unclear.",
            )
        )
    if study.status == StudyStatus.LIVE and found.places and not found.places_free:
        raised.append(
            Alarm(
                "study_full",
                "Every place is taken: whoever comes now is turned away.",
                "Stop recruiting on the platform. Places come free again where sessions are abandoned or excluded; "
                "close the study once all labels are in.",
            )
        )
    elif study.status == StudyStatus.LIVE and found.places_free <= limit.places_left * found.places:
        raised.append(
            Alarm(
                "study_nearly_full",
                f"{_count(found.places_free, 'place')} of {found.places} {'is' if found.places_free == 1 else 'are'} "
                "left.",
                "Let no more people start on the platform than there are places.",
            )
        )
    return raised


def _of_answers(found: Live, limit: Limits) -> Sequence[Alarm]:
    raised = []
    median = found.coverage.median
    behind = found.coverage.below(limit.behind * median)
    if median >= 2 and behind:
        raised.append(
            Alarm(
                "images_behind",
                f"{_count(behind, 'image')} {'has' if behind == 1 else 'have'} less than half the labels of the image "
                "in the middle.",
                "See whether their files can be shown: an image that does not load is passed over.",
            )
        )
    data: dict[str, Any] = found.summary.data if found.summary else {}
    times, work = data.get("times"), data.get("work")
    if times and times["count"] >= limit.timed_answers and times["median"] < limit.fastest_median:
        raised.append(
            Alarm(
                "answers_too_fast",
                f"Half of all answers take less than {times['median']:.1f} s.",
                "Nobody looks, names and weighs that fast: check the latest sessions, and pause the study if they were "
                "made by a program.",
                urgent=True,
            )
        )
    if work and work["paid"] and work["wall"]["sessions"] >= limit.paid_sessions:
        least = dict(limit.least_wage_minor).get(work["currency"])
        earned = work["wall"]["wages_minor"][1]
        if least is not None and earned < least:
            raised.append(
                Alarm(
                    "wage_too_low",
                    f"An hour earns {money(earned, work['currency'])} at the median, below the least of "
                    f"{money(least, work['currency'])}.",
                    "Raise the base pay, or ask for fewer images a session; those who are done can get a bonus.",
                    urgent=True,
                )
            )
    return raised


_SIGNS = {"GBP": "£", "USD": "$", "EUR": "€", "CNY": "¥"}


def money(minor: float, currency: str) -> str:
    return f"{_SIGNS.get(currency, currency + ' ')}{minor / 100:,.2f}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


# --- One image


@dataclass(frozen=True)
class Said:
    """One current answer on an image, as a row of the image's page."""

    session: Session
    response: Response
    trial: Trial


def said_of_image(study: Study, image: int) -> list[Said]:
    """Every current answer on the dataset's image of this number, practice left out; by annotator, then position."""
    responses = (
        Response.objects.filter(trial__session__study=study, trial__image__index=image, current=True)
        .exclude(trial__kind=TrialKind.PRACTICE)
        .select_related("trial__session__participant")
        .order_by("trial__session__participant__annotator", "trial__position")
    )
    return [Said(each.trial.session, each, each.trial) for each in responses]

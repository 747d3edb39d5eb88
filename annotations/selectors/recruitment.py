"""Who came from where, how it ended for them, and what they are owed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from uuid import UUID

from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Sum

from annotations.models import (
    Arrival,
    CheckKind,
    Outcome,
    Payment,
    PaymentKind,
    PaymentState,
    Platform,
    PlatformStatus,
    Recruitment,
    Response,
    Session,
    SessionStatus,
    Study,
    TrialKind,
)
from annotations.models.recruitment import SETTLED_STATUSES
from annotations.recruitment import adapter
from annotations.return_links import return_url_problem
from annotations.sealing import fingerprints
from annotations.selectors import counted
from annotations.statements import Statement

BASE_KINDS = (PaymentKind.BASE, PaymentKind.SCREEN_OUT)


def of_study(study: Study) -> Recruitment:
    """The study's recruitment; an unsaved one, the open link without pay, where nothing was chosen."""
    found = _recruiting().first(study.pk)
    if found is None:
        return Recruitment(study=study)
    recruiting: Recruitment = found[0]["recruiting"]
    recruiting.study = study
    return recruiting


@cache
def _recruiting() -> Statement:
    return Statement(
        "SELECT {columns} FROM {recruiting} WHERE recruiting.study_id = %s",
        tables={"recruiting": Recruitment},
        columns="recruiting.*",
        parameters="recruiting.study",
    )


@dataclass(frozen=True, slots=True)
class Cost:
    """What a study has cost and owes so far, in minor units of `currency`: pay of finished sessions, whether it is paid
    already or not, frozen bonuses, and the platform's fees on both."""

    base_minor: int
    bonus_minor: int
    fees_minor: int
    currency: str

    @property
    def total_minor(self) -> int:
        return self.base_minor + self.bonus_minor + self.fees_minor


def cost_so_far(study: Study) -> Cost:
    """What the finished sessions cost, fees and all; of a large study as a worker counted it last."""
    if not counted.is_large(study):
        return count_cost(study)
    if known := counted.counts(study).get("cost"):
        return Cost(**known)
    return Cost(0, 0, 0, of_study(study).currency)


def count_cost(study: Study) -> Cost:
    """`cost_so_far` of this moment. What was cancelled costs nothing."""
    recruiting = of_study(study)
    sums = dict(
        study.payments.exclude(state=PaymentState.CANCELLED)
        .values_list("kind")
        .annotate(sum=Sum("amount_minor"))
        .order_by()
    )
    base = sum(sums.get(kind, 0) for kind in BASE_KINDS)
    owed = without_payment(study, SessionStatus.COMPLETED).count() * recruiting.base_minor
    owed += without_payment(study, SessionStatus.SCREENED_OUT).count() * recruiting.screenout_minor
    bonus = sums.get(PaymentKind.BONUS, 0)
    return Cost(base + owed, bonus, fees(base + owed + bonus, recruiting), recruiting.currency)


def fees(amount_minor: int, recruiting: Recruitment) -> int:
    return round(amount_minor * recruiting.fee_share)


def without_payment(study: Study, status: SessionStatus) -> QuerySet[Session]:
    """Sessions that ended so and for whose base pay no row exists yet. Those who withdrew after the end completed too:
    they keep what they earned. Whoever returned their submission, or had it rejected, is owed nothing on it."""
    ended = Q(status=status)
    if status == SessionStatus.COMPLETED:
        ended |= Q(status=SessionStatus.WITHDRAWN, completed_at__isnull=False)
    given_back = Q(status__in=[PlatformStatus.RETURNED, PlatformStatus.REJECTED])
    submissions = Arrival.objects.filter(session=OuterRef("pk"))
    owed = ~Exists(submissions.filter(given_back)) | Exists(submissions.exclude(given_back))
    return (
        study.sessions.filter(ended)
        .filter(owed)
        .exclude(Exists(Payment.objects.filter(session=OuterRef("pk"), kind__in=BASE_KINDS)))
    )


# --- Submissions

SUBMISSION = "submission"
"""What their fingerprints are made for."""


def submission_keys(platform: str, submission: str) -> list[str]:
    """What `submission_key` may be for this submission."""
    return fingerprints(SUBMISSION, platform, submission)


def arrival(study: Study, platform: str, submission: str) -> Arrival | None:
    keys = submission_keys(platform, submission)
    found = Arrival.objects.select_related("session", "session__study", "participant")
    return found.filter(study=study, submission_key__in=keys).first()


def arrivals_by_key(study: Study) -> dict[str, Arrival]:
    arrivals = study.arrivals.filter(platform=Platform.PROLIFIC).exclude(submission_key="")
    return {each.submission_key: each for each in arrivals}


def unsettled_arrivals(study: Study) -> bool:
    """Whether the platform may still have news of somebody."""
    return study.arrivals.exclude(status__in=[*SETTLED_STATUSES, PlatformStatus.MISSING]).exists()


def outstanding(study: Study, now: datetime, patience: timedelta) -> bool:
    """Whether somebody is done here, or gone, and the platform has not said so within `patience`."""
    over = Q(session__completed_at__lt=now - patience) | Q(
        session__status__in=[SessionStatus.SCREENED_OUT, SessionStatus.ABANDONED], session__seen_at__lt=now - patience
    )
    waiting = [PlatformStatus.UNHEARD, PlatformStatus.RESERVED, PlatformStatus.ACTIVE]
    return study.arrivals.filter(over, platform=Platform.PROLIFIC, status__in=waiting).exists()


# --- How it ended

ATTENTION_TO_FAIL = 2
"""So many failed attention checks speak against a session."""


def attention_failures(sessions: Iterable[Session]) -> Counter[UUID]:
    """How many attention checks each session failed."""
    shown = Response.objects.filter(
        trial__session__in=[each.pk for each in sessions], trial__kind=TrialKind.ATTENTION, current=True
    ).select_related("trial__check_item")
    failed: Counter[UUID] = Counter()
    for response in shown:
        item = response.trial.check_item
        # An attention check says which category to name: there is no soft label to be near to.
        if item is not None and item.allowed and response.top_category not in item.allowed:
            failed[response.trial.session_id] += 1
    return failed


def outcome_of(session: Session) -> Outcome:
    """How it ended for whoever has this session."""
    match session.status:
        case SessionStatus.COMPLETED:
            failures = attention_failures([session])[session.pk]
            return Outcome.FAILED_ATTENTION if failures >= ATTENTION_TO_FAIL else Outcome.COMPLETED
        case SessionStatus.SCREENED_OUT:
            return Outcome.SCREENED_OUT
        case SessionStatus.WITHDRAWN:
            return Outcome.COMPLETED if session.completed_at else Outcome.NO_CONSENT
        case _:
            return Outcome.UNDER_WAY


@dataclass(frozen=True, slots=True)
class Departure:
    """What the last page shows: a code for the platform, and the way back; either may be empty."""

    outcome: Outcome
    code: str
    url: str


def departure(study: Study, outcome: Outcome, person: str = "") -> Departure:
    """Where somebody goes for whom it ended so. A way back that the server does not allow is left out."""
    recruiting = of_study(study)
    code = recruiting.code(outcome)
    if outcome == Outcome.FAILED_ATTENTION:
        code = code or recruiting.code_completed
    if outcome in (Outcome.COMPLETED, Outcome.FAILED_ATTENTION):
        code = code or study.completion_code
    elif outcome == Outcome.SCREENED_OUT:
        code = code or study.screenout_code
    one_way = outcome in (Outcome.COMPLETED, Outcome.FAILED_ATTENTION) or recruiting.platform == Platform.PROLIFIC
    url = adapter(recruiting.platform).way_back(recruiting, code, person) if one_way else ""
    return Departure(outcome, code, "" if return_url_problem(url) else url)


def outcome_of_code(recruiting: Recruitment, code: str) -> str:
    """Whose code somebody entered on the platform: an outcome's name, or `other`."""
    for outcome in Outcome:
        if outcome != Outcome.UNDER_WAY and recruiting.code(outcome) == code:
            return outcome
    return "other"


# --- What a curator looks at


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """A submission of which platform and study tell different stories."""

    arrival: Arrival
    what: str


_DONE_THERE = (PlatformStatus.AWAITING_REVIEW, PlatformStatus.APPROVED)
_GONE_THERE = (PlatformStatus.RETURNED, PlatformStatus.TIMED_OUT)


def discrepancies(study: Study, now: datetime, most: int | None = None) -> list[Discrepancy]:
    """Where platform and study disagree, oldest first, in words that say what to look at; the first `most` of them."""
    found: list[Discrepancy] = []
    over = Q(session__completed_at__isnull=False) | Q(session__status=SessionStatus.SCREENED_OUT)
    # Of most there is nothing to say: they are not even read.
    differs = (
        Q(status=PlatformStatus.MISSING)
        | Q(entered="other")
        | Q(over, status__in=[*_GONE_THERE, PlatformStatus.RESERVED, PlatformStatus.ACTIVE])
        | Q(session__completed_at__isnull=True, status__in=_DONE_THERE)
    )
    arrivals = study.arrivals.filter(differs, platform=Platform.PROLIFIC).select_related("session", "participant")
    for each in arrivals.order_by("arrived_at"):
        if len(found) == most:
            break
        done = each.session.completed_at is not None or each.session.status == SessionStatus.SCREENED_OUT
        if each.status == PlatformStatus.MISSING:
            found.append(Discrepancy(each, "Prolific does not know this submission as this person’s"))
        elif done and each.status in (*_GONE_THERE, PlatformStatus.RESERVED):
            found.append(Discrepancy(each, f"complete here, {each.get_status_display()} there"))
        elif done and each.status == PlatformStatus.ACTIVE and now - each.session.seen_at > timedelta(hours=1):
            found.append(Discrepancy(each, "complete here, still active there: they did not enter the code"))
        elif not done and each.status in _DONE_THERE and each.session.status != SessionStatus.WITHDRAWN:
            found.append(Discrepancy(each, f"{each.get_status_display()} there, not complete here"))
        elif each.entered == "other":
            found.append(Discrepancy(each, "entered a code that is none of this study’s"))
    return found


def arrival_counts(study: Study) -> list[tuple[str, int]]:
    """(status on the platform, how many), most first."""
    counts = study.arrivals.order_by().values_list("status").annotate(number=Count("pk"))
    return [(PlatformStatus(status).label, number) for status, number in counts.order_by("-number", "status")]


@dataclass(frozen=True, slots=True)
class Due:
    """What could be paid now: `count` people of a kind of pay, `amount_minor` in all, and the fee on it."""

    kind: PaymentKind
    count: int
    amount_minor: int
    fees_minor: int

    @property
    def total_minor(self) -> int:
        return self.amount_minor + self.fees_minor


def due(study: Study) -> list[Due]:
    """What is owed and not asked for yet, kind by kind; sessions that failed attention checks wait for a decision."""
    recruiting = of_study(study)
    found = []
    for kind in PaymentKind:
        rows = payable(study).filter(kind=kind)
        count, amount = rows.count(), rows.aggregate(sum=Sum("amount_minor"))["sum"] or 0
        if count:
            found.append(Due(kind, count, amount, fees(amount, recruiting)))
    return found


def payable(study: Study) -> QuerySet[Payment]:
    """Payments that a curator may ask for now, all at once."""
    waiting = study.payments.filter(state=PaymentState.DUE, ordered=False)
    return waiting.exclude(session__in=held_back(study))


def held_back(study: Study) -> list[UUID]:
    """Completed sessions that failed so many attention checks that a curator has to look at each."""
    if not study.check_items.filter(kind=CheckKind.ATTENTION).exists():
        return []
    failed = attention_failures(study.sessions.filter(status=SessionStatus.COMPLETED))
    return [pk for pk, count in failed.items() if count >= ATTENTION_TO_FAIL]


def money(amount_minor: int, currency: str) -> str:
    """As people write it: £1.50."""
    return f"{_SIGNS.get(currency, currency + ' ')}{amount_minor / 100:,.2f}"


_SIGNS = {"GBP": "£", "USD": "$", "EUR": "€", "CNY": "¥"}

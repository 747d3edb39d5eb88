"""What is kept of people, and until when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from django.db.models import Exists, OuterRef, Q, QuerySet

from annotations.models import Participant, Payment, PaymentState, Retention, Session, Study, StudyStatus, Trial

# Until such a payment is settled its person has to be found again.
OPEN_PAYMENT_STATES = (PaymentState.DUE, PaymentState.SENDING, PaymentState.UNKNOWN, PaymentState.FAILED)
# So long before something is erased the console says so.
NOTICE = timedelta(days=14)


def of_study(study: Study) -> Retention:
    """The study's retention; the defaults where nobody has chosen."""
    return Retention.objects.filter(study=study).first() or Retention(study=study)


def ids_due_at(study: Study, retention: Retention) -> datetime:
    """When the platform ids of a closed study go."""
    if study.closed_at is None:
        raise ValueError("The study is not closed.")
    return study.closed_at + timedelta(days=retention.ids_days)


def with_ids(study: Study) -> QuerySet[Participant]:
    return Participant.objects.filter(study=study).exclude(platform_id_sealed="")


def waiting_for_pay(study: Study) -> QuerySet[Payment, int]:
    """The participants of a study who have an open payment."""
    rows = Payment.objects.filter(study=study, state__in=OPEN_PAYMENT_STATES)
    return rows.values_list("session__participant_id", flat=True)


def with_answers(study: Study) -> QuerySet[Session]:
    shown = Exists(Trial.objects.filter(session=OuterRef("pk")))
    return Session.objects.filter(~Q(questionnaire={}) | shown, study=study)


def _ids(number: int) -> str:
    return f"{number} platform id{' is' if number == 1 else 's are'}"


@dataclass(frozen=True)
class Kept:
    """What a study keeps of people now. `ids_due_at` and `answers_until` are None where nothing is to be erased."""

    retention: Retention
    ids: int
    waiting_for_pay: int
    ids_due_at: datetime | None
    sessions: int
    answers_until: date | None
    withdrawn: int

    def soon(self, now: datetime) -> list[str]:
        """What the console reminds of."""
        told = []
        if self.ids_due_at and self.ids and self.ids_due_at <= now + NOTICE:
            if self.ids_due_at > now:
                told.append(f"{_ids(self.ids)} erased on {self.ids_due_at:%Y-%m-%d}: pay people before that.")
            elif self.waiting_for_pay:
                told.append(
                    f"{_ids(self.waiting_for_pay)} kept past {self.ids_due_at:%Y-%m-%d}, "
                    "since payments are open: settle or cancel them."
                )
        if self.answers_until and self.sessions and self.answers_until <= (now + NOTICE).date():
            told.append(f"The answers of {self.sessions} sessions are erased on {self.answers_until:%Y-%m-%d}.")
        return told


def kept(study: Study) -> Kept:
    """What a study keeps of people, and how long still."""
    retention = of_study(study)
    ids = with_ids(study)
    return Kept(
        retention=retention,
        ids=ids.count(),
        waiting_for_pay=ids.filter(pk__in=waiting_for_pay(study)).count(),
        ids_due_at=ids_due_at(study, retention) if study.closed_at else None,
        sessions=with_answers(study).count(),
        answers_until=retention.answers_until if study.closed_at else None,
        withdrawn=study.sessions.filter(withdrawn_at__isnull=False).count(),
    )


def reminders(now: datetime) -> list[tuple[Study, list[str]]]:
    """Studies of which something is erased soon, or is kept past its time, and what to say of each."""
    closed = Study.objects.filter(status=StudyStatus.CLOSED, closed_at__isnull=False).order_by("closed_at")
    found = [(study, kept(study).soon(now)) for study in closed]
    return [(study, told) for study, told in found if told]

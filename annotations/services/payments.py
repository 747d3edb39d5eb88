"""Pay people once.

A session has one row a kind of pay, by constraint. It moves due -> sending -> paid | failed | unknown, each step by
compare-and-set, so of any number of workers one sends. Just before the one request that can't be repeated `called_at`
is set, under the claim of whoever sends: a worker that lost its claim sends nothing, and of a payment whose request may
have gone out only the platform knows. Such a payment is *unknown* and settled by asking, never by paying again.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from annotations.errors import refuse
from annotations.kinds import PAY_STUDY
from annotations.models import (
    Arrival,
    Payment,
    PaymentKind,
    PaymentState,
    Platform,
    PlatformStatus,
    Recruitment,
    Session,
    SessionStatus,
    Study,
)
from annotations.recruitment import prolific_api
from annotations.recruitment.prolific_api import Client, Refused, Submission, Unavailable, Uncertain
from annotations.sealing import unseal
from annotations.selectors import bonus
from annotations.selectors import recruitment as recruited
from annotations.signals import session_leaves
from jobs.models import Job
from jobs.services import enqueue, report

SENDING_TAKES = timedelta(minutes=5)
"""A payment that has been sending for longer lost its worker."""
PLATFORM_TAKES = timedelta(hours=1)
"""Prolific pays bonuses "in the following minutes": what it does not list by then was not paid."""
LEAST_MESSAGE = 100
SHORT_STUDY_MINUTES = 5


# --- What is owed


def make_due(*, study: Study, now: datetime, session: Session | None = None) -> int:
    """Write down the base pay of sessions that have ended, or of one. Again changes nothing. Returns how many rows are
    new."""
    recruiting = recruited.of_study(study)
    terms = (
        (SessionStatus.COMPLETED, PaymentKind.BASE, recruiting.base_minor),
        (SessionStatus.SCREENED_OUT, PaymentKind.SCREEN_OUT, recruiting.screenout_minor),
    )
    made = 0
    for status, kind, amount in terms:
        if amount:
            sessions = recruited.without_payment(study, status)
            if session is not None:
                sessions = sessions.filter(pk=session.pk)
            rows = [_row(each, kind, amount, recruiting, now) for each in sessions]
            made += len(Payment.objects.bulk_create(rows, ignore_conflicts=True))
    return made


def connect() -> None:
    """Answer to those who leave."""
    session_leaves.connect(_pay_before_leaving, dispatch_uid="annotations.pay_before_leaving")


def _pay_before_leaving(session: Session, **_: object) -> None:
    """Whoever takes their answers back keeps what they earned: written down before anything of theirs is erased, since
    a submission is kept as long as a payment on it is open."""
    make_due(study=session.study, now=timezone.now(), session=session)


def freeze_bonus(*, study: Study, now: datetime) -> int:
    """Work out the bonus of every completed session that has none, by the rule that was announced, and fix it: nothing
    that is said or excluded later changes it. Returns how many were fixed now.

    Raises:
        AnnotationError: `wrong_status`: the study promises no bonus, or people are still at work.
    """
    recruiting = recruited.of_study(study)
    if not recruiting.bonus_most_minor:
        raise refuse("wrong_status", "This study promises no bonus.")
    if study.sessions.filter(status=SessionStatus.TRIALS).exists():
        raise refuse("wrong_status", "People are still answering: their answers are part of the others’ scores.")
    with transaction.atomic():
        Study.objects.select_for_update().get(pk=study.pk)
        rows = []
        fixed = set(study.payments.filter(kind=PaymentKind.BONUS).values_list("session_id", flat=True))
        for each in bonus.preview(study):
            if each.session.pk in fixed:
                continue
            row = _row(each.session, PaymentKind.BONUS, each.amount_minor, recruiting, now)
            row.score, row.images = each.share, each.images
            if not each.amount_minor:
                row.state, row.settled_at, row.note = PaymentState.PAID, now, "Nothing to pay."
            rows.append(row)
        Payment.objects.bulk_create(rows)
        if recruiting.bonus_frozen_at is None:
            Recruitment.objects.filter(pk=recruiting.pk).update(bonus_frozen_at=now)
    return len(rows)


def _row(session: Session, kind: PaymentKind, amount: int, recruiting: Recruitment, now: datetime) -> Payment:
    return Payment(
        study_id=session.study_id,
        session=session,
        arrival=_arrival(session),
        kind=kind,
        amount_minor=amount,
        currency=recruiting.currency,
        key=f"{session.pk.hex}-{kind}",
        due_at=now,
    )


def _arrival(session: Session) -> Arrival | None:
    """The submission that a session is paid by: the last that it came with."""
    return session.arrivals.order_by("-pk").first()


# --- Asking for it


def order(*, study: Study, payments: Iterable[int], by: User | None) -> int:
    """Ask for these due payments to be sent, by a worker. Returns how many; those that are not due are left alone.

    Raises:
        AnnotationError: `no_api`.
    """
    if recruited.of_study(study).platform != Platform.PROLIFIC or not prolific_api.is_configured():
        raise refuse("no_api")
    with transaction.atomic():
        waiting = study.payments.filter(pk__in=list(payments), state=PaymentState.DUE, ordered=False)
        count = waiting.update(ordered=True, asked_by=by)
        if count:
            enqueue(PAY_STUDY, study.pk)
    return count


def order_again(*, payment_id: int, by: User | None) -> None:
    """Ask once more for a payment that was refused. The platform is asked first whether it paid after all.

    Raises:
        AnnotationError: `payment_not_due`.
    """
    with transaction.atomic():
        failed = Payment.objects.filter(pk=payment_id, state=PaymentState.FAILED)
        due = {"state": PaymentState.DUE, "ordered": True, "called_at": None, "sending_at": None, "note": ""}
        if not failed.update(asked_by=by, **due):
            raise refuse("payment_not_due")
        enqueue(PAY_STUDY, Payment.objects.values_list("study_id", flat=True).get(pk=payment_id))


def mark_paid(*, study: Study, payments: Iterable[int], reference: str, by: User | None, now: datetime) -> int:
    """Note that a curator paid these elsewhere, say on the platform's own pages. Returns how many were due."""
    waiting = study.payments.filter(pk__in=list(payments), ordered=False)
    return waiting.filter(state__in=[PaymentState.DUE, PaymentState.FAILED]).update(
        state=PaymentState.PAID, asked_by=by, settled_at=now, reference=reference, note=""
    )


# --- Sending, by a worker


def pay_study(job: Job, now: datetime) -> None:
    """Send what was asked for, one after the other: Prolific takes no concurrent requests. Raises: Unavailable, to be
    tried again."""
    client = Client()
    # One worker at a time does this job: what is still being sent was left behind by another.
    settle_study(job.subject, client, now, everything=True)
    waiting = Payment.objects.filter(study_id=job.subject, state=PaymentState.DUE, ordered=True)
    keys = list(waiting.order_by("pk").values_list("pk", flat=True))
    for number, pk in enumerate(keys):
        report(job, "paying", number, len(keys))
        send(payment_id=pk, client=client, now=now)


def send(*, payment_id: int, client: Client, now: datetime) -> bool:
    """Send one payment, unless somebody else does or has. Whether this call paid it.

    Raises:
        Unavailable: the platform is away and nothing was paid; the payment is due again.
    """
    claim = secrets.token_hex(16)
    won = Payment.objects.filter(pk=payment_id, state=PaymentState.DUE, ordered=True).update(
        state=PaymentState.SENDING, claim=claim, sending_at=now, called_at=None
    )
    if not won:
        return False
    payment = Payment.objects.select_related("arrival", "study").get(pk=payment_id)
    submission = unseal(payment.arrival.submission_sealed) if payment.arrival else ""
    if not submission:
        return not _close(payment, claim, PaymentState.FAILED, now, "There is no submission to pay it on.")
    try:
        found = client.submission(submission)
        if _is_paid(payment, found):
            return _close(payment, claim, PaymentState.PAID, now, "Prolific had paid it already.")
        if problem := _obstacle(payment, found):
            return not _close(payment, claim, PaymentState.FAILED, now, problem)
        return _pay(payment, claim, submission, client, now)
    except Refused as error:
        if error.status == 429:
            _hand_back(payment, claim, refused=True)
            raise Unavailable("Prolific asks for a pause.") from error
        _close(payment, claim, PaymentState.FAILED, now, error.message)
    except Unavailable:
        # Whatever was sent may be sent again: approving is idempotent, and setting up pays nothing.
        _hand_back(payment, claim)
        raise
    except Uncertain as error:
        _close(payment, claim, PaymentState.UNKNOWN, now, f"No answer to the request that pays ({error}).")
    return False


def _pay(payment: Payment, claim: str, submission: str, client: Client, now: datetime) -> bool:
    recruiting = recruited.of_study(payment.study)
    if payment.kind == PaymentKind.BASE:
        client.approve(submission)
        return _close(payment, claim, PaymentState.PAID, now, reference="approved")
    if payment.kind == PaymentKind.SCREEN_OUT:
        client.screen_out(submission, recruiting.code_screened_out)
        return _close(payment, claim, PaymentState.PAID, now, reference="screened out")
    bulk = client.set_up_bonus(recruiting.platform_study, submission, payment.amount_minor)
    mine = Payment.objects.filter(pk=payment.pk, state=PaymentState.SENDING, claim=claim, called_at=None)
    if not mine.update(called_at=now, reference=bulk):
        return False
    client.pay_bonus(bulk)
    return _close(payment, claim, PaymentState.PAID, now, reference=bulk)


_APPROVED = (PlatformStatus.APPROVED, PlatformStatus.PARTIALLY_APPROVED)


def _is_paid(payment: Payment, found: Submission) -> bool:
    if payment.kind == PaymentKind.BONUS:
        return payment.amount_minor in found.bonuses_minor
    if payment.kind == PaymentKind.SCREEN_OUT:
        return found.status == PlatformStatus.SCREENED_OUT
    return found.status in _APPROVED


def _obstacle(payment: Payment, found: Submission) -> str:
    """Why this can't be sent as the submission stands; empty where it can."""
    if payment.kind == PaymentKind.BONUS:
        fine = found.status in (*_APPROVED, PlatformStatus.AWAITING_REVIEW)
    elif payment.kind == PaymentKind.SCREEN_OUT:
        fine = found.status in (PlatformStatus.ACTIVE, PlatformStatus.AWAITING_REVIEW, PlatformStatus.TIMED_OUT)
    else:
        fine = found.status == PlatformStatus.AWAITING_REVIEW
    return "" if fine else f"On Prolific the submission is {found.status}: this can't be paid on it now."


def _close(
    payment: Payment, claim: str, state: PaymentState, now: datetime, note: str = "", reference: str = ""
) -> bool:
    """Move a payment that this claim still holds."""
    settled_at = now if state == PaymentState.PAID else None
    values: dict[str, object] = {"state": state, "note": note, "settled_at": settled_at}
    if state == PaymentState.FAILED:
        values["ordered"] = False
    if reference:
        values["reference"] = reference
    return bool(Payment.objects.filter(pk=payment.pk, state=PaymentState.SENDING, claim=claim).update(**values))


def _hand_back(payment: Payment, claim: str, *, refused: bool = False) -> None:
    """Make it due again: the request that pays was not sent, or was `refused` outright."""
    mine = Payment.objects.filter(pk=payment.pk, state=PaymentState.SENDING, claim=claim)
    if not refused:
        mine = mine.filter(called_at=None)
    mine.update(state=PaymentState.DUE, sending_at=None, called_at=None, claim="")


# --- Settling what nobody knows


def settle_payments(job: Job, now: datetime) -> None:
    """Ask the platform about payments whose request got no answer. Raises: Unavailable."""
    settle_study(job.subject, Client(), now)
    if Payment.objects.filter(study_id=job.subject, state=PaymentState.DUE, ordered=True).exists():
        enqueue(PAY_STUDY, job.subject)


def settle_study(study_id: int | str, client: Client, now: datetime, *, everything: bool = False) -> None:
    """Settle a study's unknown payments, and those whose worker is gone; with `everything` each that is being sent."""
    stale = Payment.objects.filter(study_id=study_id, state=PaymentState.SENDING)
    if not everything:
        stale = stale.filter(sending_at__lt=now - SENDING_TAKES)
    # Compare-and-set, both: a worker that is about to pay sets `called_at`, or finds its claim gone and pays nothing.
    stale.filter(called_at=None).update(state=PaymentState.DUE, sending_at=None, claim="")
    stale.filter(called_at__isnull=False).update(
        state=PaymentState.UNKNOWN, note="The worker stopped between request and answer."
    )
    unknown = Payment.objects.filter(study_id=study_id, state=PaymentState.UNKNOWN)
    for payment in unknown.select_related("arrival").order_by("pk"):
        settle(payment, client, now)


def settle(payment: Payment, client: Client, now: datetime) -> None:
    """Ask the platform whether it paid. Raises: Unavailable, Refused."""
    submission = unseal(payment.arrival.submission_sealed) if payment.arrival else ""
    found = client.submission(submission)
    unknown = Payment.objects.filter(pk=payment.pk, state=PaymentState.UNKNOWN)
    if _is_paid(payment, found):
        unknown.update(state=PaymentState.PAID, settled_at=now, note="Prolific lists it.")
    elif payment.called_at is None or now - payment.called_at > PLATFORM_TAKES:
        unknown.update(
            state=PaymentState.FAILED,
            ordered=False,
            note="Prolific lists no such payment an hour after it was asked for. Look there before you ask again.",
        )


# --- What the platform did by itself


def heard(arrival: Arrival, now: datetime) -> None:
    """Write down what a submission's status says of pay: approved there is paid, by whomever."""
    kinds = {
        PlatformStatus.APPROVED: PaymentKind.BASE,
        PlatformStatus.PARTIALLY_APPROVED: PaymentKind.BASE,
        PlatformStatus.SCREENED_OUT: PaymentKind.SCREEN_OUT,
    }
    base = Payment.objects.filter(session_id=arrival.session_id, kind__in=recruited.BASE_KINDS)
    if arrival.status in (PlatformStatus.REJECTED, PlatformStatus.RETURNED):
        base.filter(arrival=arrival, state__in=[PaymentState.DUE, PaymentState.FAILED]).update(
            state=PaymentState.CANCELLED, ordered=False, note=f"On the platform: {arrival.get_status_display()}."
        )
        return
    kind = kinds.get(PlatformStatus(arrival.status))
    if kind is None:
        return
    recruiting = recruited.of_study(arrival.study)
    amount = recruiting.base_minor if kind == PaymentKind.BASE else recruiting.screenout_minor
    row = _row(arrival.session, kind, amount, recruiting, now)
    row.arrival = arrival
    Payment.objects.bulk_create([row], ignore_conflicts=True)
    # One that is being sent is its worker's, who will find the same.
    unpaid = [PaymentState.DUE, PaymentState.FAILED, PaymentState.CANCELLED, PaymentState.UNKNOWN]
    base.filter(kind=kind, state__in=unpaid).update(
        state=PaymentState.PAID, settled_at=now, note=f"On the platform: {arrival.get_status_display()}."
    )


# --- Asking to return, and rejecting


def _to_act_on(session: Session) -> tuple[Arrival, str]:
    arrival = _arrival(session)
    if arrival is None or arrival.platform != Platform.PROLIFIC or not arrival.submission_sealed:
        raise refuse("no_submission")
    if not prolific_api.is_configured():
        raise refuse("no_api")
    return arrival, unseal(arrival.submission_sealed)


def ask_to_return(*, session: Session, reason: str, now: datetime) -> None:
    """Ask somebody to return their submission, saying why. Once.

    Raises:
        AnnotationError: `no_submission`, `no_api`, `payment_not_due`, `platform_refused`, `platform_away`.
    """
    arrival, submission = _to_act_on(session)
    if not reason.strip():
        raise refuse("platform_refused", "Say why: the person reads it.")
    if session.payments.filter(kind__in=recruited.BASE_KINDS, state=PaymentState.PAID).exists():
        raise refuse("payment_not_due", "Their work is approved and paid.")
    if not Arrival.objects.filter(pk=arrival.pk, return_asked_at=None).update(return_asked_at=now):
        return
    try:
        Client(tries=2).ask_to_return(submission, reason.strip())
    except prolific_api.ProlificError as error:
        Arrival.objects.filter(pk=arrival.pk, return_asked_at=now).update(return_asked_at=None)
        raise refuse("platform_refused" if isinstance(error, Refused) else "platform_away") from error


def rejection_problem(session: Session, message: str = "x" * LEAST_MESSAGE) -> str:
    """Why Prolific's rules forbid to reject this work, in words; empty where they allow it.

    Failed attention checks are the one reason taken here: two in a study of more than five minutes, one in a shorter
    one. A comprehension check comes before the work and never justifies it.
    """
    minutes = recruited.of_study(session.study).expected_minutes
    needed = 2 if minutes > SHORT_STUDY_MINUTES else 1
    failed = recruited.attention_failures([session])[session.pk]
    if session.status == SessionStatus.SCREENED_OUT:
        return "Failing the comprehension check is no ground: ask for a return, or pay for the time."
    if session.status != SessionStatus.COMPLETED:
        return "Only work that was handed in can be rejected: ask for a return instead."
    if failed < needed:
        checks = "check" if needed == 1 else "checks"
        return f"A study of {minutes} minutes needs {needed} failed attention {checks}; here {failed} failed."
    if len(message.strip()) < LEAST_MESSAGE:
        return f"The message to the person has to have {LEAST_MESSAGE} characters or more."
    return ""


def reject(*, session: Session, message: str, now: datetime) -> Submission:
    """Reject a submission, for failed attention checks alone, telling the person why. Returns what Prolific says.

    Raises:
        AnnotationError: `rejection_refused` with the rule; `no_submission`, `no_api`, `payment_not_due`,
            `platform_refused`, `platform_away`.
    """
    _, submission = _to_act_on(session)
    if problem := rejection_problem(session, message):
        raise refuse("rejection_refused", problem)
    gone = [PaymentState.SENDING, PaymentState.UNKNOWN, PaymentState.PAID]
    if session.payments.filter(kind=PaymentKind.BASE, state__in=gone).exists():
        raise refuse("payment_not_due", "Their pay is sent, or on its way.")
    client = Client(tries=2)
    try:
        found = client.submission(submission)
        if found.status != PlatformStatus.AWAITING_REVIEW:
            raise refuse("rejection_refused", f"On Prolific the submission is {found.status}.")
        return client.reject(submission, message.strip(), "FAILED_CHECK")
    except Refused as error:
        raise refuse("platform_refused") from error
    except Unavailable as error:
        raise refuse("platform_away") from error

"""Who may come in, and what the platform says of those who did.

What the platform says is applied whether it comes by webhook, by polling or because it was asked: `hear` is the one
place, and hearing the same twice changes nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet

from annotations import selectors
from annotations.errors import refuse
from annotations.kinds import PAY_STUDY, PLATFORM_EVENT, POLL_PLATFORM, SETTLE_PAYMENTS, VERIFY_ARRIVAL
from annotations.models import (
    Arrival,
    Invitation,
    PaymentState,
    Platform,
    PlatformStatus,
    Recruitment,
    Session,
    SessionStatus,
    Study,
    StudyStatus,
    WebhookEvent,
)
from annotations.models.recruitment import SETTLED_STATUSES
from annotations.recruitment import Visit, prolific_api
from annotations.recruitment.prolific_api import Client, Refused, Submission, Unavailable
from annotations.sealing import fingerprint, seal, unseal
from annotations.selectors import recruitment as recruited
from annotations.services import payments, sessions
from jobs.models import Job
from jobs.services import enqueue, report

# A second press of the button comes this soon after the first.
DOUBLE_PRESS = timedelta(minutes=1)
SLOW_POLL = timedelta(minutes=10)
FAST_POLL = timedelta(minutes=1)
# How long a finished session may wait for the platform to say so before it is asked often.
OVERDUE = timedelta(minutes=2)
# How old a webhook may be. Prolific repeats one for two days, each time with a new signature and time.
REPLAY_WINDOW = timedelta(minutes=5)
LONGEST_BODY = 64 << 10

# What nobody may change once people work under it.
PROMISES = ("currency", "base_minor", "screenout_minor", "bonus_most_minor", "bonus_rule")


def set_terms(*, study: Study, terms: Mapping[str, Any]) -> Recruitment:
    """Store where a study recruits and what it pays. Pay can still be raised once somebody has agreed, and no more.

    Raises:
        AnnotationError: `pay_promised`, with the fields that would break a promise.
    """
    with transaction.atomic():
        Study.objects.select_for_update().get(pk=study.pk)
        recruiting = recruited.of_study(study)
        if study.sessions.exists():
            broken = {name: "promised" for name in PROMISES if name in terms and _worse(recruiting, name, terms[name])}
            if broken:
                raise refuse("pay_promised", **broken)
        for name, value in terms.items():
            setattr(recruiting, name, value)
        recruiting.save()
        return recruiting


def _worse(recruiting: Recruitment, name: str, value: Any) -> bool:
    before = getattr(recruiting, name)
    return bool(value < before) if isinstance(before, int) else value != before


# --- Invitations


def invite(
    *, study: Study, labels: Sequence[str], expires_at: datetime | None, now: datetime
) -> list[tuple[Invitation, str]]:
    """An invitation for each label, each with its token, which is not kept and can't be shown again."""
    tokens = [secrets.token_urlsafe(24) for _ in labels]
    made = Invitation.objects.bulk_create(
        Invitation(study=study, token_hash=_hash(token), label=label, created_at=now, expires_at=expires_at)
        for token, label in zip(tokens, labels, strict=True)
    )
    return list(zip(made, tokens, strict=True))


def revoke(*, invitation_id: int, study: Study, now: datetime) -> bool:
    """Void an invitation that nobody has used. False if somebody has, or if it is void already."""
    unused = Invitation.objects.filter(pk=invitation_id, study=study, used_by=None, revoked_at=None)
    return bool(unused.update(revoked_at=now))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _invitation(study: Study, visit: Visit) -> Invitation:
    found = Invitation.objects.select_related("used_by").filter(study=study, token_hash=_hash(visit.submission)).first()
    if found is None:
        raise refuse("invitation_unknown")
    return found


# --- At the door


@dataclass(frozen=True, slots=True)
class Door:
    """The session that a visit goes on with, None for a newcomer; and what the platform said, where it was asked."""

    session: Session | None
    heard: Submission | None = None


def come_to_the_door(study: Study, visit: Visit, *, remembered: Session | None, now: datetime) -> Door:
    """Whom a link stands for.

    An id in a link proves nothing: it opens the session that goes with it only to the browser that holds its signed
    cookie (`remembered`), or where the platform confirms that this submission is this person's. When the platform does
    not answer, newcomers are let in and checked later, and known people wait at the door.

    Raises:
        AnnotationError: `other_browser`, `invitation_unknown`, `invitation_void`, `submission_unknown`,
            `submission_over`.
    """
    if visit.platform == Platform.INVITATION:
        return Door(_invited(study, visit, remembered, now))
    known = selectors.resumable_session(study, visit.person)
    if visit.platform == Platform.OPEN and not visit.person:
        return Door(remembered)
    its_own = known is not None and remembered is not None and known.pk == remembered.pk
    arrival = recruited.arrival(study, visit.platform, visit.submission) if visit.submission else None
    if arrival is not None and arrival.session.status == SessionStatus.WITHDRAWN:
        # Their platform id is erased; the submission shows that they were here.
        if remembered is not None and remembered.pk == arrival.session_id:
            return Door(remembered)
        raise refuse("submission_over")
    if its_own and arrival is not None:
        return Door(known)
    heard = _confirmed(study, visit)
    if heard is None:
        if known is not None and not its_own:
            raise refuse("other_browser")
        return Door(known)
    if known is None and heard.status in SETTLED_STATUSES:
        raise refuse("submission_over")
    if known is not None:
        note_arrival(session=known, visit=visit, heard=heard, now=now)
    return Door(known, heard)


def _invited(study: Study, visit: Visit, remembered: Session | None, now: datetime) -> Session | None:
    invitation = _invitation(study, visit)
    if invitation.used_by is not None:
        just_now = invitation.used_at is not None and now - invitation.used_at < DOUBLE_PRESS
        if just_now or (remembered is not None and remembered.pk == invitation.used_by_id):
            return invitation.used_by
        raise refuse("other_browser")
    # One that was used by a session since deleted, such as a preview's, stays used.
    is_over = invitation.expires_at is not None and invitation.expires_at <= now
    if invitation.revoked_at is not None or invitation.used_at is not None or is_over:
        raise refuse("invitation_void")
    return None


def _confirmed(study: Study, visit: Visit) -> Submission | None:
    """The submission as Prolific knows it; None where it can't be asked or does not answer.

    Raises:
        AnnotationError: `submission_unknown`: it is nobody's, or another person's, or another study's.
    """
    if visit.platform != Platform.PROLIFIC or not prolific_api.is_configured():
        return None
    try:
        heard = Client(tries=1, patience=(2.0, 3.0)).submission(visit.submission)
    except Unavailable:
        return None
    except Refused as error:
        if error.status == 404:
            raise refuse("submission_unknown") from error
        return None  # our token is not good: that is not the visitor's fault
    if heard.person != visit.person or heard.study != recruited.of_study(study).platform_study:
        raise refuse("submission_unknown")
    return heard


def admit(
    *,
    study: Study,
    visit: Visit,
    heard: Submission | None,
    consent_version: int,
    now: datetime,
    rng: np.random.Generator,
) -> Session:
    """Begin the session of a newcomer who agrees, and note whence they came: both or neither.

    Raises:
        AnnotationError: those of `sessions.begin_session`; `other_browser`, where somebody used the invitation first.
    """
    with transaction.atomic():
        session = sessions.begin_session(
            study=study, consent_version=consent_version, platform_id=visit.person, now=now, rng=rng
        )
        if visit.platform == Platform.INVITATION:
            unused = Invitation.objects.filter(
                pk=_invitation(study, visit).pk, used_by=None, used_at=None, revoked_at=None
            )
            if not unused.update(used_by=session, used_at=now):
                raise refuse("other_browser")
        if visit.platform != Platform.OPEN:
            note_arrival(session=session, visit=visit, heard=heard, now=now)
        return session


def note_arrival(*, session: Session, visit: Visit, heard: Submission | None, now: datetime) -> Arrival:
    """The row of this submission, made if there is none. One that the platform has not confirmed is asked after later.

    Raises:
        AnnotationError: `submission_unknown`: another person has come with it.
    """
    arrival = recruited.arrival(session.study, visit.platform, visit.submission)
    if arrival is None:
        try:
            with transaction.atomic():
                arrival = Arrival.objects.create(
                    study=session.study,
                    participant=session.participant,
                    session=session,
                    platform=visit.platform,
                    # An invitation's token is a secret, of no use once it is used.
                    submission_sealed="" if visit.platform == Platform.INVITATION else seal(visit.submission),
                    submission_key=fingerprint(recruited.SUBMISSION, visit.platform, visit.submission),
                    arrived_at=now,
                )
        except IntegrityError:
            arrival = recruited.arrival(session.study, visit.platform, visit.submission)
            if arrival is None:
                raise
    if arrival.participant_id != session.participant_id:
        raise refuse("submission_unknown")
    if heard is not None:
        hear(arrival_id=arrival.pk, heard=heard, now=now)
    elif visit.platform == Platform.PROLIFIC and arrival.verified_at is None and prolific_api.is_configured():
        enqueue(VERIFY_ARRIVAL, arrival.pk)
    return arrival


def verify_arrival(job: Job, now: datetime) -> None:
    """Ask after an arrival that came in while Prolific did not answer. One that proves to be nobody's stays, marked."""
    arrival = Arrival.objects.select_related("study", "session", "participant").filter(pk=job.subject).first()
    if arrival is None or not arrival.submission_sealed:
        return
    ask_after(arrival, Client(), now)


def ask_after(arrival: Arrival, client: Client, now: datetime) -> None:
    """Ask Prolific how one submission stands. Raises: Unavailable, Refused."""
    try:
        heard = client.submission(unseal(arrival.submission_sealed))
    except Refused as error:
        if error.status != 404:
            raise
        Arrival.objects.filter(pk=arrival.pk).update(status=PlatformStatus.MISSING, heard_at=now)
        return
    person = arrival.participant.platform_id
    mine = not person or heard.person == person
    if not mine or heard.study != recruited.of_study(arrival.study).platform_study:
        Arrival.objects.filter(pk=arrival.pk).update(status=PlatformStatus.MISSING, heard_at=now)
        return
    hear(arrival_id=arrival.pk, heard=heard, now=now)


# --- What the platform says


def hear(*, arrival_id: int, heard: Submission, now: datetime) -> Arrival:
    """Take in how a submission stands. Whoever returned it or timed out gives their place back at once; a time-out
    does not end a session: who goes on is let in again as long as there is room, and what they answer is kept."""
    with transaction.atomic():
        session_id = Arrival.objects.values_list("session_id", flat=True).get(pk=arrival_id)
        session = sessions.lock(session_id)
        arrival = Arrival.objects.select_for_update().get(pk=arrival_id)
        before = arrival.status
        known = heard.status in PlatformStatus.values
        arrival.status = PlatformStatus(heard.status) if known else PlatformStatus.UNKNOWN
        arrival.heard_at = now
        arrival.verified_at = arrival.verified_at or now
        if heard.entered_code:
            arrival.entered = recruited.outcome_of_code(recruited.of_study(session.study), heard.entered_code)
        if heard.return_asked and arrival.return_asked_at is None:
            arrival.return_asked_at = now
        if arrival.status == PlatformStatus.TIMED_OUT and arrival.timed_out_at is None:
            arrival.timed_out_at = now
        arrival.save()
        left = arrival.status in (PlatformStatus.RETURNED, PlatformStatus.TIMED_OUT)
        if left and arrival.status != before and not _newer(arrival).exists():
            sessions.give_up(session_id=session_id)
        payments.heard(arrival, now)
        return arrival


def _newer(arrival: Arrival) -> QuerySet[Arrival]:
    """Submissions with which the same session goes on."""
    return Arrival.objects.filter(session_id=arrival.session_id, pk__gt=arrival.pk)


# --- Webhooks


@dataclass(frozen=True, slots=True)
class Hook:
    """A webhook as it came: `signature` and `timestamp` from its headers, `event_id` from X-Event-ID."""

    body: bytes
    signature: str
    timestamp: str
    event_id: str


class Forged(Exception):
    """A webhook that Prolific did not send, or not now. Nothing is stored."""


def take_event(hook: Hook, *, secret: str, now: datetime) -> bool:
    """Store a webhook and queue what it asks for. False if it came before: events are sent at least once.

    The signature is the base64 HMAC-SHA256 of timestamp and body under the workspace's secret ("Verifying" in
    Prolific's documentation).

    Raises:
        Forged: wrong signature, outside the replay window, or not an event.
    """
    expected = base64.b64encode(hmac.digest(secret.encode(), hook.timestamp.encode() + hook.body, "sha256"))
    if not secret or not hmac.compare_digest(expected, hook.signature.encode()):
        raise Forged("signature")
    sent_at = _moment(hook.timestamp)
    if abs(now - sent_at) > REPLAY_WINDOW:
        raise Forged("time")
    try:
        body = json.loads(hook.body)
    except ValueError as error:
        raise Forged("body") from error
    event_id = hook.event_id
    if not isinstance(body, dict) or not 0 < len(event_id) <= 80 or "\0" in event_id:
        raise Forged("body")
    kind, resource = str(body.get("event_type", ""))[:60], str(body.get("resource_id", ""))
    about_submission = kind == "submission.status.change"
    key = fingerprint(recruited.SUBMISSION, Platform.PROLIFIC, resource) if about_submission else ""
    try:
        with transaction.atomic():
            event = WebhookEvent.objects.create(
                event_id=event_id,
                kind=kind,
                submission_key=key,
                status=str(body.get("status", ""))[:18] if about_submission else "",
                sent_at=sent_at,
                received_at=now,
                handled_at=None if about_submission else now,
            )
            if about_submission:
                enqueue(PLATFORM_EVENT, event.pk)
    except IntegrityError:
        return False
    return True


def _moment(timestamp: str) -> datetime:
    try:
        return datetime.fromtimestamp(float(timestamp), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise Forged("time") from error


def handle_event(job: Job, now: datetime) -> None:
    """Act on a stored webhook. Prolific itself is asked where it can be: events come late, and in any order. Without
    a token the event's own word counts, unless a later one was heard. Raises: Unavailable, to be tried again."""
    event = WebhookEvent.objects.filter(pk=job.subject, handled_at=None).first()
    if event is None:
        return
    arrivals = Arrival.objects.filter(submission_key=event.submission_key, platform=Platform.PROLIFIC)
    for arrival in arrivals.select_related("study", "participant"):
        if prolific_api.is_configured() and arrival.submission_sealed:
            ask_after(arrival, Client(), now)
        elif arrival.heard_at is None or arrival.heard_at <= event.sent_at:
            said = Submission(id="", study="", person="", status=event.status)
            hear(arrival_id=arrival.pk, heard=said, now=event.sent_at)
    WebhookEvent.objects.filter(pk=event.pk).update(handled_at=now)


# --- Polling


def watch(now: datetime) -> int:
    """Queue what repairs lost events and unfinished payments. Returns how many jobs; run it often."""
    queued = 0
    if not prolific_api.is_configured():
        return queued
    launched = Recruitment.objects.filter(platform=Platform.PROLIFIC).exclude(platform_study="").exclude(
        study__status=StudyStatus.DRAFT
    )  # fmt: skip
    for recruiting in launched.select_related("study"):
        every = FAST_POLL if recruited.outstanding(recruiting.study, now, OVERDUE) else SLOW_POLL
        over = recruiting.study.status == StudyStatus.CLOSED and not recruited.unsettled_arrivals(recruiting.study)
        if not over and (recruiting.polled_at is None or now - recruiting.polled_at >= every):
            enqueue(POLL_PLATFORM, recruiting.study_id)
            queued += 1
        unsure = Q(state=PaymentState.UNKNOWN) | Q(
            state=PaymentState.SENDING, sending_at__lt=now - payments.SENDING_TAKES
        )
        if recruiting.study.payments.filter(unsure).exists():
            enqueue(SETTLE_PAYMENTS, recruiting.study_id)
            queued += 1
        elif recruiting.study.payments.filter(state=PaymentState.DUE, ordered=True).exists():
            enqueue(PAY_STUDY, recruiting.study_id)
            queued += 1
    return queued


def poll_platform(job: Job, now: datetime) -> None:
    """Compare a study's submissions with Prolific's list, and take in what was not heard. Raises: Unavailable."""
    recruiting = Recruitment.objects.select_related("study").filter(study_id=job.subject).first()
    if recruiting is None or recruiting.platform != Platform.PROLIFIC:
        return
    ours = recruited.arrivals_by_key(recruiting.study)
    listed = set()
    for number, heard in enumerate(Client().submissions(recruiting.platform_study)):
        if number % 50 == 0:
            report(job, "comparing", number)
        keys = recruited.submission_keys(Platform.PROLIFIC, heard.id)
        arrival = next((ours[key] for key in keys if key in ours), None)
        if arrival is None:
            continue
        listed.add(arrival.pk)
        said = recruited.outcome_of_code(recruiting, heard.entered_code) if heard.entered_code else arrival.entered
        if (arrival.status, arrival.entered) != (heard.status, said) or arrival.verified_at is None:
            hear(arrival_id=arrival.pk, heard=heard, now=now)
    missing = [each.pk for each in ours.values() if each.pk not in listed and each.arrived_at < now - FAST_POLL]
    Arrival.objects.filter(pk__in=missing).exclude(status__in=SETTLED_STATUSES).update(
        status=PlatformStatus.MISSING, heard_at=now
    )
    Recruitment.objects.filter(pk=recruiting.pk).update(polled_at=now)

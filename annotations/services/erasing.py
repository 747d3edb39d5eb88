"""What becomes of everything that belongs to a person when they withdraw, and of ids and answers whose time is over.

`FATES` names every model that leads to a session or a participant; `tests/annotations/test_erasing.py` walks the models
and demands that none is forgotten.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final

from django.apps import apps
from django.db import transaction
from django.db.models import Q, QuerySet

from annotations import audit
from annotations.kinds import SUMMARISE_STUDY, VERIFY_ARRIVAL
from annotations.models import (
    Arrival,
    Participant,
    Payment,
    Retention,
    Session,
    Study,
    StudyStatus,
    StudySummary,
)
from annotations.models.participation import new_annotator
from annotations.selectors import retention as kept
from jobs.models import Job, Status
from jobs.services import enqueue


@dataclass(frozen=True)
class Erased:
    """The rows go. `path` leads from the row to the session; `but` spares some for as long as it holds."""

    path: str = "session"
    but: Q | None = None


@dataclass(frozen=True)
class DeLinked:
    """The rows stay, because `why`, with these fields emptied; `keeps` names texts and links that may stay."""

    why: str
    empty: Mapping[str, Any]
    path: str = "session"
    keeps: tuple[str, ...] = ()
    but: Q | None = field(default=None)


OPEN_PAYMENT = Q(state__in=kept.OPEN_PAYMENT_STATES)

FATES: Final[Mapping[str, Erased | DeLinked]] = {
    "annotations.Response": Erased("trial__session"),
    "annotations.CheckOutcome": Erased("trial__session"),
    "annotations.Trial": Erased(),
    "annotations.ConsistencyCheck": Erased(),
    "annotations.SessionQuality": Erased(),
    "annotations.Appeal": Erased(),
    "annotations.Payment": DeLinked(
        "the books have to show what was paid; of the person they show nothing",
        {"arrival": None, "reference": "", "note": "", "score": None, "images": 0},
        keeps=("session", "study", "asked_by", "kind", "currency", "state", "key", "claim"),
        but=OPEN_PAYMENT,
    ),
    # Without the submission nobody can be paid: it goes with the last open payment.
    "annotations.Arrival": Erased(but=Q(payments__state__in=kept.OPEN_PAYMENT_STATES)),
    "annotations.Invitation": DeLinked(
        "the link was used and stays used", {"label": ""}, path="used_by", keeps=("study", "used_by", "token_hash")
    ),
    "annotations.Place": DeLinked(
        "it is the study's, and goes to somebody else", {"session": None}, keeps=("study", "batch", "arm")
    ),
    "annotations.Session": DeLinked(
        "it says that somebody withdrew, and when",
        {"questionnaire": {}, "exclusion_note": "", "category_order": [], "comprehension_attempts": 0},
        path="pk",
        keeps=(
            "study", "participant", "token", "status", "consent", "exclusion_reason", "excluded_by", "arm",
            "arms_drawn_from",
        ),
    ),
    "annotations.Participant": DeLinked(
        "the session belongs to one",
        {"platform_id_sealed": "", "platform_id_key": "", "annotator": new_annotator},
        path="sessions",
        keeps=("study",),
    ),
}  # fmt: skip


def erase(session: Session) -> None:
    """Carry out the fate of everything that belongs to a locked session, within the caller's transaction."""
    Job.objects.filter(status__in=[Status.DONE, Status.FAILED]).filter(
        Q(subject=str(session.pk))
        | Q(kind=VERIFY_ARRIVAL, subject__in=[str(pk) for pk in session.arrivals.values_list("pk", flat=True)])
    ).delete()
    for label, fate in FATES.items():
        model = apps.get_model(label)
        # Its children may be of a kind that comes later in the table, or that points to itself.
        rows = model._default_manager.filter(**{fate.path: session.pk})
        if fate.but is not None:
            rows = rows.exclude(fate.but)
        rows = model._default_manager.filter(pk__in=list(rows.values_list("pk", flat=True)))
        if isinstance(fate, Erased):
            rows.delete()
        else:
            rows.update(**{name: value() if callable(value) else value for name, value in fate.empty.items()})
    _forget_summary(session.study_id)


def _forget_summary(study_id: int) -> None:
    """A summary is worked out from answers, remarks and all: away with it, and another one made."""
    if StudySummary.objects.filter(study=study_id).delete()[0]:
        enqueue(SUMMARISE_STUDY, study_id)


# --- Whose time is over


def set_retention(study: Study, *, ids_days: int, answers_until: date | None) -> Retention:
    """Store how long a study keeps what; what is erased by then can't be brought back."""
    wanted, _made = Retention.objects.update_or_create(
        study=study, defaults={"ids_days": ids_days, "answers_until": answers_until}
    )
    return wanted


def erase_what_is_due(now: datetime) -> int:
    """Erase ids and answers whose time is over, in every closed study. Returns how many rows lost something.

    Idempotent, and safe in several processes at once.
    """
    rows = _settle_withdrawn()
    for study in Study.objects.filter(status=StudyStatus.CLOSED, closed_at__isnull=False):
        retention = kept.of_study(study)
        if kept.ids_due_at(study, retention) <= now:
            rows += erase_ids(study, now)
        if retention.answers_until and retention.answers_until <= now.date():
            rows += _erase_answers(study)
    return rows


def erase_ids(study: Study, now: datetime) -> int:
    """Forget the platform ids of a closed study, but for those whose payment is open. Returns how many."""
    erased = 0
    for participant in kept.with_ids(study).exclude(pk__in=kept.waiting_for_pay(study)):
        with transaction.atomic():
            held = Participant.objects.select_for_update().get(pk=participant.pk)
            if kept.waiting_for_pay(study).filter(session__participant=held.pk).exists():
                continue
            held.platform_id = ""
            held.save(update_fields=["platform_id_sealed", "platform_id_key"])
            for arrival in Arrival.objects.filter(participant=held):
                # Nothing can be found by it any more, and no two are alike.
                arrival.submission_sealed, arrival.submission_key = "", f"erased {secrets.token_hex(16)}"
                arrival.save(update_fields=["submission_sealed", "submission_key"])
            held_sessions = held.sessions.values_list("pk", flat=True)
            Payment.objects.filter(session__in=held_sessions).update(reference="", note="")
            erased += 1
    erased += study.invitations.exclude(label="").update(label="")
    if erased:
        audit.record("erased platform ids whose time was over", study, study=study.pk, details={"rows": erased})
    return erased


def _erase_answers(study: Study) -> int:
    erased = 0
    for pk in kept.with_answers(study).values_list("pk", flat=True):
        with transaction.atomic():
            session = Session.objects.select_for_update().get(pk=pk)
            for label in ("Response", "CheckOutcome", "Trial", "ConsistencyCheck", "SessionQuality", "Appeal"):
                fate = FATES[f"annotations.{label}"]
                apps.get_model(f"annotations.{label}")._default_manager.filter(**{fate.path: session.pk}).delete()
            session.questionnaire, session.exclusion_note = {}, ""
            session.save(update_fields=["questionnaire", "exclusion_note"])
            erased += 1
    if erased:
        StudySummary.objects.filter(study=study).delete()
        audit.record("erased answers whose time was over", study, study=study.pk, details={"sessions": erased})
    return erased


def _settle_withdrawn() -> int:
    """What was kept of somebody who withdrew because a payment was open goes once that is settled."""
    arrivals: QuerySet[Arrival] = Arrival.objects.filter(session__withdrawn_at__isnull=False).exclude(
        payments__state__in=kept.OPEN_PAYMENT_STATES
    )
    sessions = {arrival.session_id for arrival in arrivals}
    fate = FATES["annotations.Payment"]
    assert isinstance(fate, DeLinked)  # noqa: S101
    for session in sessions:
        with transaction.atomic():
            Payment.objects.filter(session=session).exclude(OPEN_PAYMENT).update(**fate.empty)
            Arrival.objects.filter(session=session).exclude(payments__state__in=kept.OPEN_PAYMENT_STATES).delete()
    return len(sessions)

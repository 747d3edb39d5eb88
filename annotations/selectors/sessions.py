"""Sessions and their trials."""

from __future__ import annotations

from django.db.models import Count, Exists, F, Min, OuterRef, Q, QuerySet

from annotations.models import (
    Participant,
    Response,
    Session,
    SessionStatus,
    Study,
    StudyImage,
    Trial,
    TrialKind,
)


def session_by_token(token: str) -> Session | None:
    if "\0" in token:  # PostgreSQL can't even be asked
        return None
    sessions = Session.objects.select_related("study", "study__dataset", "participant", "arm")
    session = sessions.filter(token=token).first()
    return None if session is None else in_its_arm(session)


def in_its_arm(session: Session) -> Session:
    """The session, its study with the settings of its arm, if it has one."""
    if session.arm is not None:
        session.arm.dress(session.study)
    return session


def resumable_session(study: Study, platform_id: str) -> Session | None:
    """The session that a returning person has in this study."""
    if not platform_id:
        return None
    keys = Participant.platform_keys(study.pk, platform_id)
    participant = Participant.objects.filter(study=study, platform_id_key__in=keys).first()
    return participant.sessions.order_by("-consented_at").first() if participant else None


# How many trials an annotator may go back to correct one.
MOST_STEPS_BACK = 3

# A trial that nothing is left to do for.
_ANSWERED = Exists(Response.objects.filter(trial=OuterRef("pk"), current=True))
_DONE = _ANSWERED | Q(skipped_at__isnull=False)


def stage_trials(session: Session) -> QuerySet[Trial]:
    """The trials of the step at which the session stands: those of the practice, or all others."""
    practising = session.status == SessionStatus.PRACTICE
    practice = Q(kind=TrialKind.PRACTICE)
    return session.trials.filter(practice if practising else ~practice).order_by("position")


def open_trials(session: Session) -> list[Trial]:
    """The trials of the session's step that are neither answered nor passed over, in order, each with its image."""
    return list(_open_trials(session))


def next_trial(session: Session) -> Trial | None:
    """The first of `open_trials`, without reading the others."""
    return _open_trials(session).first()


def _open_trials(session: Session) -> QuerySet[Trial]:
    return stage_trials(session).exclude(_DONE).select_related("image", "check_item")


def answered_trials(session: Session) -> list[tuple[Trial, Response]]:
    """Those that the annotator may go back to, oldest first, each with what was said last."""
    answered = stage_trials(session).filter(_ANSWERED).select_related("image", "check_item").reverse()
    last = list(answered[: steps_back(session)])[::-1]
    said = {response.trial_id: response for response in Response.objects.filter(trial__in=last, current=True)}
    return [(trial, said[trial.pk]) for trial in last]


def steps_back(session: Session) -> int:
    """How far an annotator may go back: never so far that a first answer can be seen from its repeat."""
    repeats = session.trials.filter(repeat_of__isnull=False)
    nearest = repeats.aggregate(nearest=Min(F("position") - F("repeat_of__position")))["nearest"]
    return MOST_STEPS_BACK if nearest is None else min(MOST_STEPS_BACK, nearest - 1)


def trial_counts(session: Session) -> tuple[int, int]:
    """(done, all) of the step at which the session stands; a trial that was passed over is done."""
    counts = stage_trials(session).order_by().aggregate(done=Count("pk", filter=_DONE), all=Count("pk"))
    return counts["done"], counts["all"]


def batches_of(session: Session) -> list[int]:
    """The batches whose images the session shows; none before its trials are laid out."""
    shown = session.trials.filter(kind=TrialKind.MAIN).values("image_id")
    batches = StudyImage.objects.filter(study_id=session.study_id, image_id__in=shown).order_by("batch_id")
    return list(batches.values_list("batch_id", flat=True).distinct())


def unplaced_trials(session: Session) -> QuerySet[Trial]:
    """Trials that nobody needs answered: those without a place, and repeats of them, as far as nothing was said."""
    unplaced = Q(kind=TrialKind.MAIN, place__isnull=True) | Q(kind=TrialKind.REPEAT, repeat_of__place__isnull=True)
    open_ones = session.trials.filter(unplaced).exclude(_DONE)
    return Trial.objects.filter(pk__in=open_ones.values("pk"))


def repeated_answers(session: Session) -> list[tuple[Response, Response]]:
    """Each image's first answer and its repeat, as far as both were given; of a corrected one the correction."""
    said = Response.objects.filter(trial__session=session, current=True).select_related("trial")
    by_trial = {response.trial_id: response for response in said.order_by("trial__position")}
    return [
        (by_trial[again.trial.repeat_of_id], again)
        for again in by_trial.values()
        if again.trial.repeat_of_id is not None and again.trial.repeat_of_id in by_trial
    ]

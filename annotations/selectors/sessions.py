"""Sessions and their trials."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

from django.db.models import Count, Exists, OuterRef, Q, QuerySet

from annotations.models import (
    Arm,
    CheckItem,
    Dataset,
    Image,
    Participant,
    Place,
    Recruitment,
    Response,
    Session,
    SessionStatus,
    Study,
    StudyImage,
    Trial,
    TrialKind,
)
from annotations.selectors.studies import with_parts
from annotations.statements import Row, Statement


def session_by_token(token: str) -> Session | None:
    """With its study, dataset, recruitment, participant and arm."""
    if "\0" in token:  # PostgreSQL can't even be asked
        return None
    return _whole(_of_token().first(token))


def locked_session(session_id: UUID) -> Session | None:
    """As `session_by_token`; its row is locked."""
    return _whole(_locked().first(session_id))


def _whole(found: Row | None) -> Session | None:
    if found is None:
        return None
    models = found[0]
    session: Session = models["session"]
    session.study, session.arm, session.participant = with_parts(models), models["arm"], models["participant"]
    return in_its_arm(session)


@cache
def _of_token() -> Statement:
    return _of_sessions("session.token")


@cache
def _locked() -> Statement:
    return _of_sessions("session.id", lock="session")


def _of_sessions(by: str, lock: str = "") -> Statement:
    return Statement(
        "SELECT {columns} FROM {session} JOIN {study} ON study.id = session.study_id "  # noqa: S608 (all of it stands here)
        "JOIN {dataset} ON dataset.id = study.dataset_id JOIN {participant} ON participant.id = session.participant_id "
        "LEFT JOIN {recruiting} ON recruiting.study_id = study.id "
        f"LEFT JOIN {{arm}} ON arm.id = session.arm_id WHERE {by} = %s",
        tables={
            "session": Session,
            "study": Study,
            "dataset": Dataset,
            "recruiting": Recruitment,
            "participant": Participant,
            "arm": Arm,
        },
        columns="session.* study.* dataset.* recruiting.* participant.* arm.*",
        parameters=by,
        lock=lock,
    )


def session_that_answers(token: str) -> Session | None:
    """As `session_by_token`, with as much of session and study as an answer needs; the rest is read on demand."""
    if "\0" in token:
        return None
    found = _who_answers().first(token)
    if found is None:
        return None
    session: Session = found[0]["session"]
    session.study, session.arm = found[0]["study"], found[0]["arm"]
    return in_its_arm(session)


@cache
def _who_answers() -> Statement:
    return Statement(
        "SELECT {columns} FROM {session} JOIN {study} ON study.id = session.study_id "
        "LEFT JOIN {arm} ON arm.id = session.arm_id WHERE session.token = %s",
        tables={"session": Session, "study": Study, "arm": Arm},
        columns="session.id session.study session.arm study.id study.slug study.dataset study.language "
        "study.image_scale study.most_named study.sum_limit study.ask_impossible arm.id arm.settings",
        parameters="session.token",
    )


def locked_trial(session: Session, trial_id: UUID) -> Trial | None:
    """A trial of this session, whose row is locked and as it is now; its study is the caller's. None where the session
    has no such trial."""
    found = _the_trial().first(trial_id, session.pk)
    if found is None:
        return None
    trial: Trial = found[0]["trial"]
    trial.session = found[0]["session"]
    trial.session.study, trial.session.arm = session.study, session.arm
    return trial


@cache
def _the_trial() -> Statement:
    return Statement(
        "SELECT {columns} FROM {trial} JOIN {session} ON session.id = trial.session_id "
        "WHERE trial.id = %s AND session.id = %s",
        tables={"trial": Trial, "session": Session},
        columns="trial.id trial.session trial.image trial.position trial.kind trial.framing trial.skipped_at "
        "session.id session.study session.arm session.status session.seen_at session.category_order "
        "session.excluded_at",
        parameters="trial.id session.id",
        lock="session",
    )


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


def said_of(trial: Trial) -> list[Response]:
    """Every revision of what was said of a trial, each with what a correction or a second sending is compared with."""
    responses = []
    for found, _ in _said().all(trial.pk):
        found["response"].trial = trial
        responses.append(found["response"])
    return responses


@cache
def _said() -> Statement:
    return Statement(
        "SELECT {columns} FROM {response} WHERE response.trial_id = %s",
        tables={"response": Response},
        columns="response.id response.trial response.revision response.current response.named response.impossible",
        parameters="response.trial",
    )


@dataclass(frozen=True)
class Standing:
    """Where a session stands at its step: trials done of all, and the next; None where nothing is left to show."""

    done: int
    total: int
    next_trial: Trial | None


def standing(session: Session) -> Standing:
    """`trial_counts` and `next_trial` in one query."""
    return standing_once_answered(session, None)[0]


def standing_once_answered(session: Session, trial: Trial | None) -> tuple[Standing, bool]:
    """Where a session will stand once this trial is answered, and whether anything was said of it already: `said_of`
    has something, or may have."""
    practising = session.status == SessionStatus.PRACTICE
    answered = _NO_TRIAL if trial is None else trial.pk
    found = _first_open(practising).first(answered, answered, session.pk, TrialKind.PRACTICE)
    if found is None:
        return Standing(0, 0, None), True
    models, (left, total, said) = found
    return Standing(total - left, total, _to_show(models, session) if left else None), bool(said)


def _to_show(models: dict[str, Any], session: Session) -> Trial:
    """A trial of this session, with its image and what a check asks."""
    trial: Trial = models["trial"]
    trial.image, trial.check_item, trial.session = models["image"], models["check_item"], session
    return trial


_NO_TRIAL = UUID(int=0)


@cache
def _first_open(practising: bool) -> Statement:
    kinds = "told.kind = %s" if practising else "told.kind <> %s"
    return Statement(
        # What is done comes last, so that the first row is the next trial, and has counted all of them. A SELECT with a
        # LIMIT looks for each trial's answer by its index; of a join the planner may make a walk through all answers,
        # and a plan that is kept stays so as they grow.
        "SELECT {columns}, trial.left_open, trial.total, "  # noqa: S608 (all of it stands here)
        "EXISTS (SELECT 1 FROM {earlier} WHERE earlier.trial_id = %s) FROM ("
        "SELECT listed.*, SUM(listed.is_open) OVER () AS left_open, COUNT(*) OVER () AS total FROM ("
        "SELECT told.*, CASE WHEN told.skipped_at IS NULL AND told.id <> %s AND "
        "(SELECT 1 FROM {said} WHERE said.trial_id = told.id AND said.current LIMIT 1) IS NULL "
        f"THEN 1 ELSE 0 END AS is_open FROM {{told}} WHERE told.session_id = %s AND {kinds}"
        ") AS listed ORDER BY listed.is_open DESC, listed.position LIMIT 1"
        ") AS trial JOIN {image} ON image.id = trial.image_id "
        "LEFT JOIN {check_item} ON check_item.id = trial.check_item_id",
        tables={
            "trial": Trial,
            "image": Image,
            "check_item": CheckItem,
            "told": Trial,
            "said": Response,
            "earlier": Response,
        },
        columns="trial.id trial.session trial.image trial.position trial.kind trial.framing trial.check_item image.id "
        "image.sha256 check_item.id check_item.kind check_item.note",
        parameters="trial.id trial.id trial.session trial.kind",
    )


def _open_trials(session: Session) -> QuerySet[Trial]:
    return stage_trials(session).exclude(_DONE).select_related("image", "check_item")


@dataclass(frozen=True)
class Step:
    """The trials of the step at which a session stands, each with its image.

    ``waiting``: neither answered nor passed over, in order. ``answered``: in order. ``done``: of all in
    ``total``; what was passed over is done. ``steps_back``: how many answered ones may be corrected, never so many
    that a first answer can be seen from its repeat.
    """

    waiting: list[Trial]
    answered: list[Trial]
    done: int
    total: int
    steps_back: int


def step_of(session: Session) -> Step:
    """In one query, however many trials there are."""
    practising = session.status == SessionStatus.PRACTICE
    waiting, answered, position = [], [], {}
    back = MOST_STEPS_BACK
    rows = _of_step(practising).all(session.pk, TrialKind.PRACTICE)
    for models, (is_answered,) in rows:
        trial = _to_show(models, session)
        position[trial.pk] = trial.position
        if trial.repeat_of_id is not None:
            back = min(back, trial.position - position[trial.repeat_of_id] - 1)
        if is_answered:
            answered.append(trial)
        elif trial.skipped_at is None:
            waiting.append(trial)
    return Step(waiting, answered, len(rows) - len(waiting), len(rows), back)


@cache
def _of_step(practising: bool) -> Statement:
    kinds = "trial.kind = %s" if practising else "trial.kind <> %s"
    return Statement(
        "SELECT {columns}, EXISTS (SELECT 1 FROM {said} "  # noqa: S608 (all of it stands here)
        "WHERE said.trial_id = trial.id AND said.current) FROM {trial} JOIN {image} ON image.id = trial.image_id "
        "LEFT JOIN {check_item} ON check_item.id = trial.check_item_id "
        f"WHERE trial.session_id = %s AND {kinds} ORDER BY trial.position",
        tables={"trial": Trial, "image": Image, "check_item": CheckItem, "said": Response},
        columns="trial.* image.id image.sha256 check_item.id check_item.kind check_item.note",
        parameters="trial.session trial.kind",
    )


def open_to_correction(step: Step) -> list[tuple[Trial, Response]]:
    """Those that the annotator may go back to, oldest first, each with what was said last."""
    last = step.answered[max(0, len(step.answered) - step.steps_back) :]
    if not last:
        return []
    said = {response.trial_id: response for response in Response.objects.filter(trial__in=last, current=True)}
    return [(trial, said[trial.pk]) for trial in last]


def trial_counts(session: Session) -> tuple[int, int]:
    """(done, all) of the step at which the session stands; a trial that was passed over is done."""
    counts = stage_trials(session).order_by().aggregate(done=Count("pk", filter=_DONE), all=Count("pk"))
    return counts["done"], counts["all"]


def batches_of(session: Session) -> list[int]:
    """The batches of the images that the session has answered or is still to be asked about. Those passed over are
    none: it would hold a place on them and never be asked."""
    shown = session.trials.filter(Q(skipped_at__isnull=True) | _ANSWERED, kind=TrialKind.MAIN).values("image_id")
    batches = StudyImage.objects.filter(study_id=session.study_id, image_id__in=shown).order_by("batch_id")
    return list(batches.values_list("batch_id", flat=True).distinct())


def places_on_images(session: Session) -> dict[int, int]:
    """Of each image in the session's batches, in the study's order, the place that the session has on it: keys both."""
    return {image: place for _, (image, place) in _on_images().all(session.pk)}


@cache
def _on_images() -> Statement:
    return Statement(
        "SELECT member.image_id, place.id FROM {place} JOIN {member} ON member.batch_id = place.batch_id "
        "WHERE place.session_id = %s ORDER BY member.id",
        tables={"place": Place, "member": StudyImage},
        parameters="place.session",
    )


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

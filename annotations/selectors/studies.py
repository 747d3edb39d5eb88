"""Studies: their parts, their progress, and what keeps them from being launched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

from django.db.models import Count, Max, Q

from annotations.kinds import LAUNCH_STUDY
from annotations.models import (
    Arm,
    Assignment,
    Category,
    CheckKind,
    Consent,
    Dataset,
    Framing,
    Image,
    Place,
    Platform,
    Recruitment,
    Response,
    SessionStatus,
    Study,
    StudyStatus,
)
from annotations.models.participation import OPEN_STATUSES
from annotations.return_links import return_url_problem
from annotations.selectors import counted
from annotations.selectors.checks import check_problems, checks_to_show
from annotations.statements import Statement
from elicit.labels import AnswerRules
from elicit.labels.consistency import Verdict
from jobs.models import Job, Status


def launch_problems(study: Study) -> list[str]:
    """What keeps a draft from being launched, in words; empty when nothing does."""
    problems = []
    if study.dataset.ready_at is None:
        problems.append(f"The images of the dataset “{study.dataset}” are not imported yet.")
    if study.dataset.categories.count() < 2:
        problems.append(f"The dataset “{study.dataset}” has fewer than two categories.")
    images = study.study_images.count()
    if images == 0:
        problems.append("The study has no images: choose some.")
    if current_consent(study) is None:
        problems.append("The consent text is missing.")
    if not study.instructions.strip():
        problems.append("The instructions are empty.")
    if study.sum_limit and study.most_named == 1:
        problems.append("With one category named there is no sum to limit: leave the limit empty.")
    for place, problem in practice_problems(study, study.practice).items():
        problems.append(f"Practice image {place + 1}: {problem}")
    if study.budget_labels is not None and not study.one_by_one:
        problems.append("A budget of labels needs images that are handed out one by one: fixed batches need all K.")
    if study.one_by_one and images > study.study_images.order_by().values("batch").distinct().count():
        problems.append("Images handed out one by one can't lie in batches: choose the images again.")
    if study.assignment == Assignment.ADAPTIVE and study.least_labels > study.labels_per_image:
        problems.append("The least labels of an image are more than the most (K).")
    for arm in study.arms.all():
        asked = arm.dress(Study.objects.get(pk=study.pk))
        if asked.sum_limit and asked.most_named == 1:
            problems.append(f"Arm “{arm}”: with one category named there is no sum to limit.")
        if asked.most_named is not None and asked.most_named > study.dataset.categories.count():
            problems.append(f"Arm “{arm}”: the dataset has fewer than {asked.most_named} categories.")
    if study.budget_labels is not None and any("framing" in arm.settings for arm in study.arms.all()):
        problems.append("A budget can't be kept where arms ask different numbers of questions: leave it empty.")
    problems += check_problems(study)
    if study.return_url and (problem := return_url_problem(study.return_url)):
        problems.append(f"The link back: {problem}")
    return problems


def is_launching(study: Study) -> bool:
    """Whether a worker is about to launch the draft, or at it."""
    unfinished = [Status.QUEUED, Status.RUNNING]
    return Job.objects.filter(kind=LAUNCH_STUDY, subject=str(study.pk), status__in=unfinished).exists()


# Shorter than anybody needs for a session of it: what a plan counts with before anybody has answered.
SECONDS_OF_AN_ANSWER = 40
SECONDS_OF_TOP_1 = 12
LONG_SESSION_MINUTES = 45


def expected_minutes(study: Study) -> int:
    """About how long a session takes, before anybody has sat through one: as those of CIFAR-10S did."""
    seconds = SECONDS_OF_TOP_1 if study.most_named == 1 and not study.ask_impossible else SECONDS_OF_AN_ANSWER
    return max(1, round((trials_in_session(study) + len(study.practice)) * seconds / 60))


def most_labels(study: Study) -> int:
    """The most answers that may count: K for each image in each arm, unless the budget ends it before."""
    images = study.study_images.count()
    framings = [arm.settings.get("framing", study.framing) for arm in study.arms.all()] or [study.framing]
    labels = sum(images * study.labels_per_image * len(Framing(framing).asked) for framing in framings)
    return labels if study.budget_labels is None else min(labels, study.budget_labels)


def sessions_needed(study: Study) -> int:
    """How many sessions fill the study: for an adaptive one at the most."""
    arms = max(1, study.arms.count())
    if not study.one_by_one:
        return study.batches.count() * study.labels_per_image * arms
    images = study.study_images.count()
    # A person labels no image twice: however many a session may show, K people at least.
    shown = max(1, min(study.images_per_session, images))
    labels = images * study.labels_per_image * arms
    if study.budget_labels is not None:
        labels = min(labels, study.budget_labels // len(Framing(study.framing).asked))
    return -(-labels // shown)


def launch_warnings(study: Study) -> list[str]:
    """What a launch does not forbid but somebody should know before it, in words; the cost in people first."""
    if not study.study_images.exists():
        return []
    said = []
    sessions, minutes, images = sessions_needed(study), expected_minutes(study), study.study_images.count()
    upto = "At most " if study.assignment == Assignment.ADAPTIVE else ""
    said.append(f"{upto}{_many(sessions, 'session')} of about {_many(minutes, 'minute')}.")
    if minutes > LONG_SESSION_MINUTES:
        said.append("That is long for one sitting: fewer images a session keep people attentive.")
    if study.labels_per_image == 1:
        said.append("One label an image: nothing will tell how far people differ on it.")
    if not study.one_by_one and sessions > 2000:
        said.append(f"{images:,} images with {study.labels_per_image} labels each need a great many people.")
    if study.budget_labels is not None and study.budget_labels < images * study.least_labels:
        said.append(
            f"The budget of {study.budget_labels:,} labels does not give all {images:,} images "
            f"{study.least_labels} labels each: some will have fewer, or none."
        )
    if not study.practice:
        said.append("There is no practice: annotators meet the screen on images that count.")
    if not study.comprehension:
        said.append("There is no comprehension check: nobody is asked whether they understood the instructions.")
    if not study.repeats_per_session:
        said.append("No image is repeated: how far an annotator agrees with themselves will not be known.")
    arms = study.arms.count()
    if arms == 1:
        said.append("There is one arm alone: nothing to compare it with.")
    elif arms:
        said.append(f"{arms} arms, each with {study.labels_per_image} labels an image of its own.")
    gold = study.check_items.filter(kind=CheckKind.GOLD)
    if number := gold.filter(tolerance__isnull=True, allowed=[]).count():
        said.append(f"{_many(number, 'gold image')} without a tolerance: nobody can pass or fail on them.")
    if not study.licence:
        said.append("No licence is named: whoever reads a release won't know what they may do with it.")
    if study.predecessor is not None and study.predecessor.status == StudyStatus.LIVE:
        said.append(f"Version {study.predecessor.version} is live still: both will take annotators.")
    recruiting = getattr(study, "recruiting", None)
    if recruiting is not None and recruiting.platform == Platform.PROLIFIC and not recruiting.code_completed:
        said.append("People come from Prolific, but there is no completion code to give them.")
    return said


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def practice_problems(
    study: Study, practice: Sequence[Mapping[str, Any]], *, leave_out: bool = False
) -> dict[int, str]:
    """What of a practice does not fit the study, a sentence for each item concerned, by its place from 0.

    With `leave_out` its images are about to be taken out of the study's own.
    """
    images = dict(
        study.dataset.images.filter(index__in=[item["image"] for item in practice]).values_list("index", "pk")
    )
    main = set(study.study_images.filter(image__in=images.values()).values_list("image_id", flat=True))
    known = set(category_names(study))
    problems: dict[int, str] = {}
    for place, item in enumerate(practice):
        unknown = [name for name in item.get("expected", {}) if name not in known]
        if item["image"] not in images:
            problems[place] = f"the dataset has no image {item['image']}."
        elif images[item["image"]] in main and not leave_out:
            problems[place] = (
                f"image {item['image']} is one of the study's own: whoever practised on it would know it already."
            )
        elif unknown:
            problems[place] = f"the dataset has no category “{unknown[0]}”."
    return problems


def dataset_image(study: Study, index: int) -> Image | None:
    return study.dataset.images.filter(index=index).first()


SPREAD_BY_BATCH = 5000
"""Batches were dealt at random: some of them show as much of the choice as some of its images."""


def some_images(study: Study, number: int) -> list[Image]:
    """So many of the study's images, spread over all of them; where they are very many, over its batches."""
    last = study.batches.aggregate(last=Max("number"))["last"] or 0
    if last > SPREAD_BY_BATCH:
        numbers = {place * last // number for place in range(number)}
        first = study.study_images.filter(batch__number__in=numbers).order_by("batch__number", "pk")
        seen = dict(first.values_list("batch__number", "image_id"))
        return list(Image.objects.filter(pk__in=seen.values()).order_by("index"))
    keys = list(study.study_images.order_by("image__index").values_list("image_id", flat=True))
    return list(Image.objects.filter(pk__in=keys[:: max(1, len(keys) // number)][:number]).order_by("index"))


def practice_images(study: Study) -> dict[int, Image]:
    """The images of the study's practice, by their number in the dataset; those that it lacks are left out."""
    wanted = {item["image"] for item in study.practice}
    return {image.index: image for image in study.dataset.images.filter(index__in=wanted)}


def current_consent(study: Study) -> Consent | None:
    found = _newest_consent().first(study.pk)
    if found is None:
        return None
    consent: Consent = found[0]["consent"]
    consent.study = study
    return consent


@cache
def _newest_consent() -> Statement:
    return Statement(
        "SELECT {columns} FROM {consent} WHERE consent.study_id = %s ORDER BY consent.version DESC LIMIT 1",
        tables={"consent": Consent},
        columns="consent.*",
        parameters="consent.study",
    )


LARGEST = "largest_batch"
"""Under which a launch keeps, in the study's choice, how many images its largest batch has."""


def trials_in_session(study: Study) -> int:
    """How many trials a session of this study has, at the most where batches are uneven."""
    if study.one_by_one:
        # No further than has to be counted.
        largest = study.study_images.order_by()[: study.images_per_session].count()
    elif study.status != StudyStatus.DRAFT and LARGEST in study.choice:
        largest = study.choice[LARGEST]
    else:
        sizes = study.batches.annotate(size=Count("study_images"))
        largest = sizes.aggregate(largest=Max("size"))["largest"] or 0
    shown = largest + min(study.repeats_per_session, -(-largest // 2))
    return shown * len(Framing(study.framing).asked) + len(checks_to_show(study))


def has_free_place(study: Study, arm: Arm | None = None) -> bool:
    """Whether a session to come finds a place: in this arm, or in any where none is named."""
    if study.labels_left is not None and study.labels_left < len(Framing(study.framing).asked):
        return False
    return _free(arm is not None).first(study.pk, *([] if arm is None else [arm.pk])) is not None


@cache
def _free(of_arm: bool) -> Statement:
    return Statement(
        # In the order of an index: else the database may go through all taken places to find the first free one.
        "SELECT 1 FROM {place} WHERE place.study_id = %s "  # noqa: S608 (all of it stands here)
        f"AND place.session_id IS NULL AND place.turn IS NOT NULL {'AND place.arm_id = %s' if of_arm else ''} "
        "ORDER BY place.turn, place.rank LIMIT 1",
        tables={"place": Place},
        parameters="place.study place.arm" if of_arm else "place.study",
        keep=False,
    )


def launched_study(slug: str) -> Study | None:
    """The study of a link, which anybody may ask for, with its dataset and recruitment; nobody is told of a draft."""
    found = _launched().first(slug, StudyStatus.DRAFT)
    return None if found is None else with_parts(found[0])


def with_parts(found: Mapping[str, Any]) -> Study:
    """What a statement found as study, dataset and recruitment; this an unsaved one where nothing was chosen, as
    `selectors.recruitment.of_study` has it."""
    study: Study = found["study"]
    study.dataset = found["dataset"]
    study.recruiting = found["recruiting"] or Recruitment(study=study)
    return study


@cache
def _launched() -> Statement:
    return Statement(
        "SELECT {columns} FROM {study} JOIN {dataset} ON dataset.id = study.dataset_id "
        "LEFT JOIN {recruiting} ON recruiting.study_id = study.id WHERE study.slug = %s AND study.status <> %s",
        tables={"study": Study, "dataset": Dataset, "recruiting": Recruitment},
        columns="study.* dataset.* recruiting.*",
        parameters="study.slug study.status",
    )


def why_shut(study: Study) -> str:
    """Why nobody new can begin a session just now: `study_not_live`, `study_full`, or empty."""
    if study.status != StudyStatus.LIVE:
        return "study_not_live"
    return "" if has_free_place(study) else "study_full"


def arms_to_draw_from(study: Study) -> list[Arm]:
    """The arms with a free place that are least filled for their weight, by sessions under way and completed."""
    # Most studies have none, and those that have are counted the sessions of.
    if _an_arm().first(study.pk) is None:
        return []
    filled = Q(sessions__status__in=[*OPEN_STATUSES, SessionStatus.COMPLETED], sessions__excluded_at__isnull=True)
    arms = list(study.arms.annotate(filled=Count("sessions", filter=filled)).order_by("pk"))
    # All of them where none has a place: whoever draws is told that the study is full.
    arms = [arm for arm in arms if has_free_place(study, arm)] or arms
    least = min(Fraction(arm.filled, arm.weight) for arm in arms)
    return [arm for arm in arms if Fraction(arm.filled, arm.weight) == least]


@cache
def _an_arm() -> Statement:
    return Statement(
        "SELECT 1 FROM {arm} WHERE arm.study_id = %s LIMIT 1",
        tables={"arm": Arm},
        parameters="arm.study",
    )


def category_names(study: Study) -> list[str]:
    return [name for _, (name,) in _categories().all(study.dataset_id)]


@cache
def _categories() -> Statement:
    return Statement(
        'SELECT category.name FROM {category} WHERE category.dataset_id = %s ORDER BY category."index"',
        tables={"category": Category},
        parameters="category.dataset",
    )


def category_count(study: Study) -> int:
    """K, the length of every soft label."""
    [(_, (number,))] = _number_of_categories().all(study.dataset_id)
    return int(number)


@cache
def _number_of_categories() -> Statement:
    return Statement(
        "SELECT COUNT(*) FROM {category} WHERE category.dataset_id = %s",
        tables={"category": Category},
        parameters="category.dataset",
    )


def answer_rules(study: Study, categories: int) -> AnswerRules:
    return AnswerRules(
        categories=categories,
        most_named=study.most_named,
        sum_limit=study.sum_limit,
        ask_impossible=study.ask_impossible,
    )


@dataclass(frozen=True)
class StudyProgress:
    """How far a study has come, in sessions and labels."""

    images: int
    places: int
    places_taken: int
    open_sessions: int
    completed: int
    abandoned: int
    screened_out: int
    withdrawn: int
    excluded: int
    labels: int
    labels_wanted: int
    inconsistent: int
    settled: int = 0
    adaptive: bool = False

    @property
    def percent(self) -> int:
        return round(100 * self.labels / self.labels_wanted) if self.labels_wanted else 0

    @property
    def words(self) -> str:
        """How far it is, in a sentence."""
        if self.adaptive:
            return (
                f"settled {self.settled:,} of {self.images:,} images, "
                f"{self.labels:,} of at most {self.labels_wanted:,} labels"
            )
        return f"{self.labels:,} of {self.labels_wanted:,} labels ({self.percent} %)"


def study_progress(study: Study) -> StudyProgress:
    """How far it is; a large study as a worker counted it last, with nothing in it before that."""
    if counted.is_large(study):
        known = counted.counts(study).get("progress", {})
        return StudyProgress(**{**_NOTHING, "adaptive": study.assignment == Assignment.ADAPTIVE, **known})
    return count_progress(study)


_NOTHING = dict.fromkeys(
    (
        "images", "places", "places_taken", "open_sessions", "completed", "abandoned", "screened_out", "withdrawn",
        "excluded", "labels", "labels_wanted", "inconsistent",
    ),
    0,
)  # fmt: skip


def count_progress(study: Study) -> StudyProgress:
    """`study_progress` of this moment, whatever that takes."""
    sessions = study.sessions.aggregate(
        open=Count("pk", filter=Q(status__in=OPEN_STATUSES)),
        completed=Count("pk", filter=Q(status=SessionStatus.COMPLETED)),
        abandoned=Count("pk", filter=Q(status=SessionStatus.ABANDONED)),
        screened_out=Count("pk", filter=Q(status=SessionStatus.SCREENED_OUT)),
        withdrawn=Count("pk", filter=Q(status=SessionStatus.WITHDRAWN)),
        excluded=Count("pk", filter=Q(excluded_at__isnull=False)),
        inconsistent=Count("pk", filter=Q(consistency__verdict=Verdict.INCONSISTENT)),
    )
    places = study.places.aggregate(all=Count("pk"), taken=Count("session"))
    images = study.study_images.count()
    return StudyProgress(
        images=images,
        places=places["all"],
        places_taken=places["taken"],
        open_sessions=sessions["open"],
        completed=sessions["completed"],
        abandoned=sessions["abandoned"],
        screened_out=sessions["screened_out"],
        withdrawn=sessions["withdrawn"],
        excluded=sessions["excluded"],
        labels=Response.objects.filter(trial__place__study=study, current=True).count(),
        labels_wanted=most_labels(study),
        settled=study.batches.filter(settled=True).count() if study.assignment == Assignment.ADAPTIVE else 0,
        adaptive=study.assignment == Assignment.ADAPTIVE,
        inconsistent=sessions["inconsistent"],
    )

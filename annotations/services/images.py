"""Fill a dataset with images, all of them or none, and take it away again."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from annotations import image_store
from annotations.errors import refuse
from annotations.kinds import IMPORT_IMAGES, REMOVE_IMAGES
from annotations.models import Category, Dataset, Image, ImageImport, ImageRemoval, ImportProblem
from annotations.selectors.datasets import import_job, mentioned_pictures
from annotations.services import uploads
from elicit import archives, folders
from elicit.archives import CifarArchive, Split
from elicit.folders import Limits, Part, Plan, Planned, Problem, Source, Table, Taken, Unusable
from elicit.labels.errors import Refusal
from jobs import services as jobs
from jobs.models import UNFINISHED, Job, Status

ROWS_AT_ONCE = 1000
PROBLEMS_KEPT = 1000
THREADS = min(4, os.cpu_count() or 1)
# Files that are taken away in one breath, while no import may end.
REMOVED_AT_ONCE = 50
# Clocks of two machines may differ, and whole imports lie between.
REMOVALS_KEPT = timedelta(days=2)
# An arbitrary number that nothing else locks.
_LOCK = 7_230_915

Progress = Callable[[int], None]


class ProblemsFound(Refusal):
    """Files that can't be taken: nothing is imported. The first problems, how many there are, how many are good."""

    def __init__(self, problems: Problems, good: int) -> None:
        files = "1 file has" if problems.count == 1 else f"{problems.count:,} files have"
        super().__init__("problems_found", f"{files} problems, {good:,} images are good. Nothing was imported.")
        self.problems, self.good = problems, good


@dataclass
class Problems:
    """How many there are, and the first thousand."""

    kept: list[Problem] = field(default_factory=list)
    count: int = 0

    def add(self, *found: Problem) -> None:
        self.count += len(found)
        self.kept.extend(found[: PROBLEMS_KEPT - len(self.kept)])


class FilesGone(OSError):
    """Files that were there when the import met them went with a deleted dataset meanwhile: it has to begin again."""


def limits() -> Limits:
    """Those of this installation."""
    return Limits(
        files=settings.IMAGE_MOST_FILES,
        total=settings.IMAGE_MOST_TOTAL,
        pixels=settings.IMAGE_MOST_PIXELS,
        side=settings.IMAGE_LARGEST_SIDE,
    )


# Importing


def fill_dataset(dataset: Dataset, archive: CifarArchive, split: Split, progress: Progress) -> int:
    """Import one split of a CIFAR archive into a dataset that has no images yet (saved or not).

    The files are written first: named by their content, they do no harm if the import breaks off. The rows follow in
    one transaction, so that a dataset is empty or complete. Returns the number of images;
    `progress` is called with the count so far.

    Raises:
        Refusal: the archive is broken or has no such split; the dataset stays empty.
    """
    began = timezone.now()
    rows: list[Image] = []
    there: set[str] = set()
    for batch in archive.batches(split):
        for offset, (label, pixels) in enumerate(zip(batch.labels, batch.pixels, strict=True)):
            height, width, _ = pixels.shape
            kept = image_store.keep(pixels)
            if kept.was_there:
                there.add(kept.sha256)
            rows.append(
                Image(
                    index=batch.start + offset,
                    sha256=kept.sha256,
                    width=width,
                    height=height,
                    reference=int(label),
                )
            )
            if len(rows) % 100 == 0:
                progress(len(rows))
    _complete(dataset, archive.origin, archive.cifar.categories, rows, there, began)
    progress(len(rows))
    return len(rows)


def fill_from_files(
    dataset: Dataset,
    source: Source,
    *,
    part: Part = "all",
    categories: Sequence[str] = (),
    labels: Table | None = None,
    skip_problems: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[int, Problems]:
    """Import images from a folder, a zip or a tar into a dataset that has none yet (saved or not), as `fill_dataset`
    does.

    Returns the number of images, and what was left out. `progress` is called with the count so far and that in all.

    Raises:
        ProblemsFound: a file can't be taken, or has the pixels of another one, and `skip_problems` is not set.
        Refusal: the whole can't be read, is too much, or nothing in it is good. The dataset stays empty.
    """
    began = timezone.now()
    made = folders.plan(source, limits=limits(), part=part, categories=categories, labels=labels)
    problems = Problems()
    problems.add(*made.problems)
    stored, there = _store_all(source, made, problems, progress)
    rows = _without_twins(made, stored, problems)
    if problems.count and not skip_problems:
        raise ProblemsFound(problems, len(rows))
    if not rows:
        first = f" The first problem: {problems.kept[0]}." if problems.kept else ""
        raise Refusal("no_images", f"{source.origin}: none of its images can be taken.{first}")
    _complete(dataset, source.origin, made.categories, rows, there, began)
    return len(rows), problems


@dataclass(frozen=True, slots=True)
class _Stored:
    kept: image_store.Kept
    width: int
    height: int
    changes: str


def _store_all(
    source: Source, made: Plan, problems: Problems, progress: Callable[[int, int], None]
) -> tuple[dict[int, _Stored], set[str]]:
    """Check and store every image; by key what became of the good ones, and the hashes that were there before."""
    stored: dict[int, _Stored] = {}
    names = {planned.key: planned.name for planned in made.images}
    left = dict(names)
    for done, (key, outcome) in enumerate(_outcomes(source, names.keys()), 1):
        name = left.pop(key)
        if isinstance(outcome, _Stored):
            stored[key] = outcome
        else:
            problems.add(Problem(name, outcome.what, outcome.todo))
        if done % 50 == 0:
            progress(done, len(names))
    problems.add(*(Problem(name, "was gone when it was to be read", "import again") for name in left.values()))
    progress(len(names), len(names))
    return stored, {each.kept.sha256 for each in stored.values() if each.kept.was_there}


def _outcomes(source: Source, keys: Iterable[int]) -> Iterator[tuple[int, _Stored | Problem | Unusable]]:
    """Decoding and encoding let go of the interpreter: a few threads, never far ahead of what is asked for."""
    bounds = limits()
    waiting: deque[tuple[int, Future[_Stored | Unusable]]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        for key, content in source.read(set(keys), bounds.file):
            if isinstance(content, Problem):
                yield key, content
                continue
            waiting.append((key, pool.submit(_store, content, bounds)))
            if len(waiting) > 2 * THREADS:
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()


def _store(content: bytes, bounds: Limits) -> _Stored | Unusable:
    try:
        taken: Taken = folders.take(content, bounds)
    except Unusable as error:
        return error
    height, width, _ = taken.pixels.shape
    return _Stored(image_store.keep(taken.pixels), width, height, taken.changes)


def _without_twins(made: Plan, stored: dict[int, _Stored], problems: Problems) -> list[Image]:
    """Rows in the order of the plan, the first of each set of pixels."""
    first: dict[str, Planned] = {}
    rows: list[Image] = []
    for planned in made.images:
        if (each := stored.get(planned.key)) is None:
            continue
        twin = first.setdefault(each.kept.sha256, planned)
        if twin is not planned:
            other = "" if twin.category == planned.category else ", which is of another category"
            what = f"has the same pixels as {twin.name}{other}"
            problems.add(Problem(planned.name, what, "leave one of the two out"))
            continue
        rows.append(
            Image(
                index=len(rows),
                sha256=each.kept.sha256,
                width=each.width,
                height=each.height,
                name=planned.name,
                changes=each.changes,
                reference=planned.category,
                reference_distribution=None if planned.distribution is None else list(planned.distribution),
            )
        )
    return rows


def _complete(
    dataset: Dataset, origin: str, categories: Sequence[str], rows: list[Image], there: set[str], began: datetime
) -> None:
    """Write the rows and open the dataset, in one transaction.

    Raises:
        Refusal: `dataset_deleted` or `dataset_filled` meanwhile.
        FilesGone: files of `there` went meanwhile.
    """
    with transaction.atomic():
        _no_removal_meanwhile()
        current = Dataset.objects.select_for_update().filter(pk=dataset.pk).first()
        if current is not None and current.ready_at is not None:
            raise refuse("dataset_filled")
        deleted = current is None and not dataset._state.adding
        if deleted:
            _remove_later({row.sha256 for row in rows})
        else:
            _refuse_gone(there, began)
            dataset.origin = origin
            dataset.ready_at = timezone.now()
            # Its name may have been changed meanwhile.
            dataset.save(update_fields=None if current is None else ["origin", "ready_at"])
            Category.objects.bulk_create(
                Category(dataset=dataset, index=index, name=name) for index, name in enumerate(categories)
            )
            for row in rows:
                row.dataset = dataset
            Image.objects.bulk_create(rows, batch_size=ROWS_AT_ONCE)
    if deleted:
        raise refuse("dataset_deleted")


def _refuse_gone(there: set[str], began: datetime) -> None:
    removals = ImageRemoval.objects.exclude(done_at__lt=began - timedelta(hours=1)).values_list("sha256s", flat=True)
    removed = {sha256 for sha256s in removals for sha256 in sha256s}
    if not all(image_store.has(sha256) for sha256 in there & removed):
        raise FilesGone("A dataset with some of the same images was deleted meanwhile.")


# A curator's requests


@transaction.atomic
def request_import(
    *,
    dataset: Dataset,
    source: str,
    split: str,
    file: object = "",
    labels: object = "",
    categories: Sequence[str] = (),
) -> ImageImport:
    """Queue the import of images into a dataset; that of a browser's folder once the folder has come.

    Raises:
        AnnotationError: `dataset_filled`, `import_under_way`.
        ValidationError: no such source or split.
    """
    if Dataset.objects.select_for_update().get(pk=dataset.pk).ready_at is not None:
        raise refuse("dataset_filled")
    wanted = ImageImport(
        dataset=dataset, source=source, split=split, file=file, labels=labels, categories=list(categories)
    )
    wanted.full_clean()
    before = list(dataset.imports.all())
    if any((job := import_job(old)) and job.status in UNFINISHED for old in before):
        raise refuse("import_under_way")
    wanted.save()
    if source != ImageImport.Source.FOLDER:
        jobs.enqueue(IMPORT_IMAGES, wanted.pk)
    for old in before:
        _forget(old)
    return wanted


def _forget(old: ImageImport) -> None:
    """An import that another one takes the place of: its job finds nothing to do, its files go."""
    ImageImport.objects.filter(pk=old.pk).delete()
    transaction.on_commit(lambda: uploads.discard(old))


@transaction.atomic
def import_again(wanted: ImageImport, *, skip_problems: bool) -> Job:
    """Queue a failed import anew; `skip_problems` takes the good images and leaves the others out.

    Raises:
        AnnotationError: `import_not_failed`.
    """
    Dataset.objects.select_for_update().get(pk=wanted.dataset_id)
    job = import_job(wanted)
    if job is None or job.status != Status.FAILED:
        raise refuse("import_not_failed")
    wanted.skip_problems = skip_problems
    wanted.save(update_fields=["skip_problems"])
    return jobs.enqueue(IMPORT_IMAGES, wanted.pk)


def run_import(job: Job) -> None:
    """Do a requested import, reporting to its job."""
    wanted = ImageImport.objects.select_related("dataset").filter(pk=job.subject).first()
    if wanted is None or wanted.dataset.ready_at is not None:
        return
    jobs.report(job, "finding the images")
    if wanted.source in (ImageImport.Source.FOLDER, ImageImport.Source.ARCHIVE):
        _run_files(job, wanted)
    else:
        _run_cifar(job, wanted)
    uploads.discard(wanted)


def _run_cifar(job: Job, wanted: ImageImport) -> None:
    choice = wanted.file.path if wanted.source == ImageImport.Source.UPLOAD else str(wanted.source)
    archive, _ = archives.find_images(
        choice, settings.DOWNLOADS, progress=lambda done, total: jobs.report(job, "downloading", done, total or 0)
    )
    split = cast("Split", wanted.split)
    fill_dataset(
        wanted.dataset,
        archive,
        split,
        # The published sizes: an archive does not say how many there are.
        lambda done: jobs.report(job, "importing", done, archive.cifar.sizes[split]),
    )


def _run_files(job: Job, wanted: ImageImport) -> None:
    _tell(wanted, Problems(), 0)
    try:
        good, problems = fill_from_files(
            wanted.dataset,
            _source(wanted),
            part=cast("Part", wanted.split),
            categories=wanted.categories,
            labels=_labels(wanted),
            skip_problems=wanted.skip_problems,
            progress=lambda done, total: jobs.report(job, "checking and storing", done, total),
        )
    except ProblemsFound as found:
        _tell(wanted, found.problems, found.good)
        raise
    _tell(wanted, problems, good)


def _source(wanted: ImageImport) -> Source:
    if wanted.source == ImageImport.Source.ARCHIVE:
        return folders.open_source(Path(wanted.file.path))
    sent = uploads.parts(wanted)
    return folders.Zips([sent[number] for number in sorted(sent)], "a folder of images, sent by the browser")


def _labels(wanted: ImageImport) -> Table | None:
    if not wanted.labels:
        return None
    with wanted.labels.open("rb") as file:
        return Table(Path(wanted.labels.name).name, file.read())


@transaction.atomic
def _tell(wanted: ImageImport, problems: Problems, good: int) -> None:
    """Write down what the last run found."""
    wanted.problems.all().delete()
    ImportProblem.objects.bulk_create(
        ImportProblem(
            wanted=wanted, position=position, file=each.file[:300], what=each.what[:500], todo=each.todo[:300]
        )
        for position, each in enumerate(problems.kept)
    )
    wanted.problem_count, wanted.good = problems.count, good
    wanted.save(update_fields=["problem_count", "good"])


# Taking away


@transaction.atomic
def delete_dataset(dataset: Dataset) -> None:
    """Delete a dataset that no study uses; its files follow in the background unless somebody else uses them.

    Raises:
        ProtectedError: a study uses it.
    """
    sha256s = set(dataset.images.values_list("sha256", flat=True))
    for wanted in dataset.imports.all():
        transaction.on_commit(lambda wanted=wanted: uploads.discard(wanted))  # type: ignore[misc]
    dataset.delete()
    _remove_later(sha256s)


def _remove_later(sha256s: set[str]) -> None:
    ImageRemoval.objects.filter(done_at__lt=timezone.now() - REMOVALS_KEPT).delete()
    if sha256s:
        removal = ImageRemoval.objects.create(sha256s=sorted(sha256s))
        jobs.enqueue(REMOVE_IMAGES, removal.pk)


def run_removal(job: Job) -> None:
    """Remove what nobody uses of a removal's files."""
    removal = ImageRemoval.objects.filter(pk=job.subject, done_at=None).first()
    if removal is None:
        return
    every = removal.sha256s
    for start in range(0, len(every), REMOVED_AT_ONCE):
        some = every[start : start + REMOVED_AT_ONCE]
        with transaction.atomic():
            _no_removal_meanwhile()
            used = set(Image.objects.filter(sha256__in=some).values_list("sha256", flat=True)) | mentioned_pictures()
            for sha256 in some:
                if sha256 not in used:
                    image_store.remove(sha256)
        jobs.report(job, "removing", start + len(some), len(every))
    ImageRemoval.objects.filter(pk=removal.pk).update(done_at=timezone.now())


def _no_removal_meanwhile() -> None:
    """Until this transaction ends, no other one that asks so runs: of a removal of files and an import that ends, one
    sees what the other did. SQLite lets only one transaction write anyway."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])

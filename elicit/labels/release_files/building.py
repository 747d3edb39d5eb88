"""Write a release: spool, label, pool, then one file after another, each whole or not there.

In memory are at most: the tables of the spool (names of annotators, digests of images, orders of categories), about
40 bytes a response to sort them, one chunk of rows, and what the pool needs: the labels of one block of images where
it treats every image by itself, of all responses where it learns from all of them.

Given a scratch folder that outlives the process, a build that was killed goes on where it stopped: the spool and
every finished file are sealed there, and what is found is taken over only if it is what the seal says and if
everything else (recipe, facts, categories, formats) is as it was.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from elicit.labels.aggregation import POOLS
from elicit.labels.categories import CategorySet
from elicit.labels.errors import Refusal
from elicit.labels.release_files import array_files, columns, common, parquet_files, text_files, words_files
from elicit.labels.release_files.columns import (
    KINDS,
    ReleasedResponse,
    ResponseColumns,
    Spooled,
)
from elicit.labels.release_files.common import JSON, MANIFEST, Progress, Seal, canonical, durable, seal_of
from elicit.labels.release_files.contents import MAIN, Contents, Pooled, Writer
from elicit.labels.release_files.recipe import Recipe

# Pools that treat each image by itself: blocks of images give the same bits as all at once.
_BY_IMAGE = ("mean", "median", "log")
# Labels pooled at a time, in numbers.
_BLOCK_SIZE = 1 << 21

READING = "reading"
LABELS = "labels"
POOLING = "pooling"
_SPOOL = "spool"
_PLAN = "plan.json"

_BY_RESPONSE: dict[str, Writer] = {
    common.RESPONSES_CSV: text_files.write_responses_csv,
    common.RESPONSES_JSONL: text_files.write_responses_jsonl,
    common.RESPONSES_PARQUET: parquet_files.write_responses_parquet,
    common.ANNOTATOR_SOFT_LABELS_NPY: array_files.write_annotator_soft_labels,
    common.CIFAR10S: text_files.write_cifar10s,
    common.CIFAR10S_ANSWERS: text_files.write_cifar10s_answers,
}
_BY_POOLED_IMAGE: dict[str, Writer] = {
    common.SOFT_LABELS_CSV: text_files.write_soft_labels_csv,
    common.SOFT_LABELS_PARQUET: parquet_files.write_soft_labels_parquet,
    common.SOFT_LABELS_NPY: array_files.write_soft_labels,
    common.IMAGES_NPY: array_files.write_images,
    common.CIFAR10H_COUNTS: array_files.write_cifar10h_counts,
    common.CIFAR10H_PROBS: array_files.write_cifar10h_probs,
}
# Each tells of the files before it.
_WORDS: dict[str, Writer] = {
    common.DATASHEET: words_files.write_datasheet,
    common.README: words_files.write_readme,
    common.CROISSANT: words_files.write_croissant,
}
_NEED_PYARROW = (common.RESPONSES_PARQUET, common.SOFT_LABELS_PARQUET)


def write_release(
    directory: Path,
    *,
    categories: CategorySet,
    responses: Iterable[ReleasedResponse | ResponseColumns],
    recipe: Recipe,
    facts: Mapping[str, JSON],
    version: int,
    progress: Progress | None = None,
    scratch: Path | None = None,
) -> dict[str, Any]:
    """Write a release into ``directory`` (made if absent) and return its manifest.

    Same arguments, same bytes, in whatever order the responses come. What an interrupted run left behind is
    overwritten: without a manifest there is no release. With ``scratch``, a folder of the caller's for this release
    alone, it is continued instead; the responses are not read again once all of them were. The caller removes it,
    and sees to it that one process at a time works in there.

    Raises Refusal ``release_exists`` (the directory holds a manifest) or ``release_empty`` (no response that
    the recipe pools); ValueError for responses that contradict themselves or each other, and for facts that
    JSON has no form for; whatever ``progress`` raises.
    """
    if scratch is None and (directory / MANIFEST).exists():
        raise Refusal("release_exists", f"There is a release in {directory.name} already.")
    left_out = _left_out()
    plan: dict[str, Any] = {
        "format_version": common.FORMAT_VERSION,
        "version": version,
        "written_by": _written_by(),
        "categories": list(categories.names),
        "recipe": recipe.to_dict(),
        "facts": facts,
        "files_left_out": left_out,
    }
    canonical(plan)
    with ExitStack() as stack:
        if scratch is None:
            directory.parent.mkdir(parents=True, exist_ok=True)
            place = tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent)
            scratch = Path(stack.enter_context(place))
        workshop = _Workshop(directory, scratch, plan)
        return _Build(workshop, categories, recipe, plan, progress or common.silent).run(responses)


def _left_out() -> dict[str, str]:
    """The files that can't be written here, and why."""
    if common.pyarrow_module() is None:
        return dict.fromkeys(_NEED_PYARROW, "pyarrow is not installed (the extra `formats`)")
    return {}


def _written_by() -> dict[str, str]:
    """What decides over the bytes beside the arguments."""
    versions = {"elicit": common.WRITER_VERSION}
    if common.pyarrow_module() is not None:
        versions["pyarrow"] = metadata.version("pyarrow")
    return versions


class _Workshop:
    """The scratch folder and the release's: what is finished is sealed, what is not is removed."""

    def __init__(self, directory: Path, scratch: Path, plan: Mapping[str, JSON]) -> None:
        self.directory, self.scratch = directory, scratch
        self.spool = scratch / _SPOOL
        planned = canonical(plan)
        try:
            same = (scratch / _PLAN).read_text(encoding="utf-8") == planned
        except (FileNotFoundError, UnicodeDecodeError):
            same = False
        if same:
            self._tidy()
        else:
            self._begin(planned)

    def _begin(self, planned: str) -> None:
        self.scratch.mkdir(parents=True, exist_ok=True)
        for path in self.scratch.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        # Of another plan, or of none: no file of it is ours.
        for name in (*_BY_RESPONSE, *_BY_POOLED_IMAGE, *_WORDS, MANIFEST):
            (self.directory / name).unlink(missing_ok=True)
        with durable(self.scratch / _PLAN) as out:
            out.text(planned)

    def _tidy(self) -> None:
        # Somebody who lost this release may still hold them open: new files have to be others.
        for folder in (self.directory, self.scratch, self.spool):
            for part in folder.glob("*.part"):
                part.unlink()

    def finished(self, stage: str, folder: Path) -> dict[str, Seal] | None:
        """The seals of a stage's files if they are as they were sealed; else the stage is undone."""
        marker = self._marker(stage)
        try:
            seals: dict[str, Seal] = json.loads(marker.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        try:
            if all(seal_of(folder / name) == seal for name, seal in seals.items()):
                return seals
        except FileNotFoundError:
            pass
        marker.unlink()
        return None

    def finish(self, stage: str, seals: Mapping[str, Seal]) -> None:
        with durable(self._marker(stage)) as out:
            out.text(canonical(seals))

    def _marker(self, stage: str) -> Path:
        return self.scratch / f"{stage}.done"


class _Build:
    def __init__(
        self,
        workshop: _Workshop,
        categories: CategorySet,
        recipe: Recipe,
        plan: Mapping[str, Any],
        tell: Progress,
    ) -> None:
        self._workshop, self._categories, self._recipe = workshop, categories, recipe
        self._plan, self._tell = plan, tell

    def run(self, given: Iterable[ReleasedResponse | ResponseColumns]) -> dict[str, Any]:
        workshop = self._workshop
        responses = self._spooled(given)
        pooled_kinds = [KINDS.index(kind) for kind in self._recipe.pooled_kinds]
        if not sum(responses.by_kind[kind] for kind in self._recipe.pooled_kinds):
            raise Refusal("release_empty", "There is no response to release.")
        labels, top = self._label(responses)
        pooled, annotators = self._pool(responses, labels, top, pooled_kinds)
        files: dict[str, Seal] = {}
        left_out: dict[str, str] = self._plan["files_left_out"]
        contents = Contents(
            categories=self._categories,
            responses=responses,
            labels=labels,
            pooled=pooled,
            recipe=self._recipe,
            facts=self._plan["facts"],
            counts={
                "images": len(pooled),
                "annotators": annotators,
                "responses": len(responses),
                "pooled_responses": sum(responses.by_kind[kind] for kind in self._recipe.pooled_kinds),
                "by_kind": responses.by_kind,
            },
            files=files,
            left_out=left_out,
        )
        workshop.directory.mkdir(parents=True, exist_ok=True)
        totals = [(_BY_RESPONSE, len(responses)), (_BY_POOLED_IMAGE, len(pooled)), (_WORDS, 1)]
        for writers, total in totals:
            for name, write in writers.items():
                if name not in left_out:
                    files[name] = self._file(name, write, contents, total)
        common.sync_directory(workshop.directory)
        return self._manifest(contents)

    def _spooled(self, given: Iterable[ReleasedResponse | ResponseColumns]) -> Spooled:
        workshop, categories = self._workshop, len(self._categories)
        if workshop.finished(READING, workshop.spool) is None:
            shutil.rmtree(workshop.spool, ignore_errors=True)
            workshop.spool.mkdir()
            seals = columns.spool(workshop.spool, given, categories=categories)
            workshop.finish(READING, seals)
        return Spooled(workshop.spool, categories)

    def _label(self, responses: Spooled) -> tuple[Any, Any]:
        """(R, K) soft labels and (R,) most likely categories, on the disk: quickly made, so never taken over."""
        rows, categories = len(responses), len(self._categories)
        self._tell(LABELS, 0, rows)
        paths = [self._workshop.scratch / name for name in ("labels.npy", "top.npy")]
        for path in paths:
            path.unlink(missing_ok=True)
        labels = np.lib.format.open_memmap(paths[0], mode="w+", dtype=np.float64, shape=(rows, categories))
        top = np.lib.format.open_memmap(paths[1], mode="w+", dtype=np.int16, shape=(rows,))
        for chunk in responses.chunks():
            labels[chunk.start : chunk.stop] = self._recipe.variety.soft_labels(chunk.answers)
            top[chunk.start : chunk.stop] = chunk.named_categories[chunk.named_places == 0]
            self._tell(LABELS, chunk.stop, rows)
        return labels, top

    def _pool(self, responses: Spooled, labels: Any, top: Any, pooled_kinds: list[int]) -> tuple[Pooled, int]:
        kinds, images, annotators = (responses.whole(name) for name in ("kind", "image", "annotator"))
        rows = np.flatnonzero(np.isin(kinds, pooled_kinds))
        pool = POOLS[self._recipe.pool]
        found = []
        self._tell(POOLING, 0, len(rows))
        for block in self._blocks(images[rows]):
            some = rows[block]
            # A view where nothing is left out in between: the copy would be as large as the labels.
            taken = labels[some[0] : some[-1] + 1] if some[-1] - some[0] + 1 == len(some) else labels[some]
            found.append(pool().fit(np.asarray(taken), images[some], annotators[some]))
            self._tell(POOLING, block.stop, len(rows))
        pooled_images = np.concatenate([each.images_ for each in found])
        votes = np.zeros((len(pooled_images), len(self._categories)), dtype=np.int64)
        main = np.flatnonzero(kinds == MAIN)
        main = main[np.isin(images[main], pooled_images)]
        np.add.at(votes, (np.searchsorted(pooled_images, images[main]), top[main]), 1)
        pooled = Pooled(
            images=pooled_images,
            labels=np.concatenate([each.soft_labels_ for each in found]),
            counts=np.concatenate([each.counts_ for each in found]),
            votes=votes,
        )
        return pooled, len(np.unique(annotators[rows]))

    def _blocks(self, images: Any) -> Iterable[slice]:
        """Where the pool allows it: runs of whole images of about as many rows."""
        if self._recipe.pool not in _BY_IMAGE:
            return [slice(0, len(images))]
        step = max(1, _BLOCK_SIZE // len(self._categories))
        ends = np.append(np.flatnonzero(images[1:] != images[:-1]) + 1, len(images))
        cuts = [0]
        while cuts[-1] < len(images):
            # The first end of an image that makes the block full.
            full = int(np.searchsorted(ends, cuts[-1] + step))
            cuts.append(int(ends[min(full, len(ends) - 1)]))
        return [slice(start, stop) for start, stop in pairwise(cuts)]

    def _file(self, name: str, write: Writer, contents: Contents, total: int) -> Seal:
        workshop = self._workshop
        self._tell(name, 0, total)
        done = workshop.finished(name, workshop.directory)
        if done is None:

            def told(rows: int) -> None:
                if rows < total:
                    self._tell(name, rows, total)

            with durable(workshop.directory / name) as out:
                write(out, contents, told)
            done = {name: out.seal}
            workshop.finish(name, done)
        self._tell(name, total, total)
        return done[name]

    def _manifest(self, contents: Contents) -> dict[str, Any]:
        manifest = {
            "format": common.FORMAT,
            **self._plan,
            "recipe_digest": self._recipe.digest,
            "counts": contents.counts,
            "files": contents.files,
            "digest": common.digest_of(contents.files),
        }
        with durable(self._workshop.directory / MANIFEST) as out:
            out.text(json.dumps(manifest, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        common.sync_directory(self._workshop.directory)
        # As it will be read: lists for tuples.
        return dict(json.loads((self._workshop.directory / MANIFEST).read_text(encoding="utf-8")))

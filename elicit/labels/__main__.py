"""``python -m elicit.labels``: from answers to soft labels on the command line, without a server."""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from elicit.labels import cifar10h, cifar10s
from elicit.labels.aggregation import POOLS, RECOMMENDED_POOL
from elicit.labels.categories import CategorySet
from elicit.labels.errors import Refusal
from elicit.labels.release_files import describe, read_release
from elicit.labels.varieties import RECOMMENDED, Answers, Depth, LabelVariety, Redistribution

DESCRIPTION = """\
From answers to soft labels, in the file layouts of CIFAR-10S (Collins, Bhatt & Weller 2022):
parse reads the raw log, build makes a soft label of each answer, pool makes one of each image,
compare measures the pooled labels against a reference such as CIFAR-10H. diff tells two releases apart.
"""
EPILOG = """\
The best labels that we know to make of such answers (docs/decisions/0008-recommended-labels.md):
  python -m elicit.labels parse raw.csv --first-answers --output answers.json --repairs repairs.csv
  python -m elicit.labels build answers.json --variety recommended --output labels.json
  python -m elicit.labels pool labels.json --pool recommended --output pooled.npz
  python -m elicit.labels compare pooled.npz --reference cifar10h-probs.npy

The published labels, bit for bit:
  python -m elicit.labels parse raw.csv --output answers.json --repairs repairs.csv
  python -m elicit.labels build answers.json --variety t2-clamp --gamma 0.1 --published --output labels.json

exit status: 0 done, 2 refused (one line says why).
"""
BUILD = """\
Answers that contradict themselves are repaired by rules (--repairs lists each), unless --published keeps
them with the published code's quirks, or --strict refuses the file.
"""
POOL = """\
mean, median, log and reliability pool as their names say; recommended (alias confusion) draws each image
towards what is confused with what and sharpens. labels.json names no annotator: each entry counts as one,
so that reliability can weigh an answer only by its agreement on its own image.
"""

GAMMA = 0.1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    style = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(
        prog="python -m elicit.labels", description=DESCRIPTION, epilog=EPILOG, formatter_class=style
    )
    commands = top.add_subparsers(dest="command", required=True)

    parse = commands.add_parser("parse", help="the raw log to answers.json")
    parse.add_argument("raw", type=Path, metavar="RAW.CSV")
    parse.add_argument("--output", type=Path, required=True, metavar="ANSWERS.JSON")
    parse.add_argument("--repairs", type=Path, metavar="CSV", help="list what was repaired by hand")
    parse.add_argument(
        "--first-answers",
        action="store_true",
        help="leave out repeats and what was entered twice, which the published file keeps",
    )
    parse.set_defaults(run=_parse)

    build = commands.add_parser(
        "build", help="answers.json to a soft label of each answer", description=BUILD, formatter_class=style
    )
    build.add_argument("answers", type=Path, metavar="ANSWERS.JSON")
    known = ", ".join(f"{depth.value}-{redistribution.value}" for depth in Depth for redistribution in Redistribution)
    build.add_argument(
        "--variety",
        default="t2-clamp",
        metavar="SLUG",
        help=f"recommended, or one of {known}; -s0.5 after it spreads half of the leftover (default: t2-clamp)",
    )
    build.add_argument(
        "--gamma",
        type=float,
        metavar="SHARE",
        help=f"from 0 to below 1 (default: {GAMMA}; recommended: {RECOMMENDED.gamma})",
    )
    mode = build.add_mutually_exclusive_group()
    mode.add_argument("--published", action="store_true", help="the published code's labels, quirks and all")
    mode.add_argument("--strict", action="store_true", help="refuse answers that contradict themselves")
    build.add_argument("--repairs", type=Path, metavar="CSV", help="list the repaired contradictions")
    _add_categories(build)
    build.add_argument("--output", type=Path, required=True, metavar="LABELS.JSON")
    build.set_defaults(run=_build)

    pool = commands.add_parser(
        "pool", help="labels.json to one soft label per image", description=POOL, formatter_class=style
    )
    pool.add_argument("labels", type=Path, metavar="LABELS.JSON")
    pool.add_argument("--pool", default="mean", choices=[*POOLS, "recommended"], help="(default: mean)")
    _add_categories(pool)
    pool.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="POOLED.NPZ",
        help="indices (N,), soft_labels (N, K), counts (N,), categories (K,)",
    )
    pool.set_defaults(run=_pool)

    compare = commands.add_parser(
        "compare",
        help="pooled.npz against a reference, as JSON",
        description="Means over the images, in nats; kl is KL(reference || 0.99 label + 0.01 / K).",
    )
    compare.add_argument("pooled", type=Path, metavar="POOLED.NPZ")
    compare.add_argument(
        "--reference", type=Path, required=True, metavar="NPY", help="probabilities or counts, (images, K)"
    )
    compare.set_defaults(run=_compare)

    diff = commands.add_parser(
        "diff",
        help="what changed from one release to another, as JSON",
        description="Images, annotators and responses that came or went, labels that moved and how far (total "
        "variation), and the parts of the recipe that differ. Every file is checked against its seal.",
    )
    diff.add_argument("older", type=Path, metavar="RELEASE", help="a folder or a .zip")
    diff.add_argument("newer", type=Path, metavar="RELEASE")
    diff.add_argument("--most", type=int, default=100, metavar="N", help="of the most changed images (default: 100)")
    diff.set_defaults(run=_diff)
    return top


def _add_categories(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--categories",
        default=",".join(cifar10s.CATEGORIES),
        metavar="A,B,C",
        help="the classes in order (default: CIFAR-10's)",
    )


def _categories(arguments: argparse.Namespace) -> CategorySet:
    return CategorySet(tuple(arguments.categories.split(",")))


def _parse(arguments: argparse.Namespace) -> None:
    responses, repairs = cifar10s.read_raw(arguments.raw)
    kept, twice = cifar10s.first_answers(responses)
    if arguments.first_answers:
        repairs = repairs + twice
    else:
        kept = responses
    answers = cifar10s.answers_of(kept)
    cifar10s.write_answers(arguments.output, answers)
    if arguments.repairs:
        cifar10s.write_repairs(arguments.repairs, repairs)
    note = ", left out" if arguments.first_answers else ", kept as published"
    _say(
        f"{len(kept)} answers on {len(answers)} images, {len(repairs)} repairs, "
        f"{len(twice)} answers entered twice{note if twice else ''}"
    )


def _build(arguments: argparse.Namespace) -> None:
    categories = _categories(arguments)
    variety = _variety(arguments.variety, arguments.gamma)
    answers = cifar10s.read_answers(arguments.answers, categories)
    images = [image for image, entries in answers.items() for _ in entries]
    if not images:
        raise Refusal("answers_unreadable", f"{arguments.answers.name} holds no answer.")
    repairs: list[cifar10s.Repair] = []
    if arguments.published:
        entries = [answer for those in answers.values() for answer in those]
        labels = cifar10s.published_labels(entries, variety, categories=len(categories))
        if (lost := np.isnan(labels).any(axis=1)).any():
            image = images[int(lost.argmax())]
            raise Refusal("label_without_mass", f"The published code has no label for an answer on image {image}.")
    else:
        if arguments.strict:
            elicited = cifar10s.strict(answers, categories=len(categories))
        else:
            elicited, repairs = cifar10s.repaired(answers, categories)
        flat = [answer for those in elicited.values() for answer in those]
        labels = variety.soft_labels(Answers.from_elicited(flat, categories=len(categories)))
    cifar10s.write_labels(arguments.output, images, labels)
    if arguments.repairs:
        cifar10s.write_repairs(arguments.repairs, repairs)
    _say(f"{len(images)} labels of {len(answers)} images, {len(repairs)} repairs")


def _variety(slug: str, gamma: float | None) -> LabelVariety:
    if slug == "recommended":
        return RECOMMENDED if gamma is None else replace(RECOMMENDED, gamma=gamma)
    return LabelVariety.from_slug(slug, GAMMA if gamma is None else gamma)


def _pool(arguments: argparse.Namespace) -> None:
    categories = _categories(arguments)
    images, labels = cifar10s.read_labels(arguments.labels)
    if labels.shape[1] != len(categories):
        raise Refusal(
            "categories_do_not_match",
            f"The labels have {labels.shape[1]} classes, --categories names {len(categories)}.",
        )
    name = RECOMMENDED_POOL if arguments.pool == "recommended" else arguments.pool
    pool = POOLS[name]().fit(labels, images, np.arange(len(images)))

    def write(part: Path) -> None:
        with part.open("wb") as out:
            np.savez(
                out,
                indices=pool.images_,
                soft_labels=pool.soft_labels_,
                counts=pool.counts_,
                categories=np.array(categories.names),
            )

    cifar10h.write_whole(arguments.output, write)
    _say(f"{len(images)} labels of {len(pool.images_)} images pooled")


def _compare(arguments: argparse.Namespace) -> None:
    try:
        with np.load(arguments.pooled, allow_pickle=False) as pooled:
            indices, labels = pooled["indices"], pooled["soft_labels"]
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        AttributeError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise Refusal("pooled_unreadable", f"{arguments.pooled} can't be read: {error}.") from None
    reference = cifar10h.read(arguments.reference)
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer) or labels.shape[:1] != indices.shape:
        raise Refusal("pooled_unreadable", f"{arguments.pooled.name}: indices and soft_labels do not fit together.")
    if not len(indices) or indices.min() < 0 or indices.max() >= len(reference):
        raise Refusal(
            "reference_too_short", f"The reference has {len(reference)} images; not all pooled ones are there."
        )
    truth = reference[indices]
    if (unlabelled := np.isnan(truth).any(axis=1)).any():
        raise Refusal("reference_too_short", f"The reference has no label of image {indices[unlabelled.argmax()]}.")
    try:
        comparison = cifar10h.against(labels, truth)
    except ValueError as error:
        raise Refusal("pooled_unreadable", f"{arguments.pooled.name}: {error}") from None
    print(json.dumps(asdict(comparison)))


def _diff(arguments: argparse.Namespace) -> None:
    if arguments.most < 0:
        raise Refusal("most_invalid", f"--most must be 0 or more, got {arguments.most}.")
    older, newer = read_release(arguments.older), read_release(arguments.newer)
    print(json.dumps(describe(older, newer, most=arguments.most)))


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; 0, or 2 where it was refused."""
    arguments = parser().parse_args(words)
    try:
        arguments.run(arguments)
    except Refusal as refusal:
        _say(f"error: {refusal}")
        return 2
    except OSError as error:
        _say(f"error: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

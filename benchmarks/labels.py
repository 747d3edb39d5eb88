"""Our labels beside the published ones, and what a million of them cost: `python -m benchmarks.labels`.

1. Held out: the recommended recipe and the published one (t2-clamp, gamma 0.1, mean) against CIFAR-10H on the first
   answers of CIFAR-10S. In each of five folds of batches, so of people and of images, the settings are chosen on the
   other four, and the pool sees the fold's answers alone.
2. Cost: a million answers to soft labels, beside writing these to Parquet and beside one answer at a time.

A part whose data or package is absent says so and is left out. --json prints one line for a program to read.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elicit.labels import Answers, LabelVariety, cifar10h, cifar10s, entropy, js, kl, total_variation
from elicit.labels.aggregation import ConfusionPool, LogPool, MeanPool, MedianPool, Pool, ReliabilityPool
from elicit.labels.varieties import RECOMMENDED

Floats = NDArray[np.float64]

RAW = "cifar10s/raw_human_data_even_batches.csv"
REFERENCE = "cifar10h/cifar10h-probs.npy"
FOLDS = 5
RESAMPLES = 2000
HALVES = 60
METRICS = ("TV", "KL", "JS", "entropy correlation")

Settings = tuple[float, float, float, float]
"""gamma, spread, prior weight, exponent."""

GRID: list[Settings] = list(
    itertools.product(
        (0.02, 0.05, 0.1),
        (0.25, 0.5, 0.75, 1.0),
        (0.0, 1.0, 2.0, 3.0, 4.0, 6.0),
        (1.0, 1.25, 1.5, 1.75),
    )
)
OURS: Settings = (RECOMMENDED.gamma, RECOMMENDED.spread, ConfusionPool().prior_weight, ConfusionPool().exponent)


class Study:
    """First answers as arrays, and what CIFAR-10H says of their images."""

    def __init__(self, data: Path) -> None:
        responses, _ = cifar10s.first_answers(cifar10s.read_raw(data / RAW)[0])
        self.images = np.array([response.image for response in responses])
        self.people = np.array([response.subject for response in responses])
        # One image each, so that the answers keep their order.
        elicited, _ = cifar10s.repaired({row: [response.answer] for row, response in enumerate(responses)})
        self.answers = Answers.from_elicited([answer for (answer,) in elicited.values()], categories=10)
        self.batch_of = {response.image: response.batch for response in responses}
        self.order = np.unique(self.images)
        self.batches = np.array([self.batch_of[image] for image in self.order.tolist()])
        self.truth = cifar10h.read(data / REFERENCE)[self.order]
        self.true_entropy = entropy(self.truth)
        known = np.unique(self.batches)
        self.folds = [np.isin(self.batches, known[fold::FOLDS]) for fold in range(FOLDS)]

    def pooled(self, labels: Floats, pool: Callable[[], Pool], *, apart: bool = True) -> Floats:
        """(N, K): each fold pooled by itself, or all together."""
        if not apart:
            return pool().fit_predict(labels, self.images, self.people)
        result = np.empty_like(self.truth)
        for fold in self.folds:
            rows = np.isin(self.images, self.order[fold])
            result[fold] = pool().fit_predict(labels[rows], self.images[rows], self.people[rows])
        return np.asarray(result)

    def measure(self, labels: Floats) -> Floats:
        """(N, 4): TV, KL, JS and entropy of each image."""
        parts = [f(self.truth, labels) for f in (total_variation, kl, js)]
        return np.asarray(np.stack([*parts, entropy(labels)], axis=1))

    def figures(self, measured: Floats, images: NDArray[Any] | slice = slice(None)) -> Floats:
        """(4,): the mean TV, KL and JS, and the correlation of the entropies."""
        correlation = np.corrcoef(measured[images, 3], self.true_entropy[images])[0, 1]
        return np.array([*measured[images, :3].mean(axis=0), correlation])


def loss(ours: Floats, published: Floats) -> float:
    """How far ours are, as a share of the published figures: the mean over the four."""
    return float((np.append(ours[:3], 1 - ours[3]) / np.append(published[:3], 1 - published[3])).mean())


def held_out(data: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """The table of the decision."""
    study = Study(data)
    say(f"Held out: {len(study.images)} first answers on {len(study.order)} images in {FOLDS} folds of batches")
    by_variety: dict[tuple[float, float], Floats] = {}
    measured: dict[Settings, Floats] = {}
    for gamma, spread, weight, exponent in GRID:
        if (gamma, spread) not in by_variety:
            by_variety[gamma, spread] = replace(RECOMMENDED, gamma=gamma, spread=spread).soft_labels(study.answers)
        labels = by_variety[gamma, spread]
        pool = lambda w=weight, e=exponent: ConfusionPool(prior_weight=w, exponent=e)  # noqa: E731
        measured[gamma, spread, weight, exponent] = study.measure(study.pooled(labels, pool))

    plain = LabelVariety().soft_labels(study.answers)
    ours = by_variety[RECOMMENDED.gamma, RECOMMENDED.spread]
    published = study.measure(study.pooled(plain, MeanPool))

    nested = np.empty_like(published)
    chosen: list[Settings] = []
    for fold in study.folds:
        before = study.figures(published, ~fold)
        losses = [loss(study.figures(measured[settings], ~fold), before) for settings in GRID]
        best = GRID[int(np.argmin(losses))]
        chosen.append(best)
        nested[fold] = measured[best][fold]

    rows: dict[str, Floats] = {
        "published: t2-clamp .1, mean": published,
        "nested: settings chosen without the fold": nested,
        "recommended, each fold pooled by itself": measured[OURS],
        "recommended, all pooled at once": study.measure(study.pooled(ours, ConfusionPool, apart=False)),
        "recommended variety, mean": study.measure(study.pooled(ours, MeanPool)),
        "  and sharpened": study.measure(study.pooled(ours, lambda: MeanPool(exponent=ConfusionPool().exponent))),
        "  and confusion, not sharpened": study.measure(study.pooled(ours, lambda: ConfusionPool(exponent=1.0))),
        "  and sharpened, drawn to uniform": study.measure(
            study.pooled(ours, lambda: ConfusionPool(prior_weight=0.25, pseudo_count=1e12))
        ),
        "t2-clamp .1, recommended pool": study.measure(study.pooled(plain, ConfusionPool)),
        "t2-clamp .1, median": study.measure(study.pooled(plain, MedianPool)),
        "t2-clamp .1, log": study.measure(study.pooled(plain, LogPool)),
        "t2-clamp .1, reliability": study.measure(study.pooled(plain, ReliabilityPool)),
    }
    say(f"{'':42}{METRICS[0]:>8}{METRICS[1]:>8}{METRICS[2]:>8}  entropy r")
    for name, values in rows.items():
        say(f"{name:42}" + "".join(f"{figure:8.4f}" for figure in study.figures(values)))

    top = study.truth.argmax(axis=1)[:, np.newaxis]
    on_top = {
        "CIFAR-10H": study.truth,
        "published": study.pooled(plain, MeanPool),
        "recommended": study.pooled(ours, ConfusionPool),
    }
    masses = {name: float(np.take_along_axis(label, top, axis=1).mean()) for name, label in on_top.items()}
    said = ", ".join(f"{mass:.3f} {name}" for name, mass in masses.items())
    say(f"mean mass on the class that CIFAR-10H puts first: {said}")
    vetoed = float((study.truth[np.searchsorted(study.order, study.images)] * study.answers.impossible).sum(1).mean())
    say(f"mass of CIFAR-10H on the classes that an answer calls impossible: {vetoed:.4f} on average")

    say("each fold: gamma, spread, weight, exponent chosen without it; recommended minus published")
    wins = 0
    for settings, fold in zip(chosen, study.folds, strict=True):
        change = study.figures(measured[OURS], fold) - study.figures(published, fold)
        wins += int((change * (1, 1, 1, -1) < 0).sum())
        say(f"  {settings!s:24}" + "".join(f"{figure:+8.4f}" for figure in change))

    random = np.random.default_rng(0)
    known = np.unique(study.batches)
    places = [np.flatnonzero(study.batches == batch) for batch in known]
    draws = np.empty((RESAMPLES, 4))
    for draw in range(RESAMPLES):
        rows_drawn = np.concatenate([places[place] for place in random.integers(len(known), size=len(known))])
        draws[draw] = study.figures(nested, rows_drawn) - study.figures(published, rows_drawn)
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    say("nested minus published, 95 % of resampled batches:")
    for name, bounds in zip(METRICS, np.stack([low, high], axis=1).tolist(), strict=True):
        say(f"  {name:20}{bounds[0]:+8.4f} to {bounds[1]:+.4f}")
    better = sum(halves_better(study, plain, ours, random) for _ in range(HALVES))
    say(f"half of the batches, drawn at random and pooled alone: all four figures better in {better} of {HALVES}")
    named = {name.strip(): study.figures(values).round(5).tolist() for name, values in rows.items()}
    return {
        "metrics": list(METRICS),
        "held_out": named,
        "chosen": chosen,
        "mass_on_top_class": masses,
        "mass_called_impossible": vetoed,
        "halves_better": better,
        "folds_better": f"{wins} of {4 * FOLDS}",
        "nested_minus_published_95": {name: [float(low[i]), float(high[i])] for i, name in enumerate(METRICS)},
    }


def halves_better(study: Study, plain: Floats, ours: Floats, random: np.random.Generator) -> bool:
    """Whether recommended beats published in all four figures on a random half of the batches, seen alone."""
    known = np.unique(study.batches)
    images = np.isin(study.batches, random.permutation(known)[: len(known) // 2])
    rows = np.isin(study.images, study.order[images])
    figures = []
    for labels, pool in ((ours, ConfusionPool()), (plain, MeanPool())):
        whole = np.full_like(study.truth, 1 / study.truth.shape[1])
        whole[images] = pool.fit_predict(labels[rows], study.images[rows], study.people[rows])
        figures.append(study.figures(study.measure(whole), images))
    return bool(((figures[0] - figures[1]) * (1, 1, 1, -1) < 0).all())


def a_million(data: Path, count: int) -> tuple[Answers, str]:
    """``count`` answers: the study's own over and over where it is here, else drawn."""
    if (data / RAW).is_file() and (data / REFERENCE).is_file():
        own = Study(data).answers
        rows = np.arange(count) % len(own)
        return Answers(own.percentages[rows], own.ranks[rows], own.impossible[rows]), "the study's, repeated"
    random = np.random.default_rng(0)
    order = random.permuted(np.tile(np.arange(10), (count, 1)), axis=1)
    first = random.integers(1, 101, count)
    second = (random.random(count) * (first + 1)).astype(np.int64) * (random.random(count) < 0.5)
    percentages, ranks = np.zeros((count, 10)), np.zeros((count, 10), dtype=np.int16)
    rows = np.arange(count)
    percentages[rows, order[:, 0]], ranks[rows, order[:, 0]] = first, 1
    percentages[rows, order[:, 1]], ranks[rows, order[:, 1]] = second, 2
    return Answers(percentages, ranks, (random.random((count, 10)) < 0.7) & (ranks == 0)), "drawn at random"


def one_by_one(answer: dict[str, Any], index_of: dict[str, int], gamma: float = 0.1) -> Floats:
    """The published rule for one entry of the answers file, in the steps and with the types of its script."""
    label = np.zeros(len(index_of))
    label[index_of[answer[cifar10s.FIRST]]] = answer[cifar10s.FIRST_PERCENTAGE]
    second, percentage = answer[cifar10s.SECOND], answer[cifar10s.SECOND_PERCENTAGE]
    if second != cifar10s.NO_SECOND and percentage is not None:
        label[index_of[second]] = percentage
    label = label / 100

    possible = set(index_of).difference(answer[cifar10s.IMPOSSIBLE])
    given: Any
    if np.sum(label) < 1:
        given, keep = 1 - np.sum(label), 1.0
    else:
        label = label / np.sum(label)
        given, keep = gamma, 1 - gamma
    free = len(possible) - np.sum(label > 0)
    if free != 0:
        added = np.zeros(len(index_of))
        for category in possible:
            if label[index_of[category]] == 0:
                added[index_of[category]] = given / free
        kept = np.zeros(len(index_of))
        for place, value in enumerate(label):
            if value != 0:
                kept[place] = value * keep
        label = kept + added
    return np.asarray(label / np.sum(label))


def seconds(run: Callable[[], object], times: int) -> float:
    """The median of ``times`` runs, after one to warm up."""
    run()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))


def cost(data: Path, count: int, say: Callable[[str], None]) -> dict[str, Any]:
    """A million answers against Parquet and against a loop."""
    answers, source = a_million(data, count)
    variety = LabelVariety()
    labels = variety.soft_labels(answers)
    say(f"Cost: {count:,} answers of 10 classes ({source}), t2-clamp; medians")

    few = min(count, 3000)
    names = cifar10s.CATEGORIES.names
    index_of = {name: index for index, name in enumerate(names)}
    loose: list[dict[str, Any]] = []
    for percentages, ranks, impossible in zip(
        answers.percentages[:few], answers.ranks[:few], answers.impossible[:few], strict=True
    ):
        (first,), second = np.flatnonzero(ranks == 1), np.flatnonzero(ranks == 2)
        loose.append(
            {
                cifar10s.FIRST: names[first],
                cifar10s.FIRST_PERCENTAGE: float(percentages[first]),
                cifar10s.SECOND: names[second[0]] if len(second) else cifar10s.NO_SECOND,
                cifar10s.SECOND_PERCENTAGE: float(percentages[second[0]]) if len(second) else None,
                cifar10s.IMPOSSIBLE: [names[place] for place in np.flatnonzero(impossible)],
            }
        )
    looped = np.stack([one_by_one(answer, index_of) for answer in loose])
    differ = int((looped != labels[:few]).any(axis=1).sum())

    at_once = seconds(lambda: variety.soft_labels(answers), 5)
    check = seconds(lambda: Answers(answers.percentages, answers.ranks, answers.impossible), 5)
    each = seconds(lambda: [one_by_one(answer, index_of) for answer in loose], 3) / few
    tracemalloc.start()
    variety.soft_labels(answers)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    figures: dict[str, Any] = {
        "answers": count,
        "labels_seconds": at_once,
        "check_seconds": check,
        "loop_seconds_per_answer": each,
        "times_as_fast_as_the_loop": each * count / at_once,
        "labels_that_differ_from_the_loop": differ,
        "peak_bytes": peak,
        "labels_bytes": labels.nbytes,
    }
    slower = figures["times_as_fast_as_the_loop"]
    say(
        f"  soft labels of arrays    {at_once:8.3f} s, {at_once / count * 1e6:.3f} us each; to check them {check:.3f} s"
    )
    say(f"  one answer at a time     {each * 1e6:8.1f} us each: {slower:.0f} times as long; {differ} of {few} differ")
    say(f"  peak of memory           {peak / 2**20:8.0f} MiB beside the answers, labels included")
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError:
        say("  Parquet left out: pyarrow is not installed (pip install pyarrow).")
        return figures
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "labels.parquet"

        def write() -> None:
            columns = [pa.array(np.ascontiguousarray(column)) for column in labels.T]
            parquet.write_table(pa.table(columns, names=list(cifar10s.CATEGORIES)), target)

        written = seconds(write, 5)
        size = target.stat().st_size
    figures |= {"parquet_seconds": written, "labels_over_parquet": at_once / written, "parquet_bytes": size}
    say(
        f"  writing them to Parquet  {written:8.3f} s, {size / 2**20:.1f} MiB: "
        f"the labels take {at_once / written:.2f} times that (3 at most)"
    )
    return figures


def main() -> int:
    """Print every figure; 1 where one misses its mark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="(default: ../shared/data)")
    parser.add_argument("--count", type=int, default=1_000_000, help="answers to time (default: 1000000)")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of tables")
    arguments = parser.parse_args()
    say: Callable[[str], None] = (lambda _: None) if arguments.json else print

    figures: dict[str, Any] = {}
    if (arguments.data / RAW).is_file() and (arguments.data / REFERENCE).is_file():
        figures |= held_out(arguments.data, say)
    else:
        print(f"Held-out figures left out: {RAW} and {REFERENCE} are not in {arguments.data}.", file=sys.stderr)
    figures["cost"] = spent = cost(arguments.data, arguments.count, say)
    if arguments.json:
        print(json.dumps(figures))
    good = spent["times_as_fast_as_the_loop"] >= 100 and spent.get("labels_over_parquet", 0) <= 3
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

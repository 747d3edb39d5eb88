"""Image by image against person by person, replaying real answers: `python -m benchmarks.adaptive`.

1. Replayed: the first answers of CIFAR-10S on the 500 images that are here, 6 or 7 people each, drawn without
   replacement. *Balanced*: whole sittings of 25 images, every batch once before any twice, as it happened. *Adaptive*:
   two answers for every image, then always to the images that a criterion puts first. Both are pooled by the
   recommended recipe and by the mean, and compared with CIFAR-10H by KL and TV. The criterion is chosen on four folds
   of the batches and judged on the fifth. The *oracle* is told in advance how each image's error falls with answers.
2. Simulated: images of CIFAR-10H, most of them easy, with votes and with soft answers drawn from its shares, which are
   then the truth.

--plot writes the SVG that the documentation shows. The part whose data are absent is left out.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.labels import RAW, REFERENCE, Study
from elicit.labels import allocation, cifar10h, entropy, kl, total_variation
from elicit.labels.aggregation import ConfusionPool, MeanPool, Pool
from elicit.labels.varieties import RECOMMENDED

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Criterion = Callable[[Floats, Integers, int], Floats]
"""From labels (R, K), images (R,) and how many images there are to (N,): larger first."""

METRICS = ("KL", "TV")
BUDGETS = (2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5)
"""Labels per image of the balanced study that the adaptive one has to equal."""
START = 2
STEP = 0.1
"""Answers per image between two looks at what is there."""


@dataclass(frozen=True, eq=False)
class Answered:
    """What can be drawn: ``labels`` (R, K) of ``images`` (R,) 0..N-1, whose ``truth`` is (N, K), in sittings (R,)."""

    labels: Floats
    images: Integers
    sittings: Integers
    batches: Integers
    truth: Floats

    def of(self, chosen: NDArray[np.bool_]) -> Answered:
        """The images that are chosen, alone."""
        rows = chosen[self.images]
        number = np.cumsum(chosen) - 1
        return Answered(
            self.labels[rows],
            number[self.images[rows]],
            self.sittings[rows],
            self.batches[chosen],
            self.truth[chosen],
        )

    def errors(self, rows: Integers, pool: Pool) -> Floats:
        """(2,): mean KL and TV of the pool of these rows; images without any are uniform."""
        labels = np.full_like(self.truth, 1 / self.truth.shape[1])
        pool.fit(self.labels[rows], self.images[rows], np.arange(len(rows)))
        labels[pool.images_] = pool.soft_labels_
        return np.array([kl(self.truth, labels).mean(), total_variation(self.truth, labels).mean()])

    @property
    def grid(self) -> Integers:
        images = len(self.truth)
        return np.round(np.arange(1.0, len(self.labels) / images + 1e-9, STEP) * images).astype(np.int64)


def _sums(labels: Floats, images: Integers, images_in_all: int) -> tuple[Floats, Floats]:
    """(N, 1) counts and (N, K) sums."""
    counts = np.bincount(images, minlength=images_in_all)[:, np.newaxis].astype(np.float64)
    return counts, np.stack([np.bincount(images, column, images_in_all) for column in labels.T], axis=1)


def _shrinking(score: Floats, counts: Floats | Integers) -> Floats:
    return np.asarray(score / (counts * (counts + 1)))


def variance(labels: Floats, images: Integers, images_in_all: int) -> Floats:
    """What one more label takes off the squared error of the mean; spreads borrowed."""
    found = allocation.spread(labels, images, images_in_all=images_in_all)
    return _shrinking(found.variances.sum(axis=1), found.counts)


def own_variance(labels: Floats, images: Integers, images_in_all: int) -> Floats:
    """The same with each image's own spread alone."""
    counts, sums = _sums(labels, images, images_in_all)
    _, squares = _sums(np.square(labels), images, images_in_all)
    own = np.maximum(squares - np.square(sums) / counts, 0).sum(axis=1) / np.maximum(counts[:, 0] - 1, 1)
    return _shrinking(own, counts[:, 0])


def tv_gain(labels: Floats, images: Integers, images_in_all: int) -> Floats:
    """What one more label takes off the expected TV of the mean; spreads borrowed."""
    found = allocation.spread(labels, images, images_in_all=images_in_all)
    return np.asarray(np.sqrt(found.variances).sum(axis=1) * (found.counts**-0.5 - (found.counts + 1) ** -0.5))


def kl_gain(labels: Floats, images: Integers, images_in_all: int) -> Floats:
    """The same of KL to second order: each class's variance over its share."""
    found = allocation.spread(labels, images, images_in_all=images_in_all)
    counts, sums = _sums(labels, images, images_in_all)
    shares = 0.95 * sums / counts + 0.05 / labels.shape[1]
    return _shrinking((found.variances / shares).sum(axis=1), found.counts)


def pooled_entropy(labels: Floats, images: Integers, images_in_all: int) -> Floats:
    """The entropy of the pooled label over M (M + 1)."""
    counts, _ = _sums(labels, images, images_in_all)
    pooled = ConfusionPool().fit_predict(labels, images, np.arange(len(images)))
    return _shrinking(entropy(pooled), counts[:, 0])


def mean_entropy(labels: Floats, images: Integers, images_in_all: int) -> Floats:
    """The entropy of the mean label, however many answers it has."""
    counts, sums = _sums(labels, images, images_in_all)
    return entropy(sums / counts)


def disagreement(labels: Floats, images: Integers, images_in_all: int) -> Floats:
    """The mean distance of the answers from their mean: settled where all say the same."""
    counts, sums = _sums(labels, images, images_in_all)
    away = total_variation(labels, (sums / counts)[images])
    return _shrinking(np.bincount(images, away, images_in_all) / counts[:, 0], counts[:, 0])


def dirichlet(labels: Floats, images: Integers, images_in_all: int) -> Floats:
    """The variance of a Dirichlet posterior whose prior is what is confused with what, times 1 / (its weight + 1)."""
    counts, _ = _sums(labels, images, images_in_all)
    pool = ConfusionPool(exponent=1.0).fit(labels, images, np.arange(len(images)))
    weight = counts[:, 0] + pool.prior_weight
    return np.asarray((1 - np.square(pool.soft_labels_).sum(axis=1)) / np.square(weight + 1))


def look_ahead(labels: Floats, images: Integers, images_in_all: int) -> Floats:
    """How far one more answer is expected to move the pooled label: what the product does."""
    return allocation.unsettled(labels, images, images_in_all=images_in_all)


CRITERIA: dict[str, Criterion] = {
    "look-ahead": look_ahead,
    "variance": variance,
    "pooled entropy": pooled_entropy,
    "Dirichlet posterior": dirichlet,
    "TV gain": tv_gain,
    "KL gain": kl_gain,
    "own variance": own_variance,
    "entropy of the mean": mean_entropy,
    "disagreement": disagreement,
}


def balanced(answered: Answered, random: np.random.Generator) -> Integers:
    """(R,) all rows, sitting after sitting: every batch has its next one before any has another."""
    of_batch = [
        random.permutation(np.unique(answered.sittings[answered.batches[answered.images] == batch]))
        for batch in np.unique(answered.batches)
    ]
    rounds = max(map(len, of_batch))
    sittings = [
        of_batch[batch][turn]
        for turn in range(rounds)
        for batch in random.permutation(len(of_batch))
        if turn < len(of_batch[batch])
    ]
    return np.concatenate([np.flatnonzero(answered.sittings == sitting) for sitting in sittings])


def adaptive(answered: Answered, criterion: Criterion, random: np.random.Generator) -> list[Integers]:
    """The rows had after each step, from ``START`` an image until every answer is taken."""
    images = len(answered.truth)
    order = np.lexsort((random.random(len(answered.images)), answered.images))
    counts = np.bincount(answered.images, minlength=images)
    starts = np.cumsum(counts) - counts
    turn = np.empty(len(order), dtype=np.int64)
    turn[order] = np.arange(len(order)) - starts[answered.images[order]]
    taken = np.minimum(START, counts)
    steps = []
    while True:
        rows = np.flatnonzero(turn < taken[answered.images])
        steps.append(rows)
        left = np.flatnonzero(taken < counts)
        if not len(left):
            return steps
        # Ties, of which hard votes make many, are drawn.
        score = criterion(answered.labels[rows], answered.images[rows], images)
        ranked = left[np.lexsort((random.random(len(left)), -score[left]))]
        taken[ranked[: max(1, round(STEP * images))]] += 1


def on_grid(answered: Answered, steps: Sequence[Integers], pool: Pool) -> Floats:
    """(G, 2) errors at the grid's budgets, nan before the first step."""
    sizes = np.array([len(rows) for rows in steps])
    errors = np.array([answered.errors(rows, pool) for rows in steps])
    return np.stack([np.interp(answered.grid, sizes, column, left=np.nan) for column in errors.T], axis=1)


def saved(grid: Floats, ours: Floats, theirs: Floats, budgets: Sequence[float] = BUDGETS) -> Floats:
    """(budgets,): 1 - the least budget at which ``ours`` (G,) is as good as ``theirs`` is at each, over it."""
    result = []
    for budget in budgets:
        target = float(np.interp(budget, grid, theirs))
        reached = np.flatnonzero(ours <= target)
        if not len(reached):
            result.append(0.0)
            continue
        last = int(reached[0])
        before = ours[last - 1] if last else np.nan
        share = 1.0 if np.isnan(before) else float((before - target) / (before - ours[last]))
        least = grid[last] if np.isnan(before) else grid[last - 1] + share * (grid[last] - grid[last - 1])
        result.append(1 - least / budget)
    return np.array(result)


def the_oracle(answered: Answered, pool: ConfusionPool, random: np.random.Generator, draws: int = 40) -> Criterion:
    """The best average gain per answer over any number of further ones, both metrics as shares of their means."""
    images = len(answered.truth)
    most = int(np.bincount(answered.images).max())
    errors = np.full((images, most + 1, 2), np.nan)
    confusion = pool.fit(answered.labels, answered.images, np.arange(len(answered.images))).confusion_
    for image in range(images):
        own = answered.labels[answered.images == image]
        truth = answered.truth[image]
        for people in range(1, len(own) + 1):
            mean = np.stack([own[random.permutation(len(own))[:people]].mean(axis=0) for _ in range(draws)])
            drawn = (people * mean + pool.prior_weight * mean @ confusion) ** pool.exponent
            label = drawn / drawn.sum(axis=1, keepdims=True)
            errors[image, people] = kl(np.tile(truth, (draws, 1)), label).mean(), total_variation(truth, label).mean()
    cost = (errors / np.nanmean(errors, axis=(0, 1))).sum(axis=2)

    def criterion(_: Floats, taken: Integers, images_in_all: int) -> Floats:
        counts = np.bincount(taken, minlength=images_in_all)
        here = cost[np.arange(images_in_all), counts]
        ahead = [cost[np.arange(images_in_all), np.minimum(counts + more, most)] for more in range(1, most)]
        gains = np.stack([(here - there) / more for more, there in enumerate(ahead, 1)])
        return np.asarray(np.nan_to_num(gains, nan=-np.inf).max(axis=0))

    return criterion


def curves(answered: Answered, criteria: dict[str, Criterion], replays: int, pool: Pool) -> dict[str, Floats]:
    """(replays, G, 2) of each, and of ``balanced``; replay i has the same seed everywhere."""
    found: dict[str, list[Floats]] = {name: [] for name in ("balanced", *criteria)}
    for seed in range(replays):
        order = balanced(answered, np.random.default_rng(seed))
        found["balanced"].append(np.array([answered.errors(np.sort(order[:size]), pool) for size in answered.grid]))
        for name, criterion in criteria.items():
            steps = adaptive(answered, criterion, np.random.default_rng(seed))
            found[name].append(on_grid(answered, steps, pool))
    return {name: np.array(each) for name, each in found.items()}


def savings(answered: Answered, found: dict[str, Floats], name: str, rows: Integers | None = None) -> Floats:
    """(2, budgets) of the mean curves of these replays."""
    chosen = slice(None) if rows is None else rows
    grid = answered.grid / len(answered.truth)
    ours, theirs = found[name][chosen].mean(axis=0), found["balanced"][chosen].mean(axis=0)
    return np.stack([saved(grid, ours[:, metric], theirs[:, metric]) for metric in range(2)])


def resampled(answered: Answered, found: dict[str, Floats], name: str, draws: int = 500) -> Floats:
    """(2, 2, budgets): 95 % of the savings over replays drawn anew."""
    random = np.random.default_rng(0)
    replays = len(found[name])
    each = [savings(answered, found, name, random.integers(replays, size=replays)) for _ in range(draws)]
    return np.asarray(np.quantile(each, [0.025, 0.975], axis=0))


def percentages(values: Floats) -> str:
    return " ".join(f"{100 * value:6.1f}" for value in values)


def replayed(data: Path, replays: int, plot: Path | None) -> None:
    study = Study(data)
    images = np.searchsorted(study.order, study.images)
    _, people = np.unique(study.people, return_inverse=True)
    answered = Answered(RECOMMENDED.soft_labels(study.answers), images, people, study.batches, study.truth)
    print(f"Replayed: {len(images)} answers on {len(study.truth)} images, {replays} replays; START {START}")
    print("Responses saved (%) at the error of a balanced study of so many labels per image:")
    print(f"{'':24}{'':4}" + " ".join(f"{budget:6.1f}" for budget in BUDGETS))

    by_fold = [curves(answered.of(fold), CRITERIA, max(replays // 2, 2), ConfusionPool()) for fold in study.folds]
    folds = [answered.of(fold) for fold in study.folds]
    table = {
        name: np.array([savings(fold, found, name) for fold, found in zip(folds, by_fold, strict=True)])
        for name in CRITERIA
    }
    for name, each in table.items():
        for metric, values in zip(METRICS, each.mean(axis=0), strict=True):
            print(f"  folds, {name:22}{metric:4}" + percentages(values))
    held_out, chosen = [], []
    for fold in range(len(folds)):
        others = [other for other in range(len(folds)) if other != fold]
        # The metric that gains less decides.
        best = max(CRITERIA, key=lambda name: float(table[name][others].mean(axis=(0, 2)).min()))
        chosen.append(best)
        held_out.append(table[best][fold])
    print(f"chosen without each fold: {', '.join(chosen)}")
    for metric, values in zip(METRICS, np.mean(held_out, axis=0), strict=True):
        print(f"  held out{'':22}{metric:4}" + percentages(values) + f"  mean {100 * values.mean():.1f}")

    for label, pool in (("recommended", ConfusionPool()), ("mean", MeanPool())):
        criteria: dict[str, Criterion] = {"look-ahead": look_ahead}
        if isinstance(pool, ConfusionPool):
            criteria["oracle"] = the_oracle(answered, pool, np.random.default_rng(0))
        found = curves(answered, criteria, replays, pool)
        for name in criteria:
            interval, mean = resampled(answered, found, name), savings(answered, found, name)
            for place, metric in enumerate(METRICS):
                print(f"  all images, {label}, {name:12} {metric:4}" + percentages(mean[place]))
                print(f"{'':30}from {percentages(interval[0, place])}\n{'':30}to   {percentages(interval[1, place])}")
        whole = [int(np.searchsorted(answered.grid, labels * len(answered.truth) - 0.5)) for labels in (2, 3, 4, 5, 6)]
        for name, each in found.items():
            for place, metric in enumerate(METRICS):
                values = each[:, whole, place].mean(axis=0)
                print(f"  {label}, {name:12} {metric} at 2..6 labels  " + " ".join(f"{v:.4f}" for v in values))
        if plot is not None and isinstance(pool, ConfusionPool):
            draw(plot, answered, found)


def draw(path: Path, answered: Answered, found: dict[str, Floats]) -> None:
    """KL and TV against answers per image, with the middle 95 % of the replays."""
    from elicit import plots

    grid = answered.grid / len(answered.truth)
    shown = grid >= START
    panels = [
        [
            (title, grid[shown], *np.nanquantile(found[name][:, shown, metric], [0.5, 0.025, 0.975], axis=0))
            for name, title in (("balanced", "balanced"), ("look-ahead", "adaptive"), ("oracle", "oracle"))
        ]
        for metric in range(2)
    ]
    path.write_bytes(
        plots.bands(
            panels,
            what="answers per image",
            of_what=["KL to CIFAR-10H (nats)", "TV to CIFAR-10H"],
            size=(940, 380),
        )
    )


def simulated(data: Path, images: int, replays: int) -> None:
    """A population as CIFAR-10H's, with answers drawn from it."""
    shares = cifar10h.read(data / REFERENCE)
    random = np.random.default_rng(0)
    print(f"Simulated: {images} images of CIFAR-10H drawn at random, {replays} populations; the truth is its share")
    most = 24
    for kind in ("votes", "soft answers"):
        found: dict[str, list[Floats]] = {"balanced": [], "look-ahead": []}
        for seed in range(replays):
            truth = shares[random.permutation(len(shares))[:images]]
            image = np.repeat(np.arange(images), most)
            if kind == "votes":
                labels = np.concatenate([random.multinomial(1, row, size=most) for row in truth]).astype(np.float64)
            else:
                # Concentration 2.5: two people then differ by a TV of .29 on images as ambiguous as CIFAR-10S's.
                gammas = random.gamma(np.maximum(2.5 * truth, 1e-3)[image]) + 1e-300
                labels = gammas / gammas.sum(axis=1, keepdims=True)
            answered = Answered(
                labels, image, np.tile(np.arange(most), images), np.zeros(images, dtype=np.int64), truth
            )
            turn = np.tile(np.arange(most), images)
            sizes = [float(budget) for budget in range(1, 9)]
            steps = [np.flatnonzero(turn < size) for size in sizes]
            errors = np.array([answered.errors(rows, MeanPool()) for rows in steps])
            grid = answered.grid / images
            found["balanced"].append(np.stack([np.interp(grid, sizes, column) for column in errors.T], axis=1))
            had = adaptive_until(answered, look_ahead, np.random.default_rng(seed), 8.0)
            found["look-ahead"].append(on_grid(answered, had, MeanPool()))
        arrays = {name: np.array(each) for name, each in found.items()}
        grid = answered.grid / images
        for place, metric in enumerate(METRICS):
            ours, theirs = (arrays[name][:, :, place].mean(axis=0) for name in ("look-ahead", "balanced"))
            print(f"  {kind:14}{metric:4}" + percentages(saved(grid, ours, theirs, (3, 4, 5, 6, 8))))
    print("  (at the error of a balanced study of 3, 4, 5, 6 and 8 labels per image; mean label)")


def adaptive_until(
    answered: Answered, criterion: Criterion, random: np.random.Generator, budget: float
) -> list[Integers]:
    """``adaptive`` up to ``budget`` answers per image."""
    return [rows for rows in adaptive(answered, criterion, random) if len(rows) <= budget * len(answered.truth) + 1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="(default: ../shared/data)")
    parser.add_argument("--replays", type=int, default=100, help="(default: 100)")
    parser.add_argument("--images", type=int, default=2000, help="of each simulated population (default: 2000)")
    parser.add_argument("--plot", type=Path, help="where to write the SVG")
    arguments = parser.parse_args()
    if not all((arguments.data / name).is_file() for name in (RAW, REFERENCE)):
        print(f"Left out: the published data are not in {arguments.data}.", file=sys.stderr)
        return 0
    began = time.monotonic()
    replayed(arguments.data, arguments.replays, arguments.plot)
    simulated(arguments.data, arguments.images, max(arguments.replays // 20, 2))
    print(f"{time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())

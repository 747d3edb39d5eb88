"""The planner's published figures, out of the published answers: `python -m benchmarks.planning`.

Against CIFAR-10H, on the 500 images of CIFAR-10S whose answers are here: the recommended labels and the published ones
of M of the people who answered an image (drawn 100 times), and M of CIFAR-10H's own votes against the remaining votes
of the image, so that no vote is compared with itself. Beside each figure stands the one that the planner uses; exit
status 1 where one is off by more than the draws explain.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.labels import RAW, REFERENCE, Study
from elicit.labels import LabelVariety, cifar10s
from elicit.labels.aggregation import ConfusionPool, MeanPool
from elicit.labels.planning import PUBLISHED, PUBLISHED_SECONDS, Metric, Pilot, Published, against_reference, error_of
from elicit.labels.varieties import RECOMMENDED

Floats = NDArray[np.float64]

COUNTS = "cifar10h/cifar10h-counts.npy"
VOTES = (1, 2, 3, 4, 6, 8, 12, 16, 24)
OFF = 0.004


def votes(counts: Floats, metric: Metric, draws: int) -> dict[int, float]:
    """The error of M votes drawn from ``counts`` (N, K) against the shares of the others."""
    random = np.random.default_rng(0)
    found: dict[int, float] = {}
    for number in VOTES:
        errors = []
        for _ in range(draws):
            drawn = np.stack([random.multivariate_hypergeometric(row, number) for row in counts.astype(np.int64)])
            rest = counts - drawn
            errors.append(error_of(drawn / number, rest / rest.sum(axis=1, keepdims=True), metric))
        if metric is not Metric.ENTROPY or number > 1:
            found[number] = float(np.mean(errors))
    return found


def measured(data: Path, draws: int) -> dict[Published, dict[Metric, dict[int, float]]]:
    study = Study(data)
    reference = dict(zip(study.order.tolist(), study.truth.tolist(), strict=True))
    recipes = {
        Published.RECOMMENDED: (RECOMMENDED.soft_labels(study.answers), ConfusionPool()),
        Published.PAPER: (LabelVariety().soft_labels(study.answers), MeanPool()),
    }
    figures: dict[Published, dict[Metric, dict[int, float]]] = {}
    for name, (labels, pool) in recipes.items():
        pilot = Pilot(labels, study.images, study.people)
        figures[name] = {}
        for metric in Metric:
            curve = against_reference(
                pilot, reference, metric, random=np.random.default_rng(0), pool=pool, draws=draws, groups=0
            )
            if curve is None:
                raise SystemExit("No image of the answers has a reference.")
            figures[name][metric] = dict(zip(curve.labels.tolist(), curve.errors.tolist(), strict=True))
    counts = np.load(data / COUNTS)[study.order]
    figures[Published.VOTES] = {metric: votes(counts, metric, draws // 2) for metric in Metric}
    return figures


def seconds(data: Path) -> float:
    """The median session's mean seconds per response, repeats included, one person's second copy left out."""
    kept: dict[tuple[str, int | None, bool], float] = {}
    for response in cifar10s.read_raw(data / RAW)[0]:
        if response.milliseconds is None:
            continue
        kept.setdefault((response.subject, response.position, response.repeat), response.milliseconds / 1000)
    by_person: dict[str, list[float]] = {}
    for (person, _, _), taken in kept.items():
        by_person.setdefault(person, []).append(taken)
    return float(np.median([np.mean(each) for each in by_person.values()]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="(default: ../shared/data)")
    parser.add_argument("--draws", type=int, default=100, help="(default: 100)")
    arguments = parser.parse_args()
    if not all((arguments.data / name).is_file() for name in (RAW, REFERENCE, COUNTS)):
        print(f"Left out: the published data are not in {arguments.data}.", file=sys.stderr)
        return 0
    worst = 0.0
    for name, figures in measured(arguments.data, arguments.draws).items():
        print(f"{name}: M, then {', '.join(f'{metric.upper()} (the planner’s)' for metric in Metric)}")
        for labels in figures[Metric.TV]:
            cells = []
            for metric in Metric:
                if labels not in figures[metric]:
                    cells.append(f"{'–':>8}{'':9}")
                    continue
                used = dict(zip(PUBLISHED[name][metric].labels.tolist(), PUBLISHED[name][metric].errors, strict=True))
                worst = max(worst, abs(figures[metric][labels] - used.get(labels, np.inf)))
                cells.append(f"{figures[metric][labels]:8.4f} ({used.get(labels, np.nan):.4f})")
            print(f"{labels:4}" + " ".join(cells))
    for metric in (Metric.TV, Metric.KL, Metric.ENTROPY):
        for labels in (1, 2, 3, 6):
            error = float(PUBLISHED[Published.RECOMMENDED][metric].at(labels))
            worth = PUBLISHED[Published.VOTES][metric].worth(error)
            print(f"{labels} recommended soft labels are worth {worth or np.nan:.1f} votes by {metric.upper()}")
    found = seconds(arguments.data)
    print(f"seconds per response, the median session's: {found:.1f} ({PUBLISHED_SECONDS})")
    good = worst <= OFF and abs(found - PUBLISHED_SECONDS) <= 0.1
    print("as the planner has them" if good else f"off by up to {worst:.4f}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

"""Do the recommended rules find who does not try: `python -m benchmarks.quality`.

1. Simulated people, 80 % careful, 10 % careless, 5 % always certain, 5 % hurried, 200 to a study: how many of each
   kind the rules flag, each rule's ROC and that of all together, over several seeds with 95 % intervals (bootstrap
   over seeds). The rules were chosen on the seeds from 100 on; what is printed comes from those from 200 on, and the
   test's seed is neither.
2. The published study (CIFAR-10S, raw table), imported by `manage.py import_responses`' service into a database of its
   own: how many the rules flag there. Its people passed the authors' own exclusions before it was published.

--figure writes the ROC of the first seed. --json prints one line for a program to read. Exits with 1 where fewer than
90 % of those who do not try are flagged, or more than 5 % of the careful.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotations.simulation.population import MIX, Population, simulate
from elicit.labels.quality import ABOUT, RECOMMENDED, Measure, Measured, Rule, broken_rules, measure

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

PEOPLE = 200
SEEDS = range(200, 220)
RESAMPLES = 2000
LEAST_CAUGHT, MOST_CAREFUL = 0.90, 0.05
RAW = "cifar10s/raw_human_data_even_batches.csv"


def suspicion(found: Measured, rule: Rule) -> Floats:
    """(S,) how far beyond the rule's threshold each lies, in standard deviations of the measure; unknown is least."""
    scale = float(found.values[found.known].std()) if found.known.any() else 0.0
    sign = 1.0 if rule.at_least else -1.0
    beyond = sign * (found.values - rule.threshold) / (scale or 1.0)
    return np.where(found.counts >= rule.least, beyond, -np.inf)


def roc(score: Floats, bad: Flags) -> tuple[Floats, Floats]:
    """False and true positive rates as the threshold falls; whoever scores alike comes in together."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)
    true = np.cumsum(bad[order])[last] / bad.sum()
    false = np.cumsum(~bad[order])[last] / (~bad).sum()
    return np.append(0.0, false), np.append(0.0, true)


def area(score: Floats, bad: Flags) -> float:
    false, true = roc(score, bad)
    return float(np.trapezoid(true, false))


def one_seed(seed: int) -> tuple[Population, dict[Measure, Measured], dict[str, Floats]]:
    """A population, its measures, and the suspicion of each rule and of all together."""
    population = simulate(PEOPLE, seed)
    found = measure(population.sittings)
    scores = {ABOUT[rule.measure].title: suspicion(found[rule.measure], rule) for rule in RECOMMENDED}
    scores["All together"] = np.max(np.stack(list(scores.values())), axis=0)
    return population, found, scores


def interval(values: list[float]) -> tuple[float, float, float]:
    """The mean over seeds, and a 95 % bootstrap interval of it."""
    array, random = np.array(values), np.random.default_rng(0)
    means = array[random.integers(0, len(array), (RESAMPLES, len(array)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975]).tolist()
    return float(array.mean()), low, high


def simulated(figure: Path | None) -> dict[str, Any]:
    flagged: dict[str, list[float]] = {name: [] for name in MIX}
    by_rule: dict[str, dict[str, list[float]]] = {}
    areas: dict[str, list[float]] = {}
    caught = []
    for seed in SEEDS:
        population, found, scores = one_seed(seed)
        bad = ~population.of("careful")
        broken = broken_rules(found, RECOMMENDED)
        caught.append(float(broken[bad].any(axis=1).mean()))
        for name in MIX:
            who = population.of(name)
            flagged[name].append(float(broken[who].any(axis=1).mean()))
            for column, rule in enumerate(RECOMMENDED):
                by_rule.setdefault(rule.says, {}).setdefault(name, []).append(float(broken[who, column].mean()))
        for name, score in scores.items():
            areas.setdefault(name, []).append(area(score, bad))
        if figure is not None and seed == SEEDS[0]:
            draw(figure, scores, bad)
    return {
        "seeds": [SEEDS[0], SEEDS[-1]],
        "people": PEOPLE,
        "caught": interval(caught),
        "flagged": {name: interval(values) for name, values in flagged.items()},
        "by_rule": {
            rule: {name: float(np.mean(each)) for name, each in found.items()} for rule, found in by_rule.items()
        },
        "auc": {name: interval(values) for name, values in areas.items()},
    }


def draw(path: Path, scores: dict[str, Floats], bad: Flags) -> None:
    from elicit import plots

    curves = [(name, *roc(score, bad)) for name, score in scores.items()]
    path.write_bytes(plots.lines(curves, what="careful people flagged", of_what="others flagged", size=(680, 480)))


def hundred_thousand() -> dict[str, float]:
    """Seconds for the measures of about a hundred thousand answers."""
    population = simulate(3448, 1)
    start = time.perf_counter()
    measure(population.sittings)
    return {"answers": float(len(population.sittings.session)), "seconds": time.perf_counter() - start}


def published(data: Path) -> dict[str, Any] | None:
    """What the rules say of the published study; None without its file."""
    if not (data / RAW).is_file():
        return None
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "ELICIT_VAR": folder,
            "ELICIT_SECRET_KEY": "for this benchmark alone, and long enough for Django",
        }
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "elicit.settings")
        import django

        django.setup()
        from django.core.management import call_command
        from django.utils import timezone

        from annotations.models import Study
        from annotations.selectors import quality as found_out
        from annotations.services import quality as service

        call_command("migrate", verbosity=0)
        make_images()
        call_command("import_responses", str(data / RAW), stdout=io.StringIO())
        study = Study.objects.get()
        service.measure_study(study.pk, timezone.now())
        service.write_rules(study.pk, RECOMMENDED)
        run = found_out.dry_run(study)
        return {
            "sessions": run.of,
            "flagged": len(run.would),
            "by_rule": {str(one.rule): [len(one.would), one.judged] for one in run.rules},
        }


def make_images() -> None:
    """The rows of CIFAR-10's test images: their pixels bear on nothing here."""
    from django.utils import timezone

    from annotations.models import Category, Dataset, Image
    from elicit.archives import CIFAR10_CATEGORIES

    dataset = Dataset.objects.create(slug="cifar10-test", name="CIFAR-10 test", ready_at=timezone.now())
    Category.objects.bulk_create(
        Category(dataset=dataset, index=index, name=name) for index, name in enumerate(CIFAR10_CATEGORIES)
    )
    Image.objects.bulk_create(
        (Image(dataset=dataset, index=index, sha256=f"{index:064x}", width=32, height=32) for index in range(10_000)),
        batch_size=1000,
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--figure", type=Path, help="write the ROC here, as SVG")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    found: dict[str, Any] = {
        "simulated": simulated(options.figure),
        "cost": hundred_thousand(),
        "published": published(options.data),
    }
    print(json.dumps(found)) if options.json else report(found)
    simulation = found["simulated"]
    good = simulation["caught"][0] >= LEAST_CAUGHT and simulation["flagged"]["careful"][0] <= MOST_CAREFUL
    return 0 if good else 1


def report(found: dict[str, Any]) -> None:
    simulation = found["simulated"]
    first, last = simulation["seeds"]
    print(f"{simulation['people']} simulated people, seeds {first} to {last}: share flagged (95 % interval)")
    for name, (mean, low, high) in simulation["flagged"].items():
        print(f"  {name:10} {100 * mean:5.1f} %  ({100 * low:.1f} to {100 * high:.1f})")
    mean, low, high = simulation["caught"]
    print(f"  not careful {100 * mean:4.1f} %  ({100 * low:.1f} to {100 * high:.1f})")
    for rule, by in simulation["by_rule"].items():
        print(f"  {rule}: " + ", ".join(f"{name} {100 * share:.1f} %" for name, share in by.items()))
    print("Area under the ROC")
    for name, (mean, low, high) in simulation["auc"].items():
        print(f"  {name:32} {mean:.3f}  ({low:.3f} to {high:.3f})")
    print(f"{found['cost']['answers']:,.0f} answers measured in {found['cost']['seconds']:.2f} s")
    if found["published"] is None:
        print("The published study is not here.")
        return
    print(f"Published study: {found['published']['flagged']} of {found['published']['sessions']} flagged")
    for rule, (would, judged) in found["published"]["by_rule"].items():
        print(f"  {rule}: {would} of {judged}")


if __name__ == "__main__":
    sys.exit(main())

"""What the runs of an experiment found: figures over seeds, paired differences, and what they cost.

Two kinds of 95 % interval stand side by side, since neither tells it all. *Over seeds* (Student's t): how much other
first weights, batches and, where M annotators are drawn, other people would change the figure, on these held-out
images. *Over images* (bootstrap of the held-out images, with every difference first averaged over seeds): how much
other images would, with these networks.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elicit.labels.intervals import Bootstrap
from training.evaluate import BINS, Bin, Evaluation, evaluate
from training.experiment import Experiment, FinishedRun
from training.label_sets import LabelSet, first_people
from training.statistics import LEVEL, OverSeeds, holm, over_seeds
from training.train import baselines_of

FORMAT, FORMAT_VERSION = "elicit-training-comparison", 1

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A figure of the report."""

    name: str
    title: str
    better: str
    """lower, higher or neither"""


METRICS = (
    Metric("cross_entropy", "cross-entropy to people, nats", "lower"),
    Metric("kl", "KL to people, nats", "lower"),
    Metric("total_variation", "total variation to people", "lower"),
    Metric("accuracy", "accuracy (archive's class)", "higher"),
    Metric("top2", "archive's class among the top two", "higher"),
    Metric("worst_class", "accuracy of the worst class", "higher"),
    Metric("entropy_correlation", "entropy correlation with people", "higher"),
    Metric("entropy_error", "entropy error, nats", "lower"),
    Metric("rank_agreement", "classes in people's order", "higher"),
    Metric("calibration_error", "calibration error (ECE)", "lower"),
    Metric("calibration_error_equal", "calibration error (RMS, equal bins)", "lower"),
    Metric("calibration_error_people", "calibration error (people's share)", "lower"),
    Metric("confidence", "confidence", "neither"),
    Metric("entropy", "entropy of the prediction, nats", "neither"),
    Metric("fgsm_cross_entropy", "cross-entropy under FGSM, nats", "lower"),
    Metric("pgd_cross_entropy", "cross-entropy under PGD, nats", "lower"),
    Metric("pgd_accuracy", "accuracy under PGD", "higher"),
)


@dataclass(frozen=True)
class Cost:
    """``hourly_pay`` of an annotator in ``currency``, and the seconds of one of the reference's votes; None unknown."""

    hourly_pay: float | None
    currency: str
    vote_seconds: float | None


@dataclass(frozen=True, eq=False)
class Results:
    """The runs of one label set, seed by seed."""

    label_set: LabelSet
    runs: tuple[FinishedRun, ...]
    evaluations: tuple[Evaluation, ...]

    def values(self, metric: str) -> list[float] | None:
        """One value per seed, None where it is undefined for one of them."""
        found = [_value(run, evaluation, metric) for run, evaluation in zip(self.runs, self.evaluations, strict=True)]
        return None if any(value is None for value in found) else [value for value in found if value is not None]


def _value(run: FinishedRun, evaluation: Evaluation, metric: str) -> float | None:
    attack, _, what = metric.partition("_")
    if attack in run.told["attacks"]:
        return float(run.told["attacks"][attack][what])
    return evaluation.metrics[metric]


def results_of(experiment: Experiment, finished: Sequence[FinishedRun]) -> tuple[Results, ...]:
    """The runs by label set, in the order given."""
    sets = dict.fromkeys(run.label_set for run in finished)
    grouped = {label_set: [run for run in finished if run.label_set == label_set] for label_set in sets}
    return tuple(
        Results(label_set, tuple(runs), tuple(evaluate(run.log_probabilities, experiment.held_out) for run in runs))
        for label_set, runs in grouped.items()
    )


def annotators_per_image(label_set: LabelSet, experiment: Experiment) -> float | None:
    """People behind a relabelled training image's label, on average; 0 where nobody is asked, None if unknown."""
    votes, train = experiment.sources.votes, experiment.train.indices
    said, relabelled = experiment.sources.said_for(label_set), experiment.sources.relabelled
    if label_set.asks_people and said is not None and relabelled is not None:
        # No image counts that another release lacks: the set is not used there.
        here = np.isin(said.images, train) & np.isin(said.images, relabelled)
        images, people = said.images[here], said.people[here]
        if label_set.annotators is not None:
            kept = first_people(images, people, label_set.annotators, np.random.default_rng(0))
            images, people = images[kept], people[kept]
        return len(set(zip(images.tolist(), people.tolist(), strict=True))) / len(np.unique(images))
    if label_set.what == "h" and votes is not None:
        asked = train if label_set.everywhere or said is None else train[np.isin(train, said.images)]
        if votes.counts is None:
            return None if label_set.annotators is None else float(label_set.annotators)
        counts = votes.counts[asked].sum(axis=1)
        most = counts.max() if label_set.annotators is None else label_set.annotators
        return float(np.minimum(counts, most).mean())
    return 0.0


def _cost_of(label_set: LabelSet, experiment: Experiment, cost: Cost) -> dict[str, float | None]:
    """Of the relabelled images' labels: people, seconds per image, and the pay for all of them."""
    people, train = annotators_per_image(label_set, experiment), experiment.train.indices
    said, relabelled = experiment.sources.said_for(label_set), experiment.sources.relabelled
    each: float | None = 0.0
    if label_set.asks_people and said is not None:
        each = float(np.nanmean(said.seconds)) if np.isfinite(said.seconds).any() else None
    elif label_set.what == "h":
        each = cost.vote_seconds
    labelled = len(train) if label_set.everywhere or relabelled is None else int(np.isin(train, relabelled).sum())
    seconds = None if people is None or each is None else people * each
    pay = None if seconds is None or cost.hourly_pay is None else seconds * labelled / 3600 * cost.hourly_pay
    return {"annotators_per_image": people, "labelled_images": labelled, "seconds_per_image": seconds, "pay": pay}


def pairs_of(sets: Sequence[LabelSet]) -> Iterator[tuple[LabelSet, LabelSet]]:
    """What is set against what: everything against hard and against smoothing, each set against itself with :fixed."""
    baselines = [LabelSet("hard"), LabelSet("smooth"), LabelSet("smooth", everywhere=True)]
    for number, baseline in enumerate(baselines):
        if baseline in sets:
            yield from ((ours, baseline) for ours in sets if ours not in baselines[: number + 1])
    for ours in sets:
        fixed = replace(ours, fixed=True)
        if fixed in sets and ours != fixed:
            yield ours, fixed


def differences_of(results: Sequence[Results], seed: int, draws: int = 2000) -> list[dict[str, Any]]:
    """ours - theirs, paired by seed and image, for each of pairs_of; p values also as raised within their baseline."""
    by_set = {found.label_set: found for found in results}
    pairs = list(pairs_of(list(by_set)))
    means = {label_set: _per_image(found) for label_set, found in by_set.items()}
    names = list(results[0].evaluations[0].per_image)
    bounds = _image_bounds([means[ours] - means[theirs] for ours, theirs in pairs], seed, draws)
    told: list[dict[str, Any]] = []
    for (ours, theirs), (low, high) in zip(pairs, bounds, strict=True):
        metrics: dict[str, Any] = {}
        for metric in METRICS:
            mine, other = by_set[ours].values(metric.name), by_set[theirs].values(metric.name)
            if mine is None or other is None:
                continue
            found = over_seeds([a - b for a, b in zip(mine, other, strict=True)])
            metrics[metric.name] = asdict(found)
            if metric.name in names:
                at = names.index(metric.name)
                metrics[metric.name] |= {"image_low": float(low[at]), "image_high": float(high[at])}
        told.append({"ours": ours.name, "theirs": theirs.name, "metrics": metrics})
    for theirs_name in {each["theirs"] for each in told}:
        for metric in METRICS:
            family = [
                each["metrics"][metric.name]
                for each in told
                if each["theirs"] == theirs_name and each["metrics"].get(metric.name, {}).get("p") is not None
            ]
            for found, raised in zip(family, holm([f["p"] for f in family]), strict=True):
                found["p_holm"] = raised
    return told


def _per_image(found: Results) -> Floats:
    """(N, metrics): each image's figures, averaged over seeds."""
    tables = [np.stack(list(e.per_image.values()), axis=1) for e in found.evaluations]
    return np.asarray(np.mean(tables, axis=0))


def _image_bounds(gaps: list[Floats], seed: int, draws: int) -> list[tuple[Floats, Floats]]:
    """Of each (N, metrics) table: the 95 % bounds of its column means over resampled images."""
    if not gaps:
        return []
    n, width = gaps[0].shape
    table = np.concatenate(gaps, axis=1)
    counts = Bootstrap(np.random.default_rng(seed), draws=draws).counts(n)
    means = np.concatenate([block @ table / n for block in counts])
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    return [(low[at : at + width], high[at : at + width]) for at in range(0, len(low), width)]


def result_of(experiment: Experiment, results: Sequence[Results], cost: Cost, command: str) -> dict[str, Any]:
    """Everything in result.json, plain JSON without NaN."""
    runs = [run for found in results for run in found.runs]
    sets = {}
    for found in results:
        metrics = {}
        for metric in METRICS:
            values = found.values(metric.name)
            metrics[metric.name] = None if values is None else {**_interval(over_seeds(values)), "values": values}
        sets[found.label_set.name] = {
            "seeds": [run.seed for run in found.runs],
            **_cost_of(found.label_set, experiment, cost),
            "training_labels": found.runs[0].told["training_labels"],
            "metrics": metrics,
            "learning_curve": [run.told["curve"] for run in found.runs],
            "best_epochs": [run.told["best_epoch"] for run in found.runs],
            "seconds": sum(run.told["seconds"] for run in found.runs),
        }
    mean = np.mean([run.told["training_labels"]["mean_label"] for run in runs[:1]], axis=0)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "command": command,
        "config": asdict(experiment.config),
        "data": experiment.data,
        "rest": experiment.sources.rest,
        "smoothing": experiment.sources.smoothing,
        "cost": asdict(cost),
        "images": {
            "train": len(experiment.train),
            "relabelled": _cost_of(LabelSet("recommended"), experiment, cost)["labelled_images"],
            "held_out": len(experiment.held_out),
            "attacked": runs[0].told["attacks"]["fgsm"]["images"],
        },
        "network": {"name": experiment.config.network, "parameters": runs[0].told["parameters"]},
        "people": {"entropy": float(results[0].evaluations[0].metrics["entropy_people"] or 0.0)},
        "baselines": {name: found.metrics for name, found in baselines_of(mean, experiment.held_out).items()},
        "sets": sets,
        "differences": differences_of(results, experiment.config.seed),
        "calibration_bins": BINS,
        "code": _distinct(run.told["code"] for run in runs),
        "environment": _distinct(run.told["environment"] for run in runs),
        "precision": sorted({run.told["precision"] for run in runs}),
        "processes": sorted({run.told["processes"] for run in runs}),
        "seconds": sum(run.told["seconds"] for run in runs),
    }


def _interval(found: OverSeeds) -> dict[str, float | None]:
    return {"mean": found.mean, "low": found.low, "high": found.high}


def _distinct(values: Iterator[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


# In words


def table_of(result: Mapping[str, Any]) -> str:
    """The chief figures as text: a line per label set, mean over seeds with half the interval's width."""
    chief = METRICS[:4] + METRICS[6:7] + METRICS[9:10]
    width = max(len(name) for name in result["sets"]) + 2
    lines = [" " * width + "".join(f"{m.name:>24}" for m in chief)]
    for name, found in result["sets"].items():
        lines.append(f"{name:<{width}}" + "".join(f"{_cell(found['metrics'][m.name]):>24}" for m in chief))
    return "\n".join([*lines, "", *findings_of(result)])


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    half = "" if found["low"] is None else f" ± {(found['high'] - found['low']) / 2:.4f}"
    return f"{found['mean']:.4f}{half}"


def findings_of(result: Mapping[str, Any]) -> list[str]:
    """A sentence for each pair: which is lower in cross-entropy, by how much, and whether that could be chance."""
    return [_sentence(each, "cross_entropy") for each in result["differences"] if "cross_entropy" in each["metrics"]]


def _sentence(each: Mapping[str, Any], metric: str) -> str:
    found = each["metrics"][metric]
    said = f"{each['ours']} − {each['theirs']}: {_signed(found['mean'])} nats"
    if found["low"] is None:
        return f"{said} (one seed: no interval over seeds)."
    # Of many sets against one baseline some would differ by chance: hence the raised p.
    settled = found["p_holm"] < 1 - LEVEL
    images = found["image_low"] > 0 or found["image_high"] < 0
    verdict = {
        (True, True): "lower" if found["mean"] < 0 else "higher",
        (True, False): "not settled: other images could turn it",
        (False, True): "not settled: other seeds could turn it",
        (False, False): "no difference found",
    }[settled, images]
    return (
        f"{said}, 95 % over seeds {_signed(found['low'])} to {_signed(found['high'])}, over images "
        f"{_signed(found['image_low'])} to {_signed(found['image_high'])}, p = {_p(found['p'])} "
        f"(Holm {_p(found['p_holm'])}): {verdict}."
    )


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


# The report


def write_report(output: Path, results: Sequence[Results], result: Mapping[str, Any]) -> list[Path]:
    """Write result.json, the figures, report.md and the self-contained report.html into an existing folder."""
    from training.figures import save_figures  # matplotlib, which nothing else here needs

    bins = {found.label_set.name: _all_bins(found) for found in results}
    alternatives = save_figures(output, result, bins)
    blocks = _blocks(result, alternatives)
    told = {**result, "findings": findings_of(result), "figures": alternatives}
    written = {
        "result.json": json.dumps(told, indent=1, allow_nan=False) + "\n",
        "report.md": _as_markdown(blocks),
        "report.html": _as_html(blocks, output),
    }
    for name, text in written.items():
        (output / name).write_text(text, encoding="utf-8")
    figures = [output / f"{name}.{kind}" for name in alternatives for kind in ("png", "svg")]
    return [*(output / name for name in written), *figures]


def _all_bins(found: Results) -> tuple[Bin, ...]:
    """The bins of reliability of all seeds together, their means weighted by images."""
    grouped: dict[float, list[Bin]] = {}
    for evaluation in found.evaluations:
        for each in evaluation.reliability:
            grouped.setdefault(each.low, []).append(each)
    return tuple(_joined(grouped[low]) for low in sorted(grouped))


def _joined(bins: Sequence[Bin]) -> Bin:
    images = sum(each.images for each in bins)

    def mean(of: str) -> float:
        return sum(each.images * float(getattr(each, of)) for each in bins) / images

    return Bin(bins[0].low, bins[0].high, images, mean("confidence"), mean("accuracy"), mean("people"))


@dataclass(frozen=True)
class Block:
    """A piece of the report: a heading, a paragraph, a list, a table or a figure."""

    kind: str
    text: str = ""
    lines: tuple[str, ...] = ()
    table: tuple[tuple[str, ...], ...] = ()


def _blocks(result: Mapping[str, Any], figures: Mapping[str, str]) -> list[Block]:
    images, network = result["images"], result["network"]
    seeds = max(len(found["seeds"]) for found in result["sets"].values())
    environment = result["environment"][0]
    rest = {"hard": "; the others keep the archive's class", "h": "; the others have the reference's votes"}
    others = rest.get(result["rest"], "") if images["relabelled"] < images["train"] else ""
    many = f"{seeds} seeds each" if seeds > 1 else "one seed"
    nameless = result["data"].get("images_without_class")
    stands_in = (
        f" {nameless:,} images have no class in the archive: the one that the first release finds likeliest stands "
        "for it."
        if nameless
        else ""
    )
    blocks = [
        Block("title", "What the labels buy"),
        Block(
            "paragraph",
            f"{len(result['sets'])} label sets, {many}; network {network['name']} "
            f"({network['parameters']:,} parameters), {result['config']['epochs']} epochs on {images['train']:,} "
            f"images, {images['relabelled']:,} of them relabelled{others}; scored on {images['held_out']:,} held-out "
            "images. "
            "Runs of one seed share first weights, batches and crops and differ in their labels alone." + stands_in,
        ),
        Block("heading", "Findings: cross-entropy to people on held-out images"),
        Block("list", lines=tuple(findings_of(result))),
        Block("heading", "Figures, mean over seeds ± half of the 95 % interval"),
        Block("table", table=_table(result, METRICS[:7])),
        Block("table", table=_table(result, METRICS[7:])),
        Block(
            "paragraph",
            f"Nothing is below people's own entropy in cross-entropy: {result['people']['entropy']:.4f} nats. "
            "The training images' mean label for every image gives "
            f"{result['baselines']['mean_label']['cross_entropy']:.4f}. "
            f"FGSM and PGD attack the first {images['attacked']:,} held-out images.",
        ),
        Block("heading", "What the labels cost"),
        Block("table", table=_cost_table(result)),
        *(Block("figure", text, (name,)) for name, text in figures.items()),
        Block("heading", "To run it again"),
        Block("code", result["command"]),
        Block(
            "paragraph",
            f"{result['seconds']:,.0f} s of training and scoring on {environment['cpu']} ({environment['device']}, "
            f"{environment['threads']} threads), torch {environment['torch']}, {', '.join(result['precision'])}. "
            "result.json holds every setting, the digests of the data and of the code, and each seed's figures.",
        ),
    ]
    return blocks


def _table(result: Mapping[str, Any], metrics: Sequence[Metric]) -> tuple[tuple[str, ...], ...]:
    arrow = {"lower": " ↓", "higher": " ↑", "neither": ""}
    rows = [("label set", *(metric.title + arrow[metric.better] for metric in metrics))]
    for name, found in result["sets"].items():
        rows.append((name, *(_cell(found["metrics"][metric.name]) for metric in metrics)))
    return tuple(rows)


def _cost_table(result: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    currency = result["cost"]["currency"]
    heads = (
        "label set",
        "images",
        "people per image",
        "seconds per image",
        f"pay, {currency}",
        "top class is the archive's",
    )
    rows = [heads]
    for name, found in result["sets"].items():
        labels = found["training_labels"]
        rows.append(
            (
                name,
                f"{found['labelled_images']:,}",
                _number(found["annotators_per_image"], 2),
                _number(found["seconds_per_image"], 1),
                _number(found["pay"], 2),
                f"{labels['top_is_archive_class']:,} of {labels['images']:,}",
            )
        )
    return tuple(rows)


def _number(value: float | None, digits: int) -> str:
    return "unknown" if value is None else f"{value:,.{digits}f}"


def _as_markdown(blocks: Sequence[Block]) -> str:
    parts = []
    for block in blocks:
        if block.kind == "table":
            head, *rows = [f"| {' | '.join(row)} |" for row in block.table]
            parts.append("\n".join([head, "|" + "---|" * len(block.table[0]), *rows]))
        else:
            parts.append(
                {
                    "title": f"# {block.text}",
                    "heading": f"## {block.text}",
                    "paragraph": block.text,
                    "list": "\n".join(f"- {line}" for line in block.lines),
                    "figure": "".join(f"![{block.text}]({name}.png)" for name in block.lines),
                    "code": f"```sh\n{block.text}\n```",
                }[block.kind]
            )
    return "\n\n".join(parts) + "\n"


_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; font-size: .85rem }
th, td { border: 1px solid #8888; padding: .25rem .5rem; text-align: right }
th:first-child, td:first-child { text-align: left }
.wide { overflow-x: auto }
img { background: #fff; max-width: 100%; height: auto; padding: .5rem }
pre { overflow-x: auto; padding: .5rem; border: 1px solid #8888 }
"""


def _as_html(blocks: Sequence[Block], output: Path) -> str:
    parts = []
    for block in blocks:
        text = html.escape(block.text)
        if block.kind == "table":
            head, *rows = block.table
            cells = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in head)
            body = "".join(
                f'<tr><th scope="row">{html.escape(row[0])}</th>'
                + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
                + "</tr>"
                for row in rows
            )
            table = f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"
            parts.append(f'<div class="wide" tabindex="0">{table}</div>')
        elif block.kind == "list":
            parts.append("<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in block.lines) + "</ul>")
        elif block.kind == "figure":
            for name in block.lines:
                drawing = base64.b64encode((output / f"{name}.svg").read_bytes()).decode()
                parts.append(f'<p><img alt="{text}" src="data:image/svg+xml;base64,{drawing}"></p>')
        else:
            tags = {"title": "h1", "heading": "h2", "paragraph": "p", "code": "pre"}
            tag = tags[block.kind]
            parts.append(f"<{tag}>{text}</{tag}>")
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>What the labels buy</title>\n<style>{_STYLE}</style>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</html>\n"
    )

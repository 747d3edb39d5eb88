"""What a comparison found, for machines (result.json) and for people (a table and a plot)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from elicit.archives import CifarArchive
from elicit.folders import Source
from elicit.labels import ReadRelease
from training.config import Config
from training.evaluate import BINS, Difference, compare
from training.plot import save_plots
from training.provenance import code_version, environment
from training.train import Comparison

FORMAT = "elicit-training-result"
FORMAT_VERSION = 1

FEW = 100
"""Fewer held-out images than this: the figures show that the run works, and little more."""

DIFFERENCES = (("soft", "hard"), ("soft", "top"))
"""soft - hard is what a user gets; soft - top holds the class fixed and leaves the softness."""


def result_of(
    comparison: Comparison, release: ReadRelease, archive: CifarArchive | Source, config: Config, seconds: float
) -> dict[str, Any]:
    """Everything in result.json: plain JSON without NaN, the same for the same seed but for ``seconds``."""
    train, held_out, runs = comparison.train, comparison.held_out, comparison.runs
    manifest = release.manifest
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "note": note_on(len(held_out)),
        "warnings": warnings_of(comparison, archive),
        "release": {
            **{key: manifest[key] for key in ("version", "digest", "recipe", "recipe_digest", "counts", "facts")},
            "categories": list(release.categories),
        },
        "images": {
            "origin": archive.origin,
            "labelled": len(train) + len(held_out),
            "train": len(train),
            "held_out": len(held_out),
            "held_out_indices": held_out.indices.tolist(),
            "pixels_differ": _differing(comparison),
            # Where this is not all, soft - hard is partly a matter of another class.
            "train_top_is_archive_class": int((train.soft_labels.argmax(axis=1) == train.hard_labels).sum()),
        },
        "config": asdict(config),
        "model": {"name": config.network, "parameters": comparison.parameters},
        "code": code_version(),
        "environment": environment(config.device, config.threads),
        "calibration_bins": BINS,
        "held_out": {
            **{name: run.final.metrics for name, run in runs.items()},
            "baselines": {name: found.metrics for name, found in comparison.baselines.items()},
        },
        "differences": {
            f"{ours}_minus_{theirs}": {metric: asdict(found) for metric, found in differences.items()}
            for (ours, theirs), differences in differences_of(comparison, config).items()
        },
        "reliability": {name: [asdict(b) for b in run.final.reliability] for name, run in runs.items()},
        "learning_curve": {
            name: [
                {
                    "epoch": epoch.number,
                    "learning_rate": epoch.learning_rate,
                    "train_loss_in_sample": epoch.train_loss,
                    "held_out": found.metrics,
                }
                for epoch, found in run.curve
            ]
            for name, run in runs.items()
        },
        "seconds": {**{name: run.seconds for name, run in runs.items()}, "total": seconds},
    }


def differences_of(comparison: Comparison, config: Config) -> dict[tuple[str, str], dict[str, Difference]]:
    """Each of DIFFERENCES, metric by metric."""
    runs = comparison.runs
    return {(ours, theirs): compare(runs[ours].final, runs[theirs].final, config.seed) for ours, theirs in DIFFERENCES}


def note_on(held_out: int) -> str | None:
    """What to say of so few held-out images, or None where they are enough to say something."""
    if held_out >= FEW:
        return None
    return (
        f"Only {held_out} held-out image{'s' if held_out > 1 else ''}: one image is worth "
        f"{100 / held_out:.3g} points of accuracy. This shows that the run works, not which labels are better."
    )


def _differing(comparison: Comparison) -> int:
    return int(comparison.train.differs.sum() + comparison.held_out.differs.sum())


def warnings_of(comparison: Comparison, archive: CifarArchive | Source) -> list[str]:
    """What did not stop the run and should be known."""
    warnings = []
    differing, every = _differing(comparison), len(comparison.train) + len(comparison.held_out)
    if differing:
        hint = " Is it the right archive, and the right --split?" if differing == every else ""
        warnings.append(f"{differing} of {every} images have other pixels in the archive than people saw.{hint}")
    named = comparison.train.categories
    pairs = zip(named, archive.cifar.categories if isinstance(archive, CifarArchive) else named, strict=True)
    renamed = [f"{ours} for {theirs}" for ours, theirs in pairs if ours.casefold() != theirs.casefold()]
    if renamed:
        warnings.append(f"The release's categories were taken in order, {renamed[0]} and so on.")
    return warnings


def name_of(manifest: Mapping[str, Any]) -> str:
    """The release as a person would say it: the study's slug, where the facts have it, and the version."""
    slug = next((s for key in ("study_slug", "study") if isinstance(s := manifest["facts"].get(key), str)), "release")
    return f"{slug} v{manifest['version']}"


def write_report(output: Path, comparison: Comparison, result: Mapping[str, Any], config: Config) -> list[Path]:
    """Write result.json and the plots into an existing folder, replacing older ones; return their paths."""
    images, release = result["images"], result["release"]
    subtitle = (
        f"{images['held_out']} held-out images, {images['train']} trained on; {config.epochs} epochs, "
        f"seed {config.seed}, one run of each; release {name_of(release)}, {release['digest'][:12]}"
    )
    differences = differences_of(comparison, config)[DIFFERENCES[0]]
    plots = save_plots(output, comparison, differences, subtitle=subtitle, note=result["note"])
    path = output / "result.json"
    path.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return [path, *plots]


def table_of(result: Mapping[str, Any]) -> str:
    """The figures of the held-out images as text."""
    rows = [
        ("accuracy", "accuracy (archive's class)"),
        ("top_agreement", "accuracy (people's top class)"),
        ("cross_entropy", "cross-entropy to people, nats"),
        ("kl", "KL to people, nats"),
        ("total_variation", "total variation to people"),
        ("calibration_error", "calibration error (archive's class)"),
        ("calibration_error_people", "calibration error (people's share)"),
        ("entropy_correlation", "entropy correlation with people"),
    ]
    held_out, gaps = result["held_out"], result["differences"]
    columns = {
        **{name: held_out[name] for name in ("soft", "hard", "top")},
        "mean label": held_out["baselines"]["mean_label"],
    }
    lines = [f"{'held-out images: ' + str(result['images']['held_out']):<36}" + "".join(f"{c:>11}" for c in columns)]
    lines[0] += f"{'soft - hard (95 %)':>27}{'soft - top (95 %)':>27}"
    for metric, title in rows:
        cells = "".join(f"{_number(values[metric]):>11}" for values in columns.values())
        gap = "".join(f"{_interval(gaps[pair][metric]):>27}" for pair in ("soft_minus_hard", "soft_minus_top"))
        lines.append(f"{title:<36}{cells}{gap}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(found: Mapping[str, float | None]) -> str:
    gap, low, high = found["difference"], found["low"], found["high"]
    if gap is None:
        return "-"
    return f"{gap:+.3f}" + ("" if low is None or high is None else f" [{low:+.3f}, {high:+.3f}]")

"""``python -m training fit``: train on a release and say what its soft labels buy."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from elicit.labels import Refusal, read_release
from training.config import Config

# What `make training` installs, by the names under which it is imported.
NEEDED = ("torch", "torchmetrics", "matplotlib", "PIL")

DESCRIPTION = """\
Train a small network on a release's soft labels and, beside it, on hard ones: same images, same first
weights, same batches. Some images are held out, and the figures are about those.
Writes result.json, plot.png and plot.svg.
"""
EPILOG = """\
example:
  python -m training fit --release bird-study-v1.zip --images cifar-10-python.tar.gz --output result

exit status: 0 done, 2 refused (one line says why), 130 interrupted.
docs/how-to/train.md explains each figure.
"""


def parser() -> argparse.ArgumentParser:
    """The command line; each field of Config is a flag."""
    top = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    fit = commands.add_parser(
        "fit",
        help="train on soft and on hard labels and compare",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    fit.add_argument("--release", type=Path, required=True, metavar="PATH", help="its directory or .zip")
    fit.add_argument(
        "--images",
        required=True,
        metavar="PATH",
        help="CIFAR-10: the official archive (python or binary layout), its unpacked folder, a folder of "
        "cifar10_NN_label.png, or the word 'sample' for the 20 sample images",
    )
    fit.add_argument("--output", type=Path, required=True, metavar="DIR", help="where to write; made if absent")
    for setting in fields(Config):
        fit.add_argument(
            "--" + setting.name.replace("_", "-"),
            type=type(setting.default),
            default=setting.default,
            choices=setting.metadata.get("choices"),
            metavar=None if "choices" in setting.metadata else setting.name.upper(),
            help=f"{setting.metadata['help']} (default: {setting.default})",
        )
    return top


def fit(arguments: argparse.Namespace) -> None:
    """Read, train, write, print. Raises Refusal, and ModuleNotFoundError where torch is not installed."""
    began = time.perf_counter()
    config = Config(**{setting.name: getattr(arguments, setting.name) for setting in fields(Config)})
    # Read by CUDA's libraries when torch loads them; without it deterministic kernels are refused there.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

    from training import report
    from training.data import match_images, open_images
    from training.train import compare_labels

    print(f"Reading {arguments.release} and {arguments.images}", file=sys.stderr, flush=True)
    release = read_release(arguments.release)
    archive = open_images(arguments.images)
    images = match_images(release, archive, config.split)
    # Before training: nobody should wait a minute to hear that the folder can't be made.
    arguments.output.mkdir(parents=True, exist_ok=True)

    comparison = compare_labels(images, config, say=lambda line: print(line, file=sys.stderr, flush=True))
    seconds = time.perf_counter() - began
    result = report.result_of(comparison, release, archive.origin, config, seconds)
    paths = report.write_report(arguments.output, comparison, result, config)

    print(report.table_of(result))
    for warning in result["warnings"]:
        print(f"Warning: {warning}")
    if result["note"]:
        print(f"Note: {result['note']}")
    print(f"Wrote {', '.join(map(str, paths))} after {seconds:.0f} s.")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0 done, 2 refused, 130 interrupted."""
    arguments = parser().parse_args(argv)
    try:
        fit(arguments)
    except Refusal as refusal:
        return _refused(str(refusal))
    except OSError as error:
        return _refused(f"{error.strerror or error}: {error.filename or arguments.output}.")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in NEEDED:
            raise
        return _refused(f"Training needs {missing}, which is not installed; `make training` installs it.")
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    return 0


def _refused(sentence: str) -> int:
    print(" ".join(sentence.split()), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())

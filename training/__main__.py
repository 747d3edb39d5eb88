"""``python -m training``: train on a release and say what its soft labels buy."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from elicit.labels import Refusal, read_release
from training.config import PRESETS, Config

# What `make training` installs, by the names under which it is imported.
NEEDED = ("torch", "torchmetrics", "matplotlib", "PIL", "filelock")

FIT = """\
Train a small network on a release's soft labels and, beside it, on hard ones: same images, same first
weights, same batches. Some images are held out, and the figures are about those.
Writes result.json, plot.png and plot.svg.
"""
FIT_EPILOG = """\
example:
  python -m training fit --release bird-study-v1.zip --images cifar-10-python.tar.gz --output result

exit status: 0 done, 2 refused (one line says why), 130 interrupted.
docs/how-to/train.md explains each figure.
"""
COMPARE = """\
Train one network per label set and seed, and compare them on held-out images: runs of one seed differ in
their labels alone. Interrupted, the same command goes on where it stopped; more sets or seeds are added to
what is there. Writes report.html, report.md, figures and result.json.
"""
COMPARE_EPILOG = """\
label sets:
  hard, smooth, uniform, random, h (CIFAR-10H), released, recommended, simselect2, released:NAME (the labels of
  a further --release, by its folder's or file's name), and varieties such as
  t1-none, t2-clamp, tall-uniform. `@M` gives a set M annotators of its own, whatever --m says; `:each` draws one
  person's label anew each time, `:fixed` puts the archive's class on top, `:all` takes every training image.

example:
  python -m training compare --answers raw_human_data.csv --reference cifar10h-counts.npy --protocol splits \\
      --images cifar-10-binary.tar.gz --labels hard,smooth,h,t2-clamp,recommended --m 1,2,3,6 --seeds 5 --output result

torchrun --nproc-per-node 2 -m training compare ... shares each batch between two GPUs.
exit status: 0 done, 2 refused (one line says why), 130 interrupted.
docs/how-to/train.md explains each figure.
"""


def parser() -> argparse.ArgumentParser:
    """The command line; each field of Config is a flag."""
    top = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    fit = _command(commands, "fit", "train on soft and on hard labels and compare", FIT, FIT_EPILOG)
    fit.add_argument("--release", type=Path, required=True, metavar="PATH", help="its directory or .zip")
    _add_images_and_settings(fit)

    compare = _command(commands, "compare", "compare label sets over seeds", COMPARE, COMPARE_EPILOG)
    answers = compare.add_mutually_exclusive_group()
    answers.add_argument(
        "--release",
        action="append",
        metavar="PATH",
        help="its directory or .zip, or the address https://SITE/api/releases/STUDY/VERSION with the key in the "
        "environment variable ELICIT_TOKEN; again for each further one, whose labels are the set released:NAME",
    )
    answers.add_argument("--answers", type=Path, metavar="FILE", help="the published answers: raw table or JSON")
    compare.add_argument(
        "--reference", type=Path, metavar="FILE", help="CIFAR-10H's counts or shares (.npy): what people say"
    )
    compare.add_argument(
        "--protocol", type=Path, metavar="DIR", help="the published split: train_indices.npy and test_indices.npy"
    )
    compare.add_argument("--labels", default="hard,smooth,t2-clamp,recommended", metavar="SETS", help="see below")
    compare.add_argument("--m", default="all", metavar="M,M", help="annotators per image, such as 1,2,3,6 or all")
    compare.add_argument("--seeds", type=int, default=5, metavar="N", help="runs of each set (default: 5)")
    compare.add_argument(
        "--rest",
        choices=("hard", "h", "none"),
        default="hard",
        help="labels of the images that nobody relabelled; none leaves them out (default: hard)",
    )
    compare.add_argument(
        "--smoothing", type=float, default=0.1, metavar="S", help="of the set smooth, 0..1 (default: 0.1)"
    )
    compare.add_argument("--attacked", type=int, default=1000, metavar="N", help="held-out images to attack")
    compare.add_argument(
        "--hourly-pay", type=float, default=None, metavar="PAY", help="of an annotator, for the cost axis"
    )
    compare.add_argument("--currency", default="USD", metavar="CODE", help="of the pay (default: USD)")
    compare.add_argument(
        "--vote-seconds", type=float, default=None, metavar="S", help="a vote of the reference took, for the cost axis"
    )
    compare.add_argument(
        "--until-stdin-closes",
        action="store_true",
        help="stop when standard input ends: with who began this",
    )
    compare.add_argument(
        "--preset", choices=tuple(PRESETS), default="laptop", help="settings; the flags below go over them"
    )
    _add_images_and_settings(compare)
    return top


def _command(commands: Any, name: str, said: str, description: str, epilog: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=said, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    return made


def _add_images_and_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--images",
        required=True,
        metavar="PATH",
        help="CIFAR-10 or CIFAR-100: the official archive (python or binary layout) or its unpacked folder; a folder, "
        "zip or tar of images, found by their pixels; or the word 'sample' for the 20 sample images",
    )
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="where to write; made if absent")
    for setting in fields(Config):
        flag = "--" + setting.name.replace("_", "-")
        said = f"{setting.metadata['help']} (default: {setting.default})"
        if isinstance(setting.default, bool):
            command.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=said)
            continue
        command.add_argument(
            flag,
            type=type(setting.default),
            default=None,
            choices=setting.metadata.get("choices"),
            metavar=None if "choices" in setting.metadata else setting.name.upper(),
            help=said,
        )


def config_of(arguments: argparse.Namespace) -> Config:
    """The preset, if the command has any, with what was said over it."""
    given = {setting.name: getattr(arguments, setting.name) for setting in fields(Config)}
    preset = PRESETS[getattr(arguments, "preset", "laptop")]
    return Config(**{**preset, **{name: value for name, value in given.items() if value is not None}})


def fit(arguments: argparse.Namespace) -> None:
    """Read, train, write, print. Raises Refusal, and ModuleNotFoundError where torch is not installed."""
    began = time.perf_counter()
    config = config_of(arguments)

    from training import report
    from training.data import match_images, open_images
    from training.train import compare_labels

    _say(f"Reading {arguments.release} and {arguments.images}")
    release = read_release(arguments.release)
    archive = open_images(arguments.images)
    images = match_images(release, archive, config.split, config.side)
    # Before training: nobody should wait a minute to hear that the folder can't be made.
    arguments.output.mkdir(parents=True, exist_ok=True)

    comparison = compare_labels(images, config, say=_say)
    seconds = time.perf_counter() - began
    result = report.result_of(comparison, release, archive, config, seconds)
    paths = report.write_report(arguments.output, comparison, result, config)

    print(report.table_of(result))
    for warning in result["warnings"]:
        print(f"Warning: {warning}")
    if result["note"]:
        print(f"Note: {result['note']}")
    print(f"Wrote {', '.join(map(str, paths))} after {seconds:.0f} s.")


def compare(arguments: argparse.Namespace, argv: Sequence[str] | None = None) -> None:
    """Read, do the runs that are missing, write, print. Raises as fit does."""
    config = config_of(arguments)
    if arguments.seeds < 1 or arguments.attacked < 1 or not 0 <= arguments.smoothing < 1:
        raise Refusal("setting_invalid", "--seeds and --attacked start at 1; --smoothing lies in 0..1, 1 excluded.")

    from training import experiment, label_sets
    from training.data import open_images

    sets = label_sets.label_sets_of(arguments.labels, arguments.m)
    if arguments.until_stdin_closes:
        threading.Thread(target=_stop_when_stdin_closes, daemon=True).start()
    read = [*(arguments.release or [arguments.answers or arguments.reference]), arguments.images]
    _say(f"Reading {' and '.join(map(str, read))}")
    with tempfile.TemporaryDirectory() as scratch:
        said, others = None, {}
        for place in arguments.release or ():
            path = label_sets.release_at(place, Path(scratch), os.environ.get("ELICIT_TOKEN"))
            release = label_sets.said_in_release(read_release(path))
            if said is None:
                said = release
            elif (name := label_sets.name_of(place)) in others:
                raise Refusal("releases_alike", f"Two further releases are called {name}: rename one.")
            else:
                others[name] = release
        if arguments.answers is not None:
            said = label_sets.said_in_published(arguments.answers)
        votes = None if arguments.reference is None else label_sets.Votes.read(arguments.reference)
    sources = label_sets.Sources(said, votes, arguments.rest, arguments.smoothing, others)
    archive = open_images(arguments.images)
    data = {
        "images": archive.origin,
        "answers": None if said is None else {"origin": said.origin, "digest": said.digest},
        "reference": None if votes is None else {"origin": votes.origin, "digest": votes.digest},
        "split": "published" if arguments.protocol is not None else "drawn",
        **({"others": {name: each.digest for name, each in others.items()}} if others else {}),
    }
    laid_out = experiment.lay_out(archive, arguments.protocol, sources, config, attacked=arguments.attacked, data=data)
    with experiment.processes(config.device):
        if not experiment.writes():
            experiment.run_all(laid_out, sets, arguments.seeds, arguments.output, _nothing)
            return
        with experiment.alone_in(arguments.output):
            finished = experiment.run_all(laid_out, sets, arguments.seeds, arguments.output, _say)

            from training import comparing

            cost = comparing.Cost(arguments.hourly_pay, arguments.currency, arguments.vote_seconds)
            results = comparing.results_of(laid_out, finished)
            result = comparing.result_of(laid_out, results, cost, _command_line(sys.argv[1:] if argv is None else argv))
            paths = comparing.write_report(arguments.output, results, result)
    print(comparing.table_of(result))
    print(f"Wrote {', '.join(path.name for path in paths)} to {arguments.output}.")


def _command_line(argv: Sequence[str]) -> str:
    """What to type again; of paths their last part alone, since a report is shown to others."""
    said = [word if "://" in word else Path(word).name or word for word in argv]
    return shlex.join(["python", "-m", "training", *said])


def _stop_when_stdin_closes() -> None:
    # Not sys.stdin: a thread that waits in it holds a lock without which Python can't end.
    while os.read(0, 1):
        pass
    # What is written appears whole or not at all, so nothing has to be tidied.
    os._exit(130)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _nothing(line: str) -> None:
    """For the processes that leave the talking to the first one."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0 done, 2 refused, 130 interrupted."""
    arguments = parser().parse_args(argv)
    # Read by CUDA's libraries when torch loads them; without it deterministic kernels are refused there.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        if arguments.command == "fit":
            fit(arguments)
        else:
            compare(arguments, argv)
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

"""Stands in for `python -m training compare` where a test is about its keeper: it keeps the same promises, and its
networks are a counter. Each epoch is a line of `output/epochs`; `--wait` is how long one takes, in seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from pathlib import Path

RUNS, EPOCHS = 2, 5


def stop_when_stdin_closes() -> None:
    # Not sys.stdin: a thread that holds its lock lets no Python end in peace.
    while os.read(0, 1):
        pass
    os._exit(3)


def report(output: Path) -> None:
    metrics = {"cross_entropy": {"mean": 1.25, "low": 1.0, "high": 1.5}, "accuracy": {"mean": 0.5, "low": None}}
    sets = {
        "hard": {"metrics": metrics},
        "released": {"metrics": {**metrics, "cross_entropy": {"mean": 0.75, "low": 0.5, "high": 1.0}}},
    }
    images = {"train": 8, "held_out": 4}
    result = {"sets": sets, "people": {"entropy": 0.5}, "images": images, "seconds": 1.0}
    result |= {"findings": ["released − hard: −0.5000 nats."], "figures": {"gaps": "Of <labels>."}}
    (output / "result.json").write_text(json.dumps(result))
    (output / "report.html").write_text("<!doctype html><html lang='en'><title>What the labels buy</title><h1>So</h1>")
    (output / "gaps.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20"/>')


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--until-stdin-closes", action="store_true", required=True)
    parser.add_argument("--wait", type=float, default=0.01)
    parser.add_argument("--fail", action="store_true")
    known, _ = parser.parse_known_args()
    threading.Thread(target=stop_when_stdin_closes, daemon=True).start()
    output: Path = known.output
    Path(os.environ["HOME"], "environment.json").write_text(json.dumps(dict(os.environ)))
    Path(os.environ["HOME"], "pid").write_text(str(os.getpid()))
    if known.fail:
        sys.stderr.write(f"Reading.\n{output}/runs holds a run of other data.\n")
        sys.exit(2)
    epochs = output / "epochs"
    for number in range(len(epochs.read_text().split()) if epochs.exists() else 0, RUNS * EPOCHS):
        time.sleep(known.wait)
        with epochs.open("a") as out:
            out.write(f"{number}\n")
        told = {
            "done": number + 1,
            "total": RUNS * EPOCHS,
            "run": number // EPOCHS + 1,
            "runs": RUNS,
            "label_set": "hard",
            "seed": 0,
            "epoch": number % EPOCHS + 1,
            "epochs": EPOCHS,
            "seconds_left": 90 * known.wait,
        }
        part = output / "progress.part"
        part.write_text(json.dumps(told))
        part.replace(output / "progress.json")
    report(output)


if __name__ == "__main__":
    main()

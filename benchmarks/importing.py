"""What an import of images costs: `python -m benchmarks.importing`, half a minute.

A zip of 10,000 small PNGs in ten folders (noise of 32 x 32 pixels unless told otherwise) is imported into a
fresh SQLite site by `services.images.fill_from_files`, as the worker does it, and beside it, in the same run and on the
same files, a plain loop opens and verifies each with Pillow and does nothing else. Both in processes of their own, so
that each has its own peak of memory. The command exits with 1 where the import takes more than 60 s or 300 MB.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import PIL.Image

MOST_SECONDS = 60
MOST_MB = 300


@dataclass(frozen=True)
class Figures:
    images: int
    seconds: float
    per_second: float
    peak_mb: float


def write(path: Path, images: int, side: int) -> None:
    """A zip of images, image i in the folder of class i modulo ten."""
    random = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as packed:
        for number in range(images):
            small = random.integers(0, 256, (max(2, side // 8), max(2, side // 8), 3), dtype=np.uint8)
            smooth = np.asarray(PIL.Image.fromarray(small).resize((side, side), PIL.Image.Resampling.BICUBIC)).astype(
                int
            )
            noisy = np.clip(smooth + random.integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8)
            buffer = io.BytesIO()
            PIL.Image.fromarray(noisy).save(buffer, "PNG")
            packed.writestr(f"set/class {number % 10}/{number}.png", buffer.getvalue())


def ours(path: Path) -> int:
    """Import it into the site that the environment names."""
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    from annotations.models import Dataset
    from annotations.services import images
    from elicit import folders

    dataset = Dataset.objects.create(slug="benchmark", name="Benchmark")
    began = time.perf_counter()
    count, problems = images.fill_from_files(dataset, folders.open_source(path))
    report(count, began)
    return count - dataset.images.count() + problems.count


def plain(path: Path) -> int:
    """Open and verify each image with Pillow, and nothing else."""
    began = time.perf_counter()
    count = 0
    with zipfile.ZipFile(path) as packed:
        for name in packed.namelist():
            with packed.open(name) as file:
                PIL.Image.open(io.BytesIO(file.read())).verify()
            count += 1
    report(count, began)
    return 0


def report(images: int, began: float) -> None:
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(asdict(Figures(images, round(seconds, 2), round(images / seconds), round(peak)))))


def measured(what: str, path: Path, site: Path) -> Figures:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ELICIT_")}
    environment |= {"ELICIT_VAR": str(site), "DJANGO_SETTINGS_MODULE": "elicit.settings"}
    command = [sys.executable, "-m", "benchmarks.importing", "--only", what, "--zip", str(path)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return Figures(**json.loads(done.stdout.splitlines()[-1]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=32, help="pixels")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--only", choices=["import", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--zip", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        return {"import": ours, "plain": plain}[options.only](options.zip)
    with tempfile.TemporaryDirectory(prefix="elicit-importing-") as folder:
        path = Path(folder) / "images.zip"
        write(path, options.images, options.side)
        figures = {what: measured(what, path, Path(folder) / what) for what in ("plain", "import")}
    if options.json:
        print(json.dumps({what: asdict(each) for what, each in figures.items()}))
    else:
        for what, label in (("import", "import"), ("plain", "Pillow's open and verify alone")):
            each = figures[what]
            print(f"{label}: {each.seconds} s, {each.per_second:,} images/s, {each.peak_mb:.0f} MB at most")
    found = figures["import"]
    return int(found.seconds > MOST_SECONDS or found.peak_mb > MOST_MB)


if __name__ == "__main__":
    sys.exit(main())

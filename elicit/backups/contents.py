"""Which files belong into a backup, and which of them the rows of a database name.

Everything below `media` and `images` is kept; of releases what is published; of training what is finished. An
unfinished build or training run starts anew from its row, and whatever else lies in ELICIT_VAR can be made again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

from annotations.selectors import datasets
from exports import selectors as exported


def images_on_disk() -> bool:
    """Whether images lie in a folder of this machine, not in a bucket."""
    return "bucket_name" not in settings.STORAGES["images"]["OPTIONS"]


def roots() -> dict[str, Path]:
    """The folders by their name in the archive."""
    found = {
        "releases": Path(settings.RELEASES_ROOT),
        "training": Path(settings.TRAINING_ROOT),
        "media": Path(settings.MEDIA_ROOT),
    }
    if images_on_disk():
        found["images"] = Path(settings.STORAGES["images"]["OPTIONS"]["location"])
    return found


def named(using: str) -> set[str]:
    """The files that rows of this database name: without one of them something can't be shown, given out or done."""
    found = {f"media/{name}" for name in datasets.import_files(using)}
    found |= {f"releases/{name}" for name in exported.release_files(using)}
    found |= {f"training/{name}" for name in exported.training_files(using)}
    if images_on_disk():
        found |= {f"images/{name}" for name in datasets.image_files(using)}
    return found


def kept(using: str) -> Iterator[tuple[str, Path]]:
    """Every file to keep, by its name in the archive. One that goes meanwhile is listed, or not."""
    places = roots()
    for folder in ("images", "media"):
        if folder in places:
            yield from _below(places[folder], folder)
    for name in exported.release_files(using):
        yield f"releases/{name}", places["releases"] / name
    for name in exported.training_files(using):
        # The whole report, which lies beside the file that is named.
        yield from _below((places["training"] / name).parent, f"training/{Path(name).parent.as_posix()}")


def held(files: Iterator[tuple[str, Path]], into: Path) -> set[str]:
    """Keep hold of these files below `into`, whoever removes them from where they lie; the names of those found.

    By a second name for the same bytes (a hard link), or by a copy where the disk can't do that.
    """
    found = set()
    for name, path in files:
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, target)
        except FileNotFoundError:
            continue
        except FileExistsError:
            pass
        except OSError:
            try:
                shutil.copyfile(path, target)
            except FileNotFoundError:
                target.unlink(missing_ok=True)
                continue
        found.add(name)
    return found


def anything_there() -> bool:
    """Whether releases, training results or images lie here."""
    return any(any(_below(root, name)) for name, root in roots().items())


def remove_all_but(files: set[str]) -> None:
    """Remove what lies in the folders of a backup and is not of it; links too, and folders that are empty then."""
    for name, root in roots().items():
        for folder, inside, leaves in os.walk(root, topdown=False):
            here = Path(folder)
            for leaf in (*leaves, *inside):
                path = here / leaf
                if path.is_symlink() or (leaf in leaves and f"{name}/{path.relative_to(root).as_posix()}" not in files):
                    path.unlink(missing_ok=True)
            if here != root and not any(here.iterdir()):
                here.rmdir()


def _below(root: Path, name: str) -> Iterator[tuple[str, Path]]:
    """Regular files, without those that are being written."""
    for folder, inside, leaves in os.walk(root):
        inside[:] = sorted(each for each in inside if not each.startswith("."))
        for leaf in sorted(leaves):
            path = Path(folder) / leaf
            if not leaf.startswith((".", "incomplete-")) and path.is_file() and not path.is_symlink():
                yield f"{name}/{path.relative_to(root).as_posix()}", path

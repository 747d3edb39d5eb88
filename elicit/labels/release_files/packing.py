"""A release as one .zip."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elicit.labels.release_files.common import MANIFEST, PIECE, Progress, silent
from elicit.labels.release_files.reading import Folder, Watched, read_manifest

# Quick before small: text this regular is a few per cent larger for it.
_LEVEL = 1
# Sizes from here on need the longer header; zipfile would find out too late.
_ZIP64_LIMIT = 2_000_000_000


def zip_release(directory: Path, target: Path, *, progress: Progress | None = None) -> Path:
    """Pack the release in ``directory`` as the .zip ``target`` and return that; same release, same bytes.

    The one folder inside is called after the study and the version (``<study>-v<version>``) where the facts
    name the study's slug under ``study_slug`` or ``study``, else ``release-v<version>``. ``progress`` hears of
    megabytes. Raises Refusal ``release_not_found``, ``release_unknown_format`` or ``release_damaged``.
    """
    source = Folder(directory)
    manifest = read_manifest(source)
    folder = _folder_name(manifest)
    files: Mapping[str, Any] = manifest["files"]
    done, total = 0, sum(seal["bytes"] for seal in files.values())
    tell = progress or silent
    part = target.with_name(target.name + ".part")
    # Always another file, as in `durable`: a .zip is not written from its beginning to its end.
    part.unlink(missing_ok=True)
    try:
        with part.open("xb") as out:
            with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
                for name in sorted([*files, MANIFEST]):
                    size = files[name]["bytes"] if name != MANIFEST else 0
                    # By name, not by ZipInfo.from_file, which would record the clock and the owner's permissions.
                    with archive.open(f"{folder}/{name}", "w", force_zip64=size > _ZIP64_LIMIT) as packed:
                        if name == MANIFEST:
                            packed.write((directory / MANIFEST).read_bytes())
                            continue
                        with Watched(source, name, files[name]) as file:
                            while piece := file.read(PIECE):
                                packed.write(piece)
                                done += len(piece)
                                tell("packing", done >> 20, total >> 20)
                for info in archive.infolist():
                    info.create_system = 3
                    info.external_attr = 0o644 << 16
            out.flush()
            os.fsync(out.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _folder_name(manifest: Mapping[str, Any]) -> str:
    facts = manifest.get("facts", {})
    for key in ("study_slug", "study"):
        slug = facts.get(key)
        if isinstance(slug, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", slug):
            return f"{slug}-v{manifest['version']}"
    return f"release-v{manifest['version']}"

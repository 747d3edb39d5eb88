"""A folder that a curator's browser sends in many requests, until its import begins.

Each request becomes a numbered zip in the import's own folder, whole or not at all: sending one again replaces it. The
import reads them as one archive, so that no name from outside ever names a file on the disk.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.db import transaction

from annotations.errors import refuse
from annotations.kinds import IMPORT_IMAGES
from annotations.models import Dataset, ImageImport
from jobs import services as jobs
from jobs.models import Job

MOST_PARTS = 20_000
# What was sent is kept for so long after the last request, if no import begins.
KEPT = timedelta(days=1)
# Django reads no more files of one request than this.
FILES_AT_ONCE = 100
BYTES_AT_ONCE = 16 << 20
_PART = re.compile(r"part-(\d{5})-(\d{3})\.zip")


def folder(wanted: ImageImport) -> Path:
    return Path(settings.MEDIA_ROOT) / "incoming" / str(wanted.pk)


def parts(wanted: ImageImport) -> dict[int, Path]:
    """What has come so far, by number."""
    found = [(_PART.fullmatch(path.name), path) for path in sorted(folder(wanted).glob("part-*.zip"))]
    return {int(match[1]): path for match, path in found if match}


def store_part(wanted: ImageImport, number: int, files: Sequence[tuple[str, UploadedFile]]) -> None:
    """Keep one request's files under the names they have in the curator's folder.

    Raises:
        AnnotationError: `upload_wrong`, or `upload_closed` once the import has begun.
    """
    if not 0 <= number < MOST_PARTS or not 1 <= len(files) <= FILES_AT_ONCE:
        raise refuse("upload_wrong")
    _refuse_begun(wanted)
    there = parts(wanted)
    known = sum(path.stat().st_size for key, path in there.items() if key != number)
    if known + sum(file.size or 0 for _, file in files) > settings.IMAGE_MOST_TOTAL:
        raise refuse("upload_wrong", f"The folder is larger than {settings.IMAGE_MOST_TOTAL // 10**6:,} MB.")
    target = folder(wanted)
    target.mkdir(parents=True, exist_ok=True)
    descriptor, written = tempfile.mkstemp(prefix="incomplete-", dir=target)
    try:
        with os.fdopen(descriptor, "wb") as stream, zipfile.ZipFile(stream, "w") as packed:
            for name, file in files:
                with packed.open(zipfile.ZipInfo(name or "?"), "w") as entry:
                    for chunk in file.chunks():
                        entry.write(chunk)
        for old in target.glob(f"part-{number:05}-*.zip"):
            old.unlink()
        Path(written).replace(target / f"part-{number:05}-{len(files):03}.zip")
    finally:
        Path(written).unlink(missing_ok=True)


@transaction.atomic
def begin(wanted: ImageImport, *, parts_sent: int, files_sent: int) -> Job:
    """Queue the import of a folder that has come whole.

    Raises:
        AnnotationError: `upload_incomplete`, or `upload_closed` once the import has begun.
    """
    Dataset.objects.select_for_update().get(pk=wanted.dataset_id)
    _refuse_begun(wanted)
    there = parts(wanted)
    for number in [number for number in there if number >= parts_sent]:
        # Left over from a larger folder that was chosen before.
        there.pop(number).unlink(missing_ok=True)
    files = sum(int(match[2]) for path in there.values() if (match := _PART.fullmatch(path.name)))
    if not files or sorted(there) != list(range(parts_sent)) or files != files_sent:
        raise refuse("upload_incomplete")
    return jobs.enqueue(IMPORT_IMAGES, wanted.pk)


def discard(wanted: ImageImport) -> None:
    """Remove everything that was sent for this import."""
    shutil.rmtree(folder(wanted), ignore_errors=True)
    for sent in (wanted.file, wanted.labels):
        if sent:
            sent.storage.delete(sent.name)


def sweep(now: datetime) -> int:
    """Remove what was sent for imports that never began, and for imports that are gone. Returns how many folders went.

    The request for the import stays: sending the folder again begins anew. Idempotent, and safe in several processes.
    """
    incoming = Path(settings.MEDIA_ROOT) / "incoming"
    removed = 0
    for upload in Path(settings.FILE_UPLOAD_TEMP_DIR).glob("*.upload*"):
        # Of a web process that was killed while it came.
        with suppress(FileNotFoundError):
            if _is_old(upload.stat().st_mtime, now):
                upload.unlink()
    for there in sorted(incoming.iterdir()) if incoming.is_dir() else []:
        # Outside the lock: most of them are not due.
        if not there.name.isdecimal() or not _is_due(there, now):
            continue
        with transaction.atomic():
            wanted = ImageImport.objects.filter(pk=int(there.name)).first()
            if wanted is not None:
                # As `begin` does, so that none begins meanwhile.
                Dataset.objects.select_for_update().filter(pk=wanted.dataset_id).first()
                if _has_begun(wanted) or not _is_due(there, now):
                    continue
            shutil.rmtree(there, ignore_errors=True)
            removed += 1
    return removed


def _is_due(there: Path, now: datetime) -> bool:
    """Whether nothing has come into this folder for as long as it is kept."""
    try:
        last = max(path.stat().st_mtime for path in (there, *there.iterdir()))
    except FileNotFoundError:
        return False
    return _is_old(last, now)


def _is_old(changed: float, now: datetime) -> bool:
    return datetime.fromtimestamp(changed, UTC) + KEPT <= now


def _has_begun(wanted: ImageImport) -> bool:
    return Job.objects.filter(kind=IMPORT_IMAGES, subject=str(wanted.pk)).exists()


def _refuse_begun(wanted: ImageImport) -> None:
    if wanted.source != ImageImport.Source.FOLDER or _has_begun(wanted):
        raise refuse("upload_closed")

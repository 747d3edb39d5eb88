"""The names of this app's background work: what services queue and tasks do."""

from __future__ import annotations

CHECK_SESSION = "annotations.check_session"
IMPORT_IMAGES = "annotations.import_images"

"""The names of this app's background work."""

from __future__ import annotations

BUILD_RELEASE = "exports.build_release"
REMOVE_FILES = "exports.remove_files"
# On a queue of its own: settings.CELERY_TASK_ROUTES.
TRAIN = "exports.train"
REMOVE_TRAINING = "exports.remove_training"

from __future__ import annotations

from exports import building, kinds
from jobs.tasks import durable

build_release = durable(kinds.BUILD_RELEASE)(building.build_release)
remove_files = durable(kinds.REMOVE_FILES)(building.remove_files)

from __future__ import annotations

from exports import kinds, services
from jobs.tasks import durable

build_release = durable(kinds.BUILD_RELEASE)(services.build_release)

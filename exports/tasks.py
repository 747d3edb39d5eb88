from __future__ import annotations

from exports import building, kinds, training
from jobs.tasks import durable

build_release = durable(kinds.BUILD_RELEASE)(building.build_release)
remove_files = durable(kinds.REMOVE_FILES)(building.remove_files)
train = durable(kinds.TRAIN)(training.train)
remove_training = durable(kinds.REMOVE_TRAINING)(training.remove)

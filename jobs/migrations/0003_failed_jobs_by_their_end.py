from __future__ import annotations

from typing import ClassVar

from django.db import migrations, models
from django.db.models import Q

from elicit.migrating import AddIndexSafely


class Migration(migrations.Migration):
    atomic = False

    dependencies: ClassVar = [("jobs", "0002_when_a_stage_began")]

    operations: ClassVar = [
        AddIndexSafely("job", models.Index(condition=Q(status="failed"), fields=["finished_at"], name="job_failed")),
    ]

from __future__ import annotations

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies: ClassVar = [("jobs", "0001_initial")]

    operations: ClassVar = [
        migrations.AddField(
            model_name="job",
            name="stage_at",
            field=models.DateTimeField(blank=True, help_text="When it came to this stage.", null=True),
        ),
    ]

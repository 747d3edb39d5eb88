from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("annotations", "0006_seal_ids")]

    operations = [
        migrations.RemoveField(model_name="participant", name="platform_id"),
        migrations.AddConstraint(
            model_name="participant",
            constraint=models.UniqueConstraint(
                condition=models.Q(("platform_id_key", ""), _negated=True),
                fields=("study", "platform_id_key"),
                name="participant_platform_id_once_per_study",
            ),
        ),
        migrations.AddConstraint(
            model_name="participant",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("platform_id_key", ""), ("platform_id_sealed", "")),
                    models.Q(
                        models.Q(("platform_id_sealed", ""), _negated=True),
                        models.Q(("platform_id_key", ""), _negated=True),
                    ),
                    _connector="OR",
                ),
                name="participant_sealed_id_has_key",
            ),
        ),
    ]

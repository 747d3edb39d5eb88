from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("annotations", "0004_check_items")]

    operations = [
        migrations.RemoveConstraint(model_name="participant", name="participant_platform_id_once_per_study"),
        migrations.AlterModelOptions(
            name="participant",
            options={
                "ordering": ("-pk",),
                "permissions": [("view_platform_id", "Can see the ids that recruiting platforms gave")],
            },
        ),
        migrations.AddField(
            model_name="participant",
            name="platform_id_sealed",
            field=models.TextField(blank=True, default="", editable=False, verbose_name="platform id, sealed"),
        ),
        migrations.AddField(
            model_name="participant",
            name="platform_id_key",
            field=models.CharField(
                blank=True,
                default="",
                editable=False,
                help_text="By which a returning person is found.",
                max_length=64,
            ),
        ),
    ]

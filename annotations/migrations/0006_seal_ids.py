"""Seal the platform ids that are there. Pseudonyms stay as they are: releases hold them."""

from __future__ import annotations

from typing import Any

from django.db import migrations

from annotations.sealing import fingerprint, seal, unseal


def seal_ids(apps: Any, schema_editor: Any) -> None:
    participants = apps.get_model("annotations", "Participant")
    for participant in participants.objects.exclude(platform_id="").iterator():
        participant.platform_id_key = fingerprint("platform id", str(participant.study_id), participant.platform_id)
        participant.platform_id_sealed = seal(participant.platform_id)
        participant.platform_id = ""
        participant.save(update_fields=["platform_id", "platform_id_sealed", "platform_id_key"])


def unseal_ids(apps: Any, schema_editor: Any) -> None:
    participants = apps.get_model("annotations", "Participant")
    for participant in participants.objects.exclude(platform_id_sealed="").iterator():
        participant.platform_id = unseal(participant.platform_id_sealed)
        participant.platform_id_sealed = participant.platform_id_key = ""
        participant.save(update_fields=["platform_id", "platform_id_sealed", "platform_id_key"])


class Migration(migrations.Migration):
    dependencies = [("annotations", "0005_sealed_ids")]

    operations = [migrations.RunPython(seal_ids, unseal_ids)]

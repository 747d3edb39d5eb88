from __future__ import annotations

from typing import Any

from django.db import migrations


def fill(apps: Any, schema_editor: Any) -> None:
    """A trial asked what its study asks; until now no study asked both."""
    trials = apps.get_model("annotations", "Trial").objects
    trials.filter(session__study__framing="self").update(framing="self")


class Migration(migrations.Migration):
    dependencies = [("annotations", "0002_screen_and_leaving")]

    operations = [migrations.RunPython(fill, migrations.RunPython.noop, elidable=True)]

"""Places made before there were turns are handed out as they were: the least filled first."""

from django.db import migrations
from django.db.models import F


def give_turns(apps, schema_editor):  # type: ignore[no-untyped-def]
    apps.get_model("annotations", "Place").objects.filter(turn__isnull=True).update(turn=F("number"))


class Migration(migrations.Migration):
    dependencies = [("annotations", "0008_console")]
    operations = [migrations.RunPython(give_turns, migrations.RunPython.noop)]

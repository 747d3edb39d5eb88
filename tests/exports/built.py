"""Builds releases of a made-up study: `python -m tests.exports.built [backwards]`, on the site of its environment.

Prints the manifest and the hash of the .zip of each. Backwards, the answers were stored in the opposite order.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "elicit.settings")

RECIPES = ("published", "recommended", "tall-uniform")


def main(backwards: bool) -> dict[str, Any]:
    from django.core.management import call_command

    from annotations.models import Participant, Response
    from exports import recipes
    from tests import crowds
    from tests import factories as make

    call_command("migrate", verbosity=0)
    study = crowds.answered_study(20, 8)
    # Letters that each database's collation sorts its own way.
    for number, person in enumerate(Participant.objects.order_by("annotator")):
        person.annotator = f"{('ab', 'Åa', 'aB', 'é', '_b')[number % 5]}{number:02}"
        person.save()
    if backwards:
        responses = list(Response.objects.order_by("pk"))
        Response.objects.all().delete()
        Response.objects.bulk_create(responses[::-1])
    built = {}
    for name in RECIPES:
        release = make.make_release(study, recipes.recipe(name, include_repeats=name == "tall-uniform"))
        assert release.is_ready
        built[name] = {"manifest": release.manifest, "zip_sha256": release.zip_sha256}
    return built


if __name__ == "__main__":
    django.setup()
    print(json.dumps(main("backwards" in sys.argv)))  # noqa: T201

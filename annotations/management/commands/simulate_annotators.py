"""`manage.py simulate_annotators`: let named characters take part in a study, over HTTP."""

from __future__ import annotations

import threading
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.core.wsgi import get_wsgi_application

from annotations import selectors
from annotations.models import Image, Study, StudyStatus
from annotations.simulation.characters import CHARACTERS, Character, mix
from annotations.simulation.walker import Outcome, Walker, WalkError


class Command(BaseCommand):
    help = (
        "Simulated annotators walk a live study's real pages: careful, careless, contradictory (their contradictions "
        "must be refused), hurried, and some who leave half-way. They practise and take the comprehension check, which "
        "careless ones fail sometimes. Their answers are made up: use a study of its own."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--study", required=True, metavar="SLUG")
        parser.add_argument("--count", type=int, default=12, metavar="N", help="how many take part (default 12)")
        parser.add_argument("--leavers", type=int, default=0, metavar="N", help="how many more leave half-way")
        parser.add_argument("--character", choices=sorted(CHARACTERS), help="all of one kind (default: a mix)")
        parser.add_argument("--url", help="a running server (default: a server of its own, on the same database)")
        parser.add_argument("--at-once", type=int, default=2, metavar="N", help="how many at a time (default 2)")
        parser.add_argument("--seed", type=int, default=0)

    def handle(self, *, study: str, count: int, leavers: int, character: str | None, seed: int, **options: Any) -> None:
        row = Study.objects.filter(slug=study).first()
        if row is None or row.status != StudyStatus.LIVE:
            raise CommandError(f"There is no live study {study}.")
        people = [CHARACTERS[character]] * count if character else mix(count)
        # Leavers go first: whoever comes later finds less room, as in life.
        people = [CHARACTERS["leaver"]] * leavers + people
        references = _references(row)
        right = {question["name"]: question["answer"] for question in row.comprehension}
        seeds = np.random.SeedSequence(seed).generate_state(len(people))

        def walk(number: int, url: str, person: Character) -> Outcome:
            walker = Walker(
                url, study, person, int(seeds[number]), lambda image: references.get(_sha256(image)), right=right
            )
            return walker.walk()

        try:
            with _server(options["url"]) as url, ThreadPoolExecutor(max(1, options["at_once"])) as pool:
                walks = [pool.submit(walk, number, url, person) for number, person in enumerate(people)]
                outcomes = [each.result() for each in walks]
        except (WalkError, OSError) as error:
            raise CommandError(str(error)) from error
        self._report(outcomes)

    def _report(self, outcomes: list[Outcome]) -> None:
        for (character, ended), number in sorted(Counter((o.character, o.ended) for o in outcomes).items()):
            self.stdout.write(f"{number:4d} {character}: {ended.replace('_', ' ')}")
        answered, refused = sum(o.answered for o in outcomes), sum(o.refused for o in outcomes)
        practised = sum(o.practised for o in outcomes)
        practice = f", {practised:,} to practise" if practised else ""
        self.stdout.write(f"{answered:,} answers stored{practice}, {refused:,} contradictions refused.")


def _references(study: Study) -> dict[str, int | None]:
    images = Image.objects.filter(study_images__study=study).values_list("sha256", "reference")
    practice = [(image.sha256, image.reference) for image in selectors.practice_images(study).values()]
    return dict([*images, *practice])


def _sha256(image_url: str) -> str:
    return image_url.rsplit("/", 1)[-1].split("-")[0]


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a line for each request would drown the report."""


@contextmanager
def _server(url: str | None) -> Iterator[str]:
    """The address of a server: the one named, or one of our own on a free port."""
    if url:
        yield url
        return
    # All of them come from one address, and as fast as they can.
    rates, settings.RATES = settings.RATES, {}
    server = ThreadedWSGIServer(("127.0.0.1", 0), _QuietHandler)
    server.set_app(get_wsgi_application())
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        settings.RATES = rates
        server.shutdown()
        server.server_close()
        thread.join()

"""What a crowd waits for that comes all at once: `python -m benchmarks.burst`, some four minutes.

2,000 people open a study's link within 10 seconds, agree, leave the instructions and get their first trial, on the
pages that a browser gets. The study has room for just so many. They read consent and instructions: half of them take
longer than `--read` seconds for a page, most a third to three times as long. With `--read 0` nobody reads, and all five
requests of everybody come as fast as the site lets them. Reading is no waiting. The site
runs as in `benchmarks.serve`; it and the crowd, a process with a thread for each of them, share the machine. Images and
static files, which a proxy sends or a browser keeps, are not fetched.

Exits with 1 where somebody is refused, or waits 10 seconds or longer, all answers together, or where an image has more
or fewer places taken than K.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import os
import random
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np

from benchmarks import apart, serve
from tests import services

MOST_WAIT_SECONDS = 10.0
# Less than gunicorn's two seconds.
KEPT_OPEN_SECONDS = 1.5
PER_SESSION = 25
IMAGES = 1000


@dataclass(frozen=True)
class Figures:
    """Seconds of waiting for the site, from opening the link to the first trial. ``statuses``: of what came instead."""

    people: int
    within_seconds: float
    read_seconds: float
    at_their_first_trial: int
    statuses: dict[str, int]
    wait_p50: float
    wait_p95: float
    wait_most: float
    consent_page_p95: float
    seconds_in_all: float
    k_exact: bool
    load: float

    @property
    def falls_short(self) -> bool:
        everybody = self.at_their_first_trial == self.people
        return not (everybody and self.k_exact and self.wait_most < MOST_WAIT_SECONDS)


# --- Parts that run in the site's settings


def prepare(people: int) -> str:
    """A live study with room for so many; its slug."""
    import django

    django.setup()
    from django.core.management import call_command

    from tests import factories as make

    call_command("migrate", verbosity=0)
    call_command("collectstatic", verbosity=0, interactive=False)
    study = make.make_study(
        dataset=make.make_dataset(IMAGES),
        images_per_session=PER_SESSION,
        labels_per_image=people * PER_SESSION // IMAGES,
    )
    return study.slug


def is_exact() -> bool:
    """Whether every place is taken, by a session that shows just its images."""
    import django

    django.setup()
    from django.db.models import Count

    from annotations.models import Place, Study, Trial

    study = Study.objects.get()
    labels = Trial.objects.filter(place__isnull=False).order_by().values_list("image").annotate(labels=Count("pk"))
    counts = [number for _, number in labels]
    free = Place.objects.filter(session__isnull=True).count()
    return free == 0 and len(counts) == IMAGES and set(counts) == {study.labels_per_image}


# --- The crowd


class Refused(Exception):
    """An answer that is no step towards the first trial."""


class Person:
    """One browser: a connection, its cookies, and how long it waited."""

    def __init__(self, url: str, reads: Iterator[float]) -> None:
        where = urlsplit(url)
        self._reads = reads
        self._connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
        self._cookies: dict[str, str] = {}
        self.waited = self.first = 0.0

    def _ask(self, method: str, path: str, form: dict[str, str] | None = None) -> tuple[int, str, str]:
        headers = {
            "Host": serve.HOST,
            "X-Forwarded-Proto": "https",
            "X-Forwarded-For": "192.0.2.1",
            "Referer": f"https://{serve.HOST}/",
            "Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items()),
        }
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        began = time.perf_counter()
        self._connection.request(method, path, urlencode(form or {}) if form is not None else None, headers)
        answer = self._connection.getresponse()
        body = answer.read().decode()
        self.waited += time.perf_counter() - began
        self.first = self.first or self.waited
        for line in answer.headers.get_all("Set-Cookie", []):
            name, _, value = line.partition(";")[0].partition("=")
            self._cookies[name] = value
        return answer.status, answer.headers.get("Location", ""), body

    def _page(self, path: str) -> str:
        status, _, body = self._ask("GET", path)
        if status != 200:
            raise Refused(f"GET {status}")
        return body

    def _read(self, path: str) -> str:
        body = self._page(path)
        # A browser lets go of the connection sooner than people have read.
        if (seconds := next(self._reads)) > KEPT_OPEN_SECONDS:
            self._connection.close()
        time.sleep(seconds)
        return body

    def _send(self, path: str, page: str, **form: str) -> str:
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
        said = {"csrfmiddlewaretoken": token[1] if token else "", **form}
        status, location, _ = self._ask("POST", path, said)
        if status != 302:
            raise Refused(f"POST {status}")
        return location

    def come(self, slug: str) -> None:
        """From the link to the first trial."""
        consent = self._read(f"/study/{slug}/")
        here = self._send(f"/study/{slug}/", consent, agree="on", version="1")
        self._send(f"{here}instructions", self._read(here))
        if 'id="trial-data"' not in self._page(here):
            raise Refused("no trial")
        self._connection.close()


def readings(number: int, median: float) -> Iterator[float]:
    """How many seconds this person reads each page."""
    draw = random.Random(number)
    while True:
        yield draw.lognormvariate(math.log(median), 0.55) if median else 0.0


def crowd(url: str, slug: str, people: int, within: float, read: float) -> dict[str, Any]:
    """Everybody comes, evenly spread over this time. Their waits, and what kept the others."""
    waits: list[tuple[float, float]] = []
    kept: Counter[str] = Counter()
    began = time.perf_counter()

    def one(number: int) -> None:
        time.sleep(max(0.0, began + number * within / people - time.perf_counter()))
        person = Person(url, readings(number, read))
        try:
            person.come(slug)
        except (Refused, OSError, http.client.HTTPException) as error:
            kept[str(error) or type(error).__name__] += 1
        else:
            waits.append((person.waited, person.first))

    threading.stack_size(256 * 1024)
    threads = [threading.Thread(target=one, args=(number,)) for number in range(people)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"waits": waits, "kept": dict(kept), "seconds": time.perf_counter() - began}


def measure(people: int, within: float, read: float) -> Figures:
    server, broker = services.own_postgres(durable=True).url, services.redis()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="elicit-burst-")))
        site = serve.environment(server, broker, folder)
        slug = apart.run("burst", {**os.environ, **site}, "prepare", people)
        serve.analyze(site["ELICIT_DATABASE_URL"])
        web = stack.enter_context(services.gunicorn(serve.web_command(), site))
        busy = os.getloadavg()[0]
        came = apart.run("burst", os.environ, "crowd", web.url, slug, people, within, read)
        waits, firsts = (
            (np.array(each) for each in zip(*came["waits"], strict=True)) if came["waits"] else ([0.0], [0.0])
        )
        return Figures(
            people=people,
            within_seconds=within,
            read_seconds=read,
            at_their_first_trial=len(came["waits"]),
            statuses=came["kept"],
            wait_p50=float(np.quantile(waits, 0.5)),
            wait_p95=float(np.quantile(waits, 0.95)),
            wait_most=float(np.max(waits)),
            consent_page_p95=float(np.quantile(firsts, 0.95)),
            seconds_in_all=came["seconds"],
            k_exact=apart.run("burst", {**os.environ, **site}, "exact"),
            load=busy,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=2000, help="a multiple of 40: the study's K is people / 40")
    parser.add_argument("--within", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument("--read", type=float, default=30.0, metavar="SECONDS", help="half read a page for longer")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.people < 40 or options.people % 40:
        parser.error("--people: a multiple of 40")
    apart.forget_settings()
    found = measure(options.people, options.within, options.read)
    if options.json:
        print(json.dumps(asdict(found)))
    else:
        print(
            f"{found.people} people within {found.within_seconds:g} s, who read {found.read_seconds:g} s a page: "
            f"{found.at_their_first_trial} came to their first trial, others {found.statuses or 'none'}\n"
            f"  waited {found.wait_p50:.1f} s (median), {found.wait_p95:.1f} s (95th percentile), "
            f"{found.wait_most:.1f} s at most; the consent page {found.consent_page_p95:.1f} s (95th percentile)\n"
            f"  {found.seconds_in_all:.0f} s in all; K {'' if found.k_exact else 'NOT '}exact; load {found.load:.1f}"
        )
    raise SystemExit(found.falls_short)


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "elicit.settings")
    match sys.argv[1:]:
        case ["prepare", people]:
            print(json.dumps(prepare(int(people))))
        case ["exact"]:
            print(json.dumps(is_exact()))
        case ["crowd", url, slug, people, within, read]:
            print(json.dumps(crowd(url, slug, int(people), float(within), float(read))))
        case _:
            main()

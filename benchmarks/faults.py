"""What becomes of answers when things die: `python -m benchmarks.faults`, about four minutes for 100 sessions.

In Chromium, several at a time, people answer on the real screen of a real site (PostgreSQL, gunicorn). Each session
meets one fault, drawn by the seed, at a trial drawn by the seed: no network, a site that is killed and comes back, a
reply lost on its way, a tab closed or reloaded in the middle of sending, a double click, two tabs that answer the same
trial. An answer counts as accepted where the screen has gone on to something else, by what the eye sees; what was keyed
in is then looked for in the database. Prints a row for each fault and exits with 1 where an answer was lost, stored
twice or otherwise than it was keyed in, or where what was accepted is asked for again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psycopg2
from playwright.async_api import BrowserContext, Error, Page, Route, async_playwright
from tqdm import tqdm

from benchmarks.real_input import Installation, installation
from tests import services

TRIALS = 4
SECONDS_OFFLINE = 2.5
SECONDS_DOWN = 0.5
LOOKS_EVERY = 0.03
# An image that takes an answer for so long after the press was not left: the answer was not accepted.
STAYS = 1.5
# The site may die between a page and its script: a person loads such a page again after so long.
A_WHILE = 5.0
# A session that isn't through by then is given up, and counted as such.
PATIENCE = 90.0

# What somebody in front of the screen sees.
LOOK = """() => {
  const text = (selector) => document.querySelector(selector)?.textContent ?? "";
  const image = document.querySelector("#stimulus");
  const fieldset = document.querySelector("#categories");
  const asked = document.querySelector("#ask-again");
  return {
    step: document.body?.dataset.step ?? "",
    image: image?.getAttribute("src")?.match(/[0-9a-f]{64}/)?.[0] ?? "",
    ready: Boolean(fieldset && !fieldset.disabled && !image.classList.contains("loading")),
    done: text("#progress-text"),
    script: performance
      .getEntriesByType("resource")
      .some(({ name, responseStatus }) => name.endsWith("/trial.js") && responseStatus === 200),
    asked: Boolean(asked && !asked.hidden),
  };
}"""


# A screen reader's ear: all that is announced from now on.
LISTEN = """() => {
  window.heard = [];
  const line = document.querySelector("#announce");
  const changes = { childList: true, characterData: true, subtree: true };
  new MutationObserver(() => heard.push(line.textContent)).observe(line, changes);
}"""
PRESS_AT = """(at) => new Promise((resolve) => {
  setTimeout(() => { document.querySelector("#submit").click(); resolve(); }, at - Date.now());
})"""


@dataclass(frozen=True)
class View:
    step: str = ""
    image: str = ""
    ready: bool = False
    done: str = ""
    script: bool = True
    asked: bool = False

    @property
    def over(self) -> bool:
        return self.step not in {"", "trials"} or self.done.startswith(f"{TRIALS} of")


@dataclass(frozen=True)
class Answer:
    category: int
    percentage: int


@dataclass
class Report:
    """Of one kind of fault.

    `accepted`: answers that the screen went on from; `other`: stored, but not as keyed in; `again`: accepted, and then
    asked for once more as if nothing had been said.
    """

    fault: str
    sessions: int = 0
    accepted: int = 0
    stored: int = 0
    lost: int = 0
    twice: int = 0
    other: int = 0
    again: int = 0
    unfinished: int = 0


class Site:
    """One that can be killed and comes back under the same address."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.port = services.free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.life = ExitStack()
        self.change = asyncio.Lock()
        self.service: services.Service | None = None

    async def start(self) -> None:
        web = services.web(self.environment, "--bind", f"127.0.0.1:{self.port}")
        self.service = await asyncio.to_thread(self.life.enter_context, web)

    async def die_and_come_back(self) -> None:
        async with self.change:
            if self.service:
                await asyncio.to_thread(self.service.kill)
                await asyncio.to_thread(self.life.close)
            await asyncio.sleep(SECONDS_DOWN)
            await self.start()


@dataclass
class Sitting:
    """One session in a browser profile of its own: what its person keyed in, and what they saw accepted."""

    site: Site
    context: BrowserContext
    page: Page
    token: str
    rng: np.random.Generator
    keyed: dict[str, Answer] = field(default_factory=dict)
    accepted: dict[str, Answer] = field(default_factory=dict)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    again: int = 0

    async def go_through(self, fault: Fault, at: int) -> None:
        """Answer all trials, with the fault at one of them."""
        await self.open(self.page)
        number = 0
        while not (view := await self.ready(self.page)).over:
            image = view.image
            self.again += image in self.accepted
            await self.key_in(self.page, image)
            await (fault if number == at else nothing)(self, image)
            if await self.left(self.page, image):
                self.accepted[image] = self.keyed[image]
            number += 1
        await asyncio.gather(*self.tasks)
        await self.wait(self.page, lambda view: view.step not in {"", "trials"}, "The trials don't end.")

    def later(self, seconds: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def run() -> None:
            await asyncio.sleep(seconds)
            await work()

        self.tasks.append(asyncio.create_task(run()))

    async def open(self, page: Page) -> None:
        """As a person does whose browser says that the site can't be reached: again."""
        deadline = time.monotonic() + PATIENCE
        while True:
            with suppress(Error):
                answer = await page.goto(f"{self.site.url}/session/{self.token}/")
                if answer is not None and answer.ok:
                    return
            if time.monotonic() > deadline:
                raise TimeoutError("The site can't be reached.")
            await asyncio.sleep(0.3)

    async def wait(self, page: Page, condition: Callable[[View], bool], complaint: str) -> View:
        deadline = time.monotonic() + PATIENCE
        whole = time.monotonic()
        while time.monotonic() < deadline:
            view = await look(page)
            if condition(view):
                return view
            if view.script or view.step != "trials":
                whole = time.monotonic()
            if page.url.startswith("chrome-error") or time.monotonic() - whole > A_WHILE:
                await self.open(page)
            await asyncio.sleep(LOOKS_EVERY)
        raise TimeoutError(f"{complaint} {view}")

    async def ready(self, page: Page) -> View:
        return await self.wait(page, lambda view: view.ready or view.over, "The screen takes no answer.")

    async def left(self, page: Page, image: str) -> bool:
        """Whether the screen leaves the image. A question back is answered by pressing once more."""
        stays_since: float | None = None

        def clear(view: View) -> bool:
            nonlocal stays_since
            if not (view.ready and view.image == image):
                stays_since = None
            elif stays_since is None:
                stays_since = time.monotonic()
            elsewhere = view.over or view.image not in {"", image}
            return elsewhere or (stays_since is not None and time.monotonic() - stays_since > STAYS)

        while True:
            view = await self.wait(page, clear, "The screen doesn't go on.")
            if not view.asked:
                return view.over or view.image != image
            stays_since = None
            await press(page)

    async def key_in(self, page: Page, image: str, answer: Answer | None = None) -> None:
        """Name a category with its percentage: the same for an image as long as it is not accepted."""
        drawn = Answer(int(self.rng.integers(10)), int(self.rng.integers(10, 96)))
        answer = answer or self.keyed.setdefault(image, drawn)
        await page.locator(f"#top-{answer.category}").check()
        amount = page.locator(f"#percentage-{answer.category}")
        await amount.fill(str(answer.percentage))
        shown = await amount.input_value()
        if shown != str(answer.percentage):
            raise AssertionError(f"{answer.percentage} was keyed in, {shown} is on the screen.")


Fault = Callable[[Sitting, str], Awaitable[None]]


async def look(page: Page) -> View:
    """Empty while the page is on its way."""
    try:
        return View(**await page.evaluate(LOOK))
    except Error:
        return View()


async def press(page: Page) -> None:
    await page.locator("#submit").click()


# --- What goes wrong


async def nothing(sitting: Sitting, image: str) -> None:
    await press(sitting.page)


async def no_network(sitting: Sitting, image: str) -> None:
    """Gone before the answer is sent; the person goes on answering what is there."""
    await sitting.context.set_offline(True)
    sitting.later(SECONDS_OFFLINE, lambda: sitting.context.set_offline(False))
    await press(sitting.page)


async def site_killed(sitting: Sitting, image: str) -> None:
    """About when the request arrives: before the site's work on it, amidst, or after."""
    sitting.later(float(sitting.rng.uniform(0, 0.1)), sitting.site.die_and_come_back)
    await press(sitting.page)


async def reply_lost(sitting: Sitting, image: str) -> None:
    """The site stores the answer, and nobody hears of that."""
    lost: list[str] = []

    async def lose_the_first(route: Route) -> None:
        if lost:
            await route.fallback()
            return
        lost.append(route.request.url)
        with suppress(Error):  # the site may be down just then
            await route.fetch()
        await route.abort()

    await sitting.context.route("**/api/**", lose_the_first)
    await press(sitting.page)


async def tab_closed(sitting: Sitting, image: str) -> None:
    await press(sitting.page)
    await asyncio.sleep(float(sitting.rng.choice([0, 0.01, 0.1])))
    await sitting.page.close()
    sitting.page = await sitting.context.new_page()
    await sitting.open(sitting.page)


async def reloaded(sitting: Sitting, image: str) -> None:
    """In the same breath as the press."""
    with suppress(Error):
        async with sitting.page.expect_navigation():
            await sitting.page.evaluate("() => { document.querySelector('#submit').click(); location.reload(); }")


async def accepted_but_not_sent(sitting: Sitting, image: str) -> None:
    """Press with the way to the API cut, and see the screen go on."""

    async def cut(route: Route) -> None:
        await route.abort()

    await sitting.context.route("**/api/**", cut)
    await press(sitting.page)
    if await sitting.left(sitting.page, image):
        sitting.accepted[image] = sitting.keyed[image]


async def closed_with_answers_waiting(sitting: Sitting, image: str) -> None:
    await accepted_but_not_sent(sitting, image)
    await sitting.page.close()
    await sitting.context.unroute("**/api/**")
    sitting.page = await sitting.context.new_page()
    await sitting.open(sitting.page)


async def reloaded_with_answers_waiting(sitting: Sitting, image: str) -> None:
    """The way is free again some time after the reload."""
    await accepted_but_not_sent(sitting, image)
    sitting.later(SECONDS_OFFLINE, lambda: sitting.context.unroute("**/api/**"))
    await sitting.open(sitting.page)


async def double_click(sitting: Sitting, image: str) -> None:
    await sitting.page.locator("#submit").dblclick()


async def two_tabs(sitting: Sitting, image: str) -> None:
    """Both answer the same trial at once, each in its own way; the screen tells one of them that it came second."""
    tab, other = sitting.page, await sitting.context.new_page()
    await sitting.open(other)
    await sitting.ready(other)
    first = sitting.keyed[image]
    second = Answer((first.category + 1) % 10, (first.percentage + 7) % 86 + 10)
    await sitting.key_in(other, image, second)
    both = (tab, other)
    at = 0.3 + time.time()
    await asyncio.gather(*(each.evaluate(LISTEN) for each in both))
    await asyncio.gather(*(each.evaluate(PRESS_AT, 1000 * at) for each in both))
    left = await asyncio.gather(*(sitting.left(each, image) for each in both))
    await asyncio.sleep(0.3)  # announcements take a breath
    told = ["another tab" in " ".join(await each.evaluate("heard")) for each in both]
    if left != [True, True] or sorted(told) != [False, True]:
        raise AssertionError(f"Left: {left}, told of another tab: {told}.")
    if told[0]:
        sitting.keyed[image] = second
    await other.close()


FAULTS: dict[str, Fault] = {
    "none": nothing,
    "no network": no_network,
    "site killed": site_killed,
    "reply lost": reply_lost,
    "tab closed at once": tab_closed,
    "tab closed, answer waits": closed_with_answers_waiting,
    "reloaded at once": reloaded,
    "reloaded, answer waits": reloaded_with_answers_waiting,
    "double click": double_click,
    "two tabs": two_tabs,
}


# --- The whole of it


def populate(sessions: int, trials: int) -> list[str]:
    """A study without breaks, and sessions at its trials: their tokens."""
    from django.utils import timezone

    from tests import factories as make

    with TemporaryDirectory() as folder:
        dataset = make.import_pictures(Path(folder), trials)
    shape: dict[str, Any] = {"images_per_session": trials, "repeats_per_session": 0, "labels_per_image": sessions}
    study = make.make_study(dataset=dataset, break_every=None, **shape)
    now = timezone.now()
    return [make.begin(make.make_session(study, seed=n, now=now), seed=n, now=now).token for n in range(sessions)]


def stored(place: Installation, token: str) -> dict[str, list[Answer]]:
    """All that the database has of a session, by image."""
    found: dict[str, list[Answer]] = {}
    with closing(psycopg2.connect(place.environment["ELICIT_DATABASE_URL"])) as connection:
        cursor = connection.cursor()
        cursor.execute(
            "SELECT image.sha256, response.named FROM annotations_response AS response "
            "JOIN annotations_trial AS trial ON trial.id = response.trial_id "
            "JOIN annotations_image AS image ON image.id = trial.image_id "
            "JOIN annotations_session AS session ON session.id = trial.session_id WHERE session.token = %s",
            [token],
        )
        for sha256, named in cursor.fetchall():
            [[category, percentage]] = named
            found.setdefault(sha256, []).append(Answer(int(category), round(percentage)))
    return found


async def sit(sittings: list[tuple[str, str, int]], place: Installation, at_once: int, seed: int) -> list[Report]:
    """Have all sessions sat: `sittings` holds token, fault and the trial that the fault comes at."""
    reports = {fault: Report(fault) for fault in FAULTS}
    site = Site(place.environment)
    await site.start()
    waiting = list(enumerate(sittings))
    with tqdm(total=len(sittings), disable=None) as progress, ExitStack() as stack:
        stack.callback(site.life.close)
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=services.chromium())

            async def work() -> None:
                while waiting:
                    number, (token, fault, at) = waiting.pop(0)
                    context = await browser.new_context(base_url=site.url)
                    rng = np.random.default_rng([seed, number])
                    sitting = Sitting(site, context, await context.new_page(), token, rng)
                    report = reports[fault]
                    try:
                        await sitting.go_through(FAULTS[fault], at)
                    except (AssertionError, Error, TimeoutError) as error:
                        report.unfinished += 1
                        print(f"{fault} at {at}, session {number}: {error}", file=sys.stderr)
                    await asyncio.gather(*sitting.tasks, return_exceptions=True)
                    await context.close()
                    account(report, sitting, stored(place, token))
                    progress.update()

            await asyncio.gather(*(work() for _ in range(at_once)))
            await browser.close()
    return [report for report in reports.values() if report.sessions]


def account(report: Report, sitting: Sitting, found: dict[str, list[Answer]]) -> None:
    accepted = sitting.accepted
    report.sessions += 1
    report.accepted += len(accepted)
    report.stored += sum(map(len, found.values()))
    report.lost += sum(image not in found for image in accepted)
    report.twice += sum(len(answers) > 1 for answers in found.values())
    report.other += sum(image in found and answer not in found[image] for image, answer in accepted.items())
    report.again += sitting.again


def draw(tokens: list[str], seed: int) -> list[tuple[str, str, int]]:
    """Every fault about equally often, at any trial; where two tabs compete, one is left to tell the outcome."""
    rng = np.random.default_rng(seed)
    faults = [list(FAULTS)[number % len(FAULTS)] for number in range(len(tokens))]
    rng.shuffle(faults)
    places = [int(rng.integers(TRIALS - (fault == "two tabs"))) for fault in faults]
    return list(zip(tokens, faults, places, strict=True))


def furnish(place: Installation, sessions: int, trials: int) -> list[str]:
    """A fresh installation with sessions in it: their tokens."""
    place.manage("migrate", "--verbosity", "0")
    place.manage("collectstatic", "--noinput", "--verbosity", "0")
    made = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", "populate", str(sessions), str(trials)],
        cwd=services.ROOT,
        env={**os.environ, **place.environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    tokens: list[str] = json.loads(made.stdout)
    return tokens


def measure(sessions: int, at_once: int, seed: int) -> list[Report]:
    with installation() as place:
        tokens = furnish(place, sessions, TRIALS)
        return asyncio.run(sit(draw(tokens, seed), place, at_once, seed))


def table(reports: list[Report]) -> str:
    names = [each.name for each in fields(Report)]
    total = Report("all", *(sum(getattr(report, name) for report in reports) for name in names[1:]))
    rows = [[str(getattr(report, name)) for name in names] for report in [*reports, total]]
    lines = [f"{row[0]:26}" + "".join(f"{cell:>11}" for cell in row[1:]) for row in [names, *rows]]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    began = time.perf_counter()
    reports = measure(options.sessions, options.at_once, options.seed)
    if options.json:
        print(json.dumps([asdict(report) for report in reports]))
    else:
        print(f"{table(reports)}\n{time.perf_counter() - began:.0f} s")
    if any(report.lost or report.twice or report.other or report.again or report.unfinished for report in reports):
        raise SystemExit(1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["populate"]:
        import django

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "elicit.settings")
        django.setup()
        print(json.dumps(populate(int(sys.argv[2]), int(sys.argv[3]))))
    else:
        main()

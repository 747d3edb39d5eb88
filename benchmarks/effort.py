"""What an answer costs the hand: `python -m benchmarks.effort`, about twenty minutes for all answers.

Replays the published answers of CIFAR-10S through the real trial screen in Chromium, once by keyboard and once by
mouse, on a server with PostgreSQL; counts every key and click that reached the page; and compares them with what the
published form (radio buttons, text boxes, check boxes) costs for the same answers. Every answer that the screen sent is
compared with the one that was meant.

Counts of actions are facts. Seconds are estimates by the keystroke-level model (Card, Moran and Newell 1980,
"The keystroke-level model for user performance time with interactive systems"): a key 0.28 s (average non-secretary
typist), pointing 1.1 s, pressing and releasing a button 0.2 s, moving the hand between mouse and keyboard 0.4 s, and
1.35 s of thought for each decision: the class, its percentage, a second class or none, what is impossible, and the
second percentage where there is one. No decision is saved by any interface: all of them ask the same.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, Error, Page, TimeoutError, sync_playwright

from benchmarks.real_input import ARCHIVE, Installation, installation
from elicit.labels import cifar10s
from elicit.labels.elicited import Elicited
from tests import services

ANSWERS = "cifar10s/human_soft_labels_even_batches.json"
STUDY = "effort"
IN_A_SESSION = 500
VIEWPORT = {"width": 1366, "height": 660}

# The width of a slider's thumb, in pixels.
THUMB = 24

KEY, POINT, PRESS, HOME, THINK = 0.28, 1.1, 0.2, 0.4, 1.35
CATEGORIES = len(cifar10s.CATEGORIES)

# Counts what reaches the page, and the next one: keys that go down (modifiers too, held keys once) and buttons that do.
# The page's clock can be put forward: people look before they answer, and the screen knows how fast nobody can be.
COUNT = """
window.ahead = 0;
const now = performance.now.bind(performance);
performance.now = () => now() + window.ahead;
addEventListener("keydown", (event) => { if (event.isTrusted && !event.repeat) sessionStorage.keys++; }, true);
addEventListener("pointerdown", (event) => { if (event.isTrusted) sessionStorage.clicks++; }, true);
"""


LOOK = """async () => {
  while (!document.querySelector("#stimulus.painted")) await new Promise(requestAnimationFrame);
  window.ahead += 8000;
  sessionStorage.keys = sessionStorage.clicks = 0;
  return document.querySelector("#progress-text").textContent;
}"""
COUNTED = "({ keys: Number(sessionStorage.keys), clicks: Number(sessionStorage.clicks) })"


@dataclass(frozen=True)
class Cost:
    """Of one answer: actions, seconds of movement, and seconds with thought."""

    actions: int
    motor: float
    whole: float


def decisions(said: Elicited) -> int:
    return 4 + (len(said.named) > 1)


def cost(said: Elicited, *, keys: int, clicks: int, moves: int = 0) -> Cost:
    motor = keys * KEY + clicks * (POINT + PRESS) + moves * HOME
    return Cost(keys + clicks, motor, motor + decisions(said) * THINK)


def published(said: Elicited) -> Cost:
    """By mouse and text boxes, as the published form wants it: a radio button for the first class, one for the second
    or "No", a check box for each impossible class, Continue; and a click into a text box, the hand to the keyboard, the
    characters and the hand back for each percentage. No scrolling."""
    typed = [f"{percentage:g}" for _, percentage in said.named]
    clicks = 3 + len(said.impossible) + len(typed)
    return cost(said, keys=sum(map(len, typed)), clicks=clicks, moves=2 * len(typed))


# --- The two ways through our screen


# The keys of each category's column, by the category's place on the screen.
MOST_LIKELY, PLAUSIBLE, IMPOSSIBLE = "1234567890", "QWERTYUIOP", "ASDFGHJKL;"
ALL_OTHERS_IMPOSSIBLE = "X"


def keys_of(said: Elicited, place_of: dict[int, int]) -> list[str]:
    """The keys of one who knows the screen: one names a category, one or two set its percentage, one rules out all
    others, and one each what is impossible or, after that, what is not."""
    keys: list[str] = []
    for rank, (category, percentage) in enumerate(said.named):
        keys += [(PLAUSIBLE if rank else MOST_LIKELY)[place_of[category]], *percentage_keys(percentage)]
    sweep, singles = impossible_way(said)
    keys += [ALL_OTHERS_IMPOSSIBLE] if sweep else []
    return [*keys, *(IMPOSSIBLE[place_of[category]] for category in singles), "Enter"]


def percentage_keys(percentage: float) -> str:
    if percentage == 100:
        return "0"
    return str(int(percentage) // 10) if percentage and percentage % 10 == 0 else f"{int(percentage):02}"


def impossible_way(said: Elicited) -> tuple[bool, list[int]]:
    """Whether to press "all others impossible", and which single classes to tick, or untick after it: the shorter."""
    others = set(range(CATEGORIES)) - {category for category, _ in said.named}
    left_open = sorted(others - said.impossible)
    if not said.impossible:
        return False, []
    if 1 + len(left_open) < len(said.impossible) or not left_open:
        return True, left_open
    return False, sorted(said.impossible)


class Screen:
    """The trial screen in one browser page, from its link to the end."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        page.add_init_script(COUNT)
        page.goto(url)
        page.locator("input[name=agree]").check()
        for step in ("Continue", "Start"):
            page.get_by_role("button", name=step).click()
        page.locator("#categories:not([disabled])").wait_for()
        data = json.loads(page.locator("#trial-data").text_content() or "")
        self.total = int(data["total"])
        self.place_of = {category["index"]: place for place, category in enumerate(data["categories"])}

    def answer(self, said: Elicited, way: str) -> dict[str, int]:
        """Look at the trial on the screen, as long as people do, and answer it.

        Returns:
            The keys and clicks that it took, a question back included.
        """
        before: str = self.page.evaluate(LOOK)
        (self.by_keyboard if way == "keyboard" else self.by_mouse)(said)
        for _ in range(3):  # as many as there are questions that the screen asks back, once each
            if self._moved_on(before):
                break
            self.page.evaluate("window.ahead += 8000")
            if way == "keyboard":
                self.page.keyboard.press("Enter")
            else:
                self._click("#submit")
        else:
            raise SystemExit(f"The screen did not take {said} by {way}.")
        try:
            counted: dict[str, int] = self.page.evaluate(COUNTED)
        except Error:  # the browser was just leaving for the page after the last trial
            self.page.wait_for_load_state()
            counted = self.page.evaluate(COUNTED)
        return counted

    def _moved_on(self, before: str) -> bool:
        """Whether the screen goes on to another trial or page, within a second."""
        script = "before => document.querySelector('#progress-text')?.textContent !== before"
        try:
            self.page.wait_for_function(script, arg=before, timeout=1000)
        except TimeoutError:
            return False
        return True

    def by_keyboard(self, said: Elicited) -> None:
        for key in keys_of(said, self.place_of):
            self.page.keyboard.press(key)

    def by_mouse(self, said: Elicited) -> None:
        # A click on the track of a category that is not named names it with that percentage: the first as most likely.
        for category, percentage in said.named:
            self._set(category, percentage)
        sweep, singles = impossible_way(said)
        if sweep:
            self._click("#sweep")
        for category in singles:
            self._click(f"#impossible-{category}")
        self._click("#submit")

    def _set(self, category: int, percentage: float) -> None:
        """On the slider's track, where the percentage lies; a miss by a pixel costs a further click, as it would."""
        slider = f"#slider-{category}"
        for miss in (0, 1, -1, 2, -2):
            left, top, width, height = self._box(slider)
            at = left + THUMB / 2 + (width - THUMB) * percentage / 100 + miss
            self.page.mouse.click(at, top + height / 2)
            if float(self.page.input_value(slider)) == percentage:
                return
        raise SystemExit(f"{percentage:g} % can't be reached on the slider of class {category}.")

    def _click(self, selector: str) -> None:
        left, top, width, height = self._box(selector)
        self.page.mouse.click(left + width / 2, top + height / 2)

    def _box(self, selector: str) -> tuple[float, float, float, float]:
        script = "each => { const b = each.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; }"
        left, top, width, height = self.page.eval_on_selector(selector, script)
        return left, top, width, height


def replay(
    browser: Browser, url: str, way: str, answers: Sequence[Elicited], arrived: Callable[[int], None]
) -> Iterator[Cost]:
    """Answer trial after trial, session after session, and give each answer's cost; `arrived` waits for so many to be
    stored."""
    waiting = list(reversed(answers))
    while waiting:
        page = browser.new_page(viewport=VIEWPORT)  # type: ignore[arg-type]
        screen = Screen(page, url)
        for _ in range(min(screen.total, len(waiting))):
            said = waiting.pop()
            yield cost(said, **screen.answer(said, way))
        arrived(len(answers) - len(waiting))
        page.close()


def stored(site: Installation, number: int) -> list[Elicited]:
    """What the database holds, in the order in which it was said."""
    [rows] = site.ask(
        "SELECT json_agg(json_build_array(named, impossible) ORDER BY consented_at, position) "
        "FROM annotations_response r JOIN annotations_trial t ON t.id = r.trial_id "
        "JOIN annotations_session s ON s.id = t.session_id"
    )
    return [Elicited(tuple((c, p) for c, p in named), frozenset(impossible)) for named, impossible in rows][-number:]


def arrived(site: Installation, before: int) -> Callable[[int], None]:
    def wait(number: int) -> None:
        deadline = time.monotonic() + 60
        while site.ask("SELECT count(*) FROM annotations_response") != (before + number,):
            if time.monotonic() > deadline:
                raise SystemExit("Some answers did not arrive within a minute.")
            time.sleep(0.1)

    return wait


# --- The figures

ROW = "{name:34}{actions}   {motor}   {whole}"
# Of the published form by mouse: actions at most, share of the movement, share of the whole.
TARGETS = {"keyboard": (8.0, 1 / 7, 0.40), "mouse": (6.5, 0.45, 0.60)}


def summary(costs: Sequence[Cost]) -> dict[str, tuple[float, float, float]]:
    """Mean, median and 90th percentile of each measure."""
    return {
        name: (float(np.mean(values)), float(np.median(values)), float(np.quantile(values, 0.9)))
        for name in ("actions", "motor", "whole")
        if (values := [getattr(each, name) for each in costs])
    }


def measure(data: Path, most: int | None) -> dict[str, Any]:
    answers, _ = cifar10s.repaired(cifar10s.read_answers(data / ANSWERS))
    meant = [said for those in answers.values() for said in those][:most]
    ways = {"published form, mouse and text boxes": summary([published(said) for said in meant])}
    with installation() as site, sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        site.manage("migrate", "--verbosity", "0")
        site.manage("collectstatic", "--noinput", "--verbosity", "0")
        site.manage("import_cifar10", "--source", str(data / ARCHIVE))
        batches = Path(folder) / "batches.json"
        sessions = -(-len(meant) // IN_A_SESSION)
        size = -(-len(meant) // sessions)
        batches.write_text(json.dumps([list(range(n * size, (n + 1) * size)) for n in range(2 * sessions)]))
        site.manage(
            *("create_study", "--name", "Effort", "--slug", STUDY, "--dataset", "cifar10-test", "--launch"),
            *("--batches", str(batches), "--labels-per-image", "1", "--repeats-per-session", "0"),
        )
        browser = playwright.chromium.launch(executable_path=services.chromium())
        with services.web(site.environment) as web:
            for number, way in enumerate(TARGETS):
                costs = list(
                    replay(browser, f"{web.url}/study/{STUDY}/", way, meant, arrived(site, number * len(meant)))
                )
                if stored(site, len(meant)) != meant:
                    raise SystemExit(f"By {way}, what is stored is not what was meant.")
                ways[f"this screen, {way}"] = summary(costs)
        browser.close()
    return {"answers": len(meant), "ways": ways}


def report(figures: dict[str, Any]) -> str:
    ways = figures["ways"]
    reference, *_ = ways.values()
    lines = [
        f"{figures['answers']:,} answers, each compared with what was stored. Mean / median / 90th percentile.",
        ROW.format(name="", actions="actions".ljust(18), motor="movement, s".ljust(20), whole="with thought, s"),
    ]
    for name, each in ways.items():
        cells = {
            "actions": "{:4.1f} / {:3.0f} / {:4.0f}".format(*each["actions"]).ljust(18),
            "motor": "{:4.1f} / {:4.1f} / {:4.1f}".format(*each["motor"]).ljust(20),
            "whole": "{:4.1f} / {:4.1f} / {:4.1f}".format(*each["whole"]),
        }
        lines.append(ROW.format(name=name, **cells))
    for way, (actions, motor, whole) in TARGETS.items():
        ours = ways[f"this screen, {way}"]
        lines += [
            f"{way}: {ours['actions'][0]:.1f} actions (at most {actions}); of the published form's movement "
            f"{ours['motor'][0] / reference['motor'][0]:.0%} (at most {motor:.0%}), at the 90th percentile "
            f"{ours['motor'][2] / reference['motor'][2]:.0%}; of the whole "
            f"{ours['whole'][0] / reference['whole'][0]:.0%} (at most {whole:.0%}), at the 90th percentile "
            f"{ours['whole'][2] / reference['whole'][2]:.0%}"
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(os.environ.get("ELICIT_SHARED") or services.ROOT.parent / "shared")
    parser.add_argument("--data", type=Path, default=shared / "data", help="folder that holds " + ARCHIVE)
    parser.add_argument("--answers", type=int, help="only the first so many (default: all)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not (options.data / ANSWERS).is_file():
        raise SystemExit(f"{ANSWERS} is not in {options.data}: --data may name its folder.")
    figures = measure(options.data, options.answers)
    print(json.dumps(figures) if options.json else report(figures))


if __name__ == "__main__":
    main()

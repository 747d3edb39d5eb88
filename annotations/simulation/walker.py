"""Walk the annotator's pages over HTTP, as a browser would: follow links, fill in forms, send answers.

A walker sends no field that the page's form lacks, and expects contradictions to be refused.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.cookiejar import CookieJar
from typing import Any

import numpy as np

from annotations.simulation.characters import Answer, Character, answer, asked_for, contradictions, under_rules

TIMEOUT = 60.0
MOST_STEPS = 20


class WalkError(Exception):
    """The pages did not do what they should."""


@dataclass
class Outcome:
    """What came of one walk. `ended`: completed, screened_out, left or turned_away."""

    character: str
    ended: str = ""
    answered: int = 0
    practised: int = 0
    refused: int = 0
    link: str = ""
    completion_code: str = ""


@dataclass
class Form:
    """A form of a page: where it goes, its fields' values, and the values that each field offers."""

    action: str = ""
    values: dict[str, str] = field(default_factory=dict)
    offers: dict[str, list[str]] = field(default_factory=dict)


class _Page(HTMLParser):
    """The POST forms of a page's main part, its JSON scripts, and the step that it shows."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.scripts: dict[str, str] = {}
        self.step = ""
        self._script = ""
        self._main = False
        self._inside = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        got = {name: value or "" for name, value in attrs}
        if tag == "body":
            self.step = got.get("data-step", "")
        elif tag == "main":
            self._main = True
        elif tag == "form":
            self._inside = self._main and got.get("method", "").lower() == "post"
            if self._inside:
                self.forms.append(Form(got.get("action", "")))
        elif tag == "script" and got.get("type") == "application/json":
            self._script = got.get("id", "")
        elif self._inside and (name := got.get("name")):
            form = self.forms[-1]
            form.offers.setdefault(name, []).append("" if tag == "textarea" else got.get("value", "on"))
            if tag == "input" and got.get("type") == "hidden":
                form.values[name] = got.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside = False
        elif tag == "main":
            self._main = False
        elif tag == "script":
            self._script = ""

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data


class Walker:
    """One simulated person at one server."""

    def __init__(
        self,
        url: str,
        study: str,
        character: Character,
        seed: int,
        see: Callable[[str], int | None],
        platform_id: str = "",
        right: Mapping[str, str] | None = None,
    ) -> None:
        """`url`: the server's address; `see`: the class in the picture at an image URL, or None; `right`: the answers
        to the comprehension check, by the name of the question."""
        self.url = url.rstrip("/")
        self.study = study
        self.character = character
        self.seed = seed
        self.see = see
        self.platform_id = platform_id
        self.right = right or {}
        self.person = np.random.default_rng(seed)
        self.browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def walk(self) -> Outcome:
        """From the study's link to the end, as this character.

        Raises:
            WalkError: a page lacks what it should have, or an answer meets the wrong fate.
        """
        outcome = Outcome(self.character.name)
        query = f"?pid={urllib.parse.quote(self.platform_id)}" if self.platform_id else ""
        status, address, html = self._open(f"/study/{self.study}/{query}")
        for _ in range(MOST_STEPS):
            page = _Page(html)
            if status == 409:
                outcome.ended = "turned_away"
                return outcome
            if status >= 400:
                raise WalkError(f"{address} answered {status}")
            outcome.link = address
            if "trial-data" in page.scripts:
                if not self._answer_all(json.loads(page.scripts["trial-data"]), outcome):
                    outcome.ended = "left"
                    return outcome
                status, address, html = self._open(urllib.parse.urlsplit(address).path)
            elif page.forms:
                right = self.right if page.step == "comprehension" else {}
                status, address, html = self._send(address, page.forms[0], right)
            elif page.step in {"completed", "screened_out"}:
                outcome.ended = page.step
                return outcome
            else:
                raise WalkError(f"{address} leads nowhere")
        raise WalkError(f"The pages lead in a circle at {address}")

    def _answer_all(self, data: dict[str, Any], outcome: Outcome) -> bool:
        """Answer the trials of a stage one by one; False when the character leaves half-way."""
        categories, rules = len(data["categories"]), data["rules"]
        # By index: the screen has them in an order of its own.
        names = [name for _, name in sorted((each["index"], each["name"]) for each in data["categories"])]
        practising = data["stage"] == "practice"
        feedback = 0
        trial = data["trials"][0]
        while trial is not None:
            if not practising and data["done"] >= self.character.leaves_after * data["total"]:
                return False
            self._look(trial["image_url"])
            seen = self.see(trial["image_url"])
            told = asked_for(trial["note"], names) if trial["note"] else None
            good = answer(self.character, trial["image_url"], seen, categories, self.person, self.seed, told)
            good = under_rules(good, rules["most_named"], rules["ask_impossible"])
            if self.character.contradicts and not practising and outcome.refused < 5:
                for code, bad in contradictions(good, categories):
                    if bad == under_rules(bad, rules["most_named"], rules["ask_impossible"]):
                        self._must_refuse(data, trial["id"], bad, code)
                        outcome.refused += 1
            status, body = self._put(data, trial["id"], good)
            if status not in {200, 201}:
                raise WalkError(f"A good answer was refused: {status} {body}")
            feedback += body["feedback"] is not None
            data["done"] = body["done"]
            trial = body["next"]
            outcome.practised += practising
            outcome.answered += not practising
        if practising != (feedback > 0):
            raise WalkError("Practice comes with feedback, and trials come without.")
        return True

    def _look(self, image_url: str) -> None:
        with self.browser.open(self.url + image_url, timeout=TIMEOUT) as response:
            if not response.read(8).startswith(b"\x89PNG"):
                raise WalkError(f"{image_url} is no picture")

    def _must_refuse(self, data: dict[str, Any], trial: str, bad: Answer, code: str) -> None:
        status, body = self._put(data, trial, bad)
        if status != 422 or body.get("code") != code:
            raise WalkError(f"{code} should be refused, but the server said {status} {body}")

    def _put(self, data: dict[str, Any], trial: str, said: Answer) -> tuple[int, dict[str, Any]]:
        path = data["api"].format(trial=trial, response=uuid.UUID(bytes=self.person.bytes(16), version=4))
        body = {
            "named": [{"category": category, "percentage": percentage} for category, percentage in said.named],
            "impossible": list(said.impossible),
            "duration_ms": said.duration_ms,
            "hidden_ms": 0,
        }
        request = urllib.request.Request(  # noqa: S310 (the server's own address)
            self.url + path,
            json.dumps(body).encode(),
            {"Authorization": data["authorization"], "Content-Type": "application/json"},
            method="PUT",
        )
        try:
            with self.browser.open(request, timeout=TIMEOUT) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def _send(self, address: str, form: Form, right: Mapping[str, str]) -> tuple[int, str, str]:
        """Fill in a form with what is right, as far as the character understood, else with something that it offers,
        and send it."""
        values = dict(form.values)
        for name, offered in form.offers.items():
            if name in right and self.person.random() >= self.character.misunderstands:
                values[name] = right[name]
            elif name not in values:
                values[name] = offered[int(self.person.integers(len(offered)))] if offered[0] else ""
        target = urllib.parse.urljoin(address, form.action)
        return self._request(
            urllib.request.Request(  # noqa: S310 (the server's own address)
                target, urllib.parse.urlencode(values).encode(), {"Referer": address}
            )
        )

    def _open(self, path: str) -> tuple[int, str, str]:
        return self._request(urllib.request.Request(self.url + path))  # noqa: S310 (the server's own address)

    def _request(self, request: urllib.request.Request) -> tuple[int, str, str]:
        try:
            with self.browser.open(request, timeout=TIMEOUT) as response:
                return response.status, response.url, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, request.full_url, error.read().decode(errors="replace")

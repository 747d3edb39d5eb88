"""Whatever dies, nothing that was accepted is lost: `python -m benchmarks.soak --minutes 30 --annotators 200`.

A whole installation (PostgreSQL with fsync, Redis, gunicorn, a worker, the clock) is started for it. People take part
over the HTTP API, each sending an answer again until the site itself has settled it; some send twice at once, correct
themselves, withdraw, or leave and come back when their place may be gone. There are more of them than places. Meanwhile
somebody asks for releases and downloads them, and every so often a part is killed, told to stop, or put to sleep for
five seconds, and comes back by itself, as Docker's restart policy would have it.

The load process keeps a ledger of what the site has accepted. At the end the database is held against it. Prints what
was promised and what was seen, and exits with 1 where a promise is broken. `--forget-outbox` is the control: people who
send once, and believe that it arrived, lose answers, and the ledger must tell.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import requests
from tqdm import tqdm

from benchmarks import apart
from tests import services

# The client of the same checkout.
sys.path.insert(0, str(services.ROOT / "client"))
from elicit_client import Elicit, ElicitError, Sitting, calling

T = TypeVar("T")

KILL_DECK: dict[str, tuple[str, ...]] = {
    "web": ("kill one", "kill", "stop", "sleep"),
    "worker": ("kill one", "kill", "stop", "sleep"),
    "clock": ("kill", "stop", "sleep"),
    "redis": ("kill", "stop", "sleep"),
    "postgres": ("kill", "stop", "sleep"),
}
LONGEST_DEATH = 5.0
SLEEP_SECONDS = 5.0
SAMPLE_EVERY = 10.0
# A process is warm after so long: what it takes from then on is what it keeps taking.
WARM_SECONDS = 60.0
LEAST_SAMPLES = 40
MOST_GROWTH_MB_A_MINUTE = 1.0
CATEGORIES = 10
IMAGES = 60
PER_SESSION = 10
K = 6
IDLE_MINUTES = 1
DRAIN_SECONDS = 600.0
LOOKS_AGAIN = 5.0
# As the outbox does, a request that hangs for so long is given up and sent again.
GIVES_UP = 20.0
# What people do beside answering, by chance: per answer, and per session.
TWICE, TWO_DEVICES, CORRECTED, LOOKED_AT = 0.05, 0.01, 0.05, 0.2
WITHDRAWN, LEFT, COMES_BACK = 0.03, 0.06, 0.5
SECONDS_AWAY = (30.0, 150.0)


# --- What was accepted


@dataclass(frozen=True)
class Answer:
    """As it was sent."""

    session: str
    trial: str
    named: tuple[tuple[int, float], ...]
    impossible: tuple[int, ...]
    revises: str | None = None


@dataclass
class Ledger:
    """What the load process has from the site, and how it went. Everything under one lock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    accepted: dict[str, Answer] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)
    completed: set[str] = field(default_factory=set)
    sent: set[str] = field(default_factory=set)
    puts: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    out_of_form: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    longest: tuple[float, str] = (0.0, "")
    told: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def note(self, what: str) -> None:
        with self.lock:
            self.told[what] += 1

    def complain(self, what: str) -> None:
        with self.lock:
            self.wrong.append(what)

    def accept(self, key: str, answer: Answer) -> None:
        with self.lock:
            self.accepted[key] = answer

    def waited(self, seconds: float, what: str) -> None:
        with self.lock:
            self.waits.append(seconds)
            self.longest = max(self.longest, (seconds, what))


class Ear(requests.Session):
    """Notes each answer of the site, and whether failures have the documented form."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def request(self, method: str, url: str, *args: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        ledger = self.ledger
        answering = method == "PUT"
        try:
            answer = super().request(method, url, *args, **options)
        except requests.RequestException:
            with ledger.lock:
                ledger.statuses["none"] += 1
                ledger.puts += answering
            raise
        with ledger.lock:
            ledger.statuses[str(answer.status_code)] += 1
            ledger.puts += answering
            if answer.status_code >= 400 and (problem := _form(answer)):
                ledger.out_of_form.append(f"{method} {answer.status_code}: {problem}")
        return answer


def _form(answer: requests.Response) -> str:
    """What is not as docs/api.md has it; empty where all is."""
    try:
        body = answer.json()
        if set(body) != {"code", "message", "fields"}:
            return f"its parts are {sorted(body)}"
    except (ValueError, TypeError):
        return f"not JSON: {answer.text[:80]!r}"
    if answer.status_code in (429, 503) and not answer.headers.get("Retry-After", "").isdecimal():
        return "no Retry-After"
    return ""


# --- The parts


class Part(ABC):
    """A process that dies and comes back."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.deaths: Counter[str] = Counter()
        # Held by whoever ends or begins it.
        self.hands = threading.Lock()

    @abstractmethod
    def members(self) -> list[int]:
        """Its processes."""

    @abstractmethod
    def end(self, number: int) -> None:
        """Send this signal, and wait until it is gone."""

    @abstractmethod
    def begin(self) -> None:
        """Start it."""

    @abstractmethod
    def signal(self, number: int) -> None:
        """Send this signal to its processes."""

    @abstractmethod
    def close(self) -> None:
        """End it for good."""

    def begin_at_last(self) -> None:
        """Start, again and again should it not come up at once."""
        while True:
            try:
                self.begin()
                return
            except services.ServiceError as error:
                print(f"{self.name} did not start: {str(error)[-400:]}", file=sys.stderr)
                time.sleep(1)

    def suffer(self, manner: str, rng: np.random.Generator) -> None:
        with self.hands:
            self.deaths[manner] += 1
            self._suffer(manner, rng)

    def _suffer(self, manner: str, rng: np.random.Generator) -> None:
        match manner:
            case "sleep":
                self.signal(signal.SIGSTOP)
                time.sleep(SLEEP_SECONDS)
                self.signal(signal.SIGCONT)
            case "kill one":
                # Its parent starts another.
                children = self.members()[1:]
                if children:
                    with suppress(ProcessLookupError):
                        os.kill(children[int(rng.integers(len(children)))], signal.SIGKILL)
            case _:
                self.end(signal.SIGKILL if manner == "kill" else signal.SIGTERM)
                time.sleep(float(rng.uniform(0, LONGEST_DEATH)))
                self.begin_at_last()


class Ours(Part):
    """gunicorn, a worker or the clock."""

    def __init__(self, name: str, start: Callable[[], AbstractContextManager[services.Service]], logs: Path) -> None:
        super().__init__(name)
        self.start, self.log = start, logs / f"{name}.log"
        self.life = ExitStack()
        self.service: services.Service | None = None
        self.begin()

    def begin(self) -> None:
        self.service = self.life.enter_context(self.start())

    def members(self) -> list[int]:
        return services.family(self.service.pid) if self.service else []

    def signal(self, number: int) -> None:
        if self.service:
            self.service.signal(number)

    def end(self, number: int) -> None:
        service, self.service = self.service, None
        if service is None:
            return
        if number == signal.SIGKILL:
            service.kill()
        else:
            # Told to stop, and insisted on after a while, as by `docker stop`.
            service.process.send_signal(number)
            with suppress(Exception):
                service.process.wait(services.SECONDS_TO_STOP)
            service.kill()
        with self.log.open("a", encoding="utf-8") as log:
            log.write(service.output())
        self.life.close()

    def close(self) -> None:
        self.end(signal.SIGTERM)

    def look_after(self) -> None:
        """Start it again where it has ended by itself."""
        if not self.hands.acquire(blocking=False):
            return
        try:
            if self.service is not None and not self.service.running:
                self.deaths["by itself"] += 1
                self.end(signal.SIGKILL)
                self.begin_at_last()
        finally:
            self.hands.release()


class Theirs(Part):
    """PostgreSQL or Redis."""

    def __init__(self, name: str, server: services.Server, logs: Path) -> None:
        super().__init__(name)
        self.server, self.log = server, logs / f"{name}.log"

    def begin(self) -> None:
        self.server.start_again()

    def members(self) -> list[int]:
        return services.family(self.server.service.pid)

    def signal(self, number: int) -> None:
        self.server.signal(number)

    def end(self, number: int) -> None:
        service = self.server.service
        if number == signal.SIGKILL:
            self.server.kill()
        else:
            # PostgreSQL's own word for "end every connection, then stop" is another signal.
            service.process.send_signal(service.stop_signal)
            with suppress(Exception):
                service.process.wait(services.SECONDS_TO_STOP)
            self.server.kill()
        with self.log.open("a", encoding="utf-8") as log:
            log.write(service.output())

    def close(self) -> None:
        self.server.service.stop()


class Reaper(threading.Thread):
    """Every so often one part dies: each of them in turn, in a new order each round, and each in all its ways."""

    def __init__(self, parts: Mapping[str, Part], every: float, seed: int) -> None:
        super().__init__(name="reaper")
        self.parts, self.every = parts, every
        self.rng = np.random.default_rng([seed, 1])
        self.enough = threading.Event()
        self.happened: list[str] = []
        self.failed: Exception | None = None

    def run(self) -> None:
        began = time.monotonic()
        due = began + self.every
        for name, manner in self._deck():
            if self.enough.wait(max(0.0, due - time.monotonic())):
                return
            due += self.every
            self.happened.append(f"{time.monotonic() - began:6.1f} s: {name}, {manner}")
            try:
                self.parts[name].suffer(manner, self.rng)
            except Exception as error:  # noqa: BLE001 (told by whoever joins this thread)
                self.failed = error
                return

    def _deck(self) -> Iterator[tuple[str, str]]:
        manners: dict[str, list[str]] = {name: [] for name in KILL_DECK}
        while True:
            for name in self.rng.permutation(list(KILL_DECK)).tolist():
                if not manners[name]:
                    manners[name] = self.rng.permutation(KILL_DECK[name]).tolist()
                yield name, manners[name].pop()


class Supervisor(threading.Thread):
    """Docker's `restart: unless-stopped`."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        super().__init__(name="supervisor", daemon=True)
        self.ours = [part for part in parts.values() if isinstance(part, Ours)]
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.wait(0.5):
            for part in self.ours:
                part.look_after()


@dataclass(frozen=True)
class Sample:
    part: str
    pid: int
    at: float
    age: float
    mb: float


class Scale(threading.Thread):
    """Weighs the processes of web and worker."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        super().__init__(name="scale", daemon=True)
        self.parts, self.samples = parts, list[Sample]()
        self.enough = threading.Event()
        self.began = time.monotonic()
        self._born: dict[int, float] = {}

    def run(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not self.enough.wait(SAMPLE_EVERY):
            now = time.monotonic() - self.began
            for name in ("web", "worker"):
                # The first one only minds the others.
                for pid in self.parts[name].members()[1:]:
                    with suppress(OSError):
                        resident = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
                        born = self._born.setdefault(pid, now)
                        self.samples.append(Sample(name, pid, now, now - born, resident * page / 2**20))

    def growth(self, part: str) -> tuple[float, float, float | None]:
        """Median and most MB of a warm process; and MB a minute that one takes more, over the second half: the median
        of the slopes between any two samples of one process (Theil and Sen). None where too little was seen.

        A median, because they die and begin anew, and each grows once by what its first release loads, whenever that
        is: a mean would tell those steps.
        """
        warm = [each for each in self.samples if each.part == part and each.age >= WARM_SECONDS]
        if not warm:
            found = [each.mb for each in self.samples if each.part == part] or [0.0]
            return float(np.median(found)), max(found), None
        half = max(each.at for each in self.samples) / 2
        late = [each for each in warm if each.at >= half]
        slopes: list[float] = []
        for pid in {each.pid for each in late}:
            own = [(each.at / 60, each.mb) for each in late if each.pid == pid]
            slopes += [(after - before) / (later - sooner) for (sooner, before), (later, after) in combinations(own, 2)]
        sizes = [each.mb for each in warm]
        enough = len(late) >= LEAST_SAMPLES and slopes
        return float(np.median(sizes)), max(sizes), float(np.median(slopes)) if enough else None


# --- The studies


@dataclass
class World:
    """Which studies people come to, and how far the whole thing is."""

    url: str
    hidden: list[str]
    ledger: Ledger
    think: float
    forgetful: bool
    shown: list[str] = field(default_factory=list)
    full_until: dict[str, float] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    away: list[tuple[float, Sitting]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    def study(self) -> str | None:
        """The oldest study that may have room: everybody crowds there. A new one is shown when all are full."""
        now = time.monotonic()
        with self.lock:
            for slug in self.shown:
                if slug not in self.full_until:
                    return slug
                if self.full_until[slug] <= now:
                    # One of them looks whether places have come back.
                    self.full_until[slug] = now + LOOKS_AGAIN
                    return slug
            if not self.closing.is_set() and self.hidden:
                self.shown.append(self.hidden.pop(0))
                return self.shown[-1]
            return None

    def is_full(self, slug: str) -> None:
        """Somebody was turned away: nobody asks there for a while. Places may come back."""
        self.ledger.note("turned away")
        with self.lock:
            self.full_until[slug] = time.monotonic() + LOOKS_AGAIN

    def has_room(self, slug: str) -> None:
        """Somebody was let in."""
        with self.lock:
            self.full_until.pop(slug, None)

    def returning(self) -> Sitting | None:
        """Somebody whose break is over."""
        with self.lock:
            for number, (due, sitting) in enumerate(self.away):
                if due <= time.monotonic():
                    del self.away[number]
                    return sitting
        return None


def make_studies(count: int, folder: Path) -> list[str]:
    """Launched ones of four kinds in turn, on one set of pictures: fixed batches, one by one, adaptive, two arms."""
    from annotations.presets import CIFAR10S
    from annotations.services import arms, studies
    from tests import factories as make

    dataset = make.import_pictures(folder, IMAGES)
    shape = {"images_per_session": PER_SESSION, "repeats_per_session": 2, "labels_per_image": K}
    kinds: list[dict[str, Any]] = [
        {"assignment": "batches"},
        {"assignment": "least_filled"},
        {"assignment": "adaptive", "settled_within": 0.0},
        {"assignment": "batches"},
    ]
    slugs = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        study = studies.create_study(
            name=f"Soak {number}",
            dataset=dataset,
            preset=CIFAR10S,
            slug=f"soak-{number}",
            overrides={**shape, **kind, "idle_minutes": IDLE_MINUTES, "break_every": None},
        )
        studies.choose_images(study, None, make.rng(number))
        if number % len(kinds) == 3:
            names = [{"name": "asked", "settings": {}}, {"name": "spared", "settings": {"ask_impossible": False}}]
            arms.write_arms(study.pk, names)
        studies.launch(study.pk, make.rng(number))
        slugs.append(study.slug)
    return slugs


# --- People


class GoneElsewhere(Exception):
    """The session can't go on: its place is somebody else's."""


class Annotator(threading.Thread):
    """One person after another, on one connection."""

    def __init__(self, world: World, number: int, seed: int) -> None:
        super().__init__(name=f"annotator-{number}", daemon=True)
        self.world, self.ledger = world, world.ledger
        self.rng = np.random.default_rng([seed, 2, number])
        self.ear = Ear(world.ledger)
        self.options: dict[str, Any] = {"http": self.ear, "timeout": GIVES_UP}
        self.sitting_as = ""
        self.asks_impossible = False

    def run(self) -> None:
        time.sleep(float(self.rng.uniform(0, self.world.think)))
        with closing(self.ear):
            while not self.world.over.is_set():
                try:
                    self._one_person()
                except GoneElsewhere:
                    self.ledger.note("places gone to others")
                except Exception as error:  # noqa: BLE001 (a person that breaks is a broken promise, and is told)
                    self.ledger.complain(f"{self.name} in {self.sitting_as}: {type(error).__name__}: {error}")
                    time.sleep(1)

    def _one_person(self) -> None:
        world = self.world
        if returned := world.returning():
            self.ledger.note("came back")
            self.sitting_as = returned.token
            sitting = Sitting(world.url, returned.token, **self.options)
            self._answer_all(sitting, plan=None)
            return
        slug = world.study()
        if slug is None:
            world.over.wait(1.0)
            return
        try:
            begin = partial(Sitting.begin, world.url, slug, consent_version=1, **self.options)
            sitting = self._patiently(begin, "begin")
            self.sitting_as = sitting.token
            self._think(0.2)
            self._patiently(partial(sitting.leave_step, "instructions"), "step")
        except ElicitError as refusal:
            if refusal.code != "study_full":
                raise
            world.is_full(slug)
            return
        world.has_room(slug)
        plan: tuple[str, int] | None = None
        if not world.closing.is_set():
            draw = float(self.rng.random())
            at = int(self.rng.integers(PER_SESSION))
            if draw < WITHDRAWN:
                plan = ("withdraw", at)
            elif draw < WITHDRAWN + LEFT:
                plan = ("leave", at)
        self._answer_all(sitting, plan)

    def _answer_all(self, sitting: Sitting, plan: tuple[str, int] | None) -> None:
        standing = self._standing(sitting)
        following, self.asks_impossible = standing["next"], standing["rules"]["ask_impossible"]
        number = 0
        while following is not None:
            if plan and number == plan[1] and not self.world.closing.is_set():
                self._part(sitting, plan[0])
                return
            number += 1
            if float(self.rng.random()) < LOOKED_AT:
                self._patiently(partial(sitting.image, following), "image")
            self._think()
            following = self._answer(sitting, following)
        for _ in range(3):
            standing = self._standing(sitting)
            match standing["status"]:
                case "questionnaire":
                    answers = {"clarity": "9", "difficulty": "4"}
                    self._think(0.3)
                    self._patiently(partial(sitting.leave_step, "questionnaire", answers=answers), "step")
                case "completed":
                    with self.ledger.lock:
                        self.ledger.completed.add(sitting.token)
                    return
                case "trials":  # what came back while the last answer was on its way
                    raise GoneElsewhere
                case other:
                    raise AssertionError(f"the session stands at {other}")
        raise AssertionError("the questionnaire does not end")

    def _standing(self, sitting: Sitting) -> Any:
        try:
            return self._patiently(sitting.standing, "look")
        except ElicitError as refusal:
            if refusal.code == "place_given_away":
                raise GoneElsewhere from refusal
            raise

    def _answer(self, sitting: Sitting, trial: Any) -> Any:
        answer, key = self._draw(sitting, trial["id"]), str(uuid.uuid4())
        chance = float(self.rng.random())
        try:
            if chance < TWICE:
                reply = self._both(sitting, [(key, answer), (key, answer)])
            elif chance < TWICE + TWO_DEVICES and not self.world.forgetful:
                reply = self._both(sitting, [(key, answer), (str(uuid.uuid4()), self._draw(sitting, trial["id"]))])
            else:
                reply = self._put(sitting, key, answer)
                if chance > 1 - CORRECTED and reply is not None and reply["next"] is not None:
                    self._think(0.2)
                    revised = self._draw(sitting, trial["id"], revises=key)
                    reply = self._put(sitting, str(uuid.uuid4()), revised)
        except ElicitError as refusal:
            if refusal.code == "session_not_at_trials":
                # It was given up and, with nothing left to answer, went on by itself.
                raise GoneElsewhere from refusal
            raise
        if reply is None:  # the outbox was forgotten
            return self._standing(sitting)["next"]
        return reply["next"]

    def _draw(self, sitting: Sitting, trial: str, revises: str | None = None) -> Answer:
        rng = self.rng
        first, second, third, fourth = (int(each) for each in rng.permutation(CATEGORIES)[:4])
        named = [(first, float(rng.integers(40, 91)))]
        if rng.random() < 0.5:
            named.append((second, float(rng.integers(1, 10))))
        impossible = sorted((third, fourth)) if self.asks_impossible and rng.random() < 0.5 else []
        return Answer(sitting.token, trial, tuple(named), tuple(impossible), revises)

    def _put(self, sitting: Sitting, key: str, answer: Answer) -> Any:
        """Send until it is settled. None where somebody sent once, believed in it, and was wrong."""
        with self.ledger.lock:
            self.ledger.sent.add(key)
        send = partial(
            sitting.respond,
            answer.trial,
            answer.named,
            impossible=answer.impossible,
            duration_ms=int(1000 * self.world.think),
            revises=answer.revises,
            response_id=key,
        )
        if self.world.forgetful:
            self.ledger.accept(key, answer)
            try:
                return send()
            except (requests.RequestException, ElicitError):
                return None
        reply = self._patiently(send, "answer")
        self.ledger.accept(key, answer)
        return reply

    def _both(self, sitting: Sitting, sent: list[tuple[str, Answer]]) -> Any:
        """Send two at once, over two connections: of one trial one counts, and whoever comes second is told."""
        replies: list[Any] = []
        refused: list[ElicitError] = []
        broken: list[Exception] = []

        def send(number: int) -> None:
            try:
                with closing(Ear(self.ledger)) as ear:
                    own = Sitting(self.world.url, sitting.token, http=ear, timeout=GIVES_UP)
                    replies.append(self._put(own, *sent[number]))
            except ElicitError as refusal:
                refused.append(refusal)
            except Exception as error:  # noqa: BLE001 (raised by whoever joins)
                broken.append(error)

        threads = [threading.Thread(target=send, args=(number,), daemon=True) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if broken:
            raise broken[0]
        same = sent[0][0] == sent[1][0]
        self.ledger.note("sent twice at once" if same else "two devices")
        codes = [refusal.code for refusal in refused]
        # Both where it was given up and, with nothing left to answer, went on by itself.
        if codes != ["session_not_at_trials"] * 2:
            if same and refused:
                raise AssertionError(f"the same answer twice: {codes}")
            if not same and codes not in (["trial_already_answered"], ["session_not_at_trials"]):
                raise AssertionError(f"two answers at once: {len(replies)} accepted, {codes}")
        if not replies:
            raise refused[0]
        return next((reply for reply in replies if reply is not None), None)

    def _part(self, sitting: Sitting, how: str) -> None:
        if how == "withdraw":
            self._patiently(sitting.withdraw, "withdraw")
            with self.ledger.lock:
                self.ledger.withdrawn.add(sitting.token)
            return
        self.ledger.note("left")
        if float(self.rng.random()) < COMES_BACK:
            due = time.monotonic() + float(self.rng.uniform(*SECONDS_AWAY))
            with self.world.lock:
                self.world.away.append((due, sitting))

    def _think(self, share: float = 1.0) -> None:
        """Long enough that an answer is a person's; at the end everybody hurries."""
        seconds = share * float(self.rng.lognormal(np.log(self.world.think) - 0.08, 0.4))
        if self.world.closing.wait(min(seconds, 4 * self.world.think)):
            time.sleep(float(self.rng.uniform(0.05, 0.4)))

    def _patiently(self, what: Callable[[], T], kind: str) -> T:
        """As the outbox: only the site's own word settles it."""
        began = time.monotonic()
        try:
            while True:
                try:
                    return what()
                except requests.RequestException:
                    pass
                except ElicitError as error:
                    if error.status not in calling.PASSING:
                        with self.ledger.lock:
                            self.ledger.refusals[f"{error.status} {error.code}"] += 1
                        raise
                time.sleep(float(self.rng.uniform(0.2, 1.0)))
        finally:
            self.ledger.waited(time.monotonic() - began, kind)


class Researcher(threading.Thread):
    """Asks for releases of what is there, and downloads them as soon as they are."""

    def __init__(self, world: World, every: float, folder: Path, token: str, seed: int) -> None:
        super().__init__(name="researcher", daemon=True)
        self.world, self.every, self.folder, self.token = world, every, folder, token
        self.rng = np.random.default_rng([seed, 3])
        self.enough = threading.Event()
        self.requested: list[int] = []
        self.downloaded: dict[int, str] = {}
        self.gone: set[int] = set()

    def run(self) -> None:
        while not self.enough.wait(self.every):
            self.request()
            self.fetch()

    def request(self) -> None:
        from django.db import Error, close_old_connections

        from annotations.models import Study
        from exports.errors import ExportError
        from exports.recipes import recipe
        from exports.services import request_release

        with self.world.lock:
            shown = list(self.world.shown)
        slug = shown[int(self.rng.integers(len(shown)))]
        name = ("recommended", "published")[int(self.rng.integers(2))]
        try:
            close_old_connections()
            study = Study.objects.get(slug=slug)
            release = request_release(study_id=study.pk, recipe=recipe(name), user=None)
            self.requested.append(release.pk)
        except ExportError as refusal:
            if refusal.code not in {"nothing_to_release", "arm_unknown"}:
                self.world.ledger.complain(f"a release was refused: {refusal.code}")
        except Error:
            self.world.ledger.note("release requests that failed")

    def fetch(self) -> None:
        """What is ready by now and not here yet."""
        from django.db import Error, close_old_connections

        from exports.models import Release

        try:
            close_old_connections()
            ready = list(
                Release.objects.filter(pk__in=self.requested, ready_at__isnull=False).values_list(
                    "pk", "study__slug", "version"
                )
            )
        except Error:
            return
        for pk, slug, version in ready:
            if pk in self.downloaded or pk in self.gone:
                continue
            with closing(Ear(self.world.ledger)) as ear, Elicit(self.world.url, self.token, http=ear) as elicit:
                try:
                    path = elicit.download(slug, version, self.folder / str(pk))
                except ElicitError as refusal:
                    if refusal.code == "release_withheld" or refusal.status == 404:
                        self.gone.add(pk)
                    elif refusal.status not in calling.PASSING:
                        self.world.ledger.complain(f"release {slug}/{version}: {refusal}")
                    continue
                except requests.RequestException:
                    continue
                self.downloaded[pk] = hashlib.sha256(path.read_bytes()).hexdigest()
                path.unlink()


# --- Held against the ledger


def verify(world: World, researcher: Researcher) -> dict[str, int]:
    """How often each promise was broken; all 0 where all were kept."""
    from django.db.models import Count, Q

    from annotations.models import (
        Arm,
        ConsistencyCheck,
        Place,
        Response,
        Session,
        SessionStatus,
        Study,
        Trial,
        TrialKind,
    )
    from exports import selectors as exported
    from exports.models import Release
    from jobs.models import Job, Status

    ledger = world.ledger
    # What follows is told as well, and counted under its promise.
    complaints = len(ledger.wrong)
    tokens = dict(Session.objects.values_list("pk", "token"))
    stored: dict[str, Any] = {}
    columns = ("pk", "trial__session_id", "trial_id", "named", "impossible", "revision", "current")
    for row in Response.objects.values_list(*columns).iterator():
        stored[str(row[0])] = row
    lost = other = kept_after_withdrawal = 0
    for key, answer in ledger.accepted.items():
        row = stored.get(key)
        if answer.session in ledger.withdrawn:
            kept_after_withdrawal += row is not None
        elif row is None:
            lost += 1
        else:
            named = tuple((int(category), float(percentage)) for category, percentage in row[3])
            same = (tokens[row[1]], str(row[2]), named, tuple(row[4])) == (
                answer.session,
                answer.trial,
                answer.named,
                answer.impossible,
            )
            other += not same
    firsts = Counter(answer.trial for answer in ledger.accepted.values() if answer.revises is None)
    per_trial = Counter(str(row[2]) for row in stored.values() if row[5] == 1)
    current = Counter(str(row[2]) for row in stored.values() if row[6])
    twice = sum(count > 1 for counts in (firsts, per_trial, current) for count in counts.values())

    studies = Study.objects.filter(slug__in=world.shown)
    places = Place.objects.filter(study__in=studies)
    counted = Q(
        kind=TrialKind.MAIN,
        place__isnull=False,
        session__status=SessionStatus.COMPLETED,
        responses__current=True,
    )
    wrong_k = 0
    for study in studies:
        arms: list[Arm | None] = [*study.arms.all()]
        for arm in arms or [None]:
            of_arm = Trial.objects.filter(counted, session__study=study, place__arm=arm)
            labels = dict(of_arm.values("image_id").annotate(labels=Count("pk")).values_list("image_id", "labels"))
            for image in study.study_images.values_list("image_id", flat=True):
                if labels.get(image, 0) != K:
                    wrong_k += 1
                    shown = Trial.objects.filter(session__study=study, image=image, kind=TrialKind.MAIN)
                    states = shown.values_list("session", "session__status", "place", "place__arm", "skipped_at")
                    held = places.filter(study=study, arm=arm, batch__study_images__image=image)
                    ledger.complain(
                        f"{study.slug}: image {image} has {labels.get(image, 0)} labels; trials {list(states)}; "
                        f"places {list(held.values_list('pk', 'session'))}"
                    )
            people = of_arm.values("image_id").annotate(people=Count("session__participant", distinct=True))
            wrong_k += sum(row["people"] != labels[row["image_id"]] for row in people)

    completed = Session.objects.filter(status=SessionStatus.COMPLETED)
    done = set(completed.values_list("token", flat=True))
    checked = set(ConsistencyCheck.objects.values_list("session__token", flat=True))
    superseded = set(Release.objects.filter(superseded_at__isnull=False).values_list("pk", flat=True))
    failed = [
        job
        for job in Job.objects.filter(status=Status.FAILED)
        if not (job.kind == "exports.build_release" and int(job.subject) in superseded)
    ]
    for job in failed:
        ledger.complain(f"{job}: {job.error}")
    unready = wrong_hash = 0
    for release in Release.objects.all():
        if release.superseded_at:
            continue
        if not release.is_ready:
            unready += 1
        elif hashlib.sha256(exported.archive(release).read_bytes()).hexdigest() != release.zip_sha256:
            wrong_hash += 1
    sums = dict(Release.objects.values_list("pk", "zip_sha256"))
    wrong_hash += sum(sums[pk] != sha256 for pk, sha256 in researcher.downloaded.items())
    unfinished = Job.objects.filter(status__in=[Status.QUEUED, Status.RUNNING], due_at__lte=_now()).count()
    return {
        "accepted answers lost": lost,
        "answers stored twice": twice,
        "answers stored otherwise": other,
        "answers stored that nobody was told of": len(set(stored) - set(ledger.accepted)),
        "answers kept after a withdrawal": kept_after_withdrawal,
        "images with other than K labels": wrong_k,
        "places not filled": places.filter(session__isnull=True).count(),
        "sessions completed and not so in the database": len(ledger.completed - done),
        "completed sessions without their check": len(done - checked),
        "releases not ready": unready,
        "releases with another hash": wrong_hash,
        "jobs that failed": len(failed),
        "jobs that are stuck": unfinished,
        "failures that the site did not foresee (500)": ledger.statuses["500"],
        "errors out of form": len(ledger.out_of_form),
        "other complaints": complaints,
    }


def _now() -> Any:
    from django.utils import timezone

    return timezone.now()


def settled(world: World) -> bool:
    """Whether every place of every study that was shown is filled by a completed session, and all work is done."""
    from annotations.kinds import MEASURE_STUDY, SUMMARISE_STUDY
    from annotations.models import ConsistencyCheck, Place, Session, SessionStatus
    from exports.models import Release
    from jobs.models import Job, Status

    places = Place.objects.filter(study__slug__in=world.shown)
    if places.exclude(session__status=SessionStatus.COMPLETED).exists():
        return False
    done = Session.objects.filter(status=SessionStatus.COMPLETED).count()
    # These two come back as long as there is anything to measure, minutes apart.
    at_work = Job.objects.filter(status__in=[Status.QUEUED, Status.RUNNING])
    return (
        ConsistencyCheck.objects.filter(session__status=SessionStatus.COMPLETED).count() == done
        and not Release.objects.filter(ready_at__isnull=True, superseded_at__isnull=True).exists()
        and not at_work.exclude(kind__in=[MEASURE_STUDY, SUMMARISE_STUDY], due_at__gt=_now()).exists()
    )


# --- The whole of it


def soak(options: argparse.Namespace) -> dict[str, Any]:
    apart.forget_settings()
    folder = services.temporary_folder("elicit-soak-")
    logs = Path(options.logs or folder / "logs")
    logs.mkdir(parents=True, exist_ok=True)
    postgres, redis = services.own_postgres(durable=True), services.forgetful_redis()
    port = services.free_port()
    environment = {
        "ELICIT_VAR": str(folder / "var"),
        "ELICIT_DATABASE_URL": postgres.url,
        "ELICIT_BROKER_URL": redis.url,
        # All come from one address.
        "ELICIT_RATES": "begin:6000/minute,address:60000/minute",
        # Seconds where there are minutes in life, but for the lease, which a sleeping worker must not lose too soon.
        "ELICIT_JOB_LEASE_SECONDS": "15",
        "ELICIT_JOB_PATIENCE_SECONDS": "5",
        "ELICIT_JOB_SWEEP_SECONDS": "5",
        "ELICIT_ABANDONED_SWEEP_SECONDS": "5",
    }
    os.environ.update(environment, DJANGO_SETTINGS_MODULE="elicit.settings")
    import django

    django.setup()
    slugs, token = furnish(options)
    ledger = Ledger()
    world = World(f"http://127.0.0.1:{port}", slugs, ledger, options.think, options.forget_outbox)
    if options.forget_outbox:
        calling.PATIENCE_SECONDS = ()  # type: ignore[assignment]  # of any length
    schedule = ("--schedule", str(folder / "beat-schedule"))
    parts: dict[str, Part] = {
        "web": Ours("web", partial(services.web, environment, "--bind", f"127.0.0.1:{port}"), logs),
        "worker": Ours("worker", partial(services.worker, environment), logs),
        "clock": Ours("clock", partial(services.beat, environment, *schedule), logs),
        "redis": Theirs("redis", redis, logs),
        "postgres": Theirs("postgres", postgres, logs),
    }
    try:
        return _run(options, world, parts, folder, token)
    finally:
        world.closing.set()
        world.over.set()
        for part in parts.values():
            part.close()


def furnish(options: argparse.Namespace) -> tuple[list[str], str]:
    """An installation with enough studies for the time, and a researcher: their key."""
    from django.core.management import call_command
    from knox.models import get_token_model

    from tests import factories as make

    call_command("migrate", verbosity=0)
    call_command("collectstatic", interactive=False, verbosity=0)
    answers = options.annotators * options.minutes * 60 / (options.think + 0.1)
    studies = int(answers / (IMAGES * K * (1 + 2 / PER_SESSION))) + 5
    with tempfile.TemporaryDirectory() as pictures:
        slugs = make_studies(studies, Path(pictures))
    _, token = get_token_model().objects.create(make.make_curator())
    return slugs, str(token)


def _run(
    options: argparse.Namespace, world: World, parts: Mapping[str, Part], folder: Path, token: str
) -> dict[str, Any]:
    from django.db import Error, close_old_connections

    ledger = world.ledger
    crowd = [Annotator(world, number, options.seed) for number in range(options.annotators)]
    reaper, scale, supervisor = Reaper(parts, options.kill_every, options.seed), Scale(parts), Supervisor(parts)
    researcher = Researcher(world, options.release_every, folder / "downloads", token, options.seed)
    began = time.monotonic()
    for thread in (*crowd, researcher, reaper, scale, supervisor):
        thread.start()
    ends = began + 60 * options.minutes
    with tqdm(total=round(60 * options.minutes), unit="s", disable=None) as progress:
        while (now := time.monotonic()) < ends and reaper.failed is None:
            time.sleep(min(1.0, ends - now))
            progress.update(round(min(time.monotonic(), ends) - began) - progress.n)
            progress.set_postfix_str(f"{len(ledger.accepted)} answers, {len(ledger.wrong)} complaints", refresh=False)
    # What follows is calm: nothing dies any more, and people go on until every place is filled.
    reaper.enough.set()
    researcher.enough.set()
    reaper.join(3 * LONGEST_DEATH + 2 * services.SECONDS_TO_START)
    researcher.join(120)
    world.closing.set()
    calm = time.monotonic()
    while time.monotonic() - calm < DRAIN_SECONDS:
        time.sleep(1)
        with suppress(Error):
            close_old_connections()
            if settled(world):
                break
    drained = time.monotonic() - calm
    world.over.set()
    for thread in crowd:
        thread.join(60)
    alive = [thread.name for thread in crowd if thread.is_alive()]
    if alive:
        ledger.complain(f"{len(alive)} annotators never ended")
        faulthandler.dump_traceback()
    if reaper.failed is not None:
        ledger.complain(f"the reaper: {reaper.failed!r}")
    scale.enough.set()
    supervisor.enough.set()
    supervisor.join(60)
    researcher.fetch()
    broken = verify(world, researcher)
    memory = {part: scale.growth(part) for part in ("web", "worker")}
    for part, (_, _, growth) in memory.items():
        grows = growth is not None and growth > MOST_GROWTH_MB_A_MINUTE
        broken[f"{part} grows by more than {MOST_GROWTH_MB_A_MINUTE:g} MB a minute"] = int(grows)
    waits = np.array(ledger.waits or [0.0])
    return {
        "minutes": options.minutes,
        "annotators": options.annotators,
        "seed": options.seed,
        "studies": len(world.shown),
        "sessions completed": len(ledger.completed),
        "sessions withdrawn": len(ledger.withdrawn),
        "answers accepted": len(ledger.accepted),
        "answers a second": round(len(ledger.accepted) / (calm + drained - began), 1),
        "sent again": ledger.puts - len(ledger.sent) - ledger.told["sent twice at once"],
        "deaths": {name: dict(part.deaths) for name, part in parts.items()},
        "deaths in all": sum(sum(part.deaths.values()) for part in parts.values()),
        "releases requested": len(researcher.requested),
        "releases downloaded": len(researcher.downloaded),
        "longest wait, s": round(ledger.longest[0], 1),
        "longest wait was for": ledger.longest[1],
        "median wait, ms": round(1000 * float(np.median(waits))),
        "99.9 % of waits within, s": round(float(np.percentile(waits, 99.9)), 1),
        "calm after, s": round(drained),
        "statuses": dict(sorted(ledger.statuses.items())),
        "refusals": dict(sorted(ledger.refusals.items())),
        "told": dict(sorted(ledger.told.items())),
        "memory": {
            part: {"median MB": round(median), "most MB": round(most), "MB a minute": growth and round(growth, 2)}
            for part, (median, most, growth) in memory.items()
        },
        "broken": broken,
        "complaints": [*ledger.wrong, *ledger.out_of_form][:50],
        "happened": reaper.happened,
    }


def table(report: Mapping[str, Any]) -> str:
    lines = []
    for name, value in report.items():
        match name, value:
            case "broken", broken:
                lines += ["", "promises, and how often each was broken:"]
                lines += [f"  {promise:50} {count}" for promise, count in broken.items()]
            case "complaints" | "happened", _:
                continue
            case "deaths" | "memory", _:
                for part, found in value.items():
                    told = ", ".join(f"{key} {each}" for key, each in found.items())
                    lines.append(f"{name + ' of ' + part:32} {told}")
            case _, dict():
                lines.append(f"{name:32} " + ", ".join(f"{key}: {each}" for key, each in value.items()))
            case _:
                lines.append(f"{name:32} {value}")
    lines += [f"! {complaint}" for complaint in report["complaints"]]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--annotators", type=int, default=200)
    parser.add_argument("--think", type=float, default=8.0, help="seconds before an answer, on average")
    parser.add_argument("--kill-every", type=float, default=20.0, help="seconds")
    parser.add_argument("--release-every", type=float, default=20.0, help="seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--forget-outbox", action="store_true", help="the control: nobody sends an answer again")
    parser.add_argument("--logs", help="keep the parts' logs in this folder")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    report = soak(options)
    print(json.dumps(report) if options.json else table(report))
    if any(report["broken"].values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

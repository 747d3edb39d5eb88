"""Somebody who presses `download` all the time. What they get is nothing, or whole."""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from django.urls import reverse
from knox.models import get_token_model

from exports.models import Release
from tests import factories as make
from tests import services

ALL_OF_IT = "release.zip"


def is_ready(release: Release) -> bool:
    release.refresh_from_db()
    return release.is_ready


class Downloads:
    """Of the files `names` of one release; `got` has the status, the name and the hash of each answer."""

    def __init__(self, site: services.Service, release: Release, names: Sequence[str] = (ALL_OF_IT,)) -> None:
        self.release, self.names, self.got = release, names, list[tuple[int, str, str]]()
        _, token = get_token_model().objects.create(make.make_curator(f"curator-{release.pk}"))
        headers = {"Authorization": f"Token {token}"}
        self._requests = {
            name: urllib.request.Request(  # noqa: S310 (our own address)
                site.url + reverse("release-file-api", args=[release.study.slug, release.version, name]),
                headers=headers,
            )
            for name in names
        }

    def press(self, name: str = ALL_OF_IT) -> bool:
        """True once it came."""
        try:
            with urllib.request.urlopen(self._requests[name], timeout=30) as answer:  # noqa: S310 (our own address)
                self.got.append((answer.status, name, hashlib.sha256(answer.read()).hexdigest()))
        except urllib.error.HTTPError as error:
            error.close()
            self.got.append((error.code, name, ""))
        return self.got[-1][0] == 200

    @contextmanager
    def all_the_time(self, every: float = 0.005) -> Iterator[None]:
        """Press in another thread, one name after the other, meanwhile."""
        enough = threading.Event()

        def press() -> None:
            for name in itertools.cycle(self.names):
                if enough.is_set():
                    return
                self.press(name)
                time.sleep(every)

        thread = threading.Thread(target=press)
        thread.start()
        try:
            yield
        finally:
            enough.set()
            thread.join(60)
            assert not thread.is_alive()

    def all_came(self) -> bool:
        return {name for status, name, _ in self.got if status == 200} == set(self.names)

    def check(self) -> None:
        """Fail unless each name was refused until it came, and came as the release's row says."""
        assert is_ready(self.release)
        sealed = {name: seal["sha256"] for name, seal in self.release.manifest["files"].items()}
        sealed[ALL_OF_IT] = self.release.zip_sha256
        for name in self.names:
            answers = [(status, sha256) for status, of, sha256 in self.got if of == name]
            refused = list(itertools.takewhile(lambda each: each[0] == 404, answers))
            assert answers[len(refused) :], name
            assert set(answers[len(refused) :]) == {(200, sealed[name])}, name

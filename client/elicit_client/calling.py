"""One request, tried again where the network or the server failed and the request may be sent twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Self
from urllib.parse import quote, urljoin, urlsplit

import requests

PATIENCE_SECONDS = (0.5, 1.0, 2.0, 4.0)
LONGEST_WAIT_SECONDS = 60.0
# Answers after which the same request may succeed.
PASSING = {429, 500, 502, 503, 504}


class ElicitError(Exception):
    """The server refused. `status` is HTTP's, `code` is for programs, `fields` says what is wrong where."""

    def __init__(self, status: int, code: str, message: str, fields: Mapping[str, str]) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code, self.message, self.fields = status, code, message, dict(fields)


class Caller:
    """A server and an authorisation. The key goes to that server alone, and in the clear to this machine alone."""

    def __init__(
        self,
        url: str,
        authorization: str = "",
        *,
        timeout: float = 30.0,
        http: requests.Session | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        address = urlsplit(url)
        if address.scheme != "https" and address.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError(f"{url}: a key is sent over https only.")
        self.url, self.authorization = url.rstrip("/") + "/", authorization
        self.timeout, self.sleep = timeout, sleep
        self.http, self._is_lent = http or requests.Session(), http is not None

    def close(self) -> None:
        """Close the connections, unless they belong to a session that was given."""
        if not self._is_lent:
            self.http.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        again: bool = True,
    ) -> requests.Response:
        """The server's answer below 400. `again`: whether the request may be sent more than once.

        Raises:
            ElicitError: the server refused, or failed to the last.
            requests.RequestException: it could not be reached.
        """
        address = urljoin(self.url, path.lstrip("/"))
        if not address.startswith(self.url):
            raise ElicitError(502, "wrong_address", f"{path} leads away from {self.url}", {})
        options: dict[str, Any] = {"json": body} if body is not None else {}
        sent = {"Authorization": self.authorization} if self.authorization else {}
        for wait in (*PATIENCE_SECONDS, None) if again else (None,):
            try:
                answer = self.http.request(
                    method,
                    address,
                    params=dict(query or {}),
                    headers={**sent, **(headers or {})},
                    timeout=self.timeout,
                    stream=stream,
                    allow_redirects=False,
                    **options,
                )
            except (requests.ConnectionError, requests.Timeout):
                if wait is None:
                    raise
                self.sleep(wait)
                continue
            if answer.status_code in PASSING and wait is not None:
                self.sleep(_wait(answer, wait))
                continue
            break
        if answer.status_code >= 300:
            raise _refusal(answer)
        return answer


class Calls:
    """Whoever asks through a `Caller` of their own, and closes it in the end."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    def close(self) -> None:
        """Close the connections; `with` does it too."""
        self.caller.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def study_address(study: str, part: str = "") -> str:
    """The path of a study, or of a part of it."""
    return f"/api/studies/{quote(study, safe='')}{part}"


def _wait(answer: requests.Response, otherwise: float) -> float:
    told = answer.headers.get("Retry-After", "")
    return min(float(told), LONGEST_WAIT_SECONDS) if told.isdecimal() else otherwise


def _refusal(answer: requests.Response) -> ElicitError:
    try:
        body = answer.json()
        return ElicitError(answer.status_code, body["code"], body["message"], body["fields"])
    except (ValueError, KeyError, TypeError):
        # A proxy's own page, or another server.
        return ElicitError(answer.status_code, "error", answer.reason or "no message", {})

"""Prolific's API, as far as it is needed here. Written to docs.prolific.com/api-reference (submissions, bonuses):
see docs/how-to/recruit.md for the pages.

What is safe to repeat is repeated, with growing pauses and Retry-After honoured. Paying a bulk of bonuses is not: its
page warns that a second request pays a second time. Such a request is sent once, and when its answer does not come
`Uncertain` says that only Prolific knows what happened.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import requests
from django.conf import settings

PATIENCE = (3.05, 10.0)
"""Seconds to connect, and to wait for an answer."""
TRIES = 4
LONGEST_PAUSE = 30.0
PAGE = 100


class ProlificError(Exception):
    """A request that did not do what it should."""


class Refused(ProlificError):
    """Prolific answered no (4xx): nothing was changed."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class Unavailable(ProlificError):
    """No answer, or not now. Nothing that matters was sent, or it may be sent again."""


class Uncertain(ProlificError):
    """A request that must not be repeated got no answer."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What Prolific says of a submission; `bonuses_minor` are those paid on it, in pence or cents."""

    id: str
    study: str
    person: str
    status: str
    entered_code: str = ""
    bonuses_minor: tuple[int, ...] = ()
    return_asked: bool = False

    @classmethod
    def of(cls, body: dict[str, Any], study: str = "") -> Submission:
        """Of the API's object; the list names the participant `participant_id` and leaves the study out."""
        return cls(
            id=str(body.get("id", "")),
            study=str(body.get("study_id") or study),
            person=str(body.get("participant") or body.get("participant_id") or ""),
            status=str(body.get("status", "")),
            entered_code=str(body.get("entered_code") or body.get("study_code") or ""),
            bonuses_minor=tuple(round(float(each)) for each in body.get("bonus_payments") or ()),
            return_asked=bool(body.get("return_requested")),
        )


def is_configured() -> bool:
    """Whether this installation may speak to Prolific."""
    return bool(settings.PROLIFIC_TOKEN)


@dataclass
class Client:
    """Calls of one job or one page. `tries` and `patience` are fewer and shorter where a person waits."""

    tries: int = TRIES
    patience: tuple[float, float] = PATIENCE
    pause: Callable[[float], None] = time.sleep
    session: requests.Session = field(default_factory=requests.Session)

    def submission(self, submission: str) -> Submission:
        """Raises: Refused (404 where there is none), Unavailable."""
        return Submission.of(self._ask("GET", f"submissions/{submission}/"))

    def submissions(self, study: str) -> Iterator[Submission]:
        """All submissions of a study, page by page. Raises: Refused, Unavailable."""
        page = 1
        while True:
            body = self._ask("GET", "submissions/", params={"study": study, "page": page, "page_size": PAGE})
            results = body.get("results") or []
            yield from (Submission.of(each, study) for each in results)
            if len(results) < PAGE:
                return
            page += 1

    def approve(self, submission: str) -> Submission:
        """Pays the reward. Idempotent. Raises: Refused, Unavailable."""
        return self._transition(submission, {"action": "APPROVE"})

    def reject(self, submission: str, message: str, category: str) -> Submission:
        """Idempotent. Raises: Refused, Unavailable."""
        return self._transition(submission, {"action": "REJECT", "message": message, "rejection_category": category})

    def screen_out(self, submission: str, code: str) -> Submission:
        """Completes with the code of a fixed screen-out, whose actor is the researcher. Idempotent."""
        return self._transition(submission, {"action": "COMPLETE", "completion_code": code})

    def ask_to_return(self, submission: str, reason: str) -> Submission:
        """Raises: Refused, Unavailable."""
        body = {"request_return_reasons": [reason]}
        return Submission.of(self._ask("POST", f"submissions/{submission}/request-return/", json=body))

    def set_up_bonus(self, study: str, submission: str, amount_minor: int) -> str:
        """The id of a bulk of one bonus, which pays nothing yet. Raises: Refused, Unavailable."""
        line = f"{submission},{amount_minor // 100}.{amount_minor % 100:02}"
        body = self._ask("POST", "submissions/bonus-payments/", json={"study_id": study, "csv_bonuses": line})
        return str(body.get("id", ""))

    def pay_bonus(self, bulk: str) -> None:
        """Sent once, ever. Raises: Refused (nothing was paid), Uncertain."""
        url = self._url(f"bulk-bonus-payments/{bulk}/pay/")
        try:
            response = self.session.post(url, headers=self._headers(), timeout=self.patience)
        except requests.RequestException as error:
            raise Uncertain(type(error).__name__) from error
        if response.status_code >= 500:
            raise Uncertain(f"HTTP {response.status_code}")
        self._fine(response)

    def _transition(self, submission: str, body: dict[str, str]) -> Submission:
        return Submission.of(self._ask("POST", f"submissions/{submission}/transition/", json=body))

    def _ask(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        """One request that may be repeated."""
        for attempt in range(1, self.tries + 1):
            wait = min(2.0 ** (attempt - 1), LONGEST_PAUSE)
            try:
                response = self.session.request(
                    method, self._url(path), headers=self._headers(), timeout=self.patience, **request
                )
            except requests.RequestException as error:
                problem = type(error).__name__
            else:
                if response.status_code != 429 and response.status_code < 500:
                    self._fine(response)
                    return _body(response)
                problem = f"HTTP {response.status_code}"
                wait = _retry_after(response, wait)
            if attempt < self.tries:
                self.pause(wait)
        raise Unavailable(f"Prolific did not answer ({problem}).")

    @staticmethod
    def _fine(response: requests.Response) -> None:
        if response.status_code >= 400:
            raise Refused(response.status_code, f"Prolific refused it (HTTP {response.status_code}).")

    @staticmethod
    def _url(path: str) -> str:
        return f"{settings.PROLIFIC_URL}/api/v1/{path}"

    @staticmethod
    def _headers() -> dict[str, str]:
        return {"Authorization": f"Token {settings.PROLIFIC_TOKEN}"}


def _body(response: requests.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except requests.JSONDecodeError as error:
        raise Unavailable("Prolific's answer can't be read.") from error
    return body if isinstance(body, dict) else {}


def _retry_after(response: requests.Response, otherwise: float) -> float:
    asked = response.headers.get("Retry-After", "")
    return min(float(asked), LONGEST_PAUSE) if asked.isdecimal() else otherwise

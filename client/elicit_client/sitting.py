"""What an annotator does, for programs that take part: simulated annotators, models, experiments."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, cast
from urllib.parse import quote

from elicit_client.calling import Caller, Calls, study_address
from elicit_client.types import NextTrialOut, ResponseOut, SessionBegunOut, SessionOut, StandingOut, StudyOut

AT_TRIALS = ("practice", "trials")


class Sitting(Calls):
    """A session in a study. `Sitting.begin` makes one; `Sitting(url, token)` goes on with one."""

    def __init__(self, url: str, token: str, **options: Any) -> None:
        """`options` as `Elicit` takes them."""
        super().__init__(Caller(url, f"Session {token}", **options))
        self.token = token

    @classmethod
    def study(cls, url: str, study: str, **options: Any) -> StudyOut:
        """A study and its consent text, as anybody may read it."""
        with closing(Caller(url, **options)) as caller:
            return cast("StudyOut", caller.send("GET", study_address(study)).json())

    @classmethod
    def begin(
        cls, url: str, study: str, *, consent_version: int, parameters: Mapping[str, str] | None = None, **options: Any
    ) -> Sitting:
        """Agree to a consent text and get a session. `parameters` are those of a recruiting platform's link.

        Not sent again by itself when the network fails: a second one would begin a second session.
        """
        body = {"consent_version": consent_version, "parameters": dict(parameters or {})}
        with closing(Caller(url, **options)) as caller:
            answer = caller.send("POST", study_address(study, "/sessions"), body=body, again=False)
        begun = cast("SessionBegunOut", answer.json())
        return cls(url, begun["token"], **options)

    def standing(self) -> SessionOut:
        """Where the session stands: its step, its next trial, and what an answer may say."""
        return cast("SessionOut", self.caller.send("GET", "/api/session").json())

    def leave_step(self, step: str, *, answers: Mapping[str, str] | None = None, attempt: int = 0) -> SessionOut:
        """Go on from `instructions`, `practice`, `comprehension` or `questionnaire`. Doing it twice is harmless."""
        body = {"step": step, "attempt": attempt, "answers": dict(answers or {})}
        return cast("SessionOut", self.caller.send("POST", "/api/session/step", body=body).json())

    def trials(self) -> Iterator[NextTrialOut]:
        """The trials of the step at which the session stands, each once, as long as the caller answers them."""
        last = None
        while (session := self.standing())["status"] in AT_TRIALS and session["next"] is not None:
            if session["next"]["id"] == last:
                raise RuntimeError(f"Trial {last} was neither answered nor skipped.")
            last = session["next"]["id"]
            yield session["next"]

    def image(self, trial: NextTrialOut) -> bytes:
        """The bytes of a trial's image, a PNG."""
        return self.caller.send("GET", trial["image_url"]).content

    def respond(
        self,
        trial_id: str,
        named: Sequence[tuple[int, float]],
        *,
        duration_ms: int,
        hidden_ms: int = 0,
        impossible: Sequence[int] = (),
        revises: str | None = None,
        response_id: str | None = None,
        process: Mapping[str, Any] | None = None,
    ) -> ResponseOut:
        """Answer a trial: pairs of category and percentage, the likelier first. Sent again until the server has it.

        The id is made before the first try, so that the answer is stored once however often it is sent. `revises` makes
        it a correction of an earlier response. `duration_ms` is what the answer took, `hidden_ms` how long the image
        was out of sight meanwhile, both in milliseconds.
        """
        body: dict[str, Any] = {
            "named": [{"category": category, "percentage": percentage} for category, percentage in named],
            "impossible": list(impossible),
            "duration_ms": duration_ms,
            "hidden_ms": hidden_ms,
            "revises": revises,
            "process": dict(process) if process is not None else None,
        }
        path = f"/api/trials/{quote(trial_id, safe='')}/responses/{response_id or uuid.uuid4()}"
        return cast("ResponseOut", self.caller.send("PUT", path, body=body).json())

    def skip(self, trial_id: str) -> StandingOut:
        """Pass over a trial whose image can't be shown."""
        body = {"reason": "image_failed"}
        path = f"/api/trials/{quote(trial_id, safe='')}/skip"
        return cast("StandingOut", self.caller.send("PUT", path, body=body).json())

    def withdraw(self) -> None:
        """Leave, and have everything that was given erased. It can't be undone."""
        self.caller.send("DELETE", "/api/session")

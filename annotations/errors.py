"""What the annotation side refuses, each with a code that the API's documentation explains."""

from __future__ import annotations

from elicit.labels.errors import Refusal


class AnnotationError(Refusal):
    """The request is well formed, but what it asks for can't be done in the present state."""


REFUSALS = {
    "study_not_live": "This study does not take part now.",
    "study_full": "This study has all the annotators that it needs.",
    "place_given_away": "Your place went to somebody else while you were away.",
    "session_not_at_trials": "This session is not at its trials.",
    "trial_already_answered": "This image has been answered already.",
    "response_id_taken": "This response id belongs to another answer.",
    "consent_missing": "The consent form has to be agreed to first.",
    "launch_refused": "The study is not ready to launch.",
    "wrong_status": "The study is not in a state for that.",
    "responses_do_not_fit": "The responses do not fit the dataset.",
    "settings_frozen": "The settings of a launched study are fixed.",
}


def refuse(code: str, message: str = "", **fields: str) -> AnnotationError:
    """The error for a code of `REFUSALS`, to be raised."""
    return AnnotationError(code, message or REFUSALS[code], fields)

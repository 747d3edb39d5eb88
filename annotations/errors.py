"""What the annotation side refuses, each with a code that the API's documentation explains."""

from __future__ import annotations

from django.utils.translation import gettext
from django.utils.translation import gettext_noop as _

from elicit.labels.errors import Refusal


class AnnotationError(Refusal):
    """The request is well formed, but what it asks for can't be done in the present state."""


REFUSALS = {
    "study_not_live": _("This study does not take part now."),
    "study_full": _("This study has all the annotators that it needs."),
    "place_given_away": _("Your place went to somebody else while you were away."),
    "session_not_at_trials": _("This session is not at its trials."),
    "trial_already_answered": _("This image has been answered already."),
    "response_id_taken": _("This response id belongs to another answer."),
    "consent_missing": _("The consent form has to be agreed to first."),
    "launch_refused": _("The study is not ready to launch."),
    "wrong_status": _("The study is not in a state for that."),
    "responses_do_not_fit": _("The responses do not fit the dataset."),
    "already_withdrawn": _("This session is withdrawn already: nothing of it is kept."),
    "already_excluded": _("This session is excluded already."),
    "not_excluded": _("This session is not excluded."),
    "place_taken": _("Others have taken the places of this session's images meanwhile."),
    "settings_frozen": _("The settings of a launched study are fixed."),
}


def refuse(code: str, message: str = "", **fields: str) -> AnnotationError:
    """The error for a code of `REFUSALS`, to be raised."""
    return AnnotationError(code, message or gettext(REFUSALS[code]), fields)

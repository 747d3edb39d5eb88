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
    "dataset_filled": _("This dataset has its images already."),
    "dataset_deleted": _("The dataset was deleted meanwhile."),
    "import_under_way": _("An import into this dataset is under way."),
    "import_not_failed": _("This import has not failed."),
    "upload_wrong": _("These files are not a part of the folder that was announced."),
    "upload_closed": _("The import has begun already."),
    "upload_incomplete": _("Some files of the folder have not come yet."),
    "other_browser": _("This link was opened in another browser already."),
    "invitation_unknown": _("This invitation is not known."),
    "invitation_void": _("This invitation is no longer valid."),
    "submission_unknown": _("The platform does not know this submission as yours."),
    "submission_over": _("This submission has ended on the platform."),
    "pay_promised": _("People have begun under these terms: what they were promised can't be changed."),
    "no_api": _("This installation has no access to the platform's API."),
    "no_submission": _("There is no submission of this person to act on."),
    "payment_not_due": _("This payment is not due."),
    "rejection_refused": _("The platform's rules do not allow this rejection."),
    "platform_refused": _("The platform refused it."),
    "platform_away": _("The platform did not answer: nothing was changed. Try again in a while."),
}


def refuse(code: str, message: str = "", **fields: str) -> AnnotationError:
    """The error for a code of `REFUSALS`, to be raised."""
    return AnnotationError(code, message or gettext(REFUSALS[code]), fields)

"""Everything up to a checked response."""

from annotations.models.checks import CheckItem, CheckKind
from annotations.models.participation import ExclusionReason, Participant, Session, SessionStatus
from annotations.models.quality import ConsistencyCheck
from annotations.models.responses import InputDevice, Response, Trial, TrialKind
from annotations.models.stimuli import Category, Dataset, Image, ImageImport
from annotations.models.studies import (
    Batch,
    Consent,
    Framing,
    InputMode,
    Language,
    Place,
    Study,
    StudyImage,
    StudyStatus,
)

__all__ = [
    "Batch",
    "Category",
    "CheckItem",
    "CheckKind",
    "Consent",
    "ConsistencyCheck",
    "Dataset",
    "ExclusionReason",
    "Framing",
    "Image",
    "ImageImport",
    "InputDevice",
    "InputMode",
    "Language",
    "Participant",
    "Place",
    "Response",
    "Session",
    "SessionStatus",
    "Study",
    "StudyImage",
    "StudyStatus",
    "Trial",
    "TrialKind",
]

"""Everything up to a checked response."""

from annotations.models.participation import Participant, Session, SessionStatus
from annotations.models.quality import ConsistencyCheck
from annotations.models.responses import Response, Trial, TrialKind
from annotations.models.stimuli import Category, Dataset, Image, ImageImport
from annotations.models.studies import Batch, Consent, Framing, Place, Study, StudyImage, StudyStatus

__all__ = [
    "Batch",
    "Category",
    "Consent",
    "ConsistencyCheck",
    "Dataset",
    "Framing",
    "Image",
    "ImageImport",
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

"""Everything up to a checked response."""

from annotations.models.arms import ARM_SETTINGS, Arm, ArmComparison
from annotations.models.checks import CheckItem, CheckKind
from annotations.models.participation import ExclusionReason, Participant, Session, SessionStatus
from annotations.models.plans import Plan, PlannedMetric, SecondsFrom
from annotations.models.quality import (
    Appeal,
    AppealOutcome,
    CheckOutcome,
    ConsistencyCheck,
    QualityRule,
    SessionQuality,
)
from annotations.models.recruitment import (
    Arrival,
    BonusRule,
    Currency,
    Invitation,
    Outcome,
    Payment,
    PaymentKind,
    PaymentState,
    Platform,
    PlatformStatus,
    Recruitment,
    WebhookEvent,
)
from annotations.models.responses import InputDevice, Response, Trial, TrialKind
from annotations.models.retention import Retention
from annotations.models.stimuli import Category, Dataset, Image, ImageImport, ImageRemoval, ImportProblem
from annotations.models.studies import (
    Assignment,
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
from annotations.models.summaries import StudySummary

__all__ = [
    "ARM_SETTINGS",
    "Appeal",
    "AppealOutcome",
    "Arm",
    "ArmComparison",
    "Arrival",
    "Assignment",
    "Batch",
    "BonusRule",
    "Category",
    "CheckItem",
    "CheckKind",
    "CheckOutcome",
    "Consent",
    "ConsistencyCheck",
    "Currency",
    "Dataset",
    "ExclusionReason",
    "Framing",
    "Image",
    "ImageImport",
    "ImageRemoval",
    "ImportProblem",
    "InputDevice",
    "InputMode",
    "Invitation",
    "Language",
    "Outcome",
    "Participant",
    "Payment",
    "PaymentKind",
    "PaymentState",
    "Place",
    "Plan",
    "PlannedMetric",
    "Platform",
    "PlatformStatus",
    "QualityRule",
    "Recruitment",
    "Response",
    "Retention",
    "SecondsFrom",
    "Session",
    "SessionQuality",
    "SessionStatus",
    "Study",
    "StudyImage",
    "StudyStatus",
    "StudySummary",
    "Trial",
    "TrialKind",
    "WebhookEvent",
]

"""Which rows the audit log watches. `tests/test_audit.py` demands that every model is in one of the two lists."""

from __future__ import annotations

from typing import Any, Final

from auditlog.registry import auditlog
from django.apps import apps
from django.db import models

# Fields whose changes are told, but not their words.
MASKED: Final = {
    "auth.User": ["password"],
    "annotations.Appeal": ["text"],
    "annotations.Payment": ["note", "reference"],
    "annotations.Invitation": ["label"],
}
# Fields that nobody changes by hand, or that are a secret of their own.
LEFT_OUT: Final = {
    "auth.User": ["last_login"],
    "elicit.Authenticator": [
        "key_sealed", "drift", "last_t", "last_used_at", "throttling_failure_timestamp", "throttling_failure_count",
    ],
    "otp_static.StaticDevice": ["throttling_failure_timestamp", "throttling_failure_count"],
    "knox.AuthToken": ["digest", "token_key"],
    "annotations.Plan": ["curve"],
    "exports.Release": ["manifest", "folder", "zip_sha256", "zip_bytes"],
    "exports.TrainingRun": ["summary"],
    "annotations.Payment": ["claim", "key", "sending_at", "called_at", "images", "score", "arrival"],
    "annotations.Invitation": ["token_hash", "used_by", "used_at"],
    "annotations.Recruitment": ["polled_at"],
}  # fmt: skip
MANY_TO_MANY: Final = {"auth.User": {"groups", "user_permissions"}, "auth.Group": {"permissions"}}

AUDITED: Final = (
    "annotations.Appeal",
    "annotations.Arm",
    "annotations.CheckItem",
    "annotations.Consent",
    "annotations.Dataset",
    "annotations.Invitation",
    "annotations.Payment",
    "annotations.Plan",
    "annotations.QualityRule",
    "annotations.Recruitment",
    "annotations.Retention",
    "annotations.Study",
    "auth.Group",
    "auth.User",
    "elicit.Authenticator",
    "exports.Release",
    "exports.TrainingRun",
    "knox.AuthToken",
    "otp_static.StaticDevice",
)
# Model -> why its rows are not watched one by one.
UNWATCHED: Final = {
    "admin.LogEntry": "is a log itself",
    "annotations.ArmComparison": "is worked out by a worker",
    "annotations.Arrival": "is made by arriving, and names a platform's submission",
    "annotations.Batch": "is drawn with the study, by the thousand",
    "annotations.Category": "comes with its dataset and never changes",
    "annotations.CheckOutcome": "is worked out by a worker",
    "annotations.ConsistencyCheck": "is worked out by a worker",
    "annotations.Image": "comes with its dataset, by the thousand",
    "annotations.ImageImport": "its dataset is watched",
    "annotations.ImageRemoval": "says itself who removed what",
    "annotations.ImportProblem": "is told by an import",
    "annotations.Participant": "belongs to the annotator; looks at ids are recorded",
    "annotations.Place": "is made at launch, by the thousand",
    "annotations.Response": "belongs to the annotator",
    "annotations.Session": "belongs to the annotator; exclusions and withdrawals are recorded",
    "annotations.SessionQuality": "is worked out by a worker",
    "annotations.StudyImage": "is drawn with the study, by the thousand",
    "annotations.StudySummary": "is worked out by a worker",
    "annotations.Trial": "belongs to the annotator",
    "annotations.WebhookEvent": "is a log itself",
    "auditlog.LogEntry": "is the log",
    "auth.Permission": "comes with the code",
    "contenttypes.ContentType": "comes with the code",
    "jobs.Job": "is the machine's own",
    "otp_static.StaticToken": "is a secret; its device is watched",
    "otp_totp.TOTPDevice": "is empty: authenticators are kept sealed, by a model of our own",
    "sessions.Session": "is the browser's",
}


def _about(self: models.Model) -> dict[str, Any]:
    """Under which study the log shows a row."""
    study = self.pk if self._meta.label == "annotations.Study" else getattr(self, "study_id", None)
    if study is None and hasattr(self, "session_id"):
        study = getattr(self, "session").study_id  # noqa: B009 (not every model has one)
    return {"study": study}


def register() -> None:
    """Have every model of `AUDITED` that is installed watched."""
    for label in AUDITED:
        try:
            model = apps.get_model(label)
        except LookupError:
            continue
        if auditlog.contains(model):
            continue
        model.get_additional_data = _about
        auditlog.register(
            model,
            # Columns alone: what points here from other tables is told there.
            include_fields=[
                field.name for field in model._meta.concrete_fields if field.name not in LEFT_OUT.get(label, ())
            ],
            mask_fields=list(MASKED.get(label, [])),
            mask_callable="annotations.audit.hidden",
            m2m_fields=MANY_TO_MANY.get(label, set()),
        )

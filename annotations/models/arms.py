"""Arms: ways of asking that one study compares, drawn at random for each annotator."""

from __future__ import annotations

from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from annotations.models.studies import Study

ARM_SETTINGS = ("framing", "input_mode", "ask_impossible", "impossible_shortcut", "most_named")


def validate_arm_settings(settings: Any) -> None:
    """Raise ValidationError unless it is an object whose keys are in `ARM_SETTINGS`, each a value of that setting."""
    if not isinstance(settings, dict):
        raise ValidationError("An arm's settings are an object: setting -> value.")
    for name, value in settings.items():
        if name not in ARM_SETTINGS:
            raise ValidationError(f"An arm can't differ in “{name}”; it can in {', '.join(ARM_SETTINGS)}.")
        field = Study._meta.get_field(name)
        right = (int, type(None)) if name == "most_named" else (bool,) if name in _FLAGS else (str,)
        if not isinstance(value, right) or (name == "most_named" and isinstance(value, bool)):
            raise ValidationError(f"{value!r} is no value of “{field.verbose_name}”.")  # type: ignore[union-attr]
        field.clean(value, None)  # type: ignore[union-attr]


_FLAGS = ("ask_impossible", "impossible_shortcut")


class Arm(models.Model):
    """The settings in which an arm differs from its study. Each arm has K places of its own on every image."""

    copied_with_study = True

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="arms")
    name = models.SlugField(max_length=40, help_text="Short, as releases name it: slider, typed, self.")
    settings = models.JSONField(default=dict, blank=True, validators=[validate_arm_settings])
    weight = models.PositiveSmallIntegerField(
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(100)],
        help_text="Two gets twice as many sessions as one, as long as both have places.",
    )

    class Meta:
        ordering = ("study", "pk")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["study", "name"], name="arm_name_once_per_study"),
            models.CheckConstraint(condition=Q(weight__gte=1), name="arm_weight_from_1"),
        ]

    def __str__(self) -> str:
        return self.name

    def dress(self, study: Study) -> Study:
        """Let the study, as loaded, have this arm's settings. It is not to be saved with them."""
        for name in ARM_SETTINGS:
            if name in self.settings:
                setattr(study, name, self.settings[name])
        return study


class ArmComparison(models.Model):
    """What a study's arms were found to be like, worked out by a worker."""

    study = models.OneToOneField(Study, on_delete=models.CASCADE, related_name="arm_comparison")
    found = models.JSONField(help_text="As elicit.labels.arms.compare gives it.")
    sessions = models.PositiveIntegerField(help_text="Completed and not excluded, when it was worked out.")
    found_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"the arms of {self.study}"

"""The addresses of things, in one place for pages and API."""

from __future__ import annotations

from typing import Any

from django.urls import reverse

from annotations.models import Image, Study, Trial


def image_url(image: Image, study: Study) -> str:
    return reverse("image", args=[image.sha256, study.image_scale])


def trial_json(trial: Trial, study: Study) -> dict[str, Any]:
    """What the browser needs to show a trial. Neither the image's name nor its reference label is in it."""
    return {
        "id": str(trial.pk),
        "image_url": image_url(trial.image, study),
        "position": trial.position,
        "framing": trial.framing,
    }

"""Curators' texts as annotators read them: Markdown with pictures of the study's dataset, or ones that were uploaded.

`![A cat](image:12)` shows image 12 of the dataset as the trials do, `![A sketch](picture:HASH)` an uploaded picture.
"""

from __future__ import annotations

import re
from typing import Any

from django.urls import reverse
from django.utils.safestring import SafeString

from annotations import image_store, selectors
from annotations.links import image_url
from annotations.markdown import pictures, to_html
from annotations.models import Framing, Study, Trial

_OF_DATASET = re.compile(r"image:([0-9]{1,9})")
_UPLOADED = re.compile(r"picture:([0-9a-f]{64})")


def study_html(text: str, study: Study) -> SafeString:
    """A text of the study's as HTML that is safe to show."""
    return to_html(text, lambda source: _address(source, study))


def picture_problems(text: str, study: Study) -> list[str]:
    """Why a picture of the text would not be shown, a sentence for each that is not."""
    found = []
    for source, words in pictures(text):
        if of_dataset := _OF_DATASET.fullmatch(source):
            if _address(source, study) is None:
                found.append(f"The dataset has no image {of_dataset[1]}.")
        elif _UPLOADED.fullmatch(source):
            if _address(source, study) is None:
                found.append(f"No picture was uploaded under {source[:20]}….")
        else:
            found.append(
                f"“{source}” can't be shown: write image:12 for image 12 of the dataset, or upload the picture. "
                "Pages show nothing from other sites."
            )
        if not words.strip():
            found.append(f"Say what the picture {source[:20]} shows, for those who can't see it: ![A cat]({source}).")
    return found


def uploaded_pictures(study: Study) -> list[str]:
    """The sources of the uploaded pictures that the study's texts show."""
    consent = selectors.current_consent(study)
    texts = [consent.text if consent else "", study.instructions]
    texts += [item.get("feedback", "") for item in study.practice]
    found = [source for text in texts for source, _ in pictures(text) if _UPLOADED.fullmatch(source)]
    return list(dict.fromkeys(found))


def practice_feedback(trial: Trial, study: Study) -> dict[str, Any] | None:
    """What is told once a practice trial is answered: `html`, and `shares` (category index and percentage) beside the
    answer. None for a first of two questions about an image, which the second should not be answered from."""
    asked = Framing(study.framing).asked
    if trial.framing != asked[-1]:
        return None
    item = study.practice[(trial.position - 1) // len(asked)]
    indices = {name: index for index, name in enumerate(selectors.category_names(study))}
    expected = sorted(item.get("expected", {}).items(), key=lambda pair: -pair[1])
    return {
        "html": study_html(item.get("feedback", ""), study),
        "shares": [
            {"category": indices[name], "percentage": percentage} for name, percentage in expected if name in indices
        ],
    }


def _address(source: str, study: Study) -> str | None:
    if of_dataset := _OF_DATASET.fullmatch(source):
        image = selectors.dataset_image(study, int(of_dataset[1]))
        return None if image is None else image_url(image, study)
    if (uploaded := _UPLOADED.fullmatch(source)) and image_store.has(uploaded[1]):
        return reverse("image", args=[uploaded[1], 1])
    return None

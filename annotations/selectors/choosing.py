"""Which images of a dataset a study may choose, and what its choice looks like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from django.db.models import Count, Q
from numpy.typing import NDArray

from annotations.models import Dataset, Framing, SessionStatus, Study, StudyStatus, TrialKind
from annotations.selectors import counted
from annotations.selectors.answers import study_answers
from annotations.selectors.studies import category_names
from elicit.labels import RECOMMENDED, entropy

REFERENCE = "reference"
# Of the natural logarithm of the number of categories: how the histogram is cut.
BINS = 10


@dataclass(frozen=True, slots=True)
class Share:
    """How many of the chosen images are of a class, or in a span of entropy; `most` is the largest of its kind."""

    name: str
    count: int
    most: int


def file_names(dataset: Dataset) -> dict[str, list[int]]:
    """Indices by file name."""
    found: dict[str, list[int]] = {}
    for name, index in dataset.images.exclude(name="").values_list("name", "index"):
        found.setdefault(name, []).append(index)
    return found


def references(dataset: Dataset) -> dict[int, list[int]]:
    """Indices of the images by the index of their reference label, in order; those without one are left out."""
    found: dict[int, list[int]] = {}
    rows = dataset.images.filter(reference__isnull=False).order_by("index").values_list("reference", "index")
    for reference, index in rows:
        if reference is not None:
            found.setdefault(reference, []).append(index)
    return found


def ambiguity_sources(dataset: Dataset) -> list[tuple[str, str]]:
    """What can tell how ambiguous the dataset's images are: its reference distributions, and studies of it."""
    sources = []
    if dataset.images.filter(reference_distribution__isnull=False).exists():
        sources.append((REFERENCE, "the reference distributions that came with the images"))
    completed = Count("sessions", filter=Q(sessions__status=SessionStatus.COMPLETED))
    studies = Study.objects.filter(dataset=dataset).exclude(status=StudyStatus.DRAFT).annotate(sat=completed)
    return sources + [(str(study.pk), f"the answers in “{study.name}”") for study in studies.filter(sat__gt=0)]


def entropies(dataset: Dataset, source: str) -> dict[int, float]:
    """Entropy in nats of each image's reference distribution, or of its pooled label in a study, by index."""
    if source == REFERENCE:
        rows = list(
            dataset.images.filter(reference_distribution__isnull=False).values_list("index", "reference_distribution")
        )
        return _by_index([index for index, _ in rows], np.array([row for _, row in rows], dtype=np.float64))
    study = Study.objects.select_related("dataset").get(pk=source, dataset=dataset)
    released = Q(status=SessionStatus.COMPLETED, excluded_at__isnull=True)
    said = study_answers(study, released)
    asked = Framing(study.framing).asked[0]
    counted = np.flatnonzero(said.counts & (said.kind == TrialKind.MAIN.value) & (said.framing == asked.value))
    if not len(counted):
        return {}
    labels = RECOMMENDED.soft_labels(said.answers)[counted]
    rows_of = said.image[counted]
    sums = np.stack([np.bincount(rows_of, weights=column, minlength=len(said.image_numbers)) for column in labels.T], 1)
    seen = np.flatnonzero(sums.sum(axis=1))
    return _by_index(said.image_numbers[seen].tolist(), sums[seen].astype(np.float64))


def _by_index(indices: list[int], rows: NDArray[np.float64]) -> dict[int, float]:
    if not indices:
        return {}
    labels = rows / rows.sum(axis=1, keepdims=True)
    return dict(zip(indices, np.asarray(entropy(labels)).tolist(), strict=True))


def class_counts(study: Study) -> list[Share]:
    """The study's images by reference label; the last, where there are such, have none. Of a large study as a worker
    counted them last."""
    if counted.is_large(study):
        return [Share(**each) for each in counted.counts(study).get("classes", [])]
    return count_classes(study)


def count_classes(study: Study) -> list[Share]:
    """`class_counts` of this moment, whatever that takes."""
    names = dict(enumerate(category_names(study)))
    counts = dict(study.study_images.order_by().values_list("image__reference").annotate(number=Count("pk")))
    most = max(counts.values(), default=0)
    shares = [Share(name, counts.get(index, 0), most) for index, name in names.items()]
    return shares + ([Share("no reference label", counts[None], most)] if counts.get(None) else [])


def entropy_histogram(study: Study) -> list[Share]:
    """The study's images by the entropy of their reference distributions, in equal spans; empty where none has one."""
    if not study.dataset.images.filter(reference_distribution__isnull=False).exists():
        return []
    found = entropies(study.dataset, REFERENCE)
    chosen = study.study_images.values_list("image__index", flat=True)
    values = [found[index] for index in chosen if index in found]
    if not values:
        return []
    highest = float(np.log(max(2, study.dataset.categories.count())))
    counts, edges = np.histogram(np.clip(values, 0, highest), bins=BINS, range=(0, highest))
    return [
        Share(f"{low:.2f} to {high:.2f}", int(count), int(counts.max()))
        for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True)
    ]

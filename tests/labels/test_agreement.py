from __future__ import annotations

import itertools
import math
import statistics
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from elicit.labels import Answers, LabelVariety, normalise
from elicit.labels.agreement import Distance, Responses, krippendorff_alpha, mean_distance, within_and_between
from elicit.labels.intervals import Bootstrap, Estimate
from tests.labels import published_study
from tests.labels.published_study import Said

Label = Sequence[float]
Rows = tuple[list[Label], list[int], list[str]]

SURE, OTHER, THIRD = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]
EVERY_DISTANCE = pytest.mark.parametrize("distance", list(Distance))


def value(estimate: Estimate | None) -> float:
    assert estimate is not None
    return estimate.value


def rows(*those: tuple[Label, int, str]) -> Rows:
    labels, images, annotators = zip(*those, strict=True)
    return list(labels), list(images), list(annotators)


@st.composite
def studies(draw: st.DrawFn) -> Rows:
    """Up to 14 responses of up to four people on up to four images, some answered twice, some certain."""
    masses = st.lists(st.sampled_from([0, 0, 1, 2, 5]), min_size=3, max_size=3).filter(any)
    count = draw(st.integers(2, 14))
    return (
        [normalise(draw(masses)).tolist() for _ in range(count)],
        draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)),
        draw(st.lists(st.sampled_from("abcd"), min_size=count, max_size=count)),
    )


# --- The same in plain Python, by the definitions


def total_variation(p: Label, q: Label) -> float:
    return sum(abs(x - y) for x, y in zip(p, q, strict=True)) / 2


def squared_hellinger(p: Label, q: Label) -> float:
    return sum((math.sqrt(x) - math.sqrt(y)) ** 2 for x, y in zip(p, q, strict=True)) / 2


def jensen_shannon(p: Label, q: Label) -> float:
    def to_middle(one: Label, two: Label) -> float:
        return sum(x * math.log(2 * x / (x + y)) for x, y in zip(one, two, strict=True) if x > 0)

    return (to_middle(p, q) + to_middle(q, p)) / 2


DIFFERENCES: dict[Distance, Callable[[Label, Label], float]] = {
    Distance.TOTAL_VARIATION: total_variation,
    Distance.HELLINGER: squared_hellinger,
    Distance.JENSEN_SHANNON: jensen_shannon,
}


def cells_of(study: Rows) -> dict[int, dict[str, list[Label]]]:
    images: dict[int, dict[str, list[Label]]] = defaultdict(lambda: defaultdict(list))
    for label, image, annotator in zip(*study, strict=True):
        images[image][annotator].append(label)
    return images


def between_cells(one: list[Label], two: list[Label], difference: Callable[[Label, Label], float]) -> float:
    return statistics.fmean(difference(p, q) for p in one for q in two)


def plain_mean(study: Rows, distance: Callable[[Label, Label], float]) -> float | None:
    means = [
        statistics.fmean(between_cells(one, two, distance) for one, two in itertools.combinations(people.values(), 2))
        for people in cells_of(study).values()
        if len(people) > 1
    ]
    return statistics.fmean(means) if means else None


def plain_alpha(study: Rows, difference: Callable[[Label, Label], float]) -> float | None:
    units = [list(people.values()) for people in cells_of(study).values() if len(people) > 1]
    n = sum(len(people) for people in units)
    if not n:
        return None
    observed = sum(
        between_cells(one, two, difference) / (len(people) - 1)
        for people in units
        for one, two in itertools.permutations(people, 2)
    )
    everybody = [cell for people in units for cell in people]
    expected = sum(between_cells(one, two, difference) for one, two in itertools.permutations(everybody, 2))
    return 1 - (n - 1) * observed / expected if expected > 1e-9 else None


# --- What must come out


@EVERY_DISTANCE
@pytest.mark.parametrize("images", [1, 2, 30])
def test_two_people_with_all_mass_on_disjoint_classes_are_in_total_disagreement(
    distance: Distance, images: int
) -> None:
    study = rows(*[(label, image, name) for image in range(images) for label, name in ((SURE, "a"), (OTHER, "b"))])
    assert value(mean_distance(*study, distance=distance)) == pytest.approx(distance.most)
    assert distance.most == pytest.approx(math.log(2) if distance is Distance.JENSEN_SHANNON else 1)
    # D_o = 1, D_e = N / (2N - 1): alpha = 1/N - 1, and 0 at a single image, where nothing else is to be expected.
    assert value(krippendorff_alpha(*study, distance=distance)) == pytest.approx(1 / images - 1, abs=1e-6)


@EVERY_DISTANCE
def test_hard_votes_have_krippendorffs_nominal_alpha(distance: Distance) -> None:
    # Krippendorff (2011), example C: four observers, twelve units, values missing; alpha = .743.
    observers = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
    study = rows(
        *[
            (np.eye(5)[int(value) - 1].tolist(), unit, f"observer {observer}")
            for observer, values in enumerate(observers)
            for unit, value in enumerate(values)
            if value != "."
        ]
    )
    assert len(study[0]) == 41
    alpha = krippendorff_alpha(*study, distance=distance)
    assert value(alpha) == pytest.approx(0.743, abs=5e-4)
    assert alpha is not None
    assert alpha.units == 11


@EVERY_DISTANCE
@given(study=studies())
def test_numbers_are_those_of_the_definitions(distance: Distance, study: Rows) -> None:
    difference = DIFFERENCES[distance]

    def apart(p: Label, q: Label) -> float:
        return math.sqrt(difference(p, q)) if distance is Distance.HELLINGER else difference(p, q)

    for found, expected, tolerance in (
        (mean_distance(*study, distance=distance), plain_mean(study, apart), 1e-7),
        (krippendorff_alpha(*study, distance=distance), plain_alpha(study, difference), 1e-6),
    ):
        assert (found is None) == (expected is None)
        if found is not None:
            assert found.value == pytest.approx(expected, abs=tolerance)


@EVERY_DISTANCE
@given(study=studies(), data=st.data())
def test_neither_the_order_of_rows_nor_of_classes_nor_names_matter(
    distance: Distance, study: Rows, data: st.DataObject
) -> None:
    labels, images, annotators = (np.array(column) for column in study)
    order = data.draw(st.permutations(range(len(labels))))
    classes = data.draw(st.permutations(range(3)))
    other = (labels[order][:, classes], 100 - images[order], np.char.add("person ", annotators[order]))
    for measure in (mean_distance, krippendorff_alpha):
        one, two = measure(*study, distance=distance), measure(*other, distance=distance)
        assert (one is None) == (two is None)
        if one is not None:
            assert value(one) == pytest.approx(value(two), abs=1e-9)


@EVERY_DISTANCE
@given(study=studies())
def test_every_number_keeps_its_range(distance: Distance, study: Rows) -> None:
    found = mean_distance(*study, distance=distance, bootstrap=Bootstrap(np.random.default_rng(1), draws=20))
    alpha = krippendorff_alpha(*study, distance=distance, bootstrap=Bootstrap(np.random.default_rng(1), draws=20))
    for estimate, low, high in ((found, 0.0, distance.most), (alpha, -1.0, 1.0)):
        if estimate is not None:
            values = [estimate.value, *(estimate.interval or ())]
            assert all(low - 1e-6 <= each <= high + 1e-6 for each in values)


def test_a_worked_mean_counts_every_image_once() -> None:
    # Image 1: a and b .4 apart, c with a: (.4 + .0 + .4) / 3. Image 2: .1. Image 3 has one person.
    p, q, r = [0.7, 0.3], [0.3, 0.7], [0.6, 0.4]
    study = rows((p, 1, "a"), (q, 1, "b"), (p, 1, "c"), (p, 2, "a"), (r, 2, "b"), (q, 3, "a"))
    found = mean_distance(*study)
    assert value(found) == pytest.approx((0.8 / 3 + 0.1) / 2)
    assert found is not None
    assert (found.interval, found.units) == (None, 2)


def test_nobody_to_compare_with_is_none() -> None:
    alone = rows((SURE, 1, "a"), (OTHER, 2, "a"), (THIRD, 2, "a"))
    apart = rows((SURE, 1, "a"), (OTHER, 2, "b"))
    nobody: tuple[Any, ...] = (np.zeros((0, 3)), [], [])
    for study in (alone, apart, nobody):
        assert mean_distance(*study) is None
        assert krippendorff_alpha(*study) is None
        assert within_and_between(*study).between is None
        assert within_and_between(*study).ratio is None
    assert within_and_between(*apart).within is None
    assert value(within_and_between(*alone).within) == 1


@EVERY_DISTANCE
def test_people_who_all_say_the_same_are_no_distance_apart_and_have_no_alpha(distance: Distance) -> None:
    label = normalise([0.1, 0.2, 0.4]).tolist()
    study = rows(*[(label, image, name) for image in range(50) for name in "abc"])
    bootstrap = Bootstrap(np.random.default_rng(1), draws=10)
    assert value(mean_distance(*study, distance=distance)) == pytest.approx(0, abs=1e-7)
    assert krippendorff_alpha(*study, distance=distance, bootstrap=bootstrap) is None


@EVERY_DISTANCE
def test_people_who_agree_on_images_that_differ_have_alpha_one(distance: Distance) -> None:
    study = rows(*[(label, image, name) for image, label in enumerate((SURE, OTHER, THIRD)) for name in "ab"])
    assert value(mean_distance(*study, distance=distance)) == 0
    assert value(krippendorff_alpha(*study, distance=distance)) == 1


@EVERY_DISTANCE
def test_strangers_have_alpha_near_zero(distance: Distance) -> None:
    labels = np.random.default_rng(1).dirichlet([0.3] * 4, 3000)
    images, annotators = np.arange(3000) // 5, np.arange(3000) % 5
    found = krippendorff_alpha(
        labels, images, annotators, distance=distance, bootstrap=Bootstrap(np.random.default_rng(2), draws=200)
    )
    assert value(found) == pytest.approx(0, abs=0.02)
    assert found is not None
    assert found.interval is not None
    assert found.interval[0] < 0 < found.interval[1]


# --- Repeats


@EVERY_DISTANCE
def test_a_person_who_answers_twice_is_one_voice(distance: Distance) -> None:
    study = rows((SURE, 1, "a"), (OTHER, 1, "b"), (SURE, 1, "c"), (THIRD, 2, "a"), (SURE, 2, "b"))
    labels, images, annotators = study
    twice = (labels + labels[1:2] * 2, images + images[1:2] * 2, annotators + annotators[1:2] * 2)
    for measure in (mean_distance, krippendorff_alpha):
        once, again = measure(*study, distance=distance), measure(*twice, distance=distance)
        assert value(once) == pytest.approx(value(again), abs=1e-6)


def test_within_beside_between_worked_by_hand() -> None:
    p, q, r = [0.9, 0.1], [0.7, 0.3], [0.4, 0.6]
    study = rows((p, 1, "a"), (q, 1, "a"), (r, 1, "b"), (p, 2, "a"), (p, 2, "a"), (p, 2, "a"), (q, 2, "b"))
    found = within_and_between(*study)
    # Within: a on 1 is .2 apart, on 2 not at all. Between: on 1 (.5 + .3) / 2, on 2 .2.
    assert value(found.within) == pytest.approx(0.1)
    assert value(found.between) == pytest.approx(0.3)
    assert value(found.ratio) == pytest.approx(1 / 3)
    assert value(mean_distance(*study)) == value(found.between)


def test_where_nobody_differs_there_is_no_ratio() -> None:
    found = within_and_between(*rows((SURE, 1, "a"), (SURE, 1, "a"), (SURE, 1, "b")))
    assert value(found.within) == value(found.between) == 0
    assert found.ratio is None


# --- Intervals


class Chosen(np.random.Generator):
    """Draws the units it is told to."""

    def __init__(self, *units: int) -> None:
        super().__init__(np.random.PCG64(0))
        self.units = units

    def integers(self, *_: Any, **__: Any) -> Any:
        return np.array([self.units])


@EVERY_DISTANCE
@given(study=studies(), data=st.data())
def test_a_draw_is_the_study_with_its_images_copied(distance: Distance, study: Rows, data: st.DataObject) -> None:
    images = sorted(image for image, people in cells_of(study).items() if len(people) > 1)
    assume(len(images) > 1)
    chosen = data.draw(st.lists(st.integers(0, len(images) - 1), min_size=len(images), max_size=len(images)))
    copied = [
        (label, 100 + copy, annotator)
        for copy, unit in enumerate(chosen)
        for label, image, annotator in zip(*study, strict=True)
        if image == images[unit]
    ]
    bootstrap = Bootstrap(Chosen(*chosen), draws=1)
    for measure in (mean_distance, krippendorff_alpha):
        found = measure(*study, distance=distance, bootstrap=bootstrap)
        expected = measure(*rows(*copied), distance=distance)
        if found is not None and expected is not None:
            assert found.interval is not None
            assert found.interval == pytest.approx((expected.value, expected.value), abs=1e-6)


def test_the_same_generator_gives_the_same_interval_whatever_the_order_of_rows() -> None:
    labels = np.random.default_rng(1).dirichlet([0.5] * 4, 60)
    images, annotators = np.arange(60) // 3, np.arange(60) % 3
    order = np.random.default_rng(2).permutation(60)

    def interval(rows: Any) -> Any:
        found = krippendorff_alpha(
            labels[rows], images[rows], annotators[rows], bootstrap=Bootstrap(np.random.default_rng(3), draws=50)
        )
        assert found is not None
        assert found.interval is not None
        return found.interval

    assert interval(slice(None)) == pytest.approx(interval(order), abs=1e-12)


# --- Input


@pytest.mark.parametrize(
    ("study", "match"),
    [
        (([SURE], [1, 2], ["a"]), "labels must be"),
        ((SURE, [1, 2, 3], ["a", "b", "c"]), "labels must be"),
        (([SURE], [1], [["a"]]), "labels must be"),
        (([[0.5, 0.6]], [1], ["a"]), "sum to 1"),
        (([SURE], [1.5], ["a"]), "images must be names or whole numbers"),
        (([SURE], [1], [math.nan]), "annotators must be names or whole numbers"),
    ],
)
def test_what_is_no_study_is_refused(study: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Responses.of(*study)


def test_images_may_have_names_and_annotators_numbers() -> None:
    assert value(mean_distance([SURE, OTHER], ["cat.png", "cat.png"], [7, 8])) == 1


@EVERY_DISTANCE
def test_a_hundred_thousand_responses_need_no_memory_for_their_pairs(distance: Distance) -> None:
    # 5,000,000,000 pairs are in D_e: 40 GB if each were kept.
    labels = np.random.default_rng(1).dirichlet([0.1] * 10, 100_000)
    labels = normalise(np.where(labels < 0.05, 0, labels))
    images, annotators = np.arange(100_000) // 6, np.arange(100_000) % 4001
    tracemalloc.start()
    try:
        alpha = krippendorff_alpha(labels, images, annotators, distance=distance)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert value(alpha) == pytest.approx(0, abs=0.01)
    assert peak < 200e6


# --- The published study


@pytest.fixture(scope="module")
def published(shared_data: Path) -> list[tuple[Said, Label]]:
    """Every answer free of contradictions with its label, in plain Python."""
    answers = published_study.valid(published_study.read(shared_data))
    return [(said, published_study.label(elicited)) for said, elicited in answers]


@pytest.fixture(scope="module")
def published_rows(shared_data: Path) -> tuple[Any, Any, Any, Any]:
    """The same by the product: labels, images, annotators, repeats."""
    answers = published_study.valid(published_study.read(shared_data))
    labels = LabelVariety().soft_labels(Answers.from_elicited([each for _, each in answers], categories=10))
    return (
        labels,
        np.array([said.image for said, _ in answers]),
        np.array([said.annotator for said, _ in answers]),
        np.array([said.repeat for said, _ in answers]),
    )


def test_published_people_differ_from_themselves_less_than_half_as_much_as_from_others(
    published: list[tuple[Said, Label]], published_rows: tuple[Any, Any, Any, Any]
) -> None:
    # Over all 248 people, contradictions included, .122 and .292; the half at hand has .108 and .288 so.
    of_person: dict[tuple[int, str], list[Label]] = defaultdict(list)
    firsts: dict[int, list[Label]] = defaultdict(list)
    for said, label in published:
        of_person[said.image, said.annotator].append(label)
        if not said.repeat:
            firsts[said.image].append(label)
    own = [total_variation(*labels) for labels in of_person.values() if len(labels) == 2]
    others = [
        statistics.fmean(total_variation(p, q) for p, q in itertools.combinations(those, 2))
        for those in firsts.values()
    ]
    labels, images, annotators, repeats = published_rows
    within = value(within_and_between(labels, images, annotators).within)
    assert within == pytest.approx(statistics.fmean(own), abs=1e-12)
    assert within == pytest.approx(0.1074, abs=5e-5)
    first = ~repeats
    between = mean_distance(
        labels[first], images[first], annotators[first], bootstrap=Bootstrap(np.random.default_rng(1), draws=200)
    )
    assert value(between) == pytest.approx(statistics.fmean(others), abs=1e-12)
    assert value(between) == pytest.approx(0.2847, abs=5e-5)
    assert between is not None
    assert between.interval is not None
    assert between.interval[0] < between.value < between.interval[1]
    assert (len(own), between.units) == (237, 500)


def test_the_published_alpha_is_that_of_the_definition(
    published: list[tuple[Said, Label]], published_rows: tuple[Any, Any, Any, Any]
) -> None:
    firsts: dict[int, list[Label]] = defaultdict(list)
    for said, label in published:
        if not said.repeat:
            firsts[said.image].append(label)
    units = [labels for labels in firsts.values() if len(labels) > 1]
    n = sum(map(len, units))
    observed = sum(
        2 * total_variation(p, q) / (len(labels) - 1) for labels in units for p, q in itertools.combinations(labels, 2)
    )
    expected = 0.0
    for category in range(10):
        masses = Counter(label[category] for labels in units for label in labels)
        expected += sum(many * few * abs(p - q) for (p, many), (q, few) in itertools.combinations(masses.items(), 2))
    labels, images, annotators, repeats = published_rows
    first = ~repeats
    alpha = krippendorff_alpha(labels[first], images[first], annotators[first])
    assert value(alpha) == pytest.approx(1 - (n - 1) * observed / expected, abs=1e-9)

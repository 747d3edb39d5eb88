"""Which images a study shows: from a list, by class, by ambiguity, at random."""

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from annotations.errors import AnnotationError
from annotations.models import Dataset, Image, Study
from annotations.presets import CIFAR10S, PRESETS
from annotations.selectors import choosing as read
from annotations.services import choosing, studies
from tests import factories as make


@pytest.fixture
def dataset(db: None) -> Dataset:
    made = make.make_dataset(20)
    for image in made.images.all():
        image.name = f"{image.index:03}.png"
        certain = 1.0 - image.index / 40
        image.reference_distribution = [certain, *[(1 - certain) / 9] * 9]
        image.save()
    return made


def draft(dataset: Dataset) -> Study:
    return studies.create_study(name="Birds", dataset=dataset, preset=CIFAR10S)


@pytest.mark.parametrize(
    ("text", "indices"),
    [
        ("3\n1\n\n2\n", [3, 1, 2]),
        ("index\n3\n1", [3, 1]),
        ("\ufefffile,class\n003.png,cat\n001.png,dog\n", [3, 1]),
        ("001.png\r\n7\r\n", [1, 7]),
        ('"003.png"', [3]),
    ],
)
def test_a_list_names_images_by_index_or_file_in_its_own_order(dataset: Dataset, text: str, indices: list[int]) -> None:
    assert choosing.from_list(dataset, text) == indices


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1\n99\n", "Line 2: the dataset has no image “99”."),
        ("1\nnone.png", "Line 2: the dataset has no image “none.png”."),
        ("1\n001.png", "Line 2: image “001.png” stands in line 1 already."),
        ("\n\n", "The list names no image."),
        ("-1", "Line 1: the dataset has no image “-1”."),
        ("9" * 400, "Line 1: the dataset has no image"),
    ],
)
def test_a_list_with_problems_names_their_lines(dataset: Dataset, text: str, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem.replace("(", "[(]")):
        choosing.from_list(dataset, text)


def test_of_many_problems_ten_are_told_and_the_others_counted(dataset: Dataset) -> None:
    with pytest.raises(ValidationError) as refused:
        choosing.from_list(dataset, "\n".join(f"no-{number}" for number in range(25)))
    assert len(refused.value.messages) == 11
    assert refused.value.messages[-1] == "And 15 more lines."


def test_a_file_name_that_two_images_have_is_refused(dataset: Dataset) -> None:
    Image.objects.filter(dataset=dataset, index=4).update(name="001.png")
    with pytest.raises(ValidationError, match="2 images are called"):
        choosing.from_list(dataset, "001.png")


def test_a_quota_is_one_number_for_all_or_one_by_class(dataset: Dataset) -> None:
    assert choosing.parse_quota(dataset, " 2 ") == dict.fromkeys(range(10), 2)
    assert choosing.parse_quota(dataset, "cat: 2, dog: 1") == {3: 2, 5: 1}


@pytest.mark.parametrize("text", ["", "0", "cow: 3", "cat", "cat: many", "cat: 1, cat: 2", "-3", "cat: -1"])
def test_a_quota_that_says_nothing_is_refused(dataset: Dataset, text: str) -> None:
    with pytest.raises(ValidationError):
        choosing.parse_quota(dataset, text)


def test_a_choice_by_class_has_the_numbers_asked_for(dataset: Dataset) -> None:
    chosen = choosing.by_class(dataset, {3: 2, 5: 1}, make.rng())
    assert sorted(index % 10 for index in chosen) == [3, 3, 5]
    with pytest.raises(ValidationError, match="“Cat” has 2, not 3"):
        choosing.by_class(dataset, {3: 3}, make.rng())


def test_the_most_ambiguous_are_those_of_highest_entropy(dataset: Dataset) -> None:
    entropies = read.entropies(dataset, read.REFERENCE)
    assert sorted(choosing.by_ambiguity(entropies, 5, make.rng(), stratified=False)) == [15, 16, 17, 18, 19]
    with pytest.raises(ValidationError, match="Of 20 images"):
        choosing.by_ambiguity(entropies, 21, make.rng(), stratified=False)


@given(images=st.integers(1, 60), share=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
def test_a_stratified_choice_takes_as_many_of_each_stratum(images: int, share: float, seed: int) -> None:
    entropies = {index: float(index) for index in range(images)}
    number = round(share * images)
    chosen = choosing.by_ambiguity(entropies, number, make.rng(seed), stratified=True)
    assert len(chosen) == len(set(chosen)) == number
    assert set(chosen) <= set(entropies)
    if images % 10 == 0 and number % 10 == 0:
        per_stratum = [sum(index * 10 // images == stratum for index in chosen) for stratum in range(10)]
        assert set(per_stratum) == {number // 10}


def test_the_answers_of_an_earlier_study_say_what_is_ambiguous(dataset: Dataset) -> None:
    study = make.make_study(dataset=dataset, images_per_session=20, labels_per_image=2, questionnaire=[])
    for seed, other in enumerate((3, 5)):
        session = make.begin(make.make_session(study, seed=seed), seed=seed)
        for trial in session.trials.order_by("position"):
            make.respond(trial, ((other if trial.image.index in (4, 9) else 1, 100.0),))
    entropies = read.entropies(dataset, str(study.pk))
    assert sorted(choosing.by_ambiguity(entropies, 2, make.rng(), stratified=False)) == [4, 9]
    assert (str(study.pk), "the answers in “Birds”") in read.ambiguity_sources(dataset)


def test_a_random_choice_is_drawn_again_with_its_seed(dataset: Dataset) -> None:
    assert choosing.at_random(dataset, 7, make.rng(5)) == choosing.at_random(dataset, 7, make.rng(5))
    with pytest.raises(ValidationError, match="20 images, not 21"):
        choosing.at_random(dataset, 21, make.rng())


def test_a_study_keeps_how_its_images_were_chosen(dataset: Dataset) -> None:
    study = draft(dataset)
    assert choosing.choose(study, [1, 2, 3], {"by": "list"}, 42) == 3
    study.refresh_from_db()
    assert study.choice == {"by": "list", "seed": 42, "images": 3}
    assert [share.count for share in read.class_counts(study)] == [0, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert sum(share.count for share in read.entropy_histogram(study)) == 3


def test_all_images_are_all_but_those_to_practise_on(dataset: Dataset) -> None:
    study = draft(dataset)
    studies.write_part(study.pk, "practice", [{"image": 4}])
    study.refresh_from_db()
    assert choosing.choose(study, None, {"by": "all"}, 1) == 19


def test_the_images_of_a_launched_study_stay(dataset: Dataset) -> None:
    study = make.make_study(dataset=dataset)
    with pytest.raises(AnnotationError, match="settings of a launched study"):
        choosing.choose(study, [1], {"by": "list"}, 1)
    with pytest.raises(AnnotationError, match="settings of a launched study"):
        choosing.choose_batches(study, [[1]], 1)
    assert study.study_images.count() == 20


def test_a_pilot_practises_on_images_that_are_not_its_own(dataset: Dataset) -> None:
    study = studies.create_study(name="Pilot", dataset=dataset, preset=PRESETS["pilot"])
    choosing.choose(study, choosing.at_random(dataset, 15, make.rng()), {"by": "random"}, 1)
    choosing.choose_practice(study, 3, make.rng())
    practised = {item["image"] for item in study.practice}
    assert len(practised) == 3
    assert not practised & set(study.study_images.values_list("image__index", flat=True))
    assert studies.launch(study.pk, make.rng()).status == "live"

"""Making a study of each kind in the console: presets, choice of images, warnings, versions, preview."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from annotations import selectors
from annotations.models import CheckItem, Dataset, Image, Response, Study, Trial
from annotations.models.recruitment import Platform, Recruitment
from annotations.presets import PRESETS
from annotations.services import arms, studies
from tests import factories as make
from tests.shown import trial_data

pytestmark = pytest.mark.django_db

ADD = "/admin/annotations/study/add/"


@pytest.fixture
def curator(client: Client) -> Client:
    client.force_login(make.make_curator())
    return client


@pytest.fixture
def dataset() -> Dataset:
    made = make.make_dataset(40)
    for image in made.images.all():
        Image.objects.filter(pk=image.pk).update(
            name=f"{image.index}.png", reference_distribution=[1 - image.index / 80, *[image.index / 720] * 9]
        )
    return made


def new(curator: Client, dataset: Dataset, **values: object) -> Study:
    response = curator.post(ADD, {"name": "Birds", "dataset": dataset.pk, "preset_key": "cifar10s", **values})
    assert response.status_code == 302, response.content.decode()
    return Study.objects.get()


def upload(text: str) -> SimpleUploadedFile:
    return SimpleUploadedFile("images.csv", text.encode())


def chosen(study: Study) -> list[int]:
    return list(study.study_images.order_by("image__index").values_list("image__index", flat=True))


@pytest.mark.parametrize("key", PRESETS)
def test_a_study_of_each_preset_can_be_launched_as_it_is(curator: Client, dataset: Dataset, key: str) -> None:
    study = new(curator, dataset, preset_key=key)
    assert study.preset == PRESETS[key].name
    page = curator.get(reverse("admin:annotations_study_change", args=[study.pk])).content.decode()
    assert "Everything is in place" in page
    assert curator.post(reverse("admin:annotations_study_launch", args=[study.pk])).status_code == 302
    study.refresh_from_db()
    assert study.status == "live"


def test_the_form_says_what_each_preset_is(curator: Client, dataset: Dataset) -> None:
    page = curator.get(ADD).content.decode()
    for preset in PRESETS.values():
        assert preset.summary in page


def test_the_pilot_is_ten_people_on_the_same_images_after_a_practice(curator: Client, dataset: Dataset) -> None:
    study = new(curator, dataset, preset_key="pilot")
    assert (len(chosen(study)), study.batches.count(), selectors.sessions_needed(study)) == (20, 1, 10)
    assert (len(study.practice), len(study.comprehension), study.repeats_per_session) == (3, 2, 5)
    assert study.choice["by"] == "random"


def test_the_top_1_study_asks_for_nothing_else(curator: Client, dataset: Dataset) -> None:
    study = new(curator, dataset, preset_key="top1")
    assert (study.most_named, study.ask_impossible) == (1, False)
    assert selectors.launch_warnings(study)[0] == "4 sessions of about 8 minutes."


@pytest.mark.parametrize(
    ("values", "indices"),
    [
        ({"images_by": "list", "image_list": "index\n3\n1.png\n"}, [1, 3]),
        ({"images_by": "class", "per_class": "cat: 4"}, [3, 13, 23, 33]),
        ({"images_by": "ambiguity", "how_many": 2, "ambiguity_of": "reference"}, [38, 39]),
    ],
)
def test_images_are_chosen_when_the_study_is_made(
    curator: Client, dataset: Dataset, values: dict[str, object], indices: list[int]
) -> None:
    if "image_list" in values:
        values = {**values, "image_list": upload(str(values["image_list"]))}
    study = new(curator, dataset, **values)
    assert chosen(study) == indices
    assert study.choice["by"] == values["images_by"]


def test_the_same_seed_draws_the_same_images_again(curator: Client, dataset: Dataset) -> None:
    study = new(curator, dataset, images_by="random", how_many=7, seed=5)
    first = chosen(study)
    address = reverse("admin:annotations_study_images", args=[study.pk])
    curator.post(address, {"images_by": "random", "how_many": 7, "seed": 6})
    assert chosen(study) != first
    assert curator.post(address, {"images_by": "random", "how_many": 7, "seed": 5}).status_code == 302
    study.refresh_from_db()
    assert chosen(study) == first
    assert study.choice == {"by": "random", "seed": 5, "images": 7}


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"images_by": "random"}, "needs it"),
        ({"images_by": "random", "how_many": 41}, "40 images, not 41"),
        ({"images_by": "class", "per_class": "cow: 3"}, "not a class and a number"),
        ({"images_by": "list", "image_list": "1\nnothing.png"}, "Line 2: the dataset has no image"),
        ({"images_by": "batches"}, "needs it"),
    ],
)
def test_what_is_wrong_with_a_choice_stands_beside_its_field(
    curator: Client, dataset: Dataset, values: dict[str, object], problem: str
) -> None:
    study = new(curator, dataset)
    if "image_list" in values:
        values = {**values, "image_list": upload(str(values["image_list"]))}
    response = curator.post(reverse("admin:annotations_study_images", args=[study.pk]), values)
    assert response.status_code == 422
    assert problem in response.content.decode()
    assert len(chosen(study)) == 40


def test_the_page_of_images_shows_what_was_chosen(curator: Client, dataset: Dataset) -> None:
    study = new(curator, dataset, images_by="class", per_class="cat: 4", seed=9)
    page = curator.get(reverse("admin:annotations_study_images", args=[study.pk])).content.decode()
    assert "Drawn from each class. Seed 9." in page
    assert "By entropy of the reference distribution" in page
    studies.launch(study.pk, make.rng())
    launched = curator.get(reverse("admin:annotations_study_images", args=[study.pk])).content.decode()
    assert "Choose other images" in page
    assert "Choose other images" not in launched


def test_an_adaptive_study_deals_its_images_one_by_one(curator: Client, dataset: Dataset) -> None:
    study = new(curator, dataset)
    study.assignment = "adaptive"
    study.save()
    assert any("can't lie in batches" in problem for problem in selectors.launch_problems(study))
    studies.choose_images(study, chosen(study), make.rng())
    assert study.batches.count() == 40
    assert selectors.launch_problems(study) == []


def test_a_budget_needs_images_that_are_handed_out_one_by_one() -> None:
    study = make.make_study(launch=False, budget_labels=50)
    assert any("budget" in problem for problem in selectors.launch_problems(study))


# --- Warnings


def test_what_a_launch_does_not_forbid_is_said_in_words() -> None:
    study = make.make_study(launch=False, labels_per_image=1, repeats_per_session=0, images_per_session=20)
    Recruitment.objects.update_or_create(study=study, defaults={"platform": Platform.PROLIFIC})
    CheckItem.objects.create(study=study, image=study.dataset.images.get(index=0))
    arms.write_arms(study.pk, [{"name": "typed", "settings": {"input_mode": "typed"}, "weight": 1}])
    said = " ".join(selectors.launch_warnings(Study.objects.get(pk=study.pk)))
    for words in (
        "1 session of about 14 minutes",
        "One label an image",
        "no practice",
        "no comprehension check",
        "No image is repeated",
        "one arm alone",
        "1 gold image without a tolerance",
        "no completion code",
    ):
        assert words in said


# --- Clone and version


def test_a_curator_clones_a_study_and_makes_a_new_version(curator: Client) -> None:
    study = make.make_study()
    assert curator.get(reverse("admin:annotations_study_clone", args=[study.pk])).status_code == 405
    copied = curator.post(reverse("admin:annotations_study_clone", args=[study.pk]))
    assert copied["Location"] == reverse("admin:annotations_study_change", args=[Study.objects.latest("pk").pk])
    curator.post(reverse("admin:annotations_study_version", args=[study.pk]))
    later = Study.objects.get(version=2)
    Study.objects.filter(pk=later.pk).update(labels_per_image=9)
    page = curator.get(reverse("admin:annotations_study_change", args=[later.pk])).content.decode()
    assert "Labels per image (K): 6 → 9" in page
    before = curator.get(reverse("admin:annotations_study_change", args=[study.pk])).content.decode()
    assert "There is a later one" in before


def test_whoever_may_not_add_studies_copies_none(client: Client) -> None:
    study = make.make_study()
    client.force_login(make.make_staff("reader", "annotations.view_study"))
    assert client.post(reverse("admin:annotations_study_clone", args=[study.pk])).status_code == 403
    assert Study.objects.count() == 1


# --- Preview of the trial screen


def test_the_trial_screen_is_previewed_and_nothing_is_stored(curator: Client, dataset: Dataset) -> None:
    study = new(curator, dataset)
    page = curator.get(reverse("admin:annotations_study_preview", args=[study.pk, "trial"]))
    data = trial_data(page)
    assert len(data["trials"]) == 4
    assert "Preview: this is what annotators see" in page.content.decode()
    assert "reference" not in json.dumps(data["trials"])
    address = data["api"].replace("{trial}", data["trials"][0]["id"]).replace("{response}", str(uuid.uuid4()))
    answer = {"named": [{"category": 3, "percentage": 80}], "impossible": []}
    assert curator.put(address, json.dumps(answer), content_type="application/json").status_code == 200
    assert not Response.objects.exists()
    assert not Trial.objects.exists()
    assert curator.get(address).status_code == 405


def test_the_preview_of_an_arm_asks_as_the_arm_does(curator: Client) -> None:
    study = make.make_study(launch=False)
    arms.write_arms(study.pk, [{"name": "self", "settings": {"framing": "self", "most_named": 1}, "weight": 1}])
    page = curator.get(reverse("admin:annotations_study_preview", args=[study.pk, "trial"]) + "?arm=self")
    assert trial_data(page)["rules"]["most_named"] == 1
    assert {trial["framing"] for trial in trial_data(page)["trials"]} == {"self"}


def test_a_preview_is_for_those_who_may_see_the_study(client: Client) -> None:
    study = make.make_study()
    client.force_login(make.make_staff("stranger"))
    for name, args in (
        ("preview", [study.pk, "trial"]),
        ("preview_answer", [study.pk, uuid.uuid4()]),
    ):
        assert client.get(reverse(f"admin:annotations_study_{name}", args=args)).status_code == 403


# --- The command


def test_the_command_makes_a_study_of_each_kind(dataset: Dataset) -> None:
    kinds: list[tuple[dict[str, Any], int, int]] = [
        ({"preset": "pilot", "language": "zh-hans"}, 20, 1),
        ({"assignment": "adaptive", "least_labels": 2, "budget_labels": 90}, 40, 40),
        ({"preset": "top1", "images": 10}, 10, 1),
    ]
    for number, (options, images, batches) in enumerate(kinds):
        call_command("create_study", name=f"S{number}", dataset=dataset.slug, launch=True, seed=1, **options)
        study = Study.objects.get(name=f"S{number}")
        assert (study.status, study.study_images.count(), study.batches.count()) == ("live", images, batches)
    assert Study.objects.get(name="S0").language == "zh-hans"

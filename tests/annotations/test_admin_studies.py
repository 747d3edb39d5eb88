from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from annotations.models import Study, StudyStatus
from annotations.presets import CIFAR10S
from tests import factories as make

pytestmark = pytest.mark.django_db

ADD = "/admin/annotations/study/add/"


@pytest.fixture
def curator() -> Client:
    client = Client()
    client.force_login(make.make_curator())
    return client


def address(study: Study, *move: str) -> str:
    name = f"admin:annotations_study_{move[0] if move else 'change'}"
    return reverse(name, args=[study.pk])


def page(client: Client, study: Study) -> str:
    response = client.get(address(study))
    assert response.status_code == 200
    return response.content.decode()


def settings_of(study: Study, **changes: object) -> dict[str, Any]:
    """The form of a draft as the page sends it."""
    names = [
        "name", "slug", "labels_per_image", "images_per_session", "repeats_per_session", "repeat_distance",
        "assignment", "least_labels", "settled_within", "idle_minutes", "framing", "input_mode", "image_scale",
        "language", "instructions", "time_estimate",
        "pay_note", "completion_code", "screenout_code", "return_url", "licence", "recruitment", "demographics",
    ]  # fmt: skip
    consent = study.consents.order_by("-version").first()
    form = {name: getattr(study, name) for name in names}
    form |= {
        "ask_impossible": "on",
        "impossible_shortcut": "on",
        "shuffle_categories": "on",
        "consent_text": consent.text.replace("\n", "\r\n") if consent else "",
    }
    return {**form, **changes}


def new(curator: Client, **values: object) -> str:
    """Fill in the form for a new study; the page or address that follows."""
    dataset = values.pop("dataset", None) or make.make_dataset().pk
    response = curator.post(ADD, {"name": "Birds", "dataset": dataset, "preset_key": "cifar10s", **values})
    return response["Location"] if response.status_code == 302 else response.content.decode()


def batch_file(content: object) -> SimpleUploadedFile:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return SimpleUploadedFile("batches.json", raw)


# --- A new study


def test_a_study_is_made_from_its_preset_with_all_images(curator: Client) -> None:
    after = new(curator)

    study = Study.objects.get()
    assert after == address(study)
    assert (study.preset, study.status, study.labels_per_image) == (CIFAR10S.name, StudyStatus.DRAFT, 6)
    assert study.study_images.count() == 20
    assert study.consents.count() == 1
    assert LogEntry.objects.get().object_id == str(study.pk)


def test_a_study_takes_its_batches_from_a_file(curator: Client) -> None:
    new(curator, batch_file=batch_file({"1": [4], "0": [1, 2]}))

    study = Study.objects.get()
    batches = [list(b.study_images.values_list("image__index", flat=True)) for b in study.batches.order_by("number")]
    assert batches == [[1, 2], [4]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no JSON", "not JSON"),
        (b"\xff\xfe[", "not text in UTF-8"),
        (b"[" * 100_000, "not JSON"),
        ([[1.5]], "whole numbers"),
        ([[1], [1]], "named twice"),
        ([[99]], "no image 99"),
        ([[]], "Batch 0 is empty"),
        (b"[" + b" " * (5 << 20) + b"]", "larger than 5 MB"),
        (b"", "submitted file is empty"),
    ],
)
def test_a_batch_file_that_is_wrong_makes_no_study(curator: Client, content: object, words: str) -> None:
    assert words in new(curator, batch_file=batch_file(content))
    assert not Study.objects.exists()


def test_a_dataset_that_is_not_imported_yet_is_not_offered(curator: Client) -> None:
    dataset = make.make_dataset()
    type(dataset).objects.update(ready_at=None)

    assert "Select a valid choice" in new(curator, dataset=dataset.pk)
    assert not Study.objects.exists()


@pytest.mark.parametrize("values", [{"name": ""}, {"name": "x" * 121}, {"preset_key": "imagenet"}])
def test_a_form_that_lacks_something_makes_no_study(curator: Client, values: dict[str, str]) -> None:
    assert "Please correct the error" in new(curator, **values)
    assert not Study.objects.exists()


# --- A draft


def test_a_draft_can_be_changed(curator: Client) -> None:
    study = make.make_study(launch=False)

    response = curator.post(address(study), settings_of(study, labels_per_image=3, sum_limit=100, most_named=2))

    assert response.status_code == 302, response.context["errors"]
    study.refresh_from_db()
    assert (study.labels_per_image, study.sum_limit, study.most_named) == (3, 100, 2)


def test_the_settings_of_the_pages_and_of_the_card_can_be_changed(curator: Client) -> None:
    study = make.make_study(launch=False)
    wanted = {
        "language": "zh-hans",
        "input_mode": "typed",
        "break_every": 10,
        "screenout_code": "0UT",
        "return_url": "https://app.prolific.com/submissions/complete?cc=C0DE",
        "licence": "CC-BY-4.0",
        "recruitment": "Prolific",
        "demographics": "Adults",
        "instructions": "![A bird](image:3)",
    }

    response = curator.post(address(study), settings_of(study, **wanted))

    assert response.status_code == 302, response.context["errors"]
    assert Study.objects.values(*wanted).get() == wanted


def test_saving_a_draft_as_it_is_changes_nothing(curator: Client) -> None:
    study = make.make_study(launch=False)
    Study.objects.update(instructions="Look.")
    study.refresh_from_db()
    before = Study.objects.values().get()
    images = sorted(study.study_images.values_list("pk", flat=True))

    assert curator.post(address(study), settings_of(study)).status_code == 302

    assert Study.objects.values().get() == before
    assert sorted(study.study_images.values_list("pk", flat=True)) == images
    assert study.consents.count() == 1


def test_another_size_of_a_session_deals_the_same_images_anew(curator: Client) -> None:
    study = make.make_study(launch=False)

    curator.post(address(study), settings_of(study, images_per_session=5))

    assert study.batches.count() == 4
    assert sorted(study.study_images.values_list("image__index", flat=True)) == list(range(20))


def test_a_changed_consent_text_is_a_new_version(curator: Client) -> None:
    study = make.make_study(launch=False)

    curator.post(address(study), settings_of(study, consent_text="You may stop."))

    assert list(study.consents.order_by("version").values_list("version", flat=True)) == [1, 2]
    assert "You may stop." in page(curator, study)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"repeats_per_session": 26}, "repeat more images than it has"),
        ({"labels_per_image": 0}, "greater than or equal to 1"),
        ({"break_every": 0}, "greater than or equal to 1"),
        ({"licence": "CC BY"}, "SPDX identifier"),
        ({"return_url": "http://app.prolific.com/x"}, "has to begin with https://"),
        ({"return_url": "https://evil.example/x"}, "evil.example is none of the hosts"),
        ({"return_url": "javascript:alert(1)"}, "Enter a valid URL"),
        ({"instructions": "![A cat](https://evil.example/cat.png)"}, "other sites"),
        ({"instructions": "![A cat](image:99)"}, "The dataset has no image 99"),
        ({"instructions": "![](image:1)"}, "for those who can"),
        ({"consent_text": "![A cat](picture:" + "0" * 64 + ")"}, "No picture was uploaded"),
        ({"consent_text": ""}, "required"),
        ({"slug": "a b"}, "valid “slug”"),
        ({"slug": "taken"}, "already exists"),
        ({"repeat_distance": "nan"}, "Enter a number"),
        ({"sum_limit": 50}, "greater than or equal to 100"),
    ],
)
def test_a_setting_that_can_not_be_is_told(curator: Client, changes: dict[str, Any], words: str) -> None:
    study = make.make_study(launch=False)
    make.make_study(dataset=study.dataset, name="Taken", launch=False)
    before = Study.objects.values().get(pk=study.pk)

    response = curator.post(address(study), settings_of(study, **changes))

    assert response.status_code == 200
    assert words in response.content.decode()
    assert Study.objects.values().get(pk=study.pk) == before


def test_a_draft_says_what_its_launch_waits_for(curator: Client) -> None:
    study = make.make_study(launch=False)
    assert "Everything is in place" in page(curator, study)

    Study.objects.update(instructions="")

    assert "The instructions are empty" in page(curator, study)


def test_only_a_draft_can_be_deleted(curator: Client) -> None:
    draft = make.make_study(launch=False)
    live = make.make_study(dataset=draft.dataset, name="Live")

    statuses = [
        curator.post(f"/admin/annotations/study/{s.pk}/delete/", {"post": "yes"}).status_code for s in (draft, live)
    ]

    assert statuses == [302, 403]
    assert list(Study.objects.all()) == [live]


# --- Launch, pause, resume, close


def test_a_study_is_moved_by_its_buttons(curator: Client) -> None:
    study = make.make_study(launch=False)

    for move, status, button in (
        ("launch", "live", "pause"),
        ("pause", "paused", "resume"),
        ("resume", "live", "close"),
        ("close", "closed", ""),
    ):
        response = curator.post(address(study, move), follow=True)
        study.refresh_from_db()
        assert study.status == status
        text = response.content.decode()
        assert f"The study is {status} now." in text
        assert not button or address(study, button) in text

    assert LogEntry.objects.count() == 4
    assert "draft -&gt; live" in curator.get(f"/admin/annotations/study/{study.pk}/history/").content.decode()


def test_a_move_that_can_not_be_is_told_and_changes_nothing(curator: Client) -> None:
    study = make.make_study(launch=False)

    text = curator.post(address(study, "pause"), follow=True).content.decode()

    assert "The study is draft." in text
    study.refresh_from_db()
    assert study.status == StudyStatus.DRAFT
    assert not LogEntry.objects.exists()


def test_a_launch_that_is_refused_says_why(curator: Client) -> None:
    study = make.make_study(launch=False, instructions="")

    assert "The instructions are empty" in curator.post(address(study, "launch"), follow=True).content.decode()


@pytest.mark.parametrize("move", ["launch", "pause", "resume", "close"])
@pytest.mark.parametrize("method", ["get", "head", "put"])
def test_a_link_alone_moves_nothing(curator: Client, move: str, method: str) -> None:
    study = make.make_study(launch=False)

    assert getattr(curator, method)(address(study, move)).status_code == 405
    study.refresh_from_db()
    assert study.status == StudyStatus.DRAFT


@pytest.mark.parametrize("pk", [10**6, 10**25])
def test_a_study_that_is_not_there_can_not_be_moved(curator: Client, pk: int) -> None:
    assert curator.post(f"/admin/annotations/study/{pk}/launch/").status_code == 404


def test_a_form_from_another_site_moves_nothing() -> None:
    study = make.make_study(launch=False)
    curator = Client(enforce_csrf_checks=True)
    curator.force_login(make.make_curator())

    assert curator.post(address(study, "launch")).status_code == 403


# --- Who may


def test_staff_without_the_right_move_and_change_nothing() -> None:
    study = make.make_study(launch=False)
    client = Client()
    client.force_login(make.make_staff("looker", "annotations.view_study"))

    text = page(client, study)
    assert "consent_text" not in text
    assert address(study, "launch") not in text
    assert client.post(address(study, "launch")).status_code == 403
    assert client.post(address(study), settings_of(study, labels_per_image=1)).status_code == 403
    assert client.get(ADD).status_code == 403
    study.refresh_from_db()
    assert (study.status, study.labels_per_image) == (StudyStatus.DRAFT, 6)


def test_who_may_change_studies_may_move_them() -> None:
    study = make.make_study(launch=False)
    client = Client()
    client.force_login(make.make_staff("mover", "annotations.view_study", "annotations.change_study"))

    assert client.post(address(study, "launch")).status_code == 302
    study.refresh_from_db()
    assert study.status == StudyStatus.LIVE


@pytest.mark.parametrize("signed_in", [False, True])
def test_who_is_no_staff_is_sent_to_sign_in(signed_in: bool, django_user_model: Any) -> None:
    study = make.make_study(launch=False)
    client = Client()
    if signed_in:
        client.force_login(django_user_model.objects.create_user("somebody"))

    for response in (client.get(address(study)), client.post(address(study, "launch"))):
        assert response.status_code == 302
        assert response["Location"].startswith("/admin/login/")
    study.refresh_from_db()
    assert study.status == StudyStatus.DRAFT


# --- A study under way


def test_settings_can_only_be_read_from_the_launch_on(curator: Client) -> None:
    study = make.make_study(questionnaire=[], pay_note="2 Euro")

    text = page(curator, study)
    assert 'name="labels_per_image"' not in text
    assert "2 Euro" in text
    assert curator.post(address(study), settings_of(study, labels_per_image=99)).status_code == 403
    study.refresh_from_db()
    assert study.labels_per_image == 6


def test_the_page_of_a_study_shows_how_far_it_is(curator: Client) -> None:
    study = make.make_study(labels_per_image=2)
    session = make.complete_session(study, platform_id="PLATFORM-1")
    make.run_jobs()

    text = page(curator, study)

    assert "http://testserver/study/birds/" in text
    assert "20 of 40 labels (50 %)" in text
    assert session.participant.annotator in text
    assert "consistent" in text
    assert "PLATFORM-1" not in text
    assert reverse("admin:exports_release_add") in text


def test_a_live_study_that_nobody_opened_says_how_to_try_it(curator: Client) -> None:
    assert "simulate_annotators --study birds" in page(curator, make.make_study())


def test_the_list_shows_every_study_and_its_progress(curator: Client) -> None:
    study = make.make_study(labels_per_image=2)
    make.complete_session(study)
    make.make_study(dataset=study.dataset, name="Draft", launch=False)

    text = curator.get("/admin/annotations/study/").content.decode()

    assert "20 of 40 labels (50 %)" in text
    assert "Draft" in text

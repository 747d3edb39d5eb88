"""The console's forms for practice, comprehension check and questionnaire; pictures and previews."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import PIL.Image
import pytest
from django.contrib.admin.models import LogEntry
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from annotations import image_store
from annotations.models import Study
from annotations.presets import QUESTIONNAIRE
from annotations.services import studies
from tests import factories as make
from tests.annotations.test_pages import text_of

pytestmark = pytest.mark.django_db

CHECK = [
    {"name": "whose", "question": "Whose view?", "kind": "choice", "choices": ["Mine", "Others’"], "answer": "Others’"},
]
PRACTICE = [{"image": 4, "feedback": "Most say **cat**.", "expected": {"Dog": 20.5, "Cat": 70}}]


@pytest.fixture
def curator() -> Client:
    client = Client()
    client.force_login(make.make_curator())
    return client


@pytest.fixture
def study() -> Study:
    """A draft on four of six images."""
    study = make.make_study(dataset=make.make_dataset(6), launch=False, images_per_session=4)
    studies.choose_images(study, range(4), make.rng())
    return study


def address(study: Study, part: str) -> str:
    return reverse(f"admin:annotations_study_{part}", args=[study.pk])


def rows(*new: dict[str, object], initial: int = 0, **more: object) -> dict[str, object]:
    """A formset as the page sends it."""
    data: dict[str, object] = {"row-TOTAL_FORMS": len(new), "row-INITIAL_FORMS": initial, **more}
    for number, row in enumerate(new):
        data |= {f"row-{number}-{name}": value for name, value in row.items()}
    return data


def sent_by(response: Any) -> dict[str, object]:
    """The form of the page, unchanged."""
    formset = response.context["rows"]
    data: dict[str, object] = {"row-TOTAL_FORMS": len(formset.forms), "row-INITIAL_FORMS": formset.initial_form_count()}
    for form in formset.forms:
        for field in form:
            value = field.value()
            if value is not None and value is not False:
                data[field.html_name] = "on" if value is True else value
    return data


def question(**changes: object) -> dict[str, object]:
    return {
        "question": "How hard was it?",
        "kind": "scale",
        "low": 1,
        "high": 10,
        "required": "on",
        "place": 0,
        **changes,
    }


# --- What is there


@pytest.mark.parametrize(
    ("part", "items"), [("questionnaire", QUESTIONNAIRE), ("comprehension", CHECK), ("practice", PRACTICE)]
)
def test_saving_a_part_as_it_is_changes_nothing(curator: Client, study: Study, part: str, items: list[Any]) -> None:
    Study.objects.update(**{part: items})
    page = curator.get(address(study, part))
    assert page.status_code == 200

    response = curator.post(address(study, part), sent_by(page))

    assert response.status_code == 302, text_of(response)
    study.refresh_from_db()
    assert getattr(study, part) == items


# --- Building


def test_a_questionnaire_is_built_by_forms(curator: Client, study: Study) -> None:
    Study.objects.update(questionnaire=[])
    device = question(question="Which device?", kind="choice", choices=" phone \r\n\r\nlaptop", place=1)
    words = {"question": "Anything else?", "kind": "text", "help": "Or nothing.", "name": "remarks", "place": 0}

    response = curator.post(address(study, "questionnaire"), rows(question(place=2), device, words))

    assert response.status_code == 302, text_of(response)
    study.refresh_from_db()
    assert study.questionnaire == [
        {"name": "remarks", "question": "Anything else?", "kind": "text", "help": "Or nothing."},
        {"name": "which_device", "question": "Which device?", "kind": "choice", "choices": ["phone", "laptop"]},
        {"name": "how_hard_was_it", "question": "How hard was it?", "kind": "scale", "low": 1, "high": 10},
    ]
    assert LogEntry.objects.filter(object_id=str(study.pk)).count() == 1


def test_questions_without_a_name_get_names_of_their_own(curator: Client, study: Study) -> None:
    Study.objects.update(questionnaire=[])
    asked = ["How?", "How?", "多难", "2 much?"]

    curator.post(
        address(study, "questionnaire"),
        rows(*(question(question=words, place=place) for place, words in enumerate(asked))),
    )

    study.refresh_from_db()
    assert [each["name"] for each in study.questionnaire] == ["how", "how_2", "question_3", "question_4"]


def test_a_comprehension_check_marks_the_right_choice(curator: Client, study: Study) -> None:
    row = {"question": "Whose view?", "choices": "Mine\n* Others’", "name": "whose", "place": 0}

    response = curator.post(address(study, "comprehension"), rows(row))

    assert response.status_code == 302, text_of(response)
    study.refresh_from_db()
    assert study.comprehension == CHECK


def test_a_practice_is_built_by_forms(curator: Client, study: Study) -> None:
    row = {"image": 4, "feedback": "Most say **cat**.", "expected": "Dog 20,5 %\nCat: 70", "place": 0}

    response = curator.post(address(study, "practice"), rows(row))

    assert response.status_code == 302, text_of(response)
    study.refresh_from_db()
    assert study.practice == PRACTICE


def test_rows_are_put_in_order_and_removed(curator: Client, study: Study) -> None:
    sent = sent_by(curator.get(address(study, "questionnaire")))
    sent |= {"row-0-place": 2, "row-1-DELETE": "on", "row-2-place": 0}

    curator.post(address(study, "questionnaire"), sent)

    study.refresh_from_db()
    assert [each["name"] for each in study.questionnaire] == ["remarks", "clarity"]


def test_an_empty_new_row_is_no_question(curator: Client, study: Study) -> None:
    Study.objects.update(questionnaire=[])

    response = curator.post(address(study, "questionnaire"), sent_by(curator.get(address(study, "questionnaire"))))

    assert response.status_code == 302
    study.refresh_from_db()
    assert study.questionnaire == []


@pytest.mark.parametrize(
    ("part", "row", "words"),
    [
        ("questionnaire", question(question=""), "This field is required"),
        ("questionnaire", question(low=5, high=5), "A scale needs whole numbers"),
        ("questionnaire", question(low=""), "A scale needs whole numbers"),
        ("questionnaire", question(kind="choice", choices="one"), "at least two different choices"),
        ("questionnaire", question(name="Clarity!"), "Its name must be a word"),
        ("questionnaire", question(name="clarity"), "The name clarity is taken"),
        ("questionnaire", question(kind="essay"), "Select a valid choice"),
        ("comprehension", {"question": "?", "choices": "a\nb"}, "Its answer must be one of its choices"),
        ("comprehension", {"question": "?", "choices": "* a\n* b"}, "Its answer must be one of its choices"),
        ("comprehension", {"question": "?", "choices": "* a"}, "at least two different choices"),
        ("practice", {"image": 99}, "The dataset has no image 99"),
        ("practice", {"image": 2**31}, "must be the number of an image"),
        ("practice", {"image": "x"}, "Enter a whole number"),
        ("practice", {"image": 1}, "one of the study's own"),
        ("practice", {"image": 4, "expected": "Cat"}, "should be a category and a percentage"),
        ("practice", {"image": 4, "expected": "Cat 10\nCat 20"}, "Cat is given twice"),
        ("practice", {"image": 4, "expected": "Lynx 10"}, "no category “Lynx”"),
        ("practice", {"image": 4, "expected": "Cat 60\nDog 50"}, "more than 100"),
        ("practice", {"image": 4, "expected": "Cat 101"}, "percentages from 0 to 100"),
        ("practice", {"image": 4, "feedback": "![A cat](https://evil.example/cat.png)"}, "other sites"),
    ],
)
def test_what_is_wrong_with_a_row_is_told_beside_it(
    curator: Client, study: Study, part: str, row: dict[str, object], words: str
) -> None:
    Study.objects.update(questionnaire=[])
    good: dict[str, dict[str, object]] = {
        "questionnaire": question(question="Good?", name="clarity"),
        "comprehension": {"question": "Good?", "choices": "yes\n* no"},
        "practice": {"image": 5},
    }
    before = Study.objects.values().get()

    response = curator.post(address(study, part), rows({**good[part], "place": 0}, {**row, "place": 1}))

    assert response.status_code == 422
    first, second = re.findall(r"<li class=\"item.*?</li>\s*(?=<li class=\"item|</ol>)", text_of(response), re.DOTALL)
    assert words in second
    assert words not in first
    assert Study.objects.values().get() == before


def test_practice_images_can_be_taken_out_of_the_studys_own(curator: Client, study: Study) -> None:
    response = curator.post(address(study, "practice"), rows({"image": 1, "place": 0}, leave_out="on"))

    assert response.status_code == 302
    assert sorted(study.study_images.values_list("image__index", flat=True)) == [0, 2, 3]
    study.refresh_from_db()
    assert [item["image"] for item in study.practice] == [1]


def test_an_error_takes_no_image_out(curator: Client, study: Study) -> None:
    curator.post(address(study, "practice"), rows({"image": 1, "place": 0}, {"image": 99, "place": 1}, leave_out="on"))

    assert study.study_images.count() == 4


# --- JSON


def test_a_part_can_be_imported_as_json(curator: Client, study: Study) -> None:
    response = curator.post(address(study, "comprehension"), {"import": "yes", "json": json.dumps(CHECK)})

    assert response.status_code == 302
    study.refresh_from_db()
    assert study.comprehension == CHECK
    assert "Whose view?" in text_of(curator.get(address(study, "comprehension"))).split('id="json"')[1]


@pytest.mark.parametrize(
    ("part", "text", "words"),
    [
        ("questionnaire", "[{", "This is not JSON"),
        ("questionnaire", "{}", "has to be a list"),
        ("questionnaire", "[" * 100_000, "This is not JSON"),
        ("questionnaire", '[{"name": "X"}]', "1: its name must be a word"),
        ("questionnaire", '[{"name": "x", "question": "?", "kind": "text", "help": NaN}]', "help must be text"),
        ("questionnaire", " " * 200_001, "longer than 200,000"),
        ("comprehension", json.dumps([{**CHECK[0], "answer": "x"}]), "1: its answer must be"),
        ("practice", '[{"image": 4}, {"image": 99}]', "2: the dataset has no image 99"),
        ("practice", '[{"image": 4, "expected": {"Cat": NaN}}]', "percentages from 0 to 100"),
    ],
)
def test_json_that_is_wrong_is_told_and_changes_nothing(
    curator: Client, study: Study, part: str, text: str, words: str
) -> None:
    before = Study.objects.values().get()

    response = curator.post(address(study, part), {"import": "yes", "json": text})

    assert response.status_code == 422
    assert words in text_of(response)
    assert Study.objects.values().get() == before


# --- Who may, and until when


@pytest.mark.parametrize("part", ["questionnaire", "comprehension", "practice"])
def test_a_launched_studys_parts_are_fixed(curator: Client, part: str) -> None:
    study = make.make_study()
    before = Study.objects.values().get()

    response = curator.post(address(study, part), {"import": "yes", "json": "[]"}, follow=True)

    assert "The settings of a launched study are fixed" in text_of(response)
    assert Study.objects.values().get() == before


@pytest.mark.parametrize("part", ["questionnaire", "comprehension", "practice"])
def test_who_may_only_look_builds_nothing(study: Study, part: str) -> None:
    client = Client()
    client.force_login(make.make_staff("looker", "annotations.view_study"))

    assert client.get(address(study, part)).status_code == 403
    assert client.post(address(study, part), {"import": "yes", "json": "[]"}).status_code == 403
    assert client.get("/admin/annotations/study/99999/practice/").status_code == 403


# --- Launch


def test_the_launch_waits_for_a_practice_that_fits() -> None:
    study = make.make_study(
        dataset=make.make_dataset(6),
        launch=False,
        practice=[{"image": 1}, {"image": 99}, {"image": 2, "expected": {"Lynx": 3}}],
    )
    studies.choose_images(study, [0, 1], make.rng())
    client = Client()
    client.force_login(make.make_curator())

    text = text_of(client.get(reverse("admin:annotations_study_change", args=[study.pk])))

    assert "Practice image 1: image 1 is one of the study's own" in text
    assert "Practice image 2: the dataset has no image 99" in text
    assert "Practice image 3: the dataset has no category “Lynx”" in text


# --- Thumbnails and pictures


def test_a_thumbnail_is_found_by_the_images_number(curator: Client, study: Study) -> None:
    base = f"/admin/annotations/study/{study.pk}/images/"

    assert curator.get(f"{base}4/")["Location"] == f"/image/{4:064x}-5x.png"
    assert [curator.get(f"{base}{index}/").status_code for index in (99, 10**20)] == [404, 404]
    assert Client().get(f"{base}4/").status_code == 302


def picture(mode: str = "RGB", form: str = "PNG", size: tuple[int, int] = (30, 20)) -> SimpleUploadedFile:
    file = io.BytesIO()
    PIL.Image.new(mode, size).save(file, form)
    return SimpleUploadedFile(f"x.{form.lower()}", file.getvalue())


@pytest.mark.parametrize(
    ("mode", "form"), [("RGB", "PNG"), ("RGBA", "PNG"), ("L", "JPEG"), ("P", "GIF"), ("RGB", "WEBP")]
)
def test_an_uploaded_picture_can_be_shown_in_the_texts(curator: Client, study: Study, mode: str, form: str) -> None:
    response = curator.post(address(study, "pictures"), {"picture": picture(mode, form)}, follow=True)

    (line,) = re.findall(r'value="(!\[what it shows\]\(picture:[0-9a-f]{64}\))"', text_of(response))
    sha256 = line[-65:-1]
    assert image_store.pixels(sha256).shape == (20, 30, 3)
    Study.objects.update(instructions=line)
    preview = text_of(curator.get(reverse("admin:annotations_study_preview", args=[study.pk, "instructions"])))
    assert f'<img src="/image/{sha256}-1x.png" alt="what it shows">' in preview
    assert sha256 in text_of(curator.get(address(study, "pictures")))


def test_what_is_see_through_becomes_white(curator: Client, study: Study) -> None:
    curator.post(address(study, "pictures"), {"picture": picture("RGBA")})
    response = curator.post(address(study, "pictures"), {"picture": picture("RGBA")})

    assert (image_store.pixels(response["Location"][-64:]) == 255).all()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no picture", "no picture that can be read"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "no picture that can be read"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "no picture that can be read"),
        (b"\0" * ((5 << 20) + 1), "larger than 5 MB"),
    ],
)
def test_what_is_no_picture_is_refused(curator: Client, study: Study, content: bytes, words: str) -> None:
    response = curator.post(address(study, "pictures"), {"picture": SimpleUploadedFile("x.png", content)})

    assert response.status_code == 422
    assert words in text_of(response)


def test_a_picture_of_too_many_pixels_is_refused(curator: Client, study: Study) -> None:
    response = curator.post(address(study, "pictures"), {"picture": picture("1", size=(6000, 5000))})

    assert "more than 25 million pixels" in text_of(response)


def test_who_may_only_look_uploads_nothing(study: Study) -> None:
    client = Client()
    client.force_login(make.make_staff("looker", "annotations.view_study"))

    assert client.get(address(study, "pictures")).status_code == 200
    assert client.post(address(study, "pictures"), {"picture": picture()}).status_code == 403


# --- Previews


def preview(study: Study, step: str) -> str:
    return reverse("admin:annotations_study_preview", args=[study.pk, step])


def test_a_curator_walks_the_pages_that_annotators_will_see(curator: Client, study: Study) -> None:
    Study.objects.update(comprehension=CHECK, completion_code="C0DE")
    words = {
        "consent": "Taking part is voluntary",
        "instructions": "100 other people",
        "comprehension": "Whose view?",
        "trial": "trial-data",
        "questionnaire": "How clear were the instructions?",
        "done": "C0DE",
    }
    step = preview(study, "consent")
    for name, expected in words.items():
        assert step == preview(study, name)
        text = text_of(curator.get(step))
        assert "Nothing is stored" in text
        assert expected in text
        step = curator.post(step, {"agree": "on"})["Location"]
    assert not study.sessions.exists()


def test_a_preview_speaks_the_studys_language(curator: Client, study: Study) -> None:
    Study.objects.update(language="zh-hans")

    assert '<html lang="zh-hans"' in text_of(curator.get(preview(study, "consent")))


@pytest.mark.parametrize("step", ["trials", "x", "admin"])
def test_there_is_no_preview_of_anything_else(curator: Client, study: Study, step: str) -> None:
    assert curator.get(preview(study, step)).status_code == 404


def test_previews_are_for_those_who_may_see_the_study(study: Study) -> None:
    stranger = Client()
    stranger.force_login(make.make_staff("stranger", "annotations.view_dataset"))

    assert stranger.get(preview(study, "consent")).status_code == 403
    assert Client().get(preview(study, "consent")).status_code == 302

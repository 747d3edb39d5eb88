from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from annotations import selectors
from annotations.errors import AnnotationError
from annotations.models import Consent, Dataset, Place, Study, StudyImage, StudyStatus
from annotations.presets import CIFAR10S
from annotations.services import studies
from tests import factories as make

pytestmark = pytest.mark.django_db


def draft(**settings: Any) -> Study:
    return make.make_study(launch=False, **settings)


def batches_of(study: Study) -> list[list[int]]:
    return [
        sorted(batch.study_images.values_list("image__index", flat=True)) for batch in study.batches.order_by("number")
    ]


# --- Made from the preset


def test_a_study_takes_every_setting_of_its_preset() -> None:
    study = studies.create_study(name="Birds", dataset=make.make_dataset(), preset=CIFAR10S)

    study.refresh_from_db()
    assert {name: getattr(study, name) for name in CIFAR10S.settings} == dict(CIFAR10S.settings)
    assert (study.status, study.preset, study.slug) == (StudyStatus.DRAFT, "CIFAR-10S protocol", "birds")


def test_the_preset_is_the_published_protocol() -> None:
    settings = CIFAR10S.settings

    assert (settings["labels_per_image"], settings["images_per_session"], settings["repeats_per_session"]) == (6, 25, 2)
    assert (settings["framing"], settings["most_named"], settings["sum_limit"]) == ("others", None, None)


def test_a_study_begins_with_the_first_version_of_the_consent_text() -> None:
    consent = selectors.current_consent(draft())

    assert consent is not None
    assert (consent.version, consent.text) == (1, CIFAR10S.consent.strip())


def test_studies_of_one_name_get_links_of_their_own() -> None:
    dataset = make.make_dataset()
    slugs = [
        studies.create_study(name=name, dataset=dataset, preset=CIFAR10S).slug
        for name in ("Birds", "Birds", "Birds", "Birdsong", "???")
    ]

    assert slugs == ["birds", "birds-2", "birds-3", "birdsong", "study"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("labels_per_image", 0),
        ("labels_per_image", 1001),
        ("images_per_session", 0),
        ("images_per_session", 501),
        ("repeats_per_session", 26),
        ("image_scale", 11),
        ("most_named", 0),
        ("sum_limit", 99),
        ("repeat_distance", 1.1),
        ("idle_minutes", 0),
        ("framing", "nobody"),
        ("questionnaire", "no list"),
    ],
)
def test_a_setting_out_of_its_range_is_refused_and_nothing_is_made(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        studies.create_study(name="Birds", dataset=make.make_dataset(), preset=CIFAR10S, overrides={field: value})

    assert not Study.objects.exists()
    assert not Consent.objects.exists()


def test_a_link_that_is_taken_is_refused() -> None:
    study = draft()

    with pytest.raises(ValidationError) as refused:
        studies.create_study(name="Cats", slug=study.slug, dataset=study.dataset, preset=CIFAR10S)

    assert list(refused.value.message_dict) == ["slug"]


# --- The consent text


def test_a_changed_consent_text_is_a_new_version_beside_the_old_one() -> None:
    study = draft()

    assert studies.add_consent(study, "You may stop.").version == 2
    assert studies.add_consent(study, "You may stop.").version == 2
    assert studies.add_consent(study, "You may stop.", title="Another title").version == 3
    assert study.consents.count() == 3
    assert study.consents.get(version=1).text == CIFAR10S.consent.strip()


def test_line_ends_alone_are_no_change_of_the_consent_text() -> None:
    study = draft()

    assert studies.add_consent(study, CIFAR10S.consent.replace("\n", "\r\n") + " \r\n").version == 1


# --- Images and batches


def test_all_images_are_dealt_into_batches_of_the_size_of_a_session() -> None:
    study = draft(images_per_session=8, repeats_per_session=2)

    batches = batches_of(study)
    assert sorted(image for batch in batches for image in batch) == list(range(20))
    assert sorted(map(len, batches)) == [6, 7, 7]


def test_a_choice_of_images_replaces_the_one_before() -> None:
    study = draft()

    assert studies.choose_images(study, [3, 1, 4], make.rng()) == 3
    assert batches_of(study) == [[1, 3, 4]]


def test_batches_are_taken_as_they_are_given() -> None:
    study = draft()

    assert studies.choose_batches(study, [[5, 6], [1]]) == 3
    assert batches_of(study) == [[5, 6], [1]]


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ([[1, 20, 99]], "no image 20, 99"),
        ([[-1]], "no image -1"),
        ([[1, 2], [2]], "named twice"),
        ([[1], []], "Batch 1 is empty"),
        ([[10**30]], "no image"),
    ],
)
def test_batches_that_name_what_is_not_there_are_refused_and_change_nothing(
    batches: Sequence[Sequence[int]], words: str
) -> None:
    study = draft()
    before = batches_of(study)

    with pytest.raises(ValidationError) as refused:
        studies.choose_batches(study, batches)

    assert words in refused.value.message
    assert batches_of(study) == before


@pytest.mark.parametrize(
    ("text", "batches"),
    [
        ("[[1, 2], [3]]", [[1, 2], [3]]),
        ('{"10": [4], "9": [3], "a": [1]}', [[1], [3], [4]]),
        ("[]", []),
        ("{}", []),
    ],
)
def test_batches_are_read_from_lists_or_by_number(text: str, batches: list[list[int]]) -> None:
    assert studies.parse_batches(text) == batches


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not JSON",
        "\ufeff[[1]]",
        "null",
        "3",
        '"batches"',
        "[1, 2]",
        "[[1.5]]",
        "[[true]]",
        '[["1"]]',
        "[[null]]",
        '{"0": 3}',
        '{"0": {"1": 2}}',
        "[[NaN]]",
        "[" * 100_000,
        "[[" + "9" * 5000 + "]]",
        '{"' + "9" * 5000 + '": [1], "1": [2]}',
    ],
    ids=lambda text: text[:16] or "empty",
)
def test_what_is_no_list_of_batches_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValidationError) as refused:
        studies.parse_batches(text)

    assert "atches" in refused.value.message


def test_the_trials_of_a_session_are_counted_by_the_largest_batch() -> None:
    study = draft(repeats_per_session=2)
    studies.choose_batches(study, [[0], [1, 2, 3, 4, 5, 6, 7, 8, 9]])

    assert selectors.trials_in_session(study) == 11


def test_a_study_without_images_has_no_trials_to_count() -> None:
    study = draft()
    studies.choose_images(study, [], make.rng())

    assert selectors.trials_in_session(study) == 0


# --- The launch


def empty_dataset(study: Study) -> None:
    Dataset.objects.filter(pk=study.dataset_id).update(ready_at=None)


def no_images(study: Study) -> None:
    studies.choose_images(study, [], make.rng())


def one_category(study: Study) -> None:
    study.dataset.categories.filter(index__gte=1).delete()


def no_consent(study: Study) -> None:
    study.consents.all().delete()


def no_instructions(study: Study) -> None:
    Study.objects.filter(pk=study.pk).update(instructions=" \n")


def pointless_limit(study: Study) -> None:
    Study.objects.filter(pk=study.pk).update(most_named=1, sum_limit=100)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (empty_dataset, "not imported yet"),
        (no_images, "no images"),
        (one_category, "fewer than two categories"),
        (no_consent, "consent text is missing"),
        (no_instructions, "instructions are empty"),
        (pointless_limit, "no sum to limit"),
    ],
)
def test_a_launch_says_in_words_what_is_missing(spoil: Callable[[Study], None], words: str) -> None:
    study = draft()
    spoil(study)

    with pytest.raises(AnnotationError) as refused:
        studies.launch(study.pk, make.rng())

    assert refused.value.code == "launch_refused"
    assert words in refused.value.message
    study.refresh_from_db()
    assert study.status == StudyStatus.DRAFT
    assert not Place.objects.exists()


def test_a_launch_names_everything_that_is_missing_at_once() -> None:
    study = draft()
    no_images(study)
    no_instructions(study)

    assert len(selectors.launch_problems(Study.objects.get(pk=study.pk))) == 2


def test_a_launch_makes_k_places_for_every_batch() -> None:
    study = make.make_study(labels_per_image=4, images_per_session=5)

    assert study.status == StudyStatus.LIVE
    assert study.launched_at is not None
    per_batch = Counter(study.places.values_list("batch_id", flat=True))
    assert list(per_batch.values()) == [4, 4, 4, 4]
    for number in range(1, 5):
        assert sorted(study.places.filter(number=number).values_list("rank", flat=True)) == [0, 1, 2, 3]


def test_images_and_batches_are_fixed_from_the_launch_on() -> None:
    study = make.make_study()
    before = sorted(StudyImage.objects.values_list("image_id", "batch_id"))

    changes: list[Callable[[], int]] = [
        lambda: studies.choose_images(study, [1], make.rng()),
        lambda: studies.choose_batches(study, [[1]]),
    ]
    for change in changes:
        with pytest.raises(AnnotationError) as refused:
            change()
        assert refused.value.code == "settings_frozen"

    assert sorted(StudyImage.objects.values_list("image_id", "batch_id")) == before


MOVES: dict[str, Callable[[int], Study]] = {
    "launch": lambda pk: studies.launch(pk, make.rng()),
    "pause": studies.pause,
    "resume": studies.resume,
    "close": studies.close,
}
REACHES = {
    (StudyStatus.DRAFT, "launch"): StudyStatus.LIVE,
    (StudyStatus.LIVE, "pause"): StudyStatus.PAUSED,
    (StudyStatus.LIVE, "close"): StudyStatus.CLOSED,
    (StudyStatus.PAUSED, "resume"): StudyStatus.LIVE,
    (StudyStatus.PAUSED, "close"): StudyStatus.CLOSED,
}


@pytest.mark.parametrize("status", StudyStatus)
@pytest.mark.parametrize("move", MOVES)
def test_every_move_is_made_or_refused_by_the_status(status: StudyStatus, move: str) -> None:
    study = draft()
    Study.objects.filter(pk=study.pk).update(status=status)

    if (status, move) in REACHES:
        assert MOVES[move](study.pk).status == REACHES[status, move]
    else:
        with pytest.raises(AnnotationError) as refused:
            MOVES[move](study.pk)
        assert refused.value.code == "wrong_status"

    study.refresh_from_db()
    assert study.status == REACHES.get((status, move), status)


def test_a_study_launched_twice_has_its_places_once() -> None:
    study = make.make_study()
    places = study.places.count()

    with pytest.raises(AnnotationError):
        studies.launch(study.pk, make.rng())

    assert study.places.count() == places


def test_closing_is_dated() -> None:
    study = studies.close(make.make_study().pk)

    study.refresh_from_db()
    assert study.closed_at is not None


# --- Progress


def test_progress_counts_sessions_labels_and_verdicts() -> None:
    study = make.make_study(labels_per_image=2, images_per_session=20, repeats_per_session=2)
    make.complete_session(study, repeats=((7, 100.0),))
    make.begin(make.make_session(study))
    make.run_jobs()

    progress = selectors.study_progress(study)

    assert (progress.images, progress.places, progress.places_taken) == (20, 2, 2)
    assert (progress.open_sessions, progress.completed, progress.abandoned, progress.inconsistent) == (1, 1, 0, 1)
    assert (progress.labels, progress.labels_wanted, progress.percent) == (20, 40, 50)


def test_progress_of_a_study_without_images_is_none_at_all() -> None:
    study = draft()
    no_images(study)

    assert selectors.study_progress(study).percent == 0

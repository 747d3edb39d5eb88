"""Clones, versions, and that a launched study's settings stay as they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from annotations.errors import AnnotationError
from annotations.models import Arm, CheckItem, Study, StudyStatus
from annotations.models.studies import CHANGES_AFTER_LAUNCH
from annotations.selectors.versions import differences, settings_models
from annotations.services import arms, choosing, studies, versions
from tests import factories as make

pytestmark = pytest.mark.django_db


def launched() -> Study:
    dataset = make.make_dataset(8)
    study = make.make_study(dataset=dataset, launch=False, images_per_session=3)
    studies.choose_images(study, [0, 1, 2, 3, 4, 5], make.rng())
    arms.write_arms(study.pk, [{"name": "slider", "settings": {"input_mode": "slider"}, "weight": 2}])
    CheckItem.objects.create(study=study, image=dataset.images.get(index=7), allowed=[3])
    return studies.launch(study.pk, make.rng())


def batches(study: Study) -> list[list[int]]:
    return [
        list(batch.study_images.order_by("pk").values_list("image__index", flat=True))
        for batch in study.batches.order_by("number")
    ]


def test_a_clone_is_a_draft_with_everything_that_was_set() -> None:
    study = launched()
    copy = versions.clone(study.pk)
    assert (copy.status, copy.version, copy.predecessor) == (StudyStatus.DRAFT, 1, None)
    assert (copy.name, copy.slug) == ("Birds (copy)", "birds-copy")
    assert differences(study, copy)[0].setting == "name"
    assert len(differences(study, copy)) == 1
    assert batches(copy) == batches(study)
    assert copy.places.count() == copy.sessions.count() == 0
    assert studies.launch(copy.pk, make.rng()).status == StudyStatus.LIVE


def test_every_part_of_the_settings_is_copied() -> None:
    copied = {model.__name__ for model in settings_models()}
    assert {"Arm", "CheckItem"} <= copied
    study = launched()
    copy = versions.clone(study.pk)
    for model in settings_models():
        assert model.objects.filter(study=copy).count() == model.objects.filter(study=study).count()
    # The original keeps its own.
    assert study.arms.count() == copy.arms.count() == 1


def test_a_new_version_follows_the_one_before_it_and_says_what_differs() -> None:
    study = launched()
    later = versions.new_version(study.pk)
    assert (later.version, later.predecessor, later.name, later.slug) == (2, study, "Birds", "birds-2")
    assert differences(study, later) == []
    later.labels_per_image, later.instructions, later.ask_impossible = 9, "Look.", False
    later.save()
    studies.add_consent(later, "Other words.")
    choosing.choose(later, [0, 6], {"by": "list"}, 1)
    Arm.objects.filter(study=later).update(weight=5)
    said = {each.setting: (each.before, each.after) for each in differences(study, later)}
    assert said == {
        "labels per image (K)": ("6", "9"),
        "ask for impossible categories": ("yes", "no"),
        "instructions": ("", ""),
        "consent text": ("", ""),
        "images": ("6", "2, 1 of them as before"),
        "arms": ("", ""),
    }


def test_a_draft_has_no_new_version() -> None:
    study = make.make_study(launch=False)
    with pytest.raises(AnnotationError, match="needs no new version"):
        versions.new_version(study.pk)


def rename(study: Study) -> None:
    study.name = "Other"
    study.save()


def write_one_field(study: Study) -> None:
    study.instructions = "Other"
    study.save(update_fields=["instructions"])


def append_to_a_list(study: Study) -> None:
    study.practice.append({"image": 1})
    study.save()


WRITES: dict[str, Callable[[Study], object]] = {
    "a form": rename,
    "one field": write_one_field,
    "a list in place": append_to_a_list,
    "a part": lambda study: studies.write_part(study.pk, "questionnaire", []),
    "images": lambda study: studies.choose_images(study, [1], make.rng()),
    "batches": lambda study: studies.choose_batches(study, [[1]]),
    "a choice of images": lambda study: choosing.choose(study, [1], {}, 1),
    "a choice of batches": lambda study: choosing.choose_batches(study, [[1]], 1),
    "images left out": lambda study: studies.leave_out(study.pk, [0]),
    "practice": lambda study: choosing.choose_practice(study, 1, make.rng()),
    "arms": lambda study: arms.write_arms(study.pk, []),
    "an arm's settings worn by its study": lambda study: study.arms.get().dress(study).save(),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_no_way_of_writing_changes_the_settings_of_a_launched_study(write: Callable[[Study], object]) -> None:
    study = Study.objects.get(pk=launched().pk)
    before = Study.objects.filter(pk=study.pk).values().get()
    with pytest.raises(AnnotationError) as refused:
        write(study)
    assert refused.value.code == "settings_frozen"
    assert Study.objects.filter(pk=study.pk).values().get() == before
    assert study.study_images.count() == 6
    assert study.arms.count() == 1


def test_a_copy_from_before_the_launch_changes_no_setting_either() -> None:
    study = make.make_study(launch=False)
    copy = Study.objects.get(pk=study.pk)
    studies.launch(study.pk, make.rng())
    copy.name = "Changed"
    with pytest.raises(AnnotationError) as refused:
        copy.save()
    assert refused.value.code == "settings_frozen"
    assert Study.objects.get(pk=study.pk).name != "Changed"


def test_a_launched_study_still_moves() -> None:
    study = Study.objects.get(pk=launched().pk)
    studies.pause(study.pk)
    studies.resume(study.pk)
    assert studies.close(study.pk).status == StudyStatus.CLOSED
    assert {"status", "closed_at"} <= CHANGES_AFTER_LAUNCH

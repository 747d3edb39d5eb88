"""Studies with more answers than anybody would give through the services."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any

from annotations import selectors
from annotations.models import (
    CheckItem,
    Dataset,
    Image,
    Participant,
    Response,
    Session,
    SessionStatus,
    Study,
    Trial,
    TrialKind,
)
from annotations.services import quality, sessions, studies
from annotations.simulation.characters import CAREFUL, CARELESS, CERTAIN, HURRIED, Character, answer, asked_for
from tests import factories as make


def answered_study(
    images: int,
    annotators: int,
    *,
    per_session: int = 500,
    until: datetime = make.NOON,
    over: timedelta = timedelta(),
) -> Study:
    """A study whose `images` were each answered by all `annotators`, as if they had completed it at noon; or one after
    the other, evenly `over` a time that ends `until`."""
    study = make.make_study(
        dataset=make.make_dataset(images),
        labels_per_image=annotators,
        images_per_session=min(images, per_session),
        repeats_per_session=0,
    )
    consent = selectors.current_consent(study)
    assert consent is not None
    places = list(study.places.order_by("batch__number", "number"))
    people = Participant.objects.bulk_create(
        (Participant(study=study, annotator=f"a{number:06}") for number in range(len(places))), batch_size=1000
    )
    random = make.rng(1)
    ends = [until - over + over * (number + 1) / len(people) for number in range(len(people))]
    sat = Session.objects.bulk_create(
        (
            Session(
                study=study,
                participant=person,
                status=SessionStatus.COMPLETED,
                consent=consent,
                consented_at=end - over / len(people),
                seen_at=end,
                trials_begun_at=end - over / len(people),
                completed_at=end,
                category_order=random.permutation(10).tolist(),
            )
            for person, end in zip(people, ends, strict=True)
        ),
        batch_size=1000,
    )
    for place, session in zip(places, sat, strict=True):
        place.session = session
    type(places[0]).objects.bulk_update(places, ["session"], batch_size=500)
    for place, session in zip(places, sat, strict=True):
        shown = list(Image.objects.filter(study_images__batch_id=place.batch_id).order_by("index"))
        trials = Trial.objects.bulk_create(
            (
                Trial(session=session, image=image, position=position, kind=TrialKind.MAIN, place=place)
                for position, image in enumerate(shown, 1)
            ),
            batch_size=1000,
        )
        classes = random.integers(0, 10, len(trials)).tolist()
        percentages = random.integers(10, 100, len(trials)).tolist()
        Response.objects.bulk_create(
            (
                Response(
                    id=uuid.UUID(int=int.from_bytes(random.bytes(16), "big")),
                    trial=trial,
                    named=[[category, float(percentage)], [(category + 1) % 10, (100 - percentage) // 2]],
                    impossible=[(category + 5) % 10, (category + 7) % 10],
                    top_category=category,
                    top_percentage=percentage,
                    sum_percentage=100,
                    duration_ms=5000,
                    received_at=session.seen_at,
                )
                for trial, category, percentage in zip(trials, classes, percentages, strict=True)
            ),
            batch_size=1000,
        )
    return study


def take_part(study: Study, character: Character, seed: int) -> Session:
    """A whole sitting of a simulated person, through the services; they see what is in the picture."""
    session = make.begin(make.make_session(study, seed=seed), seed=seed)
    person, names = make.rng(seed), selectors.category_names(study)
    for trial in selectors.open_trials(session):
        item = trial.check_item
        note = item.note if item is not None else ""
        told = asked_for(note, names) if note else None
        said = answer(character, trial.image.sha256, trial.image.reference, len(names), person, seed, told)
        make.respond(trial, said.named, said.impossible, duration_ms=said.duration_ms)
    session.refresh_from_db()
    return sessions.save_questionnaire(session_id=session.pk, answers={"clarity": 9}, now=make.NOON)


def checked_study(dataset: Dataset, *, own: int = 12, launch: bool = True, **settings: Any) -> Study:
    """A study on the first `own` images, with two attention checks and two gold images after them."""
    wanted: dict[str, Any] = {"images_per_session": own, "repeats_per_session": 2, "labels_per_image": 6, **settings}
    study = make.make_study(dataset=dataset, launch=False, **wanted)
    studies.choose_images(study, range(own), make.rng())
    images = {image.index: image for image in dataset.images.filter(index__in=range(own, own + 4))}
    names = selectors.category_names(study)
    for index in (own, own + 1):
        note = f"To show that you read this, name {names[3 + index - own]} at 100 %."
        CheckItem.objects.create(
            study=study, image=images[index], kind="attention", note=note, allowed=[3 + index - own]
        )
    for index in (own + 2, own + 3):
        target = [0.9 if place == images[index].reference else 0.1 / (len(names) - 1) for place in range(len(names))]
        CheckItem.objects.create(study=study, image=images[index], target=target, tolerance=0.6)
    return studies.launch(study.pk, make.rng()) if launch else study


def crowded_study(dataset: Dataset, *, careful: int = 5, **settings: Any) -> Study:
    """Such a study with careful people, one who is careless, one always certain, and one in a hurry; all measured."""
    people = [CAREFUL] * careful + [CARELESS, CERTAIN, HURRIED]
    study = checked_study(dataset, **{"labels_per_image": len(people), **settings})
    for seed, character in enumerate(people):
        session = take_part(study, character, seed)
        quality.check_session(str(session.pk), make.NOON)
    quality.measure_study(study.pk, make.NOON)
    return study

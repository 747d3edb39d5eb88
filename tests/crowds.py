"""Studies with more answers than anybody would give through the services."""

from __future__ import annotations

import uuid

from annotations import selectors
from annotations.models import Image, Participant, Response, Session, SessionStatus, Study, Trial, TrialKind
from tests import factories as make


def answered_study(images: int, annotators: int) -> Study:
    """A study whose `images` were each answered by all `annotators`, as if they had completed it at noon."""
    study = make.make_study(
        dataset=make.make_dataset(images),
        labels_per_image=annotators,
        images_per_session=min(images, 500),
        repeats_per_session=0,
    )
    consent = selectors.current_consent(study)
    assert consent is not None
    places = list(study.places.order_by("batch__number", "number"))
    people = Participant.objects.bulk_create(
        (Participant(study=study, annotator=f"a{number:06}") for number in range(len(places))), batch_size=1000
    )
    random = make.rng(1)
    sat = Session.objects.bulk_create(
        (
            Session(
                study=study,
                participant=person,
                status=SessionStatus.COMPLETED,
                consent=consent,
                consented_at=make.NOON,
                seen_at=make.NOON,
                completed_at=make.NOON,
                category_order=random.permutation(10).tolist(),
            )
            for person in people
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
                    received_at=make.NOON,
                )
                for trial, category, percentage in zip(trials, classes, percentages, strict=True)
            ),
            batch_size=1000,
        )
    return study

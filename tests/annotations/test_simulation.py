"""Simulated annotators: what they say, and a walk over the real pages."""

from __future__ import annotations

from collections import Counter
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from hypothesis import given
from hypothesis import strategies as st
from pytest_django.live_server_helper import LiveServer

from annotations.models import Response, Session, Study
from annotations.services import studies
from annotations.simulation.characters import CHARACTERS, answer, contradictions, mix
from elicit.labels import AnswerRules, check
from elicit.labels.elicited import Contradiction
from jobs.models import Job
from tests import factories as make

SEEDS = st.integers(0, 2**32 - 1)


@given(st.sampled_from(sorted(CHARACTERS)), st.integers(2, 14), SEEDS, st.booleans())
def test_whatever_a_character_says_is_valid(name: str, categories: int, seed: int, sees: bool) -> None:
    said = answer(
        CHARACTERS[name], f"/image/{seed}", seed % categories if sees else None, categories, make.rng(seed), 3
    )

    check(said.named, said.impossible, AnswerRules(categories))
    assert said.duration_ms >= 0


@given(st.integers(2, 14), SEEDS)
def test_every_contradiction_is_refused_with_its_code(categories: int, seed: int) -> None:
    good = answer(CHARACTERS["contradictory"], "/image/x", seed % categories, categories, make.rng(seed), seed)

    for code, bad in contradictions(good, categories):
        with pytest.raises(Contradiction) as refused:
            check(bad.named, bad.impossible, AnswerRules(categories))
        assert refused.value.code == code


def test_the_same_seeds_say_the_same() -> None:
    first, again = (answer(CHARACTERS["careful"], "/image/x", 3, 10, make.rng(1), 7) for _ in range(2))

    assert first == again


def test_the_first_eight_are_of_every_kind_that_stays() -> None:
    assert {character.name for character in mix(8)} == set(CHARACTERS) - {"leaver"}
    assert len(mix(3)) == 3


@pytest.fixture
def study(transactional_db: None, tmp_path: Path) -> Study:
    dataset = make.import_pictures(tmp_path, 6)
    return make.make_study(dataset=dataset, labels_per_image=4, images_per_session=6, repeats_per_session=2)


def simulate(study: str, **options: object) -> str:
    out = StringIO()
    call_command("simulate_annotators", study=study, at_once=1, stdout=out, **options)
    return out.getvalue()


def test_simulated_annotators_take_part_on_a_server_of_their_own(study: Study) -> None:
    said = simulate(study.slug, count=3, leavers=1, seed=4)

    assert "1 leaver: left" in said
    assert Counter(Session.objects.values_list("status", flat=True)) == {"completed": 3, "trials": 1}
    assert Response.objects.count() == 3 * 8 + 4
    assert "28 answers stored, 5 contradictions refused." in said
    assert Job.objects.count() == 3


def test_a_study_that_is_full_turns_them_away(study: Study) -> None:
    said = simulate(study.slug, count=5, character="careful", seed=1)

    assert "4 careful: completed" in said
    assert "1 careful: turned away" in said


def test_they_go_to_the_server_that_is_named(study: Study, live_server: LiveServer) -> None:
    assert "1 careful: completed" in simulate(study.slug, count=1, url=live_server.url)


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.django_db
def test_there_has_to_be_a_live_study(live: bool) -> None:
    study = make.make_study()
    if not live:
        studies.pause(study.pk)

    with pytest.raises(CommandError, match="no live study"):
        simulate("nothing" if live else study.slug)


def test_a_server_that_does_not_answer_is_told(study: Study) -> None:
    with pytest.raises(CommandError, match="refused"):
        simulate(study.slug, count=1, url="http://127.0.0.1:1")


QUESTIONS = [
    {"name": f"q{number}", "question": "Which?", "kind": "choice", "choices": list("abcd"), "answer": "c"}
    for number in range(2)
]


def study_with_steps(folder: Path, **settings: Any) -> Study:
    """Four images to answer, two more to practise on, and a check that random answers fail mostly."""
    practice = [{"image": 4, "feedback": "Yes."}, {"image": 5, "expected": {"Dog": 80}}]
    study = make.make_study(
        dataset=make.import_pictures(folder, 6),
        launch=False,
        images_per_session=4,
        practice=practice,
        comprehension=QUESTIONS,
        **settings,
    )
    studies.choose_images(study, range(4), make.rng())
    return studies.launch(study.pk, make.rng())


@pytest.mark.django_db(transaction=True)
def test_they_practise_and_take_the_comprehension_check(tmp_path: Path) -> None:
    study = study_with_steps(tmp_path)

    said = simulate(study.slug, count=1, leavers=1, character="careful", seed=2)

    assert "1 careful: completed" in said
    assert "1 leaver: left" in said
    assert "9 answers stored, 4 to practise" in said
    assert set(Session.objects.values_list("comprehension_attempts", flat=True)) == {1}


@pytest.mark.django_db(transaction=True)
def test_careless_ones_fail_the_comprehension_check_sometimes(tmp_path: Path) -> None:
    study = study_with_steps(tmp_path, labels_per_image=8)

    said = simulate(study.slug, count=8, character="careless", seed=1)

    statuses = Counter(Session.objects.values_list("status", flat=True))
    assert set(statuses) == {"completed", "screened_out"}
    assert f"{statuses['screened_out']} careless: screened out" in said


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "settings", [{"framing": "both"}, {"most_named": 1}, {"ask_impossible": False}, {"sum_limit": 100}]
)
def test_they_keep_to_what_the_study_asks(tmp_path: Path, settings: dict[str, object]) -> None:
    study = study_with_steps(tmp_path, **settings)

    assert "1 contradictory: completed" in simulate(study.slug, count=1, character="contradictory")

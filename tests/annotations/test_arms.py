"""Arms: drawn for each session, worn by its study, released by name, compared by a worker."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.test import Client
from django.urls import reverse

from annotations import selectors
from annotations.errors import AnnotationError
from annotations.models import Arm, ArmComparison, Session, Study, TrialKind
from annotations.services import arms, leaving, sessions, studies
from elicit.labels import Contradiction
from elicit.labels.release_files import Recipe
from exports.errors import ExportError
from exports.services import request_release
from jobs.models import Job
from tests import factories as make
from tests.shown import trial_data

pytestmark = pytest.mark.django_db

TWO: list[dict[str, Any]] = [
    {"name": "slider", "settings": {"input_mode": "slider"}, "weight": 1},
    {"name": "self", "settings": {"framing": "self", "most_named": 1, "ask_impossible": False}, "weight": 1},
]


def with_arms(chosen: list[dict[str, Any]] = TWO, *, launch: bool = True, **settings: Any) -> Study:
    wanted: dict[str, Any] = {
        "images_per_session": 4,
        "labels_per_image": 3,
        "repeats_per_session": 1,
        "questionnaire": [],
    }
    study = make.make_study(dataset=make.make_dataset(4), launch=False, **{**wanted, **settings})
    arms.write_arms(study.pk, chosen)
    return studies.launch(study.pk, make.rng()) if launch else study


def sit(study: Study, seed: int) -> Session:
    return make.answer_all(make.begin(make.make_session(study, seed=seed), seed=seed))


def test_each_arm_has_places_of_its_own() -> None:
    study = with_arms()
    counts = Counter(study.places.values_list("arm__name", flat=True))
    assert counts == {"slider": 3, "self": 3}


def test_sessions_are_dealt_evenly_and_each_draw_is_recorded() -> None:
    study = with_arms(labels_per_image=10)
    drawn = [make.begin(make.make_session(study, seed=seed), seed=seed) for seed in range(10)]
    counts = Counter(session.arm.name for session in drawn if session.arm)
    assert counts == {"slider": 5, "self": 5}
    assert drawn[0].arms_drawn_from == ["slider", "self"]
    assert all(session.arm and session.arm.name in session.arms_drawn_from for session in drawn)
    assert all(set(session.places.values_list("arm", flat=True)) == {session.arm_id} for session in drawn)


def test_the_draw_is_random_not_in_turn() -> None:
    study = with_arms(labels_per_image=50)
    first_of_pair = []
    for seed in range(0, 24, 2):
        pair = [make.make_session(study, seed=seed), make.make_session(study, seed=seed + 1)]
        first_of_pair.append(pair[0].arm.name if pair[0].arm else "")
    assert set(first_of_pair) == {"slider", "self"}


def test_a_weight_gives_an_arm_its_share() -> None:
    study = with_arms([{**TWO[0], "weight": 2}, TWO[1]], labels_per_image=20)
    drawn = Counter(str(make.make_session(study, seed=seed).arm) for seed in range(12))
    assert drawn == {"slider": 8, "self": 4}


def test_an_arm_that_is_full_is_drawn_no_more() -> None:
    study = with_arms(labels_per_image=1)
    names = {str(make.begin(make.make_session(study, seed=seed), seed=seed).arm) for seed in range(2)}
    assert names == {"slider", "self"}
    with pytest.raises(AnnotationError, match="all the annotators"):
        make.make_session(study, seed=3)


def test_excluding_somebody_draws_the_next_into_their_arm() -> None:
    study = with_arms()
    first, second = sit(study, 0), sit(study, 1)
    leaving.exclude(session_id=second.pk, reason="other", note="", by=None, now=make.NOON)  # type: ignore[arg-type]
    third = make.make_session(study, seed=2)
    assert third.arm == second.arm != first.arm


def of_arm(study: Study, name: str) -> Session:
    """A session at its trials in this arm."""
    for seed in range(2):
        session = make.begin(make.make_session(study, seed=seed), seed=seed)
        if str(session.arm) == name:
            return session
    raise AssertionError(name)


def test_the_arm_decides_what_is_asked_what_counts_as_an_answer_and_what_the_page_shows(client: Client) -> None:
    study = with_arms()
    session = of_arm(study, "self")
    assert set(session.trials.values_list("framing", flat=True)) == {"self"}
    trial = selectors.open_trials(session)[0]
    with pytest.raises(Contradiction):
        make.respond(trial, ((3, 60.0), (5, 20.0)))
    with pytest.raises(Contradiction):
        make.respond(trial, ((3, 60.0),), [5])
    page = client.get(reverse("session", args=[session.token]))
    assert trial_data(page)["rules"] == {"most_named": 1, "sum_limit": None, "ask_impossible": False}
    study.refresh_from_db()
    assert (study.framing, study.most_named, study.ask_impossible) == ("others", None, True)


def test_the_practice_asks_as_the_arm_does() -> None:
    study = make.make_study(dataset=make.make_dataset(6), launch=False, images_per_session=4, labels_per_image=3)
    studies.choose_images(study, [0, 1, 2, 3], make.rng())
    studies.write_part(study.pk, "practice", [{"image": 5}])
    arms.write_arms(study.pk, [TWO[1]])
    session = make.make_session(studies.launch(study.pk, make.rng()))
    session = sessions.leave_instructions(session_id=session.pk, now=make.NOON, rng=make.rng())
    assert [trial.framing for trial in session.trials.filter(kind=TrialKind.PRACTICE)] == ["self"]


@pytest.mark.parametrize(
    "settings",
    [
        {"labels_per_image": 3},
        {"framing": "everybody"},
        {"most_named": 0},
        {"most_named": True},
        {"ask_impossible": "yes"},
        ["framing"],
    ],
)
def test_an_arm_may_differ_in_how_it_asks_alone(settings: Any) -> None:
    with pytest.raises(ValidationError):
        with_arms([{"name": "other", "settings": settings, "weight": 1}], launch=False)


# --- Releases


def test_a_release_holds_one_arm_or_all() -> None:
    study = with_arms()
    for seed in range(4):
        sit(study, seed)
    one = make.make_release(study, Recipe(arm="slider"))
    everyone = make.make_release(study)
    assert one.manifest["counts"]["annotators"] == 2
    assert one.recipe["arm"] == "slider"
    facts = selectors.study_facts(study.pk, until=one.requested_at, leave_out_inconsistent=False, arm="slider")
    assert facts["arms"] == {"slider": {"input_mode": "slider"}}
    # Of arms that ask different questions a release holds the answers to one.
    assert everyone.recipe["framing"] == "others"
    assert everyone.manifest["counts"]["annotators"] == 2
    assert make.make_release(study, Recipe(framing="self")).manifest["counts"]["annotators"] == 2


def test_a_release_of_an_arm_that_there_is_not_is_refused() -> None:
    study = with_arms()
    sit(study, 0)
    with pytest.raises(ExportError, match="it has slider, self"):
        request_release(study_id=study.pk, recipe=Recipe(arm="typed"), user=None)


def test_a_withdrawal_supersedes_the_releases_of_its_own_arm_alone() -> None:
    study = with_arms()
    sat = [sit(study, seed) for seed in range(4)]
    releases = {name: make.make_release(study, Recipe(arm=name)) for name in ("slider", "self")}
    leaving.withdraw(session_id=next(each for each in sat if str(each.arm) == "self").pk, now=make.NOON)
    for release in releases.values():
        release.refresh_from_db()
    assert releases["self"].superseded_at is not None
    assert releases["slider"].superseded_at is None


# --- The tab


def address(study: Study) -> str:
    return reverse("admin:annotations_study_arms", args=[study.pk])


def rows(*chosen: dict[str, Any], initial: int = 0) -> dict[str, Any]:
    form: dict[str, Any] = {"form-TOTAL_FORMS": len(chosen), "form-INITIAL_FORMS": initial}
    for number, row in enumerate(chosen):
        form |= {f"form-{number}-{name}": value for name, value in {"weight": 1, **row}.items()}
    return form


@pytest.fixture
def curator(client: Client) -> Client:
    client.force_login(make.make_curator())
    return client


def test_a_curator_makes_arms_in_the_draft(curator: Client) -> None:
    study = make.make_study(launch=False)
    posted = rows({"name": "slider", "input_mode": "slider"}, {"name": "none", "most_named": 0, "ask_impossible": "no"})
    assert curator.post(address(study), posted).status_code == 302
    assert list(study.arms.order_by("pk").values_list("name", "settings")) == [
        ("slider", {"input_mode": "slider"}),
        ("none", {"most_named": None, "ask_impossible": False}),
    ]
    page = curator.get(address(study)).content.decode()
    assert "percentages by: slider only" in page
    assert 'value="slider"' in page


def test_arms_of_one_name_are_refused(curator: Client) -> None:
    study = make.make_study(launch=False)
    response = curator.post(address(study), rows({"name": "a"}, {"name": "a"}))
    assert response.status_code == 422
    assert "Two arms have the same name." in response.content.decode()
    assert not study.arms.exists()


def test_the_arms_of_a_launched_study_stay(curator: Client) -> None:
    study = with_arms()
    assert curator.post(address(study), rows({"name": "a"})).status_code == 403
    assert study.arms.count() == 2


def test_the_tab_has_a_worker_compare_the_arms_and_shows_what_came_of_it(curator: Client) -> None:
    study = with_arms(labels_per_image=4)
    assert "Nobody has completed a session yet" in curator.get(address(study)).content.decode()
    for seed in range(6):
        sit(study, seed)
    assert "A worker is comparing the arms" in curator.get(address(study)).content.decode()
    assert Job.objects.filter(kind="annotations.compare_arms").count() == 1
    make.run_jobs()
    assert ArmComparison.objects.get(study=study).sessions == 6
    page = curator.get(address(study)).content.decode()
    assert "Side by side" in page
    assert "Seconds an answer" in page
    assert "“self”" in page


def test_an_arm_s_name_is_its_own_within_the_study() -> None:
    study = with_arms(launch=False)
    with pytest.raises(ValidationError):
        Arm(study=study, name="self").full_clean()

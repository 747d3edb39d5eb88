"""The tab “Plan”, and what it is worked out from."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.test import Client
from django.urls import reverse
from pytest_django.fixtures import DjangoAssertNumQueries

from annotations.errors import AnnotationError
from annotations.models import ExclusionReason, Plan, Study
from annotations.selectors import plans
from annotations.services import leaving
from annotations.services import plans as services
from elicit.labels.planning import PUBLISHED, Metric, Published
from tests import factories as make
from tests.annotations.test_pages import text_of

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def empty_cache() -> None:
    cache.clear()


@pytest.fixture
def curator() -> Client:
    client = Client()
    client.force_login(make.make_curator())
    return client


@pytest.fixture
def draft() -> Study:
    return make.make_study(dataset=make.make_dataset(50), launch=False, images_per_session=25, repeats_per_session=2)


def pilot(people: int = 4) -> Study:
    """A study of six images; its people say cat with different certainty."""
    study = make.make_study(
        dataset=make.make_dataset(6), images_per_session=6, repeats_per_session=0, labels_per_image=people
    )
    for person in range(people):
        certain = 90.0 - 12 * person
        make.complete_session(study, ((3, certain), (5, 100 - certain)), platform_id=f"p{person}", seed=person)
    return study


def address(study: Study) -> str:
    return reverse("admin:annotations_study_plan", args=[study.pk])


def asked(**changes: Any) -> dict[str, Any]:
    return {
        "labels": 6, "metric": "tv", "errors_from": "recommended", "seconds_from": "typed", "seconds": 36, "minutes": 0,
        "pay": "10.00", "currency": "GBP", "fee": 50, **changes,
    }  # fmt: skip


def test_it_plans_before_anybody_answered(curator: Client, draft: Study) -> None:
    page = curator.get(address(draft))
    said = text_of(page)
    assert page.status_code == 200
    assert "K = 6: about £" in said
    assert f"expected TV {PUBLISHED[Published.RECOMMENDED][Metric.TV].at(6):.3f}" in said
    assert "6 such soft labels of an image are worth about 8 hard votes by TV, more than 24 by KL and 16 by" in said


def test_the_cost_is_that_of_sessions_repeats_and_fees(curator: Client, draft: Study) -> None:
    said = text_of(curator.get(address(draft), asked()))
    # 6 labels of 50 images and 12 sessions of 2 repeats: 324 answers of 36 s are 3.24 h, £32.40 and half of that.
    assert "K = 6: about £48.60, 3.2 h of work in 12 sessions" in said
    assert "The next label would cost £8.10 and take off" in said


def test_the_questions_can_be_asked_the_other_way_round(curator: Client, draft: Study) -> None:
    said = text_of(curator.get(address(draft), asked(error="0.15", budget="50")))
    assert "TV of at most 0.15: K = 3, £24.30." in said
    assert "£50.00: K = 6, £48.60" in said
    said = text_of(curator.get(address(draft), asked(error="0.001", budget="1")))
    assert "No number of such labels is expected to reach TV of at most 0.001" in said
    assert "£1.00 is not enough for one label of each image: £8.10." in said


def test_an_open_page_fetches_its_answer_alone(curator: Client, draft: Study) -> None:
    part = curator.get(address(draft), asked(part="1", labels="9"))
    assert "K = 9" in text_of(part)
    assert "<html" not in part.content.decode()
    assert "no-store" in part["Cache-Control"]


def test_the_curve_is_drawn_for_what_was_asked(curator: Client, draft: Study) -> None:
    page = curator.get(address(draft), asked(labels="9")).content.decode()
    (source,) = re.findall(r'<img src="([^"]+curve\.svg[^"]*)"', page)
    drawing = curator.get(source.replace("&amp;", "&"))
    assert drawing["Content-Type"] == "image/svg+xml"
    assert b"K = 9" in drawing.content
    assert (
        curator.get(reverse("admin:annotations_study_plan_curve", args=[draft.pk]), asked(pay="x")).status_code == 404
    )


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("labels", "0", "greater than or equal to 1"),
        ("labels", "1001", "less than or equal to 1000"),
        ("pay", "-1", "greater than or equal to 0"),
        ("fee", "201", "less than or equal to 200"),
        ("seconds", "", "Type how long an answer takes."),
        ("seconds", "nan", "Enter a number."),
        ("errors_from", "pilot-99", "not one of the available choices"),
    ],
)
def test_what_can_not_be_is_told_beside_its_field(
    curator: Client, draft: Study, field: str, value: str, said: str
) -> None:
    page = curator.get(address(draft), asked(**{field: value}))
    assert page.context["form"].errors.keys() == {field}
    assert said in text_of(page)
    assert "K = 6: about" not in text_of(page)
    assert curator.post(address(draft), asked(**{field: value})).status_code == 422
    assert not Plan.objects.exists()


def test_a_study_without_images_is_told_to_choose_some(curator: Client) -> None:
    study = make.make_study(dataset=make.make_dataset(0), launch=False)
    assert "The study has no images yet" in text_of(curator.get(address(study)))


def test_a_plan_is_saved_and_shown_again(curator: Client, draft: Study) -> None:
    curator.post(address(draft), asked(labels="9", metric="kl", errors_from="paper", save="yes"))
    plan = Plan.objects.get()
    assert (plan.labels_per_image, plan.metric, plan.errors_from, plan.pay_per_hour_minor) == (9, "kl", "paper", 1000)
    draft.refresh_from_db()
    assert draft.labels_per_image == 6
    said = text_of(curator.get(address(draft)))
    assert "K = 9: about £72.90" in said
    assert "Saved: K = 9" in said


def test_a_draft_takes_the_planned_k_and_a_launched_study_does_not(curator: Client, draft: Study) -> None:
    curator.post(address(draft), asked(labels="4", use="yes"))
    draft.refresh_from_db()
    assert draft.labels_per_image == 4
    assert Plan.objects.get().labels_per_image == 4

    live = make.make_study(dataset=make.make_dataset(3, slug="three"), name="Live")
    assert "Use K" not in text_of(curator.get(address(live)))
    page = curator.post(address(live), asked(labels="4", use="yes"), follow=True)
    assert "fixed" in text_of(page)
    live.refresh_from_db()
    assert live.labels_per_image == 6
    with pytest.raises(AnnotationError, match="fixed"):
        services.use_labels(live.pk, 4)


def test_a_k_out_of_range_is_refused(draft: Study) -> None:
    with pytest.raises(ValidationError):
        services.use_labels(draft.pk, 1001)


def test_whoever_may_only_look_can_plan_but_not_save(draft: Study) -> None:
    client = Client()
    client.force_login(make.make_staff("looker", "annotations.view_study"))
    assert "K = 6" in text_of(client.get(address(draft)))
    assert "Save this plan" not in text_of(client.get(address(draft)))
    assert client.post(address(draft), asked()).status_code == 403
    client.force_login(make.make_staff("stranger", "annotations.view_dataset"))
    assert client.get(address(draft)).status_code == 403
    assert client.get(reverse("admin:annotations_study_plan_curve", args=[draft.pk]), asked()).status_code == 403


def test_seconds_are_the_median_sessions_own() -> None:
    study = pilot()
    assert plans.seconds_per_response(study) == (5.0, 4)
    assert plans.seconds_per_response(make.make_study(dataset=study.dataset, name="New", launch=False)) is None


def test_a_pilot_on_the_same_dataset_gives_its_errors(curator: Client) -> None:
    study = pilot()
    new = make.make_study(dataset=study.dataset, name="New", launch=False)
    make.make_study(dataset=make.make_dataset(3, slug="other"), name="Elsewhere")
    assert plans.pilots(new) == [study]
    curve = plans.pilot_curve(study, Metric.TV)
    assert curve is not None
    assert curve.labels.tolist() == [1, 2]
    page = curator.get(address(new), asked(errors_from=f"pilot-{study.pk}"))
    assert f"expected TV {curve.at(6):.3f}" in text_of(page)
    curator.post(address(new), asked(errors_from=f"pilot-{study.pk}"))
    assert Plan.objects.get().pilot == study
    assert f"expected TV {curve.at(6):.3f}" in text_of(curator.get(address(new)))


def test_a_pilots_curve_is_kept_until_somebody_answers(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    study = pilot()
    first = plans.pilot_curve(study, Metric.TV)
    with django_assert_num_queries(1):
        again = plans.pilot_curve(study, Metric.TV)
    assert first is not None
    assert again is not None
    np.testing.assert_array_equal(first.errors, again.errors)
    np.testing.assert_array_equal(first.low, again.low)


def test_excluded_people_are_no_pilot() -> None:
    study = pilot()
    for session in study.sessions.all():
        leaving.exclude(session_id=session.pk, reason=ExclusionReason.OTHER, note="odd", by=None, now=make.NOON)
    assert plans.pilot_curve(study, Metric.TV) is None
    assert plans.seconds_per_response(study) is None


def test_kl_of_own_answers_needs_reference_labels(curator: Client) -> None:
    study = pilot()
    said = text_of(curator.get(address(study), asked(errors_from=f"pilot-{study.pk}", metric="kl")))
    assert "Without reference labels the divergence can’t be measured" in said
    study.dataset.images.update(reference_distribution=[0, 0, 0, 0.7, 0, 0.3, 0, 0, 0, 0])
    said = text_of(curator.get(address(study), asked(errors_from=f"pilot-{study.pk}", metric="kl")))
    curve = plans.pilot_curve(study, Metric.KL)
    assert curve is not None
    assert curve.labels.tolist() == [1, 2, 3, 4]
    assert f"expected KL {curve.at(6):.3f}" in said


def test_a_pilot_whose_people_share_no_image_tells_nothing(curator: Client) -> None:
    study = make.make_study(
        dataset=make.make_dataset(4), images_per_session=2, repeats_per_session=0, labels_per_image=1
    )
    for person in range(2):
        make.complete_session(study, platform_id=f"p{person}", seed=person)
    said = text_of(curator.get(address(study), asked(errors_from=f"pilot-{study.pk}")))
    assert "Too few people of that study answered the same images" in said


def test_the_dashboard_gets_the_planned_curve(curator: Client, draft: Study) -> None:
    assert plans.planned_curve(draft) is None
    curator.post(address(draft), asked(save="yes"))
    found = plans.planned_curve(draft)
    assert found is not None
    labels, costs, errors, metric = found
    assert metric == "tv"
    assert labels.tolist() == [50 * number for number in range(1, 13)]
    assert costs[5] == 4860
    assert (np.diff(errors) < 0).all()

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from annotations.models import Study
from exports.models import Release
from jobs.models import Job
from tests import factories as make

pytestmark = pytest.mark.django_db

ADD = "/admin/exports/release/add/"
FORM = {"labels": "own", "depth": "t2", "redistribution": "clamp", "gamma": "0.1"}


def ask(client: Client, of: Study, **values: object) -> Any:
    return client.post(ADD, {"study": of.pk, **FORM, **values})


def test_a_curator_asks_for_a_release_and_sees_how_far_it_is(admin_client: Client, study: Study) -> None:
    response = ask(admin_client, study)

    release = Release.objects.get()
    page = f"/admin/exports/release/{release.pk}/change/"
    assert response["Location"] == page
    assert release.requested_by is not None
    assert release.requested_by.username == "admin"
    assert "requested" in admin_client.get(page).content.decode()
    make.run_jobs()
    text = admin_client.get(page).content.decode()
    assert "ready" in text
    assert "/releases/birds/1/files/release.zip" in text
    assert "/releases/birds/1/files/manifest.json" in text


def test_the_form_decides_the_recipe(admin_client: Client, study: Study) -> None:
    ask(
        admin_client,
        study,
        depth="tall",
        redistribution="uniform",
        gamma="0.25",
        include_repeats="on",
        leave_out_inconsistent="on",
    )

    recipe = Release.objects.get().recipe
    assert recipe["variety"] == {"slug": "tall-uniform", "gamma": 0.25}
    assert recipe["include_repeats"] is True
    assert recipe["leave_out_inconsistent"] is True


def test_the_study_of_the_link_is_chosen_already(admin_client: Client, study: Study) -> None:
    text = admin_client.get(f"{ADD}?study={study.pk}").content.decode()

    assert f'<option value="{study.pk}" selected>' in text


@pytest.mark.parametrize(
    ("labels", "slug", "pool"), [("recommended", "t2-clamp-s0.75", "confusion"), ("published", "t2-clamp", "mean")]
)
def test_a_recipe_is_chosen_by_name(admin_client: Client, study: Study, labels: str, slug: str, pool: str) -> None:
    admin_client.post(ADD, {"study": study.pk, "labels": labels})

    recipe = Release.objects.get().recipe
    assert (recipe["variety"]["slug"], recipe["pool"]) == (slug, pool)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"gamma": "1"}, "gamma must be at least 0 and below 1"),
        ({"gamma": "-0.1"}, "greater than or equal to 0"),
        ({"gamma": "nan"}, "Enter a number"),
        ({"gamma": ""}, "required for your own recipe"),
        ({"labels": "other"}, "Select a valid choice"),
        ({"depth": "t3"}, "valid choice"),
        ({"redistribution": "x"}, "valid choice"),
        ({"study": ""}, "required"),
        ({"study": "999"}, "valid choice"),
    ],
)
def test_a_recipe_that_can_not_be_is_told(
    admin_client: Client, study: Study, values: dict[str, str], words: str
) -> None:
    response = ask(admin_client, study, **values)

    assert response.status_code == 200
    assert words in response.content.decode()
    assert not Release.objects.exists()


def test_a_study_with_nothing_to_release_is_told(admin_client: Client) -> None:
    response = ask(admin_client, make.make_study())

    assert "No session is completed yet" in response.content.decode()
    assert not Release.objects.exists()
    assert not Job.objects.exists()


def test_a_draft_is_not_offered(admin_client: Client) -> None:
    assert "valid choice" in ask(admin_client, make.make_study(launch=False)).content.decode()


def test_the_list_shows_what_was_asked_for(admin_client: Client, study: Study) -> None:
    make.make_release(study)

    text = admin_client.get("/admin/exports/release/").content.decode()

    assert "Birds v1" in text
    assert "t2-clamp, gamma 0.1" in text


def test_a_release_is_never_changed_and_never_deleted(admin_client: Client, study: Study) -> None:
    release = make.make_release(study)
    page = f"/admin/exports/release/{release.pk}/"
    before = Release.objects.values().get()

    assert admin_client.post(page + "change/", {"digest": "x"}).status_code == 403
    assert admin_client.post(page + "delete/", {"post": "yes"}).status_code == 403
    assert Release.objects.values().get() == before


def test_who_may_only_look_asks_for_nothing(study: Study) -> None:
    client = Client()
    client.force_login(make.make_staff("looker", "exports.view_release"))

    assert client.get("/admin/exports/release/").status_code == 200
    assert ask(client, study).status_code == 403
    assert not Release.objects.exists()

"""Pages to look into a release: figures, images, differences; and the differences over the API."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.conf import settings
from django.test import Client
from django.utils import timezone
from django.utils.html import escape

from annotations import selectors as annotated
from annotations.models import Study
from annotations.services import sessions
from elicit import plots
from elicit.figures import DRAWING_POLICY, percent
from elicit.labels import LabelVariety, entropy, read_release
from elicit.labels.release_files import Recipe
from exports import building, derived, figures, looking, selectors
from exports.models import Release
from jobs.models import Job
from tests import factories as make

pytestmark = pytest.mark.django_db

Answer = Callable[[int, int], tuple[Any, ...]]
HERE = "/releases/birds/1"
COMPARED = "/releases/compare?from=birds/v1&to=birds/v2"
ADDRESSES = [
    f"{HERE}/figures/entropy.svg",
    f"{HERE}/images",
    f"{HERE}/images/0",
    COMPARED,
    "/releases/compare",
    COMPARED.replace("?", "/moved.svg?"),
]


@pytest.fixture
def release(study: Study) -> Release:
    return make.make_release(study)


@pytest.fixture
def researcher() -> Client:
    client = Client()
    client.force_login(make.make_staff("researcher", "exports.view_release"))
    return client


def annotate(study: Study, answer: Answer, *, sittings: int = 2) -> None:
    """Whole sessions; `answer(sitting, image)` is what is named of an image."""
    for seed in range(sittings):
        session = make.begin(make.make_session(study, seed=seed), seed=seed)
        for trial in annotated.open_trials(session):
            make.respond(trial, answer(seed, trial.image.index))
        session.refresh_from_db()
        sessions.save_questionnaire(session_id=session.pk, answers={"clarity": 9}, now=make.NOON)
    make.run_jobs()


def make_study(images: int = 30, **settings: Any) -> Study:
    return make.make_study(
        dataset=make.make_dataset(images), images_per_session=images, repeats_per_session=0, **settings
    )


@pytest.fixture
def varied() -> Release:
    """Thirty images: image i is of class i modulo 10 but for class 9, which becomes 8; the surer the higher i is."""
    study = make_study()
    annotate(study, lambda sitting, image: ((min(image % 10, 8), 50.0 + image + sitting), ((image + 3) % 10, 5.0)))
    return make.make_release(study, Recipe(LabelVariety(gamma=0.0)))


def text_of(response: Any) -> str:
    """What a reader sees, blanks apart."""
    return " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


def shown(response: Any) -> list[int]:
    """The numbers of the images on a page, in order."""
    return [card["image"].image for card in response.context["cards"]]


# --- Who may


def test_who_is_not_signed_in_is_sent_to_sign_in(release: Release) -> None:
    for address in ADDRESSES:
        response = Client().get(address)
        assert response.status_code == 302
        assert response["Location"].startswith("/login/?next=/releases/")


def test_who_may_not_see_releases_is_refused(release: Release) -> None:
    client = Client()
    client.force_login(make.make_staff("stranger"))
    assert {address: client.get(address).status_code for address in ADDRESSES} == dict.fromkeys(ADDRESSES, 403)


def test_the_pages_take_no_posts(release: Release, researcher: Client) -> None:
    assert {address: researcher.post(address).status_code for address in ADDRESSES} == dict.fromkeys(ADDRESSES, 405)


def test_a_release_that_is_not_built_yet_has_nothing_to_look_at(study: Study, researcher: Client) -> None:
    make.make_release(study, build=False)
    for address in ADDRESSES[:3]:
        assert researcher.get(address).status_code == 404


def test_a_release_of_nothing_says_that_it_could_not_be_built(study: Study, researcher: Client) -> None:
    release = make.make_release(study, build=False)
    type(study).objects.get().sessions.update(completed_at=timezone.now())
    make.run_jobs()

    response = researcher.get(f"{HERE}/")

    assert selectors.build_state(release).status == "failed"
    assert "There is no response to release." in text_of(response)
    assert "At a glance" not in text_of(response)
    assert researcher.get(f"{HERE}/images").status_code == 404


# --- The page of a release


def test_the_page_shows_the_first_rows_of_the_labels(release: Release, researcher: Client) -> None:
    response = researcher.get(f"{HERE}/")

    files = read_release(selectors.folder(release))
    glimpse = response.context["glimpse"]
    assert [pooled.image for pooled, _ in glimpse["rows"]] == [0, 1, 2, 3]
    assert glimpse["rows"][0][1] == [f"{share:.3f}" for share in files.soft_labels[0]]
    assert "2 more rows" not in text_of(response)
    assert f'href="{HERE}/images/3"' in response.content.decode()


def test_each_figure_says_what_it_shows_and_has_its_table(varied: Release, researcher: Client) -> None:
    response = researcher.get(f"{HERE}/")

    body = response.content.decode()
    found = response.context["glimpse"]["figures"]
    assert [figure.name for figure in found] == ["entropy", "classes"]
    for figure in found:
        alt = escape(f"{figure.title}. {figure.finding}")
        assert f'<img src="{HERE}/figures/{figure.name}.svg" alt="{alt}"' in body
        assert f"<caption>{figure.title}</caption>" in body
    settled, mixed = found
    labels = read_release(selectors.folder(varied)).soft_labels
    assert f"The median is {np.median(entropy(labels)):.2f} nats" in settled.finding
    assert sum(int(images) for _, images, _ in settled.rows) == 30
    assert mixed.rows[8][:2] == ("Ship", "6")
    assert mixed.rows[9] == ("Truck", "0", *["–"] * 10)
    of_ship = labels[labels.argmax(axis=1) == 8].mean(axis=0)
    assert mixed.rows[8][2:] == tuple(percent(share) for share in of_ship)


def test_the_number_of_annotators_is_drawn_where_it_varies(researcher: Client) -> None:
    study = make_study(4, labels_per_image=3)
    annotate(study, lambda sitting, image: ((image, 80.0),))
    release = make.make_release(study)
    seen = derived.overview(release)
    assert [figure.name for figure in figures.of_release(seen, ["x"] * 10)] == ["entropy", "classes"]

    seen.annotators[0] = 3
    (_, _, counts) = figures.of_release(seen, ["x"] * 10)

    assert counts.finding == "From 2 to 3, 2.2 on average."
    assert counts.rows == [("2", "3", percent(0.75)), ("3", "1", percent(0.25))]
    assert researcher.get(f"{HERE}/figures/annotators.svg").status_code == 200


@pytest.mark.parametrize("categories", [2, 100])
def test_every_page_works_for_few_and_for_many_classes(researcher: Client, categories: int) -> None:
    names = [f"<kind & {place}>" for place in range(categories)]
    study = make.make_study(
        dataset=make.make_dataset(4, names), images_per_session=4, repeats_per_session=0, labels_per_image=2
    )
    annotate(study, lambda sitting, image: ((image % categories, 70.0), ((image + 1) % categories, 20.0)))
    release = make.make_release(study, Recipe(LabelVariety(gamma=0.1)))
    make.make_release(study, Recipe(LabelVariety(gamma=0.2)))

    for address in [f"{HERE}/", *ADDRESSES, f"{HERE}/figures/classes.svg"]:
        response = researcher.get(address)
        assert response.status_code == 200, address
        assert b"<kind" not in response.content
    mixed = figures.classes(derived.overview(release), names)
    assert len(mixed.rows) == min(categories, figures.MOST_CATEGORIES)
    assert ("Only the 30 of 100 classes" in mixed.note) == (categories == 100)
    body = researcher.get(f"{HERE}/").content.decode()
    assert body.count("90 more classes.") == (categories == 100)
    assert text_of(researcher.get(f"{HERE}/images")).count("and 84 with less") == (4 if categories == 100 else 0)


# --- Figures


def test_a_figure_is_an_svg_that_only_its_reader_keeps(release: Release, researcher: Client) -> None:
    for name in figures.NAMES:
        response = researcher.get(f"{HERE}/figures/{name}.svg")
        assert response["Content-Type"] == "image/svg+xml"
        assert response["Cache-Control"] == "private, no-cache"
        assert response["Content-Security-Policy"] == DRAWING_POLICY
        assert b"<svg" in response.content
        assert release.digest in response["ETag"]


def test_who_has_a_figure_is_told_so(release: Release, researcher: Client) -> None:
    etag = researcher.get(ADDRESSES[0])["ETag"]
    for known in (etag, f"W/{etag}", f'"x", {etag}'):
        response = researcher.get(ADDRESSES[0], headers={"If-None-Match": known})
        assert (response.status_code, response.content) == (304, b"")
        assert response["Content-Security-Policy"] == DRAWING_POLICY
    assert researcher.get(ADDRESSES[0], headers={"If-None-Match": '"x"'}).status_code == 200


def test_a_figure_is_drawn_once(release: Release, researcher: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    first = researcher.get(ADDRESSES[0]).content

    def fail(*_: object, **__: object) -> bytes:
        raise AssertionError("drawn again")

    monkeypatch.setattr(plots, "histogram", fail)
    assert researcher.get(ADDRESSES[0]).content == first
    shutil.rmtree(Path(settings.RELEASES_ROOT) / ".derived")
    with pytest.raises(AssertionError, match="drawn again"):
        researcher.get(ADDRESSES[0])


def test_the_same_release_is_drawn_the_same_again(release: Release, researcher: Client) -> None:
    first = {name: researcher.get(f"{HERE}/figures/{name}.svg").content for name in figures.NAMES}
    shutil.rmtree(Path(settings.RELEASES_ROOT) / ".derived")
    assert {name: researcher.get(f"{HERE}/figures/{name}.svg").content for name in figures.NAMES} == first


def test_a_figure_is_shown_even_where_it_can_not_be_kept(release: Release, researcher: Client) -> None:
    (Path(settings.RELEASES_ROOT) / ".derived").write_text("in the way")
    assert researcher.get(ADDRESSES[0]).status_code == 200
    assert researcher.get(f"{HERE}/images").status_code == 200


def test_there_are_no_other_figures(release: Release, researcher: Client) -> None:
    for name in ("none", "..", "entropy.png", "manifest"):
        assert researcher.get(f"{HERE}/figures/{name}.svg").status_code == 404


def test_of_files_that_are_gone_nothing_is_shown_and_the_page_says_so(release: Release, researcher: Client) -> None:
    assert researcher.get(ADDRESSES[0]).status_code == 200
    shutil.rmtree(selectors.folder(release))

    assert researcher.get(ADDRESSES[0]).status_code == 404
    for address in (f"{HERE}/images", f"{HERE}/images/0"):
        response = researcher.get(address)
        assert response.status_code == 404
        assert "holds no manifest.json" in text_of(response)
    response = researcher.get(f"{HERE}/")
    assert response.status_code == 200
    assert "holds no manifest.json" in text_of(response)
    assert release.digest in text_of(response)


# --- The images


def test_the_least_settled_images_come_first(varied: Release, researcher: Client) -> None:
    response = researcher.get(f"{HERE}/images")

    files = read_release(selectors.folder(varied))
    uncertain = entropy(files.soft_labels)
    order = files.images[np.argsort(-uncertain, kind="stable")].tolist()
    assert shown(response) == order[: looking.PER_PAGE]
    assert shown(researcher.get(f"{HERE}/images?page=2")) == order[looking.PER_PAGE :]
    card = response.context["cards"][0]
    assert card["entropy"] == pytest.approx(uncertain[order[0]])
    assert f"2 annotators, {card['entropy']:.2f} nats" in text_of(response)


def test_images_come_settled_first_or_by_number(varied: Release, researcher: Client) -> None:
    unsettled = shown(researcher.get(f"{HERE}/images")) + shown(researcher.get(f"{HERE}/images?page=2"))
    settled = shown(researcher.get(f"{HERE}/images?sort=settled"))
    assert sorted(settled[:5]) == sorted(unsettled[-5:])
    assert shown(researcher.get(f"{HERE}/images?sort=number")) == list(range(24))


def test_images_of_one_class_are_shown_alone(varied: Release, researcher: Client) -> None:
    response = researcher.get(f"{HERE}/images?top=8&sort=number")

    assert shown(response) == [8, 9, 18, 19, 28, 29]
    assert "Images 1 to 6 of 6" in text_of(response)
    assert '<option value="8" selected>Ship (6)</option>' in response.content.decode()
    assert 'aria-label="Pages"' not in response.content.decode()


def test_a_class_without_images_says_so(varied: Release, researcher: Client) -> None:
    response = researcher.get(f"{HERE}/images?top=9")

    assert response.status_code == 200
    assert "No image has this class as its most likely one." in text_of(response)


def test_pages_keep_what_was_asked_for(varied: Release, researcher: Client) -> None:
    body = researcher.get(f"{HERE}/images?sort=number").content.decode()

    assert '<a rel="next" href="?sort=number&amp;page=2">Next</a>' in body
    assert 'rel="prev"' not in body
    assert '<span aria-current="page">1</span>' in body


def test_the_shares_of_an_image_are_its_label(varied: Release, researcher: Client) -> None:
    card = researcher.get(f"{HERE}/images?sort=number").context["cards"][0]

    # Image 0: class 0 with 50 and 51, class 3 with 5, and the rest to the eight others.
    assert [(share.name, share.text) for share in card["shares"].first[:2]] == [
        ("Airplane", "50.5 %"),
        ("Automobile", "5.6 %"),
    ]
    assert len(card["shares"].first) + len(card["shares"].folded) == 10


BAD_PARAMETERS = [
    ("top=10", "10 is not one of the available choices"),
    ("top=cat", "cat is not one of the available choices"),
    ("sort=best", "best is not one of the available choices"),
    ("page=0", "greater than or equal to 1"),
    ("page=x", "Enter a whole number"),
    ("image=-1", "greater than or equal to 0"),
    ("image=1e3", "Enter a whole number"),
    ("image=99999999999999999999999", "less than or equal to"),
    ("image=", "This field is required"),
    ("image=77", "Image 77 is not in this release. Near it are 3."),
]


def test_a_bad_parameter_is_answered_with_a_clear_word(release: Release, researcher: Client) -> None:
    for query, words in BAD_PARAMETERS:
        response = researcher.get(f"{HERE}/images?{query}")
        assert response.status_code == 400
        assert words in text_of(response)
        assert "cards" not in response.context


def test_a_page_after_the_last_is_not_found(varied: Release, researcher: Client) -> None:
    response = researcher.get(f"{HERE}/images?page=3")
    assert response.status_code == 404
    assert "There is no page 3: the last one is 2." in text_of(response)


def test_a_number_leads_to_its_image(varied: Release, researcher: Client) -> None:
    assert researcher.get(f"{HERE}/images?image=17")["Location"] == f"{HERE}/images/17"


# --- One image


def test_the_page_of_an_image_shows_what_each_annotator_said(release: Release, researcher: Client) -> None:
    files = read_release(selectors.folder(release))
    repeated = int(files.response_images[files.kinds == "repeat"][0])

    response = researcher.get(f"{HERE}/images/{repeated}")

    answers = response.context["answers"]
    rows = np.flatnonzero(files.response_images == repeated)
    assert [answer.response.annotator for answer in answers] == files.annotators[rows].tolist()
    assert "repeat" in [answer.response.kind for answer in answers]
    text = text_of(response)
    assert "Cat 80 %, Dog 10 %" in text
    assert "5.0 s" in text
    assert "PLATFORM-ID" not in response.content.decode()


def test_the_page_of_an_image_leads_to_its_neighbours(varied: Release, researcher: Client) -> None:
    first, last = (researcher.get(f"{HERE}/images/{image}").context for image in (0, 29))
    assert (first["before"], first["after"]) == (None, 1)
    assert (last["before"], last["after"]) == (28, None)


def test_an_image_that_is_not_in_the_release_is_not_found(release: Release, researcher: Client) -> None:
    for image in (4, 10**30):
        response = researcher.get(f"{HERE}/images/{image}")
        assert response.status_code == 404
        assert "is not in this release. Near it are 3." in text_of(response)


def test_a_release_shows_what_was_said_when_it_was_made(release: Release, researcher: Client) -> None:
    before = text_of(researcher.get(f"{HERE}/images/0"))
    make.complete_session(release.study, ((9, 100.0),), seed=7)
    assert text_of(researcher.get(f"{HERE}/images/0")) == before


# --- Differences


@pytest.fixture
def pair(study: Study) -> tuple[Release, Release]:
    """The second release has another gamma, and one session more."""
    older = make.make_release(study)
    make.complete_session(study, ((9, 100.0),), seed=7)
    make.run_jobs()
    return older, make.make_release(study, Recipe(LabelVariety(gamma=0.2)))


def test_a_release_can_be_compared_from_its_page(pair: tuple[Release, Release], researcher: Client) -> None:
    body = researcher.get(f"{HERE}/").content.decode()
    assert '<input type="hidden" name="from" value="birds/v1">' in body
    assert '<option value="birds/v2">Birds v2</option>' in body
    assert '<option value="birds/v1">' not in body


def test_what_differs_between_two_releases_is_shown(pair: tuple[Release, Release], researcher: Client) -> None:
    response = researcher.get(COMPARED)

    found = response.context["found"]
    assert found["recipe"] == [{"part": "variety.gamma", "from": 0.1, "to": 0.2}]
    assert found["counts"]["annotators"] == {"from": 2, "to": 3}
    assert found["labels_changed"] == 4
    assert len(found["annotators_added"]) == 1
    body, text = response.content.decode(), text_of(response)
    assert "variety.gamma" in text
    assert "4 of 4 images have another label" in text
    assert "Annotators only in Birds v2: 1" in text
    assert f'src="{COMPARED.replace("?", "/moved.svg?").replace("&", "&amp;").replace("/v", "%2Fv")}"' in body
    changed = response.context["changed"][0]
    assert {changed["before"].first[0].name, *(share.name for share in changed["after"].first)} >= {"Cat", "Truck"}


def test_the_drawing_of_the_differences_is_an_svg(pair: tuple[Release, Release], researcher: Client) -> None:
    address = COMPARED.replace("?", "/moved.svg?")
    response = researcher.get(address)
    assert response["Content-Type"] == "image/svg+xml"
    assert researcher.get(address, headers={"If-None-Match": response["ETag"]}).status_code == 304
    other_way = researcher.get("/releases/compare/moved.svg?from=birds/v2&to=birds/v1")
    assert other_way["ETag"] != response["ETag"]
    assert researcher.get(address.replace("v1", "v9")).status_code == 404


def test_two_releases_that_are_alike_are_said_to_be_so(study: Study, researcher: Client) -> None:
    make.make_release(study)
    make.make_release(study)
    assert "Nothing differs" in text_of(researcher.get(COMPARED))
    assert "Nothing differs" in text_of(researcher.get(COMPARED.replace("v2", "v1")))


def test_without_releases_in_the_address_two_can_be_chosen(pair: tuple[Release, Release], researcher: Client) -> None:
    body = researcher.get("/releases/compare").content.decode()
    assert body.count('<option value="birds/v1">Birds v1</option>') == 2
    assert '<option value="birds/v1" selected>' in researcher.get("/releases/compare?from=birds/v1").content.decode()


NO_RELEASES = [
    ("from=birds/v1&to=birds/v9", "To: There is no finished release birds/v9."),
    ("from=x&to=birds/v1", "From: There is no finished release x. A release is named like study/v1."),
    ("from=&to=birds/v1", "From: This field is required."),
    ("from=birds/v99999999999999999999&to=birds/v1", "From: There is no finished release"),
    ("from=birds/v1&to=%00", "To: Null characters are not allowed."),
    ("from=%3Cscript%3E&to=birds/v1", "There is no finished release &lt;script&gt;"),
]


def test_releases_that_are_not_there_are_named(release: Release, researcher: Client) -> None:
    for query, words in NO_RELEASES:
        response = researcher.get(f"/releases/compare?{query}")
        assert response.status_code == 400
        assert words in text_of(response)


@pytest.fixture
def cars() -> Release:
    study = make.make_study(
        name="Cars",
        dataset=make.make_dataset(4, ["Car", "Van"], slug="cars"),
        images_per_session=4,
        repeats_per_session=0,
    )
    annotate(study, lambda sitting, image: ((0, 80.0),), sittings=1)
    return make.make_release(study)


def test_releases_of_other_classes_are_not_compared(release: Release, cars: Release, researcher: Client) -> None:
    response = researcher.get("/releases/compare?from=birds/v1&to=cars/v1")
    assert response.status_code == 409
    assert "different categories" in text_of(response)
    assert "cars/v1" not in researcher.get(f"{HERE}/").content.decode()


# --- Superseded


def supersede(release: Release, successor: Release | None, *, withheld: bool = False) -> None:
    release.superseded_at, release.superseded_reason = timezone.now(), "A session was excluded: bot."
    release.superseded_by, release.withheld = successor, withheld
    release.save()


def test_a_superseded_release_says_by_which_and_why(pair: tuple[Release, Release], researcher: Client) -> None:
    supersede(*pair)

    for address in (f"{HERE}/", f"{HERE}/images", f"{HERE}/images/0"):
        response = researcher.get(address)
        assert "Superseded by v2 : A session was excluded: bot." in text_of(response), address
        assert '<a href="/releases/birds/2/">v2</a>' in response.content.decode()
    assert "superseded by v2" in text_of(researcher.get("/releases/"))
    assert "Superseded" not in text_of(researcher.get("/releases/birds/2/"))
    assert researcher.get(COMPARED).status_code == 200


def test_a_release_without_a_successor_is_superseded_too(release: Release, researcher: Client) -> None:
    supersede(release, None)
    assert "Superseded: A session was excluded: bot." in text_of(researcher.get(f"{HERE}/"))


def test_of_a_withheld_release_nothing_is_shown_nor_kept(pair: tuple[Release, Release], researcher: Client) -> None:
    figure, drawing = ADDRESSES[0], COMPARED.replace("?", "/moved.svg?")
    etags = {address: researcher.get(address)["ETag"] for address in (figure, drawing)}
    assert researcher.get(COMPARED.replace("v1", "v3").replace("v2", "v1").replace("v3", "v2")).status_code == 200
    kept = Path(settings.RELEASES_ROOT) / ".derived"
    supersede(*pair, withheld=True)

    for address, etag in etags.items():
        assert researcher.get(address, headers={"If-None-Match": etag}).status_code == 404
    for address in (f"{HERE}/images", f"{HERE}/images/0", COMPARED, f"{HERE}/files/release.zip"):
        response = researcher.get(address)
        assert response.status_code == 410
        assert "birds-v2 takes the place of this release." in text_of(response)
    body = researcher.get(f"{HERE}/").content.decode()
    assert "not given out any more" in body
    assert "/files/" not in body
    assert "birds/v1" not in researcher.get("/releases/birds/2/").content.decode()

    building.remove_files(Job(subject=str(pair[0].pk)))
    assert [path for path in kept.rglob("*") if pair[0].digest in str(path)] == []
    assert researcher.get("/releases/birds/2/").status_code == 200


def test_what_is_made_while_a_release_is_being_withheld_is_not_kept(release: Release, researcher: Client) -> None:
    stale = Release.objects.get(pk=release.pk)
    supersede(release, None, withheld=True)

    derived.overview(stale)

    assert list((Path(settings.RELEASES_ROOT) / ".derived").rglob("*.*")) == []


# --- Over the API


@pytest.fixture
def script(researcher: Client) -> Client:
    token = researcher.post("/releases/token").context["token"]
    return Client(headers={"Authorization": f"Token {token}"})


API = "/api/releases/birds/1/differences"


def test_the_api_tells_what_differs(pair: tuple[Release, Release], script: Client, researcher: Client) -> None:
    body = script.get(f"{API}?with=2&limit=1").json()

    older, newer = pair
    assert body["from"] == {"study": "birds", "version": 1, "digest": older.digest}
    assert body["to"] == {"study": "birds", "version": 2, "digest": newer.digest}
    assert body["counts"]["images"] == {"from": 4, "to": 4, "in_both": 4}
    (changed,) = body["most_changed"]
    files = {name: read_release(selectors.folder(each)) for name, each in (("from", older), ("to", newer))}
    for name, each in files.items():
        assert changed[name] == each.soft_labels[each.images == changed["image"]][0].tolist()
    page = researcher.get(COMPARED).context["found"]
    assert body == {"from": body["from"], "to": body["to"], **page, "most_changed": page["most_changed"][:1]}


def test_the_other_release_has_several_names(pair: tuple[Release, Release], script: Client) -> None:
    for other in ("birds/2", "birds/v2", "2"):
        assert script.get(API, {"with": other}).json()["to"]["version"] == 2


BAD_QUERIES = [
    ("", 400, "invalid", "with"),
    ("with=x", 400, "invalid", "with"),
    ("with=birds/1/2", 400, "invalid", "with"),
    ("with=1%00", 400, "invalid", "with"),
    ("with=1&limit=-1", 400, "invalid", "limit"),
    ("with=1&limit=201", 400, "invalid", "limit"),
    ("with=1&limit=x", 400, "invalid", "limit"),
    ("with=9", 404, "not_found", ""),
    ("with=none/1", 404, "not_found", ""),
]


def test_what_the_api_can_not_compare_is_an_error_of_the_one_form(release: Release, script: Client) -> None:
    for query, status, code, field in BAD_QUERIES:
        response = script.get(f"{API}?{query}")
        assert (response.status_code, response.json()["code"]) == (status, code)
        assert list(response.json()["fields"]) == ([field] if field else [])


def test_the_api_refuses_releases_of_other_classes(release: Release, cars: Release, script: Client) -> None:
    response = script.get(f"{API}?with=cars/1")
    assert (response.status_code, response.json()["code"]) == (409, "categories_differ")


def test_the_api_asks_for_a_token_to_tell_differences(pair: tuple[Release, Release]) -> None:
    assert Client().get(f"{API}?with=2").status_code == 401
    stranger = Client()
    stranger.force_login(make.make_staff("stranger"))
    assert stranger.get(f"{API}?with=2").status_code == 403

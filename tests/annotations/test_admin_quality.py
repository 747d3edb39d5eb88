"""The tab "Quality": sessions, rules, check images, and a page for each annotator."""

from __future__ import annotations

import csv
import html
import io
from typing import Any

import pytest
from django.test import Client
from django.utils.html import strip_tags

from annotations.admin import quality as quality_page
from annotations.models import Appeal, CheckItem, ExclusionReason, QualityRule, Session, SessionQuality, Study
from annotations.selectors import quality as found_out
from annotations.services import leaving
from elicit.labels.quality import RECOMMENDED, Measure
from tests import crowds
from tests import factories as make

pytestmark = pytest.mark.django_db


@pytest.fixture
def curator() -> Client:
    client = Client()
    client.force_login(make.make_curator())
    return client


@pytest.fixture
def study() -> Study:
    return crowds.crowded_study(make.make_dataset(16))


def text_of(response: Any) -> str:
    """What the page says, without its tags."""
    return " ".join(html.unescape(strip_tags(response.content.decode())).split())


def page(study: Study, rest: str = "") -> str:
    return f"/admin/annotations/study/{study.pk}/quality/{rest}"


def staff(*permissions: str) -> Client:
    client = Client()
    client.force_login(make.make_staff("helper", *permissions))
    return client


def use_recommended(curator: Client, study: Study) -> None:
    assert curator.post(page(study, "rules/"), {"recommended": "yes"}).status_code == 302


def rows(*rules: tuple[str, str, str, str], initial: int = 0) -> dict[str, str]:
    """A posted form of rules: measure, way, threshold, least."""
    data = {"row-TOTAL_FORMS": str(len(rules)), "row-INITIAL_FORMS": str(initial)}
    for number, rule in enumerate(rules):
        for name, value in zip(("measure", "way", "threshold", "least"), rule, strict=True):
            data[f"row-{number}-{name}"] = value
    return data


def test_the_list_shows_everybody_with_their_measures(curator: Client, study: Study) -> None:
    response = curator.get(page(study))

    text = text_of(response)
    assert "8 measured" in text
    assert all(session.participant.annotator in text for session in study.sessions.select_related("participant"))
    assert "There are no rules yet" in text


def test_the_recommended_rules_are_set_by_one_press_and_exclude_nobody(curator: Client, study: Study) -> None:
    use_recommended(curator, study)

    assert [rule.rule for rule in study.quality_rules.all()] == list(RECOMMENDED)
    assert not Session.objects.filter(excluded_at__isnull=False).exists()
    text = text_of(curator.get(page(study)))
    assert "Together they would exclude 3 of 8." in text
    assert "failed at least 2 attention checks 1 of 8" in text


def test_the_list_is_sorted_by_any_measure_and_filtered(curator: Client, study: Study) -> None:
    use_recommended(curator, study)
    address = page(study)
    up, down = (curator.get(address, {"sort": sort}).context["lines"] for sort in ("median_seconds", "-median_seconds"))
    assert [line.row.annotator for line in up] == [line.row.annotator for line in reversed(down)]
    assert up[0].row.measures["median_seconds"][0] < 2.5
    flagged = curator.get(address, {"show": "flagged", "columns": "all"})
    assert len(flagged.context["lines"]) == 3
    assert len(flagged.context["columns"]) == len(Measure)
    assert curator.get(address, {"show": "x", "sort": "x", "page": "9" * 30}).status_code == 200


def test_rules_are_tried_without_being_saved(curator: Client, study: Study) -> None:
    response = curator.post(page(study, "rules/"), {**rows(("certain_share", "at_least", "99", "10")), "try": "yes"})

    assert not QualityRule.objects.exists()
    assert "Would exclude 2 of 8; enough is known of 8." in text_of(response)
    assert response.context["tried"][0]["figure"].finding.endswith("The threshold is 99\N{NO-BREAK SPACE}%.")


def test_where_a_rule_is_tried_it_names_as_many_as_can_be_read_and_counts_the_rest(
    curator: Client, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality_page, "MOST_NAMED", 1)

    response = curator.post(page(study, "rules/"), {**rows(("certain_share", "at_least", "99", "10")), "try": "yes"})

    assert "Would exclude 2 of 8; enough is known of 8." in text_of(response)
    assert len(response.context["tried"][0]["would"]) == 1
    assert "and 1 more" in text_of(response)


def test_rules_are_saved_changed_and_removed(curator: Client, study: Study) -> None:
    curator.post(page(study, "rules/"), rows(("certain_share", "at_least", "99", "10")))
    (rule,) = study.quality_rules.all()
    assert (rule.threshold, rule.least, str(rule)) == (
        0.99,
        10,
        "answers of 100 % at least 99\N{NO-BREAK SPACE}%, over at least 10 answers",
    )
    assert found_out.flagged(study).count() == 2

    changed = rows(("median_seconds", "at_most", "2.5", "5"), initial=1)
    curator.post(page(study, "rules/"), changed)
    assert [each.measure for each in study.quality_rules.all()] == ["median_seconds"]
    assert found_out.flagged(study).count() == 1

    curator.post(page(study, "rules/"), {**changed, "row-0-DELETE": "on"})
    assert not study.quality_rules.exists()
    assert not found_out.flagged(study).exists()


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ([("", "at_least", "1", "1")], "This field is required"),
        ([("certain_share", "at_least", "much", "1")], "Enter a number"),
        ([("certain_share", "at_least", "nan", "1")], "Enter a number"),
        ([("certain_share", "at_least", "1", "0")], "greater than or equal to 1"),
        ([("certain_share", "at_least", "1", "1")] * 2, "There is such a rule already"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_beside_it(
    curator: Client, study: Study, rules: list[tuple[str, str, str, str]], words: str
) -> None:
    response = curator.post(page(study, "rules/"), rows(*rules))

    assert response.status_code == 422
    assert words in text_of(response)
    assert not study.quality_rules.exists()


def test_whoever_is_shown_and_confirmed_is_excluded_and_may_be_taken_back(curator: Client, study: Study) -> None:
    use_recommended(curator, study)
    shown = curator.get(page(study, "apply/"))
    text = text_of(shown)
    assert "The rules would exclude 3 of 8." in text
    assert "36 of 96 labels cease to count, on 12 images" in text
    assert "Everybody is paid as before: nobody is rejected." in text
    would = [line.row.session for line, _ in shown.context["would"]]

    # One is unticked.
    curator.post(page(study, "apply/"), {"session": [str(session.pk) for session in would[:2]]})

    out = Session.objects.filter(excluded_at__isnull=False)
    assert {session.pk for session in out} == {session.pk for session in would[:2]}
    assert all(session.exclusion_note.startswith("By rule: ") for session in out)
    assert study.places.filter(session=None).count() == 2
    assert "Together they would exclude 1 of 6." in text_of(curator.get(page(study)))

    curator.post(page(study, f"sessions/{would[0].pk}/"), {"do": "reinstate"})
    assert study.places.filter(session=None).count() == 1


def test_who_breaks_no_rule_is_not_excluded_whatever_is_sent(curator: Client, study: Study) -> None:
    use_recommended(curator, study)
    everybody = [str(session.pk) for session in study.sessions.all()]

    curator.post(page(study, "apply/"), {"session": [*everybody, "nobody"]})

    assert study.sessions.filter(excluded_at__isnull=False).count() == 3


def test_the_file_has_every_measure_under_pseudonyms_alone(curator: Client, study: Study) -> None:
    session = study.sessions.all()[0]
    participant = session.participant
    participant.platform_id = "PLATFORM-7"
    participant.save()

    sent = curator.get(page(study, "sessions.csv")).getvalue().decode()

    lines = list(csv.DictReader(io.StringIO(sent)))
    assert len(lines) == 8
    assert {line["annotator"] for line in lines} == set(study.participants.values_list("annotator", flat=True))
    assert all(line["repeat_distance_n"] == "2" for line in lines)
    assert "PLATFORM-7" not in sent


def test_a_page_for_each_annotator_shows_them_beside_the_others(curator: Client, study: Study) -> None:
    session = study.sessions.order_by("consented_at", "pk")[3]
    response = curator.get(page(study, f"sessions/{session.pk}/"))

    text = text_of(response)
    assert response.status_code == 200
    assert f"{session.participant.annotator} completed" in text
    assert "Mean distance from the others: 0." in text
    assert "95 % interval" in text
    assert len(response.context["strip"]) == 12
    assert len(response.context["repeats"]) == 2
    assert len(response.context["checks"]) == 4
    assert [figure.name for figure, _ in response.context["figures"]] == ["reliability", "pace"]
    assert response.context["before"] is not None
    assert response.context["after"] is not None


@pytest.mark.parametrize("name", ["reliability.svg", "pace.svg"])
def test_its_drawings_are_drawn(curator: Client, study: Study, name: str) -> None:
    session = study.sessions.all()[0]

    response = curator.get(page(study, f"sessions/{session.pk}/{name}"))

    assert response["Content-Type"] == "image/svg+xml"
    assert response.content.startswith(b"<?xml")


@pytest.mark.parametrize("measure", ["attention_failed", "median_seconds", "crowd_excess"])
@pytest.mark.parametrize("query", ["", "?at=2", "?at=nan", "?at=much"])
def test_where_everybody_lies_is_drawn(curator: Client, study: Study, measure: str, query: str) -> None:
    assert curator.get(page(study, f"measures/{measure}.svg") + query).content.startswith(b"<?xml")
    assert curator.get(page(study, "measures/nothing.svg")).status_code == 404


def test_a_session_is_excluded_and_its_appeal_kept(curator: Client, study: Study) -> None:
    session = study.sessions.all()[0]
    here = page(study, f"sessions/{session.pk}/")

    assert curator.post(here, {"do": "exclude", "reason": ""}).status_code == 422
    curator.post(here, {"do": "exclude", "reason": "inattentive", "note": "always the first"})
    curator.post(here, {"do": "appeal", "text": "I did read them."})
    session.refresh_from_db()
    assert (session.exclusion_reason, session.exclusion_note) == ("inattentive", "always the first")
    (appeal,) = session.appeals.all()
    assert (appeal.text, appeal.outcome, str(appeal.written_by)) == ("I did read them.", "", "curator")

    curator.post(here, {"do": "outcome", "appeal": str(appeal.pk), "outcome": "stands"})
    appeal.refresh_from_db()
    assert (appeal.get_outcome_display(), str(appeal.decided_by)) == ("the exclusion stands", "curator")
    again = curator.post(here, {"do": "outcome", "appeal": str(appeal.pk), "outcome": "paid"}, follow=True)
    assert "This appeal is decided already." in text_of(again)
    assert "“I did read them.”" in text_of(curator.get(here))

    leaving.withdraw(session_id=session.pk, now=make.NOON)
    assert not Appeal.objects.exists()
    assert not SessionQuality.objects.filter(session=session).exists()


def test_another_studys_session_has_no_page_here(curator: Client, study: Study) -> None:
    other = make.make_study(dataset=make.make_dataset(4, slug="other"), name="Other", images_per_session=4)
    session = make.complete_session(other)

    assert curator.get(page(study, f"sessions/{session.pk}/")).status_code == 404


def test_who_may_only_look_can_not_decide(study: Study) -> None:
    looker = staff("annotations.view_session", "annotations.view_study")
    session = study.sessions.all()[0]
    assert looker.get(page(study)).status_code == 200
    assert looker.get(page(study, f"sessions/{session.pk}/")).status_code == 200
    for rest in ("", "rules/", "apply/", f"sessions/{session.pk}/"):
        assert looker.post(page(study, rest), {"do": "exclude", "reason": "other"}).status_code == 403
    assert looker.get(page(study, "checks/")).status_code == 403
    assert not Session.objects.filter(excluded_at__isnull=False).exists()


def test_who_may_not_see_sessions_sees_none_of_it(study: Study) -> None:
    stranger = staff("annotations.view_study")
    session = study.sessions.all()[0]
    for rest in ("", "rules/", "apply/", "sessions.csv", "measures/score.svg", f"sessions/{session.pk}/",
                 f"sessions/{session.pk}/pace.svg"):  # fmt: skip
        assert stranger.get(page(study, rest)).status_code == 403, rest


# --- Check images


def checks(*items: dict[str, str], initial: int = 0) -> dict[str, str]:
    data = {"row-TOTAL_FORMS": str(len(items)), "row-INITIAL_FORMS": str(initial)}
    blank = {"kind": "gold", "note": "", "allowed": "", "target": "", "tolerance": "", "place": ""}
    for number, item in enumerate(items):
        data |= {f"row-{number}-{name}": value for name, value in {**blank, **item}.items()}
    return data


ATTENTION = {"image": "12", "kind": "attention", "note": "Name Dog.", "allowed": "dog"}
GOLD = {"image": "13", "target": "Cat 70\nDog 30", "tolerance": "0.4"}


@pytest.fixture
def draft() -> Study:
    study = crowds.checked_study(make.make_dataset(18), launch=False, practice=[{"image": 16, "feedback": "Yes."}])
    study.check_items.all().delete()
    return study


def test_check_images_are_written_by_name(curator: Client, draft: Study) -> None:
    assert curator.post(page(draft, "checks/"), checks(ATTENTION, GOLD)).status_code == 302

    attention, gold = draft.check_items.order_by("image__index")
    assert (attention.kind, attention.note, attention.allowed, attention.target) == ("attention", "Name Dog.", [5], [])
    assert (gold.kind, gold.target[3], gold.target[5], gold.tolerance) == ("gold", 0.7, 0.3, 0.4)
    text = curator.get(page(draft, "checks/")).content.decode()
    assert "Cat 70\nDog 30" in text
    assert found_out.check_problems(draft) == []


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([{**GOLD, "image": "3"}], "one of the study’s own"),
        ([{**GOLD, "image": "16"}], "one of the practice’s"),
        ([{**GOLD, "image": "99"}], "The dataset has no such image."),
        ([{**GOLD, "image": "9" * 12}], "The dataset has no such image."),
        ([GOLD, GOLD], "This image is a check already."),
        ([{**GOLD, "note": "Look!"}], "it would tell a gold image apart"),
        ([{**GOLD, "target": "Cat 70"}], "The percentages add up to 70, not 100."),
        ([{**GOLD, "target": "Cow 100"}], "no category “Cow”"),
        ([{**GOLD, "tolerance": ""}], "Its target needs a tolerance."),
        ([{**GOLD, "allowed": "Cat"}], "not both"),
        ([{**GOLD, "target": ""}], "needs either the categories that pass or a target"),
        ([{**ATTENTION, "note": ""}], "An attention check says what to answer."),
    ],
)
def test_a_check_image_that_does_not_fit_is_refused_beside_it(
    curator: Client, draft: Study, items: list[dict[str, str]], words: str
) -> None:
    response = curator.post(page(draft, "checks/"), checks(*items))

    assert response.status_code == 422
    assert words in text_of(response)
    assert not CheckItem.objects.exists()


def test_a_launched_studys_check_images_are_fixed(curator: Client, study: Study) -> None:
    before = list(study.check_items.values_list("pk", flat=True))

    curator.post(page(study, "checks/"), checks(ATTENTION))

    assert list(study.check_items.values_list("pk", flat=True)) == before


def test_a_check_image_among_the_studys_own_keeps_it_from_being_launched(draft: Study) -> None:
    for index in (0, 16):
        CheckItem.objects.create(study=draft, image=draft.dataset.images.get(index=index), allowed=[3])

    assert found_out.check_problems(draft) == [
        "Check image 0: it is one of the study’s own, so its answers would be judged and released.",
        "Check image 16: it is one of the practice’s, so everybody has been told of it.",
    ]


def test_reasons_are_those_that_releases_know(study: Study, curator: Client) -> None:
    use_recommended(curator, study)

    assert set(study.quality_rules.values_list("reason", flat=True)) <= set(ExclusionReason.values)

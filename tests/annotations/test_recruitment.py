"""Links without a platform, the other platforms, the bonus, and the console's page about people."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from django.test import Client as Browser
from django.urls import reverse
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from annotations.errors import AnnotationError
from annotations.models import (
    ExclusionReason,
    Invitation,
    Outcome,
    Payment,
    PaymentKind,
    PaymentState,
    Session,
    SessionStatus,
    Study,
)
from annotations.selectors import bonus
from annotations.selectors import recruitment as recruited
from annotations.services import leaving, payments, recruitment
from elicit.labels.scoring import Score
from tests import factories as make
from tests.concurrency.together import together

pytestmark = pytest.mark.django_db
AGREED = {"agree": "on", "version": 1}
CREDIT = "https://uni.sona-systems.com/webstudy_credit.aspx?experiment_id=12&credit_token=ab&survey_code=XXXX"


@pytest.fixture
def study() -> Study:
    return make.make_study(
        dataset=make.make_dataset(4), images_per_session=4, repeats_per_session=0, questionnaire=[], labels_per_image=6
    )


def terms(study: Study, **values: Any) -> None:
    recruitment.set_terms(study=study, terms=values)


def link(study: Study, query: str = "") -> str:
    return reverse("study", args=[study.slug]) + (f"?{query}" if query else "")


def text_of(response: Any) -> str:
    return html.unescape(response.content.decode())


def agree(study: Study, query: str, browser: Browser | None = None) -> Session:
    response = (browser or Browser()).post(link(study, query), AGREED)
    assert response.status_code == 302, text_of(response)
    return Session.objects.get(token=response["Location"].split("/")[2])


def finish(session: Session, *named: tuple[int, float]) -> Session:
    return make.answer_all(make.begin(session), named or ((3, 80.0),))


# --- Invitations


def invite(study: Study, **options: Any) -> tuple[Invitation, str]:
    terms(study, platform="invitation")
    [(invitation, token)] = recruitment.invite(
        study=study, labels=["Ada"], now=timezone.now(), **{"expires_at": None, **options}
    )
    return invitation, f"invitation={token}"


def test_an_invitation_lets_one_person_in(study: Study) -> None:
    invitation, query = invite(study)
    browser = Browser()
    session = agree(study, query, browser)
    Invitation.objects.update(used_at=timezone.now() - timedelta(hours=1))

    assert browser.get(link(study, query))["Location"] == reverse("session", args=[session.token])
    for foreign in (Browser().get(link(study, query)), Browser().post(link(study, query), AGREED)):
        assert foreign.status_code == 409
        assert session.token not in text_of(foreign)
    invitation.refresh_from_db()
    assert invitation.used_by == session
    assert Session.objects.count() == 1


def test_the_link_of_an_invitation_is_not_kept(study: Study) -> None:
    invitation, query = invite(study)

    assert query.removeprefix("invitation=") not in " ".join(map(str, vars(invitation).values()))


def revoked(invitation: Invitation) -> None:
    recruitment.revoke(invitation_id=invitation.pk, study=invitation.study, now=timezone.now())


def run_out(invitation: Invitation) -> None:
    Invitation.objects.filter(pk=invitation.pk).update(expires_at=timezone.now())


@pytest.mark.parametrize("end", [revoked, run_out])
def test_an_invitation_that_is_over_lets_nobody_in(study: Study, end: Callable[[Invitation], None]) -> None:
    invitation, query = invite(study)
    end(invitation)

    assert "no longer valid" in text_of(Browser().post(link(study, query), AGREED))
    assert not Session.objects.exists()


@pytest.mark.parametrize("query", ["", "invitation=" + "x" * 32, "invitation=short", "pid=p1", "invitation=%00"])
def test_without_a_known_invitation_nobody_gets_in(study: Study, query: str) -> None:
    invite(study)

    assert "invitation is not known" in text_of(Browser().post(link(study, query), AGREED))
    assert not Session.objects.exists()


@pytest.mark.postgres  # SQLite's database of the tests lies in memory, where nobody waits for a lock
@pytest.mark.django_db(transaction=True)
def test_two_who_share_an_invitation_at_once_begin_one_session(study: Study) -> None:
    _invitation, query = invite(study)

    together([lambda: Browser().post(link(study, query), AGREED).status_code for _ in range(4)])

    assert Session.objects.count() == 1


# --- Connect and SONA


def test_people_from_connect_go_back_by_its_link(study: Study) -> None:
    back = "https://connect.cloudresearch.com/participant/project/CCCCCCCC/complete"
    terms(study, platform="connect", platform_study="C" * 32, completion_url=back, code_completed="DONE1111")
    query = f"participantId={'A' * 32}&assignmentId={'B' * 32}&projectId={'C' * 32}"
    browser = Browser()

    session = finish(agree(study, query, browser))

    page = text_of(browser.get(reverse("session", args=[session.token])))
    assert back in page
    assert "DONE1111" in page
    assert browser.get(link(study, query))["Location"] == reverse("session", args=[session.token])
    assert Browser().get(link(study, query)).status_code == 409
    assert Browser().get(link(study, query.replace("C" * 32, "D" * 32))).status_code == 400


def test_people_from_sona_take_their_own_code_back(study: Study) -> None:
    terms(study, platform="sona", completion_url=CREDIT)
    session = finish(agree(study, "survey_code=4711"))

    page = text_of(Browser().get(reverse("session", args=[session.token])))

    assert "experiment_id=12&credit_token=ab&survey_code=4711" in page


def test_sona_grants_no_credit_to_those_who_did_not_complete(study: Study) -> None:
    terms(study, platform="sona", completion_url=CREDIT, code_completed="A", code_screened_out="B")
    session = agree(study, "survey_code=4711")
    Session.objects.update(status=SessionStatus.SCREENED_OUT)

    page = text_of(Browser().get(reverse("session", args=[session.token])))

    assert "webstudy_credit" not in page


def test_a_way_back_to_a_host_that_is_not_allowed_is_left_out(study: Study) -> None:
    terms(study, platform="connect", completion_url="https://evil.example/")

    assert recruited.departure(study, Outcome.COMPLETED).url == ""


# --- What is promised


def test_what_is_promised_can_be_raised_but_not_lowered_once_somebody_has_agreed(study: Study) -> None:
    terms(study, base_minor=150, bonus_most_minor=50)
    terms(study, base_minor=100)
    agree(study, "")

    for broken in ({"base_minor": 99}, {"bonus_most_minor": 0}, {"currency": "USD"}, {"bonus_rule": "log"}):
        with pytest.raises(AnnotationError) as refused:
            terms(study, **broken)
        assert set(refused.value.fields) == set(broken)
    terms(study, base_minor=200, fee_share=0.3)
    assert recruited.of_study(study).base_minor == 200


def test_pay_and_bonus_are_told_before_anybody_agrees(study: Study) -> None:
    terms(study, base_minor=150, bonus_most_minor=50)
    browser = Browser()

    page = text_of(browser.get(link(study)))
    assert "£1.50" in page
    assert "up to £0.50" in page
    session = agree(study, "", browser)
    page = text_of(browser.get(reverse("session", args=[session.token])))
    assert "Your bonus: up to £0.50" in page
    assert "squared" in page


# --- The bonus


simplex = st.lists(st.floats(0, 1), min_size=4, max_size=4).filter(lambda p: sum(p) > 0.1).map(
    lambda p: np.array(p) / sum(p)
)  # fmt: skip


@given(st.sampled_from(list(Score)), simplex, simplex)
def test_nobody_gains_by_saying_other_than_what_they_believe(score: Score, truth: Any, other: Any) -> None:
    def share(said: Any) -> float:
        labels = np.stack([said, truth])
        found = bonus.shares(labels, np.zeros(2, int), np.array([0, 1]), np.ones(2, bool), score)
        return found[0][0]

    assert 0 <= share(other) <= share(truth) + 1e-9
    assert share(truth) == pytest.approx(1.0)


def test_the_share_of_brier_is_one_less_half_the_squared_distance() -> None:
    labels = np.array([[0.8, 0.2], [0.4, 0.6], [0.6, 0.4], [0.5, 0.5]])
    found = bonus.shares(labels, np.array([0, 0, 0, 1]), np.array([0, 1, 2, 3]), np.ones(4, bool), Score.BRIER)

    share, images = found[0]
    assert share == pytest.approx(1 - (0.3**2 + 0.3**2) / 2)
    assert images == 1
    assert found[3] == (1.0, 0)  # nobody else saw that image


def test_whoever_is_excluded_is_scored_and_is_no_part_of_the_others_crowd() -> None:
    labels = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    counted = np.array([True, True, False])

    found = bonus.shares(labels, np.zeros(3, int), np.arange(3), counted, Score.BRIER)

    assert [found[each][0] for each in range(3)] == [1.0, 1.0, 0.0]


def crowd(study: Study) -> list[Session]:
    """Three who have completed; the third disagrees."""
    terms(study, base_minor=150, bonus_most_minor=100, fee_share=0.25)
    said = [((3, 100.0),), ((3, 100.0),), ((4, 100.0),)]
    return [finish(make.make_session(study, seed=number), *named) for number, named in enumerate(said)]


def test_a_bonus_is_fixed_once_and_nothing_later_changes_it(study: Study) -> None:
    sessions = crowd(study)
    before = {each.session.pk: each.amount_minor for each in bonus.preview(study)}
    assert before[sessions[0].pk] > before[sessions[2].pk]

    payments.freeze_bonus(study=study, now=timezone.now())
    leaving.exclude(session_id=sessions[2].pk, reason=ExclusionReason.INATTENTIVE, note="", by=None, now=timezone.now())
    payments.freeze_bonus(study=study, now=timezone.now())

    fixed = dict(study.payments.filter(kind="bonus").values_list("session_id", "amount_minor"))
    assert fixed == before
    assert {each.session.pk: each.amount_minor for each in bonus.preview(study)} != before


def test_no_bonus_is_fixed_while_somebody_is_answering(study: Study) -> None:
    crowd(study)
    make.begin(make.make_session(study, seed=9))

    with pytest.raises(AnnotationError, match="still answering"):
        payments.freeze_bonus(study=study, now=timezone.now())


def test_the_cost_counts_pay_bonuses_and_fees(study: Study) -> None:
    crowd(study)
    cost = recruited.cost_so_far(study)
    assert (cost.base_minor, cost.bonus_minor, cost.fees_minor) == (450, 0, 112)

    payments.make_due(study=study, now=timezone.now())
    payments.freeze_bonus(study=study, now=timezone.now())
    Payment.objects.filter(kind=PaymentKind.BASE).first()
    cost = recruited.cost_so_far(study)

    total = sum(Payment.objects.values_list("amount_minor", flat=True))
    assert cost.base_minor + cost.bonus_minor == total
    assert cost.fees_minor == round(total * 0.25)


# --- The console


def people(study: Study, end: str = "", **arguments: Any) -> str:
    name = f"admin:annotations_study_people{'_' + end if end else ''}"
    return reverse(name, args=[study.pk, *arguments.values()])


@pytest.fixture
def curator(client: Browser) -> Browser:
    client.force_login(make.make_curator())
    return client


@pytest.mark.parametrize("platform", ["open", "invitation", "prolific", "connect", "sona"])
def test_each_platforms_page_says_what_to_paste(study: Study, curator: Browser, platform: str) -> None:
    terms(study, platform=platform)

    page = text_of(curator.get(people(study)))

    placeholder = {"prolific": "{{%SESSION_ID%}}", "sona": "%SURVEY_CODE%"}.get(platform, "")
    if platform != "invitation":
        assert f"http://testserver{link(study)}" in page
    assert placeholder in page


def test_a_curator_sets_the_terms_in_pounds_and_pence(study: Study, curator: Browser) -> None:
    values = {
        "platform": "prolific", "platform_study": "5f3a", "completion_url": "", "currency": "GBP", "base_minor": "1.50",
        "screenout_minor": "0.20", "expected_minutes": "12", "bonus_most_minor": "0.5", "bonus_rule": "brier",
        "fee_share": "0.333", "code_completed": "A", "code_screened_out": "B", "code_no_place": "",
        "code_no_consent": "", "code_failed_attention": "",
    }  # fmt: skip
    assert curator.post(people(study), values).status_code == 302

    recruiting = recruited.of_study(study)
    assert (recruiting.base_minor, recruiting.bonus_most_minor, recruiting.screenout_minor) == (150, 50, 20)
    assert curator.post(people(study), {**values, "code_no_place": "A"}).status_code == 422
    page = curator.post(people(study), {**values, "completion_url": "https://evil.example/"})
    assert "none of the hosts" in text_of(page)

    curator.post(people(study), {"do": "draw"})
    drawn = recruited.of_study(study)
    assert drawn.code_completed == "A"
    assert len({drawn.code(Outcome(each)) for each in ("completed", "screened_out", "no_place", "no_consent")}) == 4


def test_invitations_come_as_a_file_once(study: Study, curator: Browser) -> None:
    terms(study, platform="invitation")

    response = curator.post(people(study, "invitations"), {"labels": "Ada\n=cmd()\n", "days": "7"})

    head, ada, other = list(csv.reader(io.StringIO(response.content.decode())))
    assert head == ["for", "link", "valid until"]
    assert (ada[0], other[0]) == ("Ada", "'=cmd()")
    token = ada[1].split("?invitation=")[1]
    assert token not in text_of(curator.get(people(study)))
    agree(study, f"invitation={token}")


def test_one_invitation_comes_with_a_picture_to_scan(study: Study, curator: Browser) -> None:
    page = text_of(curator.post(people(study, "invitations"), {"labels": "Ada"}))

    assert "data:image/svg+xml" in page
    assert "?invitation=" in page


def test_pay_that_is_sent_elsewhere_is_noted_once(study: Study, curator: Browser) -> None:
    crowd(study)
    page = text_of(curator.get(people(study, "pay")))
    assert "£4.50" in page
    assert "£1.12" in page

    values = {"kind": ["base"], "count": "3", "reference": "transfer of May"}
    assert curator.post(people(study, "pay"), {**values, "count": "2"}, follow=True).status_code == 200
    assert not study.payments.filter(state=PaymentState.PAID).exists()
    for _ in range(2):
        curator.post(people(study, "pay"), values)

    assert [(each.state, each.reference) for each in study.payments.all()] == [("paid", "transfer of May")] * 3


def test_the_bonuses_are_previewed_and_fixed(study: Study, curator: Browser) -> None:
    crowd(study)
    page = text_of(curator.get(people(study, "bonus")))
    assert page.count(">preview<") == 3
    assert "Fix 3 bonuses" in page

    curator.post(people(study, "bonus"))

    page = text_of(curator.get(people(study, "bonus")))
    assert page.count(">preview<") == 0
    assert study.payments.filter(kind=PaymentKind.BONUS).count() == 3


def test_the_file_of_payments_names_people_by_pseudonym_unless_one_may_see_more(study: Study) -> None:
    terms(study, base_minor=150)
    finish(agree(study, "pid=known-to-the-platform"))
    payments.make_due(study=study, now=timezone.now())
    helper, payer = Browser(), Browser()
    helper.force_login(make.make_staff("helper", "annotations.view_recruitment"))
    payer.force_login(make.make_staff("payer", "annotations.view_recruitment", "annotations.view_platform_id"))

    assert "known-to-the-platform" not in text_of(payer.get(people(study, "csv")))
    assert "known-to-the-platform" in text_of(payer.get(people(study, "csv") + "?ids=yes"))
    assert helper.get(people(study, "csv") + "?ids=yes").status_code == 403
    assert helper.get(people(study, "csv")).status_code == 200


def test_only_those_who_may_pay_do(study: Study) -> None:
    [session, *_] = crowd(study)
    browser = Browser()
    browser.force_login(make.make_staff("helper", "annotations.view_recruitment", "annotations.change_recruitment"))

    assert browser.get(people(study)).status_code == 200
    assert browser.get(people(study, "pay")).status_code == 403
    assert browser.post(people(study, "bonus")).status_code == 403
    assert browser.get(people(study, "decide", session=session.pk)).status_code == 403
    assert browser.post(people(study), {"do": "again", "payment": "1"}).status_code == 403


def test_the_page_about_one_person_says_why_they_can_not_be_rejected(study: Study, curator: Browser) -> None:
    [session, *_] = crowd(study)

    page = text_of(curator.get(people(study, "decide", session=session.pk)))

    assert "rules do not allow it" in page
    assert "0 failed" in page

"""Recruiting and paying on Prolific, against a server that speaks its API and fails as networks do."""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.test import Client as Browser
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import Settings

from annotations import selectors
from annotations.errors import AnnotationError
from annotations.models import (
    Arrival,
    CheckItem,
    CheckKind,
    Participant,
    Payment,
    PaymentKind,
    PaymentState,
    PlatformStatus,
    Session,
    SessionStatus,
    Study,
    WebhookEvent,
)
from annotations.recruitment import prolific_api
from annotations.recruitment.prolific_api import Client, Unavailable
from annotations.sealing import unseal
from annotations.selectors import recruitment as recruited
from annotations.services import leaving, payments, recruitment, sessions
from jobs.models import Job, Status
from tests import factories as make
from tests.concurrency.together import together
from tests.prolific_server import SECRET, STUDY, TOKEN, FakeProlific, Row, an_id, fake_prolific

pytestmark = pytest.mark.django_db

AGREED = {"agree": "on", "version": 1}
CODES = {
    "code_completed": "DONE1111",
    "code_screened_out": "OUT22222",
    "code_no_place": "FULL3333",
    "code_no_consent": "NO444444",
    "code_failed_attention": "LOOK5555",
}
BACK = "https://app.prolific.com/submissions/complete?cc="
REASON = "You failed two of the three attention checks, which said in the text itself which category was to be named."


@pytest.fixture
def prolific(settings: Settings) -> Iterator[FakeProlific]:
    with fake_prolific() as server:
        settings.PROLIFIC_URL = server.url
        settings.PROLIFIC_TOKEN = TOKEN
        settings.PROLIFIC_WEBHOOK_SECRET = SECRET
        yield server


@pytest.fixture
def study() -> Study:
    return a_study()


def a_study(**settings: Any) -> Study:
    study = make.make_study(
        dataset=make.make_dataset(4), images_per_session=4, repeats_per_session=0, **{"questionnaire": [], **settings}
    )
    terms = {
        "platform": "prolific",
        "platform_study": STUDY,
        "base_minor": 150,
        "bonus_most_minor": 50,
        "screenout_minor": 20,
        **CODES,
    }
    recruitment.set_terms(study=study, terms=terms)
    return study


def link(study: Study, row: Row | None = None, /, **changed: str) -> str:
    query = {} if row is None else {"PROLIFIC_PID": row.person, "STUDY_ID": row.study, "SESSION_ID": row.id}
    pairs = "&".join(f"{name}={value}" for name, value in {**query, **changed}.items())
    return f"{reverse('study', args=[study.slug])}?{pairs}"


def text_of(response: Any) -> str:
    return html.unescape(response.content.decode())


def arrive(study: Study, row: Row, browser: Browser | None = None) -> Session:
    response = (browser or Browser()).post(link(study, row), AGREED)
    assert response.status_code == 302, text_of(response)
    return Arrival.objects.get(submission_key__in=recruited.submission_keys("prolific", row.id)).session


def finish(session: Session) -> Session:
    return make.answer_all(make.begin(session, now=timezone.now()), now=timezone.now())


def completed(study: Study, row: Row) -> Session:
    """One who has answered everything here and entered the code there."""
    session = finish(arrive(study, row))
    assert session.status == SessionStatus.COMPLETED
    row.status, row.entered_code = "AWAITING REVIEW", CODES["code_completed"]
    return session


def pay_all(study: Study, *kinds: PaymentKind) -> None:
    payments.make_due(study=study, now=timezone.now())
    chosen = recruited.payable(study).filter(kind__in=kinds or list(PaymentKind))
    payments.order(study=study, payments=list(chosen.values_list("pk", flat=True)), by=None)


def a_bonus(session: Session, amount: int = 40) -> Payment:
    """One that is asked for and waits for a worker."""
    return Payment.objects.create(
        study=session.study,
        session=session,
        arrival=session.arrivals.get(),
        kind=PaymentKind.BONUS,
        amount_minor=amount,
        currency="GBP",
        key=f"{session.pk.hex}-bonus",
        ordered=True,
        due_at=timezone.now(),
    )


def quick(tries: int = prolific_api.TRIES, **_: Any) -> Client:
    """Without the pauses between attempts, and soon out of patience."""
    return Client(tries=tries, patience=(1.0, 0.5), pause=lambda seconds: None)


def tell(row: Row, prolific: FakeProlific, **changes: Any) -> Any:
    body, headers = prolific.event(row, **changes)
    return Browser().post(reverse("prolific-webhook"), data=body, content_type="application/json", headers=headers)


# --- Arrival


def test_a_person_comes_works_and_goes_back_with_the_code_of_completion(prolific: FakeProlific, study: Study) -> None:
    row, browser = prolific.add(1), Browser()

    assert browser.get(link(study, row)).status_code == 200
    session = finish(arrive(study, row, browser))

    arrival = session.arrivals.get()
    assert (arrival.status, arrival.verified_at is not None) == (PlatformStatus.ACTIVE, True)
    page = text_of(browser.get(reverse("session", args=[session.token])))
    assert CODES["code_completed"] in page
    assert BACK + CODES["code_completed"] in page


def test_what_is_stored_of_a_submission_does_not_show_its_id(prolific: FakeProlific, study: Study) -> None:
    row = prolific.add(1)
    session = arrive(study, row)

    arrival, participant = session.arrivals.get(), Participant.objects.get()
    stored = " ".join(str(value) for value in [*vars(arrival).values(), *vars(participant).values()])
    assert row.id not in stored
    assert row.person not in stored


@pytest.mark.parametrize("how", ["twice in one browser", "in a second tab", "on another device"])
def test_one_person_has_one_session(prolific: FakeProlific, study: Study, how: str) -> None:
    row, browser = prolific.add(1), Browser()
    session = arrive(study, row, browser)

    again = Browser() if how == "on another device" else browser
    response = again.post(link(study, row), AGREED) if how.startswith("twice") else again.get(link(study, row))

    assert response["Location"] == reverse("session", args=[session.token])
    assert Session.objects.count() == Arrival.objects.count() == 1


def test_a_submission_of_somebody_else_opens_nothing(prolific: FakeProlific, study: Study) -> None:
    victim, thief = prolific.add(1), prolific.add(2)
    session = arrive(study, victim)

    for forged in (link(study, victim, SESSION_ID=thief.id), link(study, victim, SESSION_ID=an_id(77))):
        response = Browser().get(forged)
        assert response.status_code == 409
        assert session.token not in text_of(response)
    assert Browser().post(link(study, thief, PROLIFIC_PID=an_id(5)), AGREED).status_code == 409
    assert Session.objects.count() == 1


def test_while_prolific_is_away_newcomers_are_let_in_and_checked_later(prolific: FakeProlific, study: Study) -> None:
    row = prolific.add(1)
    prolific.fail("GET", times=2)

    session = arrive(study, row)
    assert session.arrivals.get().verified_at is None
    make.run_jobs()

    assert session.arrivals.get().verified_at is not None


def test_one_who_was_let_in_unchecked_and_is_not_known_is_pointed_out(prolific: FakeProlific, study: Study) -> None:
    stranger = Row(an_id(9), STUDY, an_id(1009))
    prolific.fail("GET")

    session = arrive(study, stranger)
    make.run_jobs()

    assert session.arrivals.get().status == PlatformStatus.MISSING
    [found] = recruited.discrepancies(study, timezone.now())
    assert "does not know" in found.what


def test_while_prolific_is_away_an_id_does_not_open_a_session_in_a_foreign_browser(
    prolific: FakeProlific, study: Study
) -> None:
    row, own = prolific.add(1), Browser()
    session = arrive(study, row, own)
    prolific.fail("GET", times=9)

    foreign = Browser().get(link(study, row))
    assert foreign.status_code == 409
    assert "begun already" in text_of(foreign)
    assert session.token not in text_of(foreign)
    assert own.get(link(study, row))["Location"] == reverse("session", args=[session.token])


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({}, "open this study from Prolific"),
        ({"PROLIFIC_PID": "", "STUDY_ID": STUDY, "SESSION_ID": an_id(1)}, "open this study from Prolific"),
        ({"PROLIFIC_PID": "x" * 24, "STUDY_ID": STUDY, "SESSION_ID": an_id(1)}, "damaged"),
        ({"PROLIFIC_PID": "%00" * 24, "STUDY_ID": STUDY, "SESSION_ID": an_id(1)}, "damaged"),
        ({"PROLIFIC_PID": an_id(1), "STUDY_ID": an_id(3), "SESSION_ID": an_id(1)}, "another study"),
        ({"participantId": "A" * 32, "assignmentId": "B" * 32, "projectId": "C" * 32}, "from there"),
        ({"survey_code": "12345"}, "from there"),
    ],
)
def test_a_link_without_the_right_parameters_is_refused_with_a_page_that_says_why(
    prolific: FakeProlific, study: Study, query: dict[str, str], words: str
) -> None:
    for method in ("get", "post"):
        response = getattr(Browser(), method)(link(study, None, **query))
        assert response.status_code == 400
        assert words in text_of(response)
    assert not Session.objects.exists()
    assert prolific.requests == []


def test_a_preview_stores_nothing_and_asks_nobody(prolific: FakeProlific, study: Study) -> None:
    preview = {"PROLIFIC_PID": "{{%25PROLIFIC_PID%25}}", "STUDY_ID": STUDY, "SESSION_ID": "{{%25SESSION_ID%25}}"}

    response = Browser().post(link(study, None, **preview), AGREED)

    assert "This is a preview" in text_of(response)
    assert not Session.objects.exists()
    assert prolific.requests == []


def test_whoever_comes_back_after_a_return_is_told_that_it_ended(prolific: FakeProlific, study: Study) -> None:
    row = prolific.add(1, status="RETURNED")

    response = Browser().post(link(study, row), AGREED)

    assert "submission has ended" in text_of(response)
    assert not Session.objects.exists()


# --- Departure


def test_whoever_finds_no_place_gets_the_code_that_says_so(prolific: FakeProlific) -> None:
    study = a_study(labels_per_image=1)
    completed(study, prolific.add(1))

    page = text_of(Browser().get(link(study, prolific.add(2))))

    assert "This study is complete" in page
    assert BACK + CODES["code_no_place"] in page
    assert CODES["code_completed"] not in page


def test_whoever_does_not_agree_gets_a_code_and_leaves_no_trace(prolific: FakeProlific, study: Study) -> None:
    row, browser = prolific.add(1), Browser()
    page = text_of(browser.get(link(study, row)))
    way_out = reverse("no-thanks", args=[study.slug])
    assert way_out in page

    page = text_of(browser.get(link(study, row).replace(reverse("study", args=[study.slug]), way_out)))

    assert BACK + CODES["code_no_consent"] in page
    assert (Participant.objects.count(), Arrival.objects.count()) == (0, 0)


def test_each_outcome_has_its_own_code(prolific: FakeProlific, study: Study) -> None:
    screened, withdrew = (arrive(study, prolific.add(number)) for number in (1, 2))
    Session.objects.filter(pk=screened.pk).update(status=SessionStatus.SCREENED_OUT)
    leaving.withdraw(session_id=withdrew.pk, now=timezone.now())
    inattentive = with_failed_checks(completed(study, prolific.add(3)), 2)

    for session, code in (
        (screened, CODES["code_screened_out"]),
        (withdrew, CODES["code_no_consent"]),
        (inattentive, CODES["code_failed_attention"]),
    ):
        page = text_of(Browser().get(reverse("session", args=[session.token])))
        assert BACK + code in page
        assert CODES["code_completed"] not in page


def with_failed_checks(session: Session, number: int) -> Session:
    """A session that, at some of its trials, was told to name category 7 and named another."""
    trials = session.trials.order_by("position")[:number]
    for trial in trials:
        item = CheckItem.objects.create(
            study=session.study, image=trial.image, kind=CheckKind.ATTENTION, note="Name the ship.", allowed=[7]
        )
        trial.kind, trial.check_item, trial.place = "attention", item, None
        trial.save()
    return session


# --- Webhooks


def test_a_webhook_is_believed_only_when_prolific_signed_it_now(prolific: FakeProlific, study: Study) -> None:
    row = prolific.add(1)
    arrive(study, row)
    body, headers = prolific.event(row)
    address = reverse("prolific-webhook")

    def send(data: bytes, sent: dict[str, str]) -> int:
        return int(Browser().post(address, data=data, content_type="application/json", headers=sent).status_code)

    assert tell(row, prolific, secret="guessed").status_code == 403
    assert tell(row, prolific, at=time.time() - 3600).status_code == 403
    assert tell(row, prolific, at=time.time() + 3600).status_code == 403
    assert send(body.replace(b"ACTIVE", b"APPROVED"), headers) == 403
    assert send(body, {**headers, "X-Prolific-Request-Timestamp": str(int(time.time()) + 1)}) == 403
    assert send(body, {key: value for key, value in headers.items() if key != "X-Event-ID"}) == 403
    assert send(body, {}) == 403
    assert Browser().get(address).status_code == 405
    assert not WebhookEvent.objects.exists()
    assert send(body, headers) == 204
    assert WebhookEvent.objects.count() == 1


def test_without_a_secret_no_webhook_is_believed(prolific: FakeProlific, study: Study, settings: Settings) -> None:
    settings.PROLIFIC_WEBHOOK_SECRET = ""

    assert tell(prolific.add(1), prolific, secret="").status_code == 403


def test_an_event_that_comes_twice_counts_once(prolific: FakeProlific, study: Study) -> None:
    row = prolific.add(1)
    arrive(study, row)
    row.status = "AWAITING REVIEW"

    statuses = [tell(row, prolific, event_id="e-1").status_code for _ in range(3)]

    assert statuses == [204] * 3
    assert WebhookEvent.objects.count() == 1
    assert Job.objects.filter(kind="annotations.platform_event").count() == 1


def test_no_event_keeps_a_platforms_id(prolific: FakeProlific, study: Study) -> None:
    row = prolific.add(1)
    tell(row, prolific)

    stored = " ".join(str(value) for value in vars(WebhookEvent.objects.get()).values())
    assert row.id not in stored
    assert row.person not in stored


def test_a_returned_submission_opens_its_place_at_once(prolific: FakeProlific) -> None:
    study = a_study(labels_per_image=1)
    row = prolific.add(1)
    session = make.begin(arrive(study, row))
    assert not selectors.has_free_place(study)
    row.status = "RETURNED"

    tell(row, prolific)
    make.run_jobs()

    assert selectors.has_free_place(study)
    session.refresh_from_db()
    assert session.status == SessionStatus.ABANDONED


def test_an_old_event_does_not_undo_what_prolific_says_now(prolific: FakeProlific, study: Study) -> None:
    row = prolific.add(1)
    session = make.begin(arrive(study, row))
    row.status = "RETURNED"
    body, headers = prolific.event(row)
    row.status = "ACTIVE"

    Browser().post(reverse("prolific-webhook"), data=body, content_type="application/json", headers=headers)
    make.run_jobs()

    session.refresh_from_db()
    assert session.status == SessionStatus.TRIALS


def test_an_event_waits_while_prolific_is_away(
    prolific: FakeProlific, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recruitment, "Client", quick)
    row = prolific.add(1)
    session = make.begin(arrive(study, row))
    row.status = "RETURNED"
    tell(row, prolific)
    prolific.fail("GET", times=4, status=503)

    [job] = make.run_jobs()
    assert job.status == Status.QUEUED
    Job.objects.update(due_at=timezone.now())
    make.run_jobs()

    session.refresh_from_db()
    assert session.status == SessionStatus.ABANDONED


# --- Polling


def test_a_lost_event_is_repaired_by_polling(prolific: FakeProlific) -> None:
    study = a_study(labels_per_image=1)
    row = prolific.add(1)
    make.begin(arrive(study, row))
    row.status = "RETURNED"  # and nobody tells

    assert recruitment.watch(timezone.now()) == 1
    make.run_jobs()

    assert selectors.has_free_place(study)
    assert study.arrivals.get().status == PlatformStatus.RETURNED
    assert study.recruiting.polled_at is None  # as it was when it was read
    study.recruiting.refresh_from_db()
    assert study.recruiting.polled_at is not None


def test_polling_reads_every_page_and_is_slow_unless_somebody_waits(prolific: FakeProlific, study: Study) -> None:
    rows = [prolific.add(number) for number in range(1, 250)]
    last = arrive(study, rows[-1])
    rows[-1].status = "AWAITING REVIEW"
    recruitment.watch(timezone.now())
    make.run_jobs()
    assert last.arrivals.get().status == PlatformStatus.AWAITING_REVIEW

    soon, later = (timezone.now() + timedelta(minutes=minutes) for minutes in (2, 11))
    assert recruitment.watch(soon) == 0
    rows[-1].status = "ACTIVE"
    Arrival.objects.update(status="ACTIVE")
    finish(last)
    Session.objects.update(completed_at=timezone.now() - timedelta(minutes=5))
    assert recruitment.watch(soon) == 1  # complete here, and not a word from there
    assert recruitment.watch(later) == 1


def test_a_late_completion_is_kept_and_marked(prolific: FakeProlific, study: Study) -> None:
    row = prolific.add(1)
    session = make.begin(arrive(study, row))
    row.status = "TIMED-OUT"
    tell(row, prolific)
    make.run_jobs()
    session.refresh_from_db()
    assert session.status == SessionStatus.ABANDONED

    session = make.answer_all(session, now=timezone.now())

    assert session.status == SessionStatus.COMPLETED
    arrival = session.arrivals.get()
    assert arrival.timed_out_at is not None
    assert session.completed_at is not None
    assert session.completed_at > arrival.timed_out_at
    [found] = recruited.discrepancies(study, timezone.now())
    assert found.what == "complete here, timed out there"


def test_complete_there_and_not_here_is_pointed_out(prolific: FakeProlific, study: Study) -> None:
    row = prolific.add(1)
    arrive(study, row)
    row.status, row.entered_code = "AWAITING REVIEW", "NOCODE"
    tell(row, prolific)
    make.run_jobs()

    [found] = recruited.discrepancies(study, timezone.now())
    assert found.what == "awaiting review there, not complete here"
    assert found.arrival.entered == "other"


# --- Pay


def test_base_pay_approves_once_and_a_bonus_is_paid_once(prolific: FakeProlific, study: Study) -> None:
    rows = [prolific.add(number) for number in (1, 2, 3)]
    for row in rows:
        completed(study, row)

    for _ in range(2):
        pay_all(study)
        make.run_jobs()
    assert payments.freeze_bonus(study=study, now=timezone.now()) == 3
    assert payments.freeze_bonus(study=study, now=timezone.now()) == 0
    for _ in range(2):
        pay_all(study)
        make.run_jobs()

    assert prolific.approvals == 3
    assert [row.bonuses for row in rows] == [[50]] * 3  # they all said the same
    assert set(study.payments.values_list("state", flat=True)) == {PaymentState.PAID}
    cost = recruited.cost_so_far(study)
    assert (cost.base_minor, cost.bonus_minor, cost.currency) == (450, 150, "GBP")


def test_a_second_payment_of_a_kind_can_not_exist(prolific: FakeProlific, study: Study) -> None:
    bonus = a_bonus(completed(study, prolific.add(1)))

    for changes in ({"key": "another"}, {"key": "another", "amount_minor": 1}):
        values = {f.attname: getattr(bonus, f.attname) for f in Payment._meta.concrete_fields if f.name != "id"}
        with pytest.raises(IntegrityError), transaction.atomic():
            Payment.objects.create(**{**values, **changes})


@pytest.mark.parametrize("acts", [False, True], ids=["before Prolific paid", "after Prolific paid"])
@pytest.mark.parametrize("how", [{"status": 500}, {"status": 200, "hangs": 1.2}], ids=["an error", "no answer"])
def test_a_bonus_whose_answer_is_lost_is_settled_by_asking(
    prolific: FakeProlific, study: Study, how: dict[str, Any], acts: bool
) -> None:
    row = prolific.add(1)
    bonus = a_bonus(completed(study, row))
    prolific.fail("POST .*/pay/", acts=acts, **how)

    now = timezone.now()
    payments.send(payment_id=bonus.pk, client=quick(), now=now)
    bonus.refresh_from_db()
    assert bonus.state == PaymentState.UNKNOWN
    payments.send(payment_id=bonus.pk, client=quick(), now=now)  # nobody sends what is unknown
    payments.settle_study(study.pk, quick(), now + timedelta(minutes=2))
    bonus.refresh_from_db()
    if acts:
        assert (bonus.state, row.bonuses) == (PaymentState.PAID, [40])
        return
    assert bonus.state == PaymentState.UNKNOWN  # Prolific takes its time: too soon to say that it did not pay
    payments.settle_study(study.pk, quick(), now + timedelta(hours=2))
    bonus.refresh_from_db()
    assert (bonus.state, bonus.ordered, row.bonuses) == (PaymentState.FAILED, False, [])

    payments.order_again(payment_id=bonus.pk, by=None)  # a person decides
    make.run_jobs()
    assert row.bonuses == [40]


def test_a_bonus_that_arrived_after_all_is_found_before_it_is_sent_again(prolific: FakeProlific, study: Study) -> None:
    row = prolific.add(1)
    bonus = a_bonus(completed(study, row))
    Payment.objects.filter(pk=bonus.pk).update(state=PaymentState.FAILED, ordered=False)
    row.bonuses.append(40)

    payments.order_again(payment_id=bonus.pk, by=None)
    make.run_jobs()

    bonus.refresh_from_db()
    assert (bonus.state, row.bonuses) == (PaymentState.PAID, [40])


class Killed(BaseException):
    """What a worker that is killed does: nothing more."""


@pytest.mark.parametrize(
    ("step", "paid_by_then", "state"),
    [
        ("submission", False, PaymentState.DUE),
        ("set_up_bonus", False, PaymentState.DUE),
        ("pay_bonus", True, PaymentState.PAID),
    ],
)
def test_a_worker_killed_between_request_and_answer_forgets_nothing_and_pays_once(
    prolific: FakeProlific, study: Study, step: str, paid_by_then: bool, state: PaymentState
) -> None:
    row = prolific.add(1)
    bonus = a_bonus(completed(study, row))

    class Doomed(Client):
        """Its process ends right after this request went out."""

    def die(self: Doomed, *arguments: Any) -> None:
        getattr(Client, step)(self, *arguments)
        raise Killed

    setattr(Doomed, step, die)
    with pytest.raises(Killed):
        payments.send(payment_id=bonus.pk, client=Doomed(), now=timezone.now())
    assert bool(row.bonuses) is paid_by_then
    bonus.refresh_from_db()
    assert bonus.state == PaymentState.SENDING

    payments.settle_study(study.pk, quick(), timezone.now(), everything=True)
    bonus.refresh_from_db()
    assert bonus.state == state
    payments.send(payment_id=bonus.pk, client=quick(), now=timezone.now())
    bonus.refresh_from_db()
    assert (bonus.state, row.bonuses) == (PaymentState.PAID, [40])


def test_a_worker_that_was_taken_for_dead_sends_nothing_when_it_wakes(prolific: FakeProlific, study: Study) -> None:
    row = prolific.add(1)
    bonus = a_bonus(completed(study, row))

    class Sleeper(Client):
        def set_up_bonus(self, study: str, submission: str, amount_minor: int) -> str:
            bulk = super().set_up_bonus(study, submission, amount_minor)
            # Meanwhile another worker settles what was left behind, and pays it.
            payments.settle_study(bonus.study_id, quick(), timezone.now(), everything=True)
            assert payments.send(payment_id=bonus.pk, client=quick(), now=timezone.now())
            return bulk

    assert not payments.send(payment_id=bonus.pk, client=Sleeper(), now=timezone.now())
    assert row.bonuses == [40]


@pytest.mark.parametrize("status", [429, 503])
def test_setting_up_is_tried_again_with_the_pause_that_prolific_asks_for(
    prolific: FakeProlific, study: Study, status: int
) -> None:
    row = prolific.add(1)
    bonus = a_bonus(completed(study, row))
    prolific.fail("POST .*/bonus-payments/", status=status, times=2, headers={"Retry-After": "7"})
    pauses: list[float] = []

    assert payments.send(payment_id=bonus.pk, client=Client(pause=pauses.append), now=timezone.now())

    assert (pauses, row.bonuses) == ([7.0, 7.0], [40])


def test_a_payment_that_prolific_puts_off_is_due_again(prolific: FakeProlific, study: Study) -> None:
    row = prolific.add(1)
    bonus = a_bonus(completed(study, row))
    prolific.fail("POST .*/pay/", status=429)

    with pytest.raises(Unavailable):
        payments.send(payment_id=bonus.pk, client=quick(), now=timezone.now())
    bonus.refresh_from_db()

    # The request went out and was refused: nothing was paid, and the next try may send it.
    assert (bonus.state, row.bonuses) == (PaymentState.DUE, [])
    assert payments.send(payment_id=bonus.pk, client=quick(), now=timezone.now())
    assert row.bonuses == [40]


def test_an_approval_whose_answer_is_lost_is_found_done(prolific: FakeProlific, study: Study) -> None:
    completed(study, prolific.add(1))
    prolific.fail("POST .*/transition/", times=4, acts=True)
    payments.make_due(study=study, now=timezone.now())
    base = study.payments.get()
    Payment.objects.update(ordered=True)

    with pytest.raises(Unavailable):
        payments.send(payment_id=base.pk, client=quick(), now=timezone.now())
    payments.send(payment_id=base.pk, client=quick(), now=timezone.now())

    base.refresh_from_db()
    assert (base.state, prolific.approvals) == (PaymentState.PAID, 1)


def test_what_is_not_handed_in_is_not_approved(prolific: FakeProlific, study: Study) -> None:
    row = prolific.add(1)
    completed(study, row)
    row.status = "TIMED-OUT"

    pay_all(study)
    make.run_jobs()

    base = study.payments.get()
    assert (base.state, prolific.approvals) == (PaymentState.FAILED, 0)
    assert "TIMED-OUT" in base.note


def test_what_prolific_approved_by_itself_is_paid(prolific: FakeProlific, study: Study) -> None:
    row = prolific.add(1)
    completed(study, row)
    row.status = "APPROVED"
    tell(row, prolific)
    make.run_jobs()

    pay_all(study)
    make.run_jobs()

    assert (study.payments.get().state, prolific.approvals) == (PaymentState.PAID, 0)


def test_those_screened_out_are_paid_by_the_code_of_the_screen_out(prolific: FakeProlific, study: Study) -> None:
    row = prolific.add(1)
    session = arrive(study, row)
    Session.objects.filter(pk=session.pk).update(status=SessionStatus.SCREENED_OUT)

    pay_all(study, PaymentKind.SCREEN_OUT)
    make.run_jobs()

    assert (row.status, row.entered_code) == ("SCREENED OUT", CODES["code_screened_out"])
    assert study.payments.get().amount_minor == 20


@pytest.mark.parametrize("leave", ["withdraw", "exclude"])
def test_whoever_completed_is_paid_even_if_their_answers_no_longer_count(
    prolific: FakeProlific, study: Study, leave: str
) -> None:
    session = completed(study, prolific.add(1))
    if leave == "withdraw":
        leaving.withdraw(session_id=session.pk, now=timezone.now())
    else:
        leaving.exclude(session_id=session.pk, reason="inattentive", note="", by=None, now=timezone.now())  # type: ignore[arg-type]

    pay_all(study, PaymentKind.BASE)
    make.run_jobs()

    assert (study.payments.get().state, prolific.approvals) == (PaymentState.PAID, 1)


# --- Return and reject


@pytest.mark.parametrize(("minutes", "failed", "allowed"), [(10, 1, False), (10, 2, True), (5, 1, True), (5, 0, False)])
def test_work_is_rejected_only_for_as_many_failed_attention_checks_as_the_rules_ask(
    prolific: FakeProlific, study: Study, minutes: int, failed: int, allowed: bool
) -> None:
    recruitment.set_terms(study=study, terms={"expected_minutes": minutes})
    row = prolific.add(1)
    session = with_failed_checks(completed(study, row), failed)

    if allowed:
        payments.reject(session=session, message=REASON, now=timezone.now())
        assert row.rejection == {"message": REASON, "category": "FAILED_CHECK"}
    else:
        with pytest.raises(AnnotationError, match="failed attention check"):
            payments.reject(session=session, message=REASON, now=timezone.now())
        assert row.status == "AWAITING REVIEW"


def test_a_rejection_tells_the_person_why_at_some_length(prolific: FakeProlific, study: Study) -> None:
    session = with_failed_checks(completed(study, prolific.add(1)), 2)

    with pytest.raises(AnnotationError, match="100 characters"):
        payments.reject(session=session, message=REASON[:99], now=timezone.now())


def test_the_comprehension_check_never_justifies_a_rejection(prolific: FakeProlific, study: Study) -> None:
    session = arrive(study, prolific.add(1))
    Session.objects.filter(pk=session.pk).update(status=SessionStatus.SCREENED_OUT)
    session.refresh_from_db()

    with pytest.raises(AnnotationError, match="comprehension"):
        payments.reject(session=session, message=REASON, now=timezone.now())


def test_whoever_was_paid_is_not_rejected(prolific: FakeProlific, study: Study) -> None:
    session = with_failed_checks(completed(study, prolific.add(1)), 2)
    payments.make_due(study=study, now=timezone.now())
    payments.order(study=study, payments=[study.payments.get().pk], by=None)
    make.run_jobs()

    with pytest.raises(AnnotationError) as refused:
        payments.reject(session=session, message=REASON, now=timezone.now())
    assert refused.value.code == "payment_not_due"


def test_a_rejection_on_the_platform_cancels_what_was_due(prolific: FakeProlific, study: Study) -> None:
    row = prolific.add(1)
    completed(study, row)
    payments.make_due(study=study, now=timezone.now())
    row.status = "REJECTED"
    tell(row, prolific)
    make.run_jobs()

    assert study.payments.get().state == PaymentState.CANCELLED


def test_somebody_is_asked_once_to_return(prolific: FakeProlific, study: Study) -> None:
    row = prolific.add(1)
    session = arrive(study, row)

    for _ in range(2):
        payments.ask_to_return(session=session, reason="The pictures did not load.", now=timezone.now())

    assert row.return_requested is not None
    assert sum("request-return" in each for each in prolific.requests) == 1


def test_a_request_to_return_that_failed_can_be_made_again(prolific: FakeProlific, study: Study) -> None:
    session = arrive(study, prolific.add(1))
    prolific.fail("request-return", status=400)

    with pytest.raises(AnnotationError):
        payments.ask_to_return(session=session, reason="The pictures did not load.", now=timezone.now())
    payments.ask_to_return(session=session, reason="The pictures did not load.", now=timezone.now())

    assert session.arrivals.get().return_asked_at is not None


def test_those_who_failed_attention_checks_wait_for_a_decision(prolific: FakeProlific, study: Study) -> None:
    completed(study, prolific.add(2))
    held = with_failed_checks(completed(study, prolific.add(1)), 2)

    payments.make_due(study=study, now=timezone.now())

    assert recruited.held_back(study) == [held.pk]
    assert [each.count for each in recruited.due(study)] == [1]


# --- Two at once


def read_and_pay(payment_id: int, meet: Callable[[], object]) -> None:
    """What `send` would be without its guard: look whether it is due, pay, write it down."""
    payment = Payment.objects.select_related("arrival").get(pk=payment_id)
    if payment.state != PaymentState.DUE:
        return
    meet()
    assert payment.arrival is not None
    client = quick()
    bulk = client.set_up_bonus(STUDY, prolific_submission(payment), payment.amount_minor)
    client.pay_bonus(bulk)
    Payment.objects.filter(pk=payment_id).update(state=PaymentState.PAID, settled_at=timezone.now())


def prolific_submission(payment: Payment) -> str:
    assert payment.arrival is not None
    return unseal(payment.arrival.submission_sealed)


@pytest.mark.postgres  # SQLite's database of the tests lies in memory, where nobody waits for a lock
@pytest.mark.django_db(transaction=True)
def test_two_workers_at_once_pay_once(prolific: FakeProlific) -> None:
    study, row = a_study(), prolific.add(1)
    bonus = a_bonus(completed(study, row))

    outcomes = together(
        [lambda: payments.send(payment_id=bonus.pk, client=quick(), now=timezone.now()) for _ in range(4)]
    )

    assert sorted(map(str, outcomes)) == ["False", "False", "False", "True"]
    assert row.bonuses == [40]


@pytest.mark.postgres  # SQLite's database of the tests lies in memory, where nobody waits for a lock
@pytest.mark.django_db(transaction=True)
def test_without_the_guard_two_workers_would_pay_twice(prolific: FakeProlific) -> None:
    study, row = a_study(), prolific.add(1)
    bonus = a_bonus(completed(study, row))
    meet = threading.Barrier(2)

    together([lambda: read_and_pay(bonus.pk, meet.wait) for _ in range(2)])

    assert row.bonuses == [40, 40]


@pytest.mark.postgres  # SQLite's database of the tests lies in memory, where nobody waits for a lock
@pytest.mark.django_db(transaction=True)
def test_two_events_at_once_are_stored_once(prolific: FakeProlific) -> None:
    study, row = a_study(), prolific.add(1)
    arrive(study, row)

    outcomes = together([lambda: tell(row, prolific, event_id="e-1").status_code for _ in range(4)])

    assert outcomes == [204] * 4
    assert WebhookEvent.objects.count() == 1
    assert Job.objects.filter(kind="annotations.platform_event").count() == 1


@pytest.mark.postgres  # SQLite's database of the tests lies in memory, where nobody waits for a lock
@pytest.mark.django_db(transaction=True)
def test_two_tabs_at_once_begin_one_session(prolific: FakeProlific) -> None:
    study, row = a_study(), prolific.add(1)
    browser = Browser()

    together([lambda: browser.post(link(study, row), AGREED).status_code for _ in range(4)])

    assert (Session.objects.count(), Arrival.objects.count(), Participant.objects.count()) == (1, 1, 1)


def test_a_session_that_was_given_up_by_the_platform_goes_on_if_there_is_room(
    prolific: FakeProlific, study: Study
) -> None:
    row, browser = prolific.add(1), Browser()
    session = make.begin(arrive(study, row, browser))
    sessions.give_up(session_id=session.pk)
    second = prolific.add(2)
    second.person = row.person  # back with another submission

    response = browser.get(link(study, second), follow=True)

    assert response.status_code == 200
    session.refresh_from_db()
    assert session.status == SessionStatus.TRIALS
    assert session.arrivals.count() == 2


@pytest.mark.parametrize("status", ["RETURNED", "REJECTED"])
def test_a_submission_that_was_given_back_earns_nothing(prolific: FakeProlific, study: Study, status: str) -> None:
    row = prolific.add(1)
    completed(study, row)
    row.status = status
    tell(row, prolific)
    make.run_jobs()

    assert payments.make_due(study=study, now=timezone.now()) == 0
    assert recruited.cost_so_far(study).base_minor == 0

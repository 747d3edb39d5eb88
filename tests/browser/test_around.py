"""Everything around the trials in a real browser, in both languages: from consent to thanks, and the ways out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect
from pytest_django.live_server_helper import LiveServer

from annotations import selectors
from annotations.models import Dataset, Response, Session, SessionStatus, Study
from annotations.services import studies
from annotations.services.images import fill_dataset
from elicit import archives
from tests import factories as make

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("browser")]

# The screen takes a press on "submit" this soon after a new image for the second half of a double press.
DOUBLE_PRESS_MS = 650
QUESTIONS = [
    {"name": "whose", "question": "Whose view?", "kind": "choice", "choices": ["Mine", "Others’"], "answer": "Others’"},
    {"name": "sum", "question": "Must it be 100?", "kind": "choice", "choices": ["Yes", "No"], "answer": "No"},
]
PRACTICE = [{"image": 5, "feedback": "![A frog](image:5) Most say **frog**.", "expected": {"Frog": 80, "Bird": 15}}]
RETURN = "https://app.prolific.com/submissions/complete?cc=C0DE"


@pytest.fixture
def study() -> Study:
    """Three images, one of them shown again; practice, check, questionnaire and a link back."""
    archive, _ = archives.find_images("sample", Path())
    dataset = Dataset(slug="sample", name="Sample")
    fill_dataset(dataset, archive, "test", lambda done: None)
    study = make.make_study(
        dataset=dataset,
        launch=False,
        images_per_session=3,
        repeats_per_session=1,
        practice=PRACTICE,
        comprehension=QUESTIONS,
        completion_code="C0DE",
        screenout_code="0UT",
    )
    studies.choose_images(study, range(3), make.rng())
    return studies.launch(study.pk, make.rng())


@dataclass(frozen=True)
class Words:
    """What the pages say in a language."""

    locale: str
    agree: str
    go_on: str
    practise: str
    how: str
    clear: str
    again: str
    check: str
    last: str
    finish: str
    thanks: str
    code: str
    sorry: str
    stop: str
    sure: str
    erase: str
    withdrawn: str


ENGLISH = Words(
    "en-GB", "I agree to take part", "Continue", "Practise", "How it works", "Is it clear?", "Not quite yet", "Check",
    "A few last questions", "Finish", "Thank you", "Your completion code", "Thank you for your time",
    "Stop taking part", "Yes, erase", "Erase and stop", "You have withdrawn",
)  # fmt: skip
CHINESE = Words(
    "zh-CN", "同意参与", "继续", "开始练习", "任务说明", "说明清楚吗", "还差一点", "核对答案", "最后几个问题", "完成",
    "谢谢您", "您的完成代码", "感谢您付出的时间", "退出研究", "是的", "删除并退出", "您已退出",
)  # fmt: skip
LANGUAGES = pytest.mark.parametrize("words", [ENGLISH, CHINESE], ids=lambda words: words.locale)


@dataclass
class Visit:
    """A browser at the study, and its eye for accessibility."""

    page: Page
    words: Words
    width: int

    def look(self, heading: str) -> None:
        """The page has this heading, no accessibility fault, and fits the screen."""
        expect(self.page.get_by_role("heading", level=1)).to_contain_text(heading)
        found = Axe().run(self.page)
        assert found.violations_count == 0, found.generate_report()
        assert self.page.evaluate("document.documentElement.scrollWidth") <= self.width
        language = "zh-hans" if self.words is CHINESE else "en"
        assert self.page.evaluate("[document.documentElement.lang, document.documentElement.dir]") == [language, "ltr"]

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def to_comprehension(self) -> Session:
        """Agree, read, and have the practice answered."""
        self.page.get_by_label(self.words.agree).check()
        self.press(self.words.go_on)
        self.press(self.words.practise)
        expect(self.page.locator("#submit")).to_be_enabled()
        session = Session.objects.latest("consented_at")
        make.answer_all(session)
        self.page.reload()
        return session

    def answer(self, choice: int) -> None:
        for name in ("whose", "sum"):
            self.page.locator(f"input[name={name}]").nth(choice).check()
        self.press(self.words.check)


Open = Callable[[Words], Visit]


@pytest.fixture
def visit(browser: Browser, live_server: LiveServer, study: Study) -> Iterator[Callable[..., Visit]]:
    """Open the study's link in a browser of its own."""
    contexts = []

    def opened(words: Words, width: int = 1366, scheme: str = "light") -> Visit:
        context = browser.new_context(
            locale=words.locale,
            viewport={"width": width, "height": 740},
            color_scheme=scheme,  # type: ignore[arg-type]
        )
        contexts.append(context)
        page = context.new_page()
        page.goto(f"{live_server.url}/study/{study.slug}/")
        return Visit(page, words, width)

    yield opened
    for context in contexts:
        context.close()


@LANGUAGES
@pytest.mark.parametrize(("width", "scheme"), [(1366, "light"), (360, "dark")])
def test_a_session_from_consent_to_thanks(visit: Callable[..., Visit], words: Words, width: int, scheme: str) -> None:
    here = visit(words, width, scheme)
    page = here.page
    here.press(words.go_on)  # without agreeing
    here.look("")
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_label(words.agree).check()
    here.press(words.go_on)
    here.look(words.how)
    here.press(words.practise)
    expect(page.locator("#submit")).to_be_enabled()
    here.look("")
    practise(page)
    here.look(words.clear)
    here.answer(1)
    expect(page.locator("#submit")).to_be_enabled()
    session = make.answer_all(Session.objects.get())
    page.reload()
    here.look(words.last)
    for scale in ("clarity", "difficulty"):
        page.locator(f"input[name={scale}]").first.check()
    here.press(words.finish)
    here.look(words.thanks)
    expect(page.get_by_label(words.code)).to_have_value("C0DE")
    session.refresh_from_db()
    assert (session.status, session.comprehension_attempts) == (SessionStatus.COMPLETED, 1)


def practise(page: Page) -> None:
    """Answer the practice image by hand, and read what comes back."""
    page.locator("#top-6").click()
    page.locator("#percentage-6").fill("70")
    page.wait_for_timeout(DOUBLE_PRESS_MS)
    page.locator("#submit").click()
    feedback = page.locator("#feedback")
    expect(feedback).to_contain_text("Most say frog")
    expect(feedback.locator("#feedback-text img")).to_have_js_property("complete", True)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.wait_for_timeout(DOUBLE_PRESS_MS)
    page.locator("#feedback-next").click()


@LANGUAGES
def test_who_fails_the_comprehension_check_twice_is_thanked_and_let_go(
    visit: Callable[..., Visit], words: Words
) -> None:
    here = visit(words, 360)
    session = here.to_comprehension()
    here.answer(0)
    here.look(words.again)
    expect(here.page.locator(".note")).to_contain_text("Whose view?")
    here.page.reload()
    here.look(words.again)
    here.answer(0)
    here.look(words.sorry)
    expect(here.page.locator("#code")).to_have_value("0UT")
    assert Session.objects.get(pk=session.pk).status == SessionStatus.SCREENED_OUT


@LANGUAGES
def test_whoever_wants_to_stop_finds_the_way_out_on_the_page(visit: Callable[..., Visit], words: Words) -> None:
    here = visit(words, 360, "dark")
    session = here.to_comprehension()
    here.page.get_by_role("link", name=words.stop).click()
    here.look(words.stop)
    here.press(words.erase)  # without the tick
    here.look(words.stop)
    expect(here.page.get_by_role("alert")).to_be_visible()
    here.page.get_by_label(words.sure).check()
    here.press(words.erase)
    here.look(words.withdrawn)
    assert Session.objects.get(pk=session.pk).status == SessionStatus.WITHDRAWN
    assert not Response.objects.exists()


def test_the_way_out_is_in_the_help_of_the_trials_and_reachable_by_keyboard(visit: Callable[..., Visit]) -> None:
    here = visit(ENGLISH)
    page = here.page
    session = here.to_comprehension()
    here.answer(1)
    expect(page.locator("#submit")).to_be_enabled()
    page.locator("#open-help").click()
    link = page.get_by_role("dialog").get_by_role("link", name="Stop taking part")
    link.focus()
    page.keyboard.press("Enter")
    here.look("Stop taking part")
    page.get_by_role("link", name="Go back").click()
    expect(page.locator("#submit")).to_be_enabled()
    assert Session.objects.get(pk=session.pk).status == SessionStatus.TRIALS


def test_going_back_in_the_browser_breaks_nothing(visit: Callable[..., Visit]) -> None:
    here = visit(ENGLISH)
    page = here.page
    session = here.to_comprehension()
    here.answer(0)
    here.look("Not quite yet")
    page.go_back()
    # Nothing old is shown again: the page is where the session stands.
    here.look("Not quite yet")
    expect(page.locator("input[name=_attempt]")).to_have_value("1")
    assert Session.objects.get(pk=session.pk).comprehension_attempts == 1


def test_the_page_can_be_switched_to_the_other_language(visit: Callable[..., Visit]) -> None:
    here = visit(ENGLISH)
    here.press("简体中文")
    expect(here.page.get_by_label(CHINESE.agree)).to_be_visible()
    assert here.page.evaluate("document.documentElement.lang") == "zh-hans"
    here.press("English")
    expect(here.page.get_by_label(ENGLISH.agree)).to_be_visible()


# --- The way back to the platform


def finish(here: Visit) -> Page:
    session = here.to_comprehension()
    here.answer(1)
    expect(here.page.locator("#submit")).to_be_enabled()
    make.answer_all(session)
    here.page.reload()
    for scale in ("clarity", "difficulty"):
        here.page.locator(f"input[name={scale}]").first.check()
    here.press(here.words.finish)
    return here.page


def test_the_last_page_goes_back_to_the_platform_by_itself(visit: Callable[..., Visit]) -> None:
    Study.objects.update(return_url=RETURN)
    here = visit(ENGLISH)
    asked: list[str] = []

    def platform(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(body="<h1>The platform</h1>", content_type="text/html")

    here.page.route("https://app.prolific.com/**", platform)
    page = finish(here)
    expect(page.locator("#return-status")).to_contain_text("seconds")
    page.locator("#return").evaluate("link => link.dataset.countdown")
    expect(page.get_by_role("heading", name="The platform")).to_be_visible(timeout=30_000)
    assert asked == [RETURN]


def test_who_would_rather_stay_stays(visit: Callable[..., Visit]) -> None:
    Study.objects.update(return_url=RETURN)
    here = visit(ENGLISH)
    page = finish(here)
    here.look("Thank you")
    here.press("Stay here")
    expect(page.locator("#return-status")).to_have_text("Go back whenever you like.")
    expect(page.locator("#return")).to_be_focused()
    page.wait_for_timeout(2500)
    expect(page.locator("#return-status")).to_have_text("Go back whenever you like.")


def test_the_progress_of_the_practice_is_its_own(visit: Callable[..., Visit], study: Study) -> None:
    here = visit(ENGLISH)
    here.to_comprehension()
    assert selectors.study_progress(study).labels == 0
    here.answer(1)
    expect(here.page.locator("#progress-text")).to_contain_text("of 4")

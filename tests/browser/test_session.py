"""A person's whole sitting in a real browser, decided by the same characters that walk over HTTP."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, Route, expect
from pytest_django.live_server_helper import LiveServer

from annotations import selectors
from annotations.models import Dataset, Response, Session, SessionStatus, Study
from annotations.services import studies
from annotations.services.images import fill_dataset
from annotations.simulation.characters import CAREFUL, Answer, answer
from elicit import archives
from elicit.archives import CIFAR10_CATEGORIES
from tests import factories as make

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("browser")]

# The screen takes a press on "next" this soon after a new image for the second half of a double press.
DOUBLE_PRESS_MS = 650


@pytest.fixture
def study() -> Study:
    """Five real images, one of them shown again."""
    archive, _ = archives.find_images("sample", Path())
    dataset = Dataset(slug="sample", name="Sample")
    fill_dataset(dataset, archive, "test", lambda done: None)
    study = make.make_study(
        dataset=dataset, launch=False, images_per_session=5, repeats_per_session=1, completion_code="C0DE"
    )
    studies.choose_images(study, range(5), make.rng())
    return studies.launch(study.pk, make.rng())


def reach_trials(page: Page, live_server: LiveServer, study: Study) -> Session:
    page.goto(f"{live_server.url}/study/{study.slug}/")
    page.get_by_label("I agree to take part").check()
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name=re.compile("^(Start|Practise)$")).click()
    # The controls are switched on when the page listens to them.
    expect(page.locator("#submit")).to_be_enabled()
    return Session.objects.latest("consented_at")


def control(page: Page, category: int, what: str) -> Locator:
    role = {"most likely": "radio", "percentage, slider": "slider", "percentage": "textbox"}.get(what, "checkbox")
    name = f"{CIFAR10_CATEGORIES[category]}: {what}"
    return page.get_by_role(role, name=name, exact=True)  # type: ignore[arg-type]


def position(page: Page) -> str:
    return page.locator("#progress-text").inner_text()


def expect_stored(page: Page, done: int, total: int) -> None:
    """The last answer leads to the questionnaire, every other to the next image."""
    if done < total:
        expect(page.locator("#progress-text")).to_have_text(f"{done} of {total} done")
    else:
        expect(page.get_by_role("heading", name="How clear")).to_be_hidden()
        expect(page.get_by_text("How clear were the instructions?")).to_be_visible()


def expect_answers(count: int) -> None:
    """The screen goes on before the server has the answer: wait until it does."""
    for _ in range(100):
        if Response.objects.count() >= count:
            break
        time.sleep(0.05)
    assert Response.objects.count() == count


def send(page: Page, press: Callable[[], None]) -> None:
    """Next; and once more where the screen asks whether the answer, or its speed, is meant."""
    page.wait_for_timeout(DOUBLE_PRESS_MS)
    before = position(page)
    press()
    asked = page.locator("#ask-again")
    gone = page.locator("#progress-text", has_not_text=before).or_(page.get_by_text("How clear were"))
    expect(asked.locator("visible=true").or_(gone).first).to_be_visible()
    if asked.is_visible():
        page.wait_for_timeout(DOUBLE_PRESS_MS)
        press()


def decide(session: Session, seed: int = 1) -> list[tuple[str, Answer]]:
    """(trial id, answer) of the careful character for each trial, in order."""
    person = np.random.default_rng(seed)
    return [
        (str(trial.pk), answer(CAREFUL, trial.image.sha256, trial.image.reference, 10, person, seed))
        for trial in selectors.open_trials(session)
    ]


def assert_stored(session: Session, said: list[tuple[str, Answer]]) -> None:
    stored = {str(r.trial_id): r.elicited for r in Response.objects.filter(trial__session=session)}
    assert stored == {trial: make.elicited(each.named, each.impossible) for trial, each in said}


def by_mouse(page: Page, said: Answer) -> None:
    """Radio buttons, tick boxes and clicks on the sliders' tracks; the arrow of the slider for the last point."""
    (top, _), *others = said.named
    control(page, top, "most likely").click()
    for category, _ in others:
        control(page, category, "plausible").click()
    for category, percentage in said.named:
        slider = control(page, category, "percentage, slider")
        box = slider.bounding_box()
        assert box is not None
        thumb = 24
        x = thumb / 2 + (box["width"] - thumb) * percentage / 100
        slider.click(position={"x": min(max(x, 1), box["width"] - 1), "y": box["height"] / 2})
        while (value := float(slider.input_value())) != percentage:
            slider.press("ArrowRight" if value < percentage else "ArrowLeft")
    for category in said.impossible:
        control(page, category, "impossible").click()
    send(page, page.get_by_role("button", name="Next").click)


def by_keys(page: Page, said: Answer, order: list[int]) -> None:
    """A digit, a percentage, the letter below for an alternative, X or a letter each for what is impossible, Enter."""
    press = page.keyboard.press
    key = dict(zip(order, zip("1234567890", "qwertyuiop", "asdfghjkl;", strict=True), strict=False))
    for rank, (category, percentage) in enumerate(said.named):
        press(key[category][min(rank, 1)])
        if percentage == 100 or (percentage and percentage % 10 == 0):
            press(str(round(percentage / 10) % 10))
        else:
            page.keyboard.type(f"{percentage:02.0f}")
    unnamed = set(order) - {category for category, _ in said.named}
    if unnamed and set(said.impossible) == unnamed:
        press("x")
    else:
        for category in said.impossible:
            press(key[category][2])
    send(page, lambda: press("Enter"))


def test_a_full_session_by_mouse_stores_what_was_said(
    no_console_errors: Page, live_server: LiveServer, study: Study
) -> None:
    page = no_console_errors
    session = reach_trials(page, live_server, study)
    said = decide(session)
    for done, (_, each) in enumerate(said, 1):
        by_mouse(page, each)
        expect_stored(page, done, len(said))
    page.locator("input[name=clarity][value='9']").check()
    page.locator("input[name=difficulty][value='3']").check()
    page.get_by_role("button", name="Finish").click()
    expect(page.get_by_label("Your completion code")).to_have_value("C0DE")
    assert_stored(session, said)
    session.refresh_from_db()
    assert session.status == SessionStatus.COMPLETED
    assert session.questionnaire == {"clarity": 9, "difficulty": 3, "remarks": ""}
    assert all(r.duration_ms >= DOUBLE_PRESS_MS for r in Response.objects.filter(trial__session=session))


def test_a_full_session_by_keyboard_alone_stores_what_was_said(
    no_console_errors: Page, live_server: LiveServer, study: Study
) -> None:
    page, press = no_console_errors, no_console_errors.keyboard.press
    page.goto(f"{live_server.url}/study/{study.slug}/")
    tab_to(page, "agree")
    press("Space")
    press("Enter")
    expect(page.get_by_role("button", name="Start")).to_be_visible()
    tab_to(page, "Start")
    press("Enter")
    expect(page.get_by_role("button", name="Next")).to_be_enabled()
    session = Session.objects.latest("consented_at")
    said = decide(session, seed=2)
    for done, (_, each) in enumerate(said, 1):
        by_keys(page, each, session.category_order)
        expect_stored(page, done, len(said))
    for scale in ("clarity", "difficulty"):
        tab_to(page, scale)
        press("Space")
    tab_to(page, "Finish")
    press("Enter")
    expect(page.get_by_label("Your completion code")).to_have_value("C0DE")
    assert_stored(session, said)


def test_a_full_session_by_touch_on_a_phone_stores_what_was_said(
    browser: Browser, live_server: LiveServer, study: Study
) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(f"{live_server.url}/study/{study.slug}/")
    page.get_by_label("I agree to take part").tap()
    page.get_by_role("button", name="Continue").tap()
    page.get_by_role("button", name="Start").tap()
    expect(page.get_by_role("button", name="Next")).to_be_enabled()
    session = Session.objects.latest("consented_at")
    trials = len(selectors.open_trials(session))
    for number in range(trials):
        top, other = number % 10, (number + 3) % 10
        page.locator(f"#name-{top}").tap()
        page.get_by_role("button", name="80 percent").tap()
        control(page, other, "plausible").tap()
        page.get_by_role("button", name="20 percent").tap()
        page.get_by_role("button", name="All others impossible").tap()
        assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")
        send(page, page.get_by_role("button", name="Next").tap)
        expect_stored(page, number + 1, trials)
    for scale in ("clarity", "difficulty"):
        page.locator(f"input[name={scale}][value='7']").tap()
    page.get_by_role("button", name="Finish").tap()
    expect(page.get_by_label("Your completion code")).to_have_value("C0DE")
    stored = Response.objects.filter(trial__session=session).order_by("trial__position")
    assert [each.named for each in stored] == [[[n % 10, 80.0], [(n + 3) % 10, 20.0]] for n in range(trials)]
    assert {each.input_device for each in stored} == {"touch"}
    assert all(len(each.impossible) == 8 for each in stored)
    context.close()


def tab_to(page: Page, what: str) -> None:
    """Press Tab until the control of this name, or button of this text, has the keyboard."""
    for _ in range(40):
        page.keyboard.press("Tab")
        focused = page.evaluate("[document.activeElement.name ?? '', document.activeElement.innerText ?? '']")
        if what in (focused[0], focused[1].strip()):
            return
    raise AssertionError(f"Tab never reaches {what}")


def test_nothing_is_pre_filled_and_a_later_control_changes_no_earlier_answer(
    no_console_errors: Page, live_server: LiveServer, study: Study
) -> None:
    page = no_console_errors
    reach_trials(page, live_server, study)
    assert page.locator("input:checked:not(#shortcuts)").count() == 0
    control(page, 3, "most likely").click()
    expect(control(page, 3, "percentage")).to_have_value("")
    expect(control(page, 3, "percentage, slider")).to_have_attribute("aria-valuetext", "not answered yet")
    control(page, 3, "percentage").fill("80")
    control(page, 5, "plausible").click()
    control(page, 5, "percentage").fill("70")
    expect(control(page, 3, "percentage")).to_have_value("80")
    expect(control(page, 3, "percentage, slider")).to_have_value("80")


Spoil = Callable[[Page], None]


def name_and_rule_out(page: Page) -> None:
    control(page, 3, "most likely").click()
    control(page, 3, "percentage").fill("80")
    control(page, 3, "impossible").click()


def second_likelier(page: Page) -> None:
    control(page, 3, "most likely").click()
    control(page, 3, "percentage").fill("30")
    control(page, 5, "plausible").click()
    control(page, 5, "percentage").fill("60")


def same_twice(page: Page) -> None:
    control(page, 3, "most likely").click()
    control(page, 3, "percentage").fill("80")
    control(page, 3, "plausible").click()


def out_of_range(page: Page) -> None:
    control(page, 3, "most likely").click()
    control(page, 3, "percentage").fill("101")


def not_a_number(page: Page) -> None:
    control(page, 3, "most likely").click()
    control(page, 3, "percentage").fill("8p")


def percentage_missing(page: Page) -> None:
    control(page, 3, "most likely").click()


def nothing_likely(page: Page) -> None:
    control(page, 3, "most likely").click()
    control(page, 3, "percentage").fill("0")


def alternative_without_percentage(page: Page) -> None:
    control(page, 3, "most likely").click()
    control(page, 3, "percentage").fill("80")
    control(page, 5, "plausible").click()


def alternative_not_a_number(page: Page) -> None:
    alternative_without_percentage(page)
    control(page, 5, "percentage").fill("p\\")


def alternative_ruled_out(page: Page) -> None:
    alternative_without_percentage(page)
    control(page, 5, "percentage").fill("10")
    control(page, 5, "impossible").click()


def everything_ruled_out(page: Page) -> None:
    for category in range(len(CIFAR10_CATEGORIES)):
        control(page, category, "impossible").click()


def everything_ruled_out_but_one_named(page: Page) -> None:
    everything_ruled_out(page)
    control(page, 3, "most likely").click()
    control(page, 3, "percentage").fill("100")


def alternative_alone(page: Page) -> None:
    control(page, 5, "plausible").click()
    control(page, 5, "percentage").fill("30")


@pytest.mark.parametrize(
    ("spoil", "row", "words"),
    [
        (name_and_rule_out, "#problem-3", "Named and impossible"),
        (second_likelier, "#problem-5", "Likelier than Cat"),
        (same_twice, "#problem-3", "Already the most likely"),
        (out_of_range, "#problem-3", "not between 0 and 100"),
        (not_a_number, "#problem-3", "not a number"),
        (percentage_missing, "#problem-3", "Say how likely"),
        (nothing_likely, "#problem-3", "more than 0"),
        (alternative_without_percentage, "#problem-5", "Say how likely"),
        (alternative_not_a_number, "#problem-5", "not a number"),
        (alternative_ruled_out, "#problem-5", "Named and impossible"),
        (everything_ruled_out, "#problem-answer", "Everything is impossible now"),
        (everything_ruled_out_but_one_named, "#problem-3", "Named and impossible"),
        (alternative_alone, "#problem-answer", "Choose the most likely category"),
        (lambda page: None, "#problem-answer", "Choose the most likely category"),
    ],
)
def test_a_contradiction_is_pointed_at_beside_its_control_and_not_sent(
    no_console_errors: Page, live_server: LiveServer, study: Study, spoil: Spoil, row: str, words: str
) -> None:
    page = no_console_errors
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method))
    reach_trials(page, live_server, study)
    spoil(page)
    page.wait_for_timeout(DOUBLE_PRESS_MS)
    page.get_by_role("button", name="Next").click()
    expect(page.locator(row)).to_contain_text(words)
    assert "PUT" not in sent
    assert Response.objects.count() == 0


def test_more_than_100_in_all_is_refused_where_the_study_forbids_it(
    no_console_errors: Page, live_server: LiveServer, study: Study
) -> None:
    Study.objects.update(sum_limit=100)
    page = no_console_errors
    reach_trials(page, live_server, study)
    control(page, 3, "most likely").click()
    control(page, 3, "percentage").fill("80")
    control(page, 5, "plausible").click()
    control(page, 5, "percentage").fill("40")
    page.wait_for_timeout(DOUBLE_PRESS_MS)
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("120 %").first).to_be_visible()
    assert Response.objects.count() == 0


def test_what_the_server_refuses_is_shown_beside_the_same_control(
    page: Page, live_server: LiveServer, study: Study
) -> None:
    reach_trials(page, live_server, study)
    # The page still follows the old rule: the server's is the one that counts.
    Study.objects.update(sum_limit=100)
    second_likelier(page)
    control(page, 3, "percentage").fill("90")
    page.wait_for_timeout(DOUBLE_PRESS_MS)
    page.get_by_role("button", name="Next").click()
    expect(page.locator("#problem-answer")).to_contain_text("100 % at most")
    assert Response.objects.count() == 0


def test_a_reload_keeps_the_place_and_the_draft(no_console_errors: Page, live_server: LiveServer, study: Study) -> None:
    page = no_console_errors
    session = reach_trials(page, live_server, study)
    said = decide(session)
    by_mouse(page, said[0][1])
    expect_stored(page, 1, len(said))
    control(page, 4, "most likely").click()
    control(page, 4, "percentage").fill("65")
    page.reload()
    expect(page.locator("#progress-text")).to_have_text(f"1 of {len(said)} done")
    expect(control(page, 4, "most likely")).to_be_checked()
    expect(control(page, 4, "percentage")).to_have_value("65")


def test_the_personal_link_goes_on_from_another_device(
    page: Page, browser: Browser, live_server: LiveServer, study: Study
) -> None:
    session = reach_trials(page, live_server, study)
    said = decide(session)
    by_mouse(page, said[0][1])
    expect_stored(page, 1, len(said))
    phone = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True)
    other = phone.new_page()
    other.goto(page.url)
    expect(other.locator("#progress-text")).to_have_text(f"1 of {len(said)} done")
    phone.close()


def test_an_answer_outlives_a_network_that_goes_and_comes(page: Page, live_server: LiveServer, study: Study) -> None:
    session = reach_trials(page, live_server, study)
    said = decide(session)
    page.route("**/api/**", lambda route: route.abort())
    by_mouse(page, said[0][1])
    # The next image is there all the same.
    expect_stored(page, 1, len(said))
    expect(page.locator("#sending")).to_contain_text("Your answers are kept here")
    assert Response.objects.count() == 0
    page.unroute("**/api/**")
    page.get_by_role("button", name="Try now").click()
    expect(page.locator("#sending")).to_be_hidden()
    expect_answers(1)


def test_an_answer_whose_acknowledgement_was_lost_is_stored_once(
    page: Page, live_server: LiveServer, study: Study
) -> None:
    session = reach_trials(page, live_server, study)
    said = decide(session)
    lost: list[str] = []

    def lose_the_first_reply(route: Route) -> None:
        if lost:
            route.continue_()
            return
        lost.append(route.request.url)
        route.fetch()
        route.abort()

    page.route("**/api/**", lose_the_first_reply)
    by_mouse(page, said[0][1])
    expect_stored(page, 1, len(said))
    expect_answers(1)
    expect(page.locator("#sending")).to_be_hidden()
    assert len(lost) == 1
    assert_stored(session, said[:1])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1366, 768), (360, 740)])
def test_every_page_is_free_of_accessibility_faults_and_fits_the_screen(
    browser: Browser, live_server: LiveServer, study: Study, scheme: str, size: tuple[int, int]
) -> None:
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    page = context.new_page()

    def look() -> None:
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    page.goto(f"{live_server.url}/")
    look()
    page.goto(f"{live_server.url}/study/{study.slug}/")
    look()
    session = reach_trials(page, live_server, study)
    look()
    assert page.evaluate("document.documentElement.scrollHeight") <= height
    second_likelier(page)
    page.wait_for_timeout(DOUBLE_PRESS_MS)
    page.get_by_role("button", name="Next").click()
    expect(page.locator("#problem-5")).to_be_visible()
    look()
    make.answer_all(session)
    page.reload()
    look()
    for scale in ("clarity", "difficulty"):
        page.locator(f"input[name={scale}]").first.check()
    page.get_by_role("button", name="Finish").click()
    expect(page.get_by_label("Your completion code")).to_have_value("C0DE")
    look()
    context.close()

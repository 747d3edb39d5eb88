"""Pages rendered once, with each reader's own words put in."""

from __future__ import annotations

from typing import Any

import pytest
from django.template.loader import render_to_string
from django.test import RequestFactory
from django.utils import translation
from django.utils.safestring import mark_safe
from pytest_django.fixtures import Settings

from annotations import shared_pages
from annotations.shared_pages import kept, render_shared

LANGUAGES = [{"code": "en", "tag": "en", "name": "English"}, {"code": "zh-hans", "tag": "zh-Hans", "name": "简体中文"}]
STUDY = {"name": "Cats & dogs", "comprehension": False}
OF_A_SESSION: dict[str, object] = {
    "here": "/session/abc/?a=1&b=2",
    "session.token": "abc",
    "personal_link": "https://labels.example/session/abc/",
}
CASES: dict[str, tuple[dict[str, Any], dict[str, object]]] = {
    "consent": (
        {"study": STUDY, "consent": {"title": "", "version": 3}, "time_estimate": "5 < 10 min", "pay_note": ""},
        {
            "consent.html": mark_safe("<p>Read <em>this</em>.</p>"),
            "fields": mark_safe('<input name="agree">'),
            "no_thanks": '/no/?said="yes"&why=<b>',
            "here": "/study/cats/",
        },
    ),
    "instructions": (
        {
            "study": STUDY,
            "languages": LANGUAGES,
            "trial_count": 3,
            "questions": 2,
            "session": {"status": "instructions"},
        },
        {"instructions_html": mark_safe("<p>Look.</p>"), "form_action": "/session/abc/instructions", **OF_A_SESSION},
    ),
    "trial": (
        {
            "study": STUDY,
            "languages": LANGUAGES,
            "session": {"status": "trials"},
            "stage": "trials",
            "framing": "self",
            "count": 12,
            "rules": {"most_named": None, "ask_impossible": True},
            "input": "slider",
            "shortcut": True,
        },
        {
            "progress.done": 0,
            "progress.total": 3,
            "progress.percent": 0,
            "note": "Choose <cat>, please",
            "image_url": "/image/1",
            "rows": mark_safe("<div>cat</div>"),
            "trial_data": mark_safe("<script>1</script>"),
            **OF_A_SESSION,
        },
    ),
}


@pytest.mark.parametrize("language", ["en", "zh-hans"])
@pytest.mark.parametrize("template", CASES)
def test_a_shared_page_is_what_its_template_gives_by_itself(template: str, language: str) -> None:
    shared, own = CASES[template]
    request = RequestFactory().get("/")
    with translation.override(language):
        ours = [render_shared(request, f"annotate/{template}.html", shared, own) for _ in range(2)]
        whole = {key: dict(value) if isinstance(value, dict) else value for key, value in shared.items()}
        for name, value in own.items():
            parent, _, last = name.rpartition(".")
            (whole.setdefault(parent, {}) if parent else whole)[last] = value
        plain = render_to_string(f"annotate/{template}.html", whole | {"csrf_token": "TOKEN"})
    for page in ours:
        assert page.replace(_token_in(page), "TOKEN") == plain
        assert shared_pages._MARK not in page


def _token_in(page: str) -> str:
    return page.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]


def test_each_reader_gets_their_own_words_and_token_and_nothing_of_the_reader_before() -> None:
    shared, own = CASES["trial"]
    first = render_shared(RequestFactory().get("/"), "annotate/trial.html", shared, own)
    other: dict[str, object] = {**own, "session.token": "xyz", "personal_link": "https://labels.example/session/xyz/"}
    del other["note"]
    second = render_shared(RequestFactory().get("/"), "annotate/trial.html", shared, other)
    assert "Choose &lt;cat&gt;, please" in first
    assert "please" not in second.partition("note-text")[2][:100]
    assert "session/abc" not in second.replace("/session/abc/?a=1&amp;b=2", "")
    assert _token_in(first) != _token_in(second)
    assert len(_token_in(second)) == 64


def test_a_page_without_a_form_gives_nobody_a_token_to_keep() -> None:
    request = RequestFactory().get("/")
    page = render_shared(
        request, "annotate/message.html", {"study": STUDY, "title": "Hello", "text": "you"}, {"here": "/"}
    )
    assert "Hello" in page
    assert "CSRF_COOKIE" not in request.META


@pytest.mark.parametrize(("developing", "times"), [(False, 1), (True, 3)])
def test_what_is_kept_is_rendered_once_and_anew_while_a_site_is_being_developed(
    developing: bool, times: int, settings: Settings
) -> None:
    settings.DEBUG = developing
    rendered = []

    @kept(2)
    def page(name: str) -> str:
        rendered.append(name)
        return f"<p>{name}</p>"

    assert [page("cat") for _ in range(3)] == ["<p>cat</p>"] * 3
    assert rendered == ["cat"] * times

"""Pictures in curators' texts, and where studies may lead their annotators."""

from __future__ import annotations

from typing import Any

import pytest

from annotations.markdown import pictures, to_html
from annotations.models import Study
from annotations.return_links import return_url_problem
from annotations.texts import picture_problems, study_html
from tests import factories as make
from tests.annotations.test_markdown import Reader


@pytest.fixture
def study(db: None) -> Study:
    return make.make_study(dataset=make.make_dataset(4), image_scale=3, launch=False)


def test_an_image_of_the_dataset_is_shown_as_the_trials_show_it(study: Study) -> None:
    html = study_html('Look: ![A *small* cat](image:3 "no title").', study)

    assert f'<img src="/image/{3:064x}-3x.png" alt="A small cat">' in html


@pytest.mark.parametrize(
    "source",
    [
        "https://evil.example/cat.png",
        "//evil.example/cat.png",
        "/static/cat.png",
        "cat.png",
        "data:image/png;base64,AAAA",
        "image:99",
        "image:-1",
        "image:1x",
        "image:99999999999999",
        "picture:" + "0" * 64,
        "picture:../../secret",
        "javascript:alert(1)",
    ],
)
def test_any_other_picture_is_its_words_alone_and_the_curator_is_told(study: Study, source: str) -> None:
    text = f"Look: ![A cat]({source})."

    parsed = Reader(study_html(text, study))

    assert "img" not in parsed.tags
    assert "A cat" in study_html(text, study)
    if ":alert" not in source and "data:" not in source:  # these are no pictures for Markdown to begin with
        assert len(picture_problems(text, study)) == 1


def test_a_good_text_has_no_problems(study: Study) -> None:
    assert picture_problems("![A cat](image:3) and [a link](https://example.org/)", study) == []


def test_without_a_study_there_are_no_pictures() -> None:
    assert to_html("![A cat](image:3)") == "<p>A cat</p>\n"
    assert pictures("![A cat](image:3)\n\n- ![B](x)") == [("image:3", "A cat"), ("x", "B")]


def test_nothing_that_an_address_is_made_of_breaks_out(study: Study) -> None:
    html = to_html("![x](image:1)", lambda source: '/image/" onerror="alert(1)')

    assert not [name for name in Reader(html).attributes if name.startswith("on")]
    assert "<img" not in to_html("![x](y)", lambda source: "//evil.example/x.png").replace('<img alt="x">', "")


# --- The link back


@pytest.mark.parametrize(
    "url",
    [
        "https://app.prolific.com/submissions/complete?cc=C0DE",
        "https://app.prolific.com:443/x",
        "https://connect.cloudresearch.com",
        "https://uni.sona-systems.com/webstudy_credit.aspx?experiment_id=1&survey_code=2#x",
    ],
)
def test_a_platforms_link_may_be_led_to(url: str) -> None:
    assert return_url_problem(url) == ""


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://app.prolific.com/",
        "//app.prolific.com/",
        "/x",
        "javascript:alert(1)//app.prolific.com",
        "https://evil.example/",
        "https://app.prolific.com.evil.example/",
        "https://evilsona-systems.com/",
        "https://sona-systems.com/",
        "https://app.prolific.com@evil.example/",
        "https://evil.example\\@app.prolific.com/",
        "https://evil.example\\.sona-systems.com/",
        "https://evil.example#.sona-systems.com",
        "https://evil.example?.sona-systems.com",
        "https://evil.example/.sona-systems.com",
        "https://app.prolific.com/\r\nSet-Cookie: x",
        "https://app.prolific.com/ x",
        " https://app.prolific.com/",
        "https://APP.prolific.com/",
        "https://app.prolific.com:8443/",
        "https://app。prolific.com/",
        "https:\\\\app.prolific.com/",
    ],
)
def test_anything_else_may_not(url: str) -> None:
    assert return_url_problem(url) != ""


def test_the_operator_says_which_hosts(settings: Any) -> None:
    settings.RETURN_HOSTS = ["panel.example.org"]

    assert return_url_problem("https://panel.example.org/back") == ""
    assert "panel.example.org" in return_url_problem("https://app.prolific.com/x")

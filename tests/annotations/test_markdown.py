from __future__ import annotations

from html.parser import HTMLParser

import pytest

from annotations.markdown import to_html


class Reader(HTMLParser):
    """The tags, attribute names and link targets of some HTML, as a browser reads them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self.links.update(value or "" for name, value in attrs if name in {"href", "src", "action"})


def test_markdown_becomes_html() -> None:
    html = to_html("# Title\n\nA **bold** word, a [link](https://example.org/).\n\n- one\n- two\n")

    assert "<h1>Title</h1>" in html
    assert "<strong>bold</strong>" in html
    assert '<a href="https://example.org/"' in html
    assert "<li>one</li>" in html


def test_tables_are_kept() -> None:
    html = to_html("| a | b |\n|---|---|\n| 1 | 2 |\n")

    assert "<table>" in html
    assert "<td>2</td>" in html


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        '<a href="#" onclick="alert(1)">press</a>',
        "[press](javascript:alert(1))",
        "[press](JaVaScRiPt:alert(1))",
        "[press](java&#115;cript:alert(1))",
        "[press](data:text/html;base64,PHNjcmlwdD4=)",
        "[press](vbscript:msgbox)",
        "<javascript:alert(1)>",
        "![x](javascript:alert(1))",
        '![x](x "onerror=alert(1)")',
        '[x](# "\\" onmouseover=\\"alert(1)")',
        "<svg/onload=alert(1)>",
        "<style>body { display: none }</style>",
        '<p style="position: fixed">over everything</p>',
        "<iframe src=https://example.org></iframe>",
        '<form action="https://example.org"><input name="password"></form>',
        "<base href=https://example.org>",
        "<meta http-equiv=refresh content=0>",
        "```\n</code></pre><script>alert(1)</script>\n```",
        "[x]: javascript:alert(1)\n\n[x]",
    ],
)
def test_nothing_that_runs_or_styles_survives(text: str) -> None:
    parsed = Reader(to_html(text))

    assert parsed.tags <= {"p", "a", "img", "pre", "code", "h1", "ul", "li", "strong", "em"}
    assert not [name for name in parsed.attributes if name.startswith("on") or name == "style"]
    assert not [link for link in parsed.links if ":" in link and not link.startswith(("https:", "mailto:"))]


def test_what_is_cut_away_leaves_the_words_around_it() -> None:
    assert "before" in to_html("before <b onclick=x>bold</b> after")
    assert "after" in to_html("before <b onclick=x>bold</b> after")


@pytest.mark.parametrize("text", ["", " ", "\0", "*" * 5000, "[" * 5000, "> " * 500])
def test_any_text_can_be_shown(text: str) -> None:
    assert isinstance(to_html(text), str)

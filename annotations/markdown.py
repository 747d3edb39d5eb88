"""Curators' Markdown to HTML that is safe to show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import nh3
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt
from markdown_it.token import Token

_renderer = MarkdownIt("commonmark", {"html": False}).enable("table")


def to_html(text: str, picture: Callable[[str], str | None] = lambda source: None) -> SafeString:
    """Render CommonMark; whatever could run or style is removed.

    `picture` gives the address, on this site, of what stands between the brackets of `![words](source)`. Where it
    gives none the words alone are shown: pages load nothing from elsewhere.
    """
    # Every visitor of a study reads the same. Where pictures are may change.
    return _without_pictures(text) if "![" not in text else _to_html(text, picture)


@lru_cache(maxsize=256)
def _without_pictures(text: str) -> SafeString:
    return _to_html(text, lambda source: None)


def _to_html(text: str, picture: Callable[[str], str | None]) -> SafeString:
    tokens = _renderer.parse(text)
    for image in _images(tokens):
        address = picture(_source(image))
        if address is None:
            image.type, image.tag, image.content = "text", "", _words(image)
        else:
            image.attrs = {"src": address, "alt": ""}  # the renderer writes the words
    html = _renderer.renderer.render(tokens, _renderer.options, {})
    return mark_safe(nh3.clean(html, attribute_filter=_own_pictures_only))  # noqa: S308 (cleaned just now)


def pictures(text: str) -> list[tuple[str, str]]:
    """(source, words) of every picture in a text, in order."""
    return [(_source(image), _words(image)) for image in _images(_renderer.parse(text))]


def _images(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        for child in token.children or []:
            if child.type == "image":
                yield child


def _source(image: Token) -> str:
    return str(image.attrs.get("src", ""))


def _words(image: Token) -> str:
    return "".join(
        child.content if child.type in {"text", "code_inline"} else " " * (child.type == "softbreak")
        for child in image.children or []
    )


def _own_pictures_only(tag: str, attribute: str, value: str) -> str | None:
    foreign = tag == "img" and attribute == "src" and (not value.startswith("/") or value.startswith("//"))
    return None if foreign else value

"""Curators' Markdown to HTML that is safe to show."""

from __future__ import annotations

import nh3
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt

_renderer = MarkdownIt("commonmark", {"html": False}).enable("table")


def to_html(text: str) -> SafeString:
    """Render CommonMark; whatever could run or style is removed."""
    return mark_safe(nh3.clean(_renderer.render(text)))  # noqa: S308 (cleaned just now)

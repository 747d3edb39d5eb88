"""Pages that many are sent, each with some words of their own: the page is rendered once, and the words put in.

What anybody's page says never becomes part of another's: the one rendering holds marks in place of such words.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Hashable, Mapping
from functools import lru_cache, wraps
from typing import Any, TypeVar

from django.conf import settings
from django.http import HttpRequest
from django.template.context_processors import csrf
from django.template.loader import render_to_string
from django.utils.html import conditional_escape
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import get_language

T = TypeVar("T")

# Drawn anew by each process: nothing that somebody wrote has it in it.
_MARK = secrets.token_hex(16)


def kept(most: int) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Keep what a function rendered, by its arguments; while a site is being developed, render anew what may have been
    edited."""

    def decorated(render: Callable[..., T]) -> Callable[..., T]:
        remembered = lru_cache(maxsize=most)(render)

        @wraps(render)
        def chosen(*args: Hashable) -> T:
            return (render if settings.DEBUG else remembered)(*args)

        return chosen

    return decorated


def render_shared(request: HttpRequest, template: str, shared: Mapping[str, Any], own: Mapping[str, Any]) -> SafeString:
    """The template in the language of the page.

    Args:
        shared: the context that many pages have in common, as JSON has it.
        own: this page's part of the context, texts and numbers. The template may print them, and ask whether they are
            there; `progress.done` is the `done` of `progress`.
    """
    own = {name: value for name, value in own.items() if value not in (None, "")} | csrf(request)
    pieces = _rendered(template, get_language(), json.dumps(shared), tuple(own))
    # Every second one is a name.
    texts = [conditional_escape(own[piece]) if place % 2 else piece for place, piece in enumerate(pieces)]
    return mark_safe("".join(texts))  # noqa: S308 (escaped by the template, or here)


@kept(512)
def _rendered(template: str, language: str | None, shared: str, own: tuple[str, ...]) -> list[str]:
    context: dict[str, Any] = json.loads(shared)
    for name in own:
        *parents, last = name.split(".")
        inner = context
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = f"{_MARK}{name}{_MARK}"
    return render_to_string(template, context).split(_MARK)

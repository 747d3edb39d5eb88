"""Static files as they are served: compressed, and each page's modules joined into one file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from whitenoise.storage import CompressedStaticFilesStorage  # type: ignore[import-untyped]

# The modules that pages name; all that they import is put into them.
ENTRIES = ("annotate/trial.js", "annotate/flush.js")

_IMPORT = re.compile(r'^import (?:(\{[^}]*\}) from )?"\./([\w-]+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?function\*? |class |const )(\w+)", re.MULTILINE)
_DOCUMENTATION = re.compile(r"^[ \t]*/\*\*.*?\*/[ \t]*\n", re.MULTILINE | re.DOTALL)
_LEFT = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)


class JoinedStaticFilesStorage(CompressedStaticFilesStorage):  # type: ignore[misc]
    """Two dozen small modules take a slow connection several round trips, one file takes one.

    The sources stay modules of their own, for readers, tests and browsers alike: only the collected copy is joined.
    """

    def post_process(self, paths: dict[str, Any], dry_run: bool = False, **options: Any) -> Iterator[Any]:
        for entry in ENTRIES:
            if entry in paths and not dry_run:
                source, _ = paths[entry]
                folder, _, name = entry.rpartition("/")

                def read(module: str, source: Any = source, folder: str = folder) -> str:
                    with source.open(f"{folder}/{module}.js") as file:
                        return str(file.read().decode())

                with self.open(entry, "wb") as file:
                    file.write(join(name.removesuffix(".js"), read).encode())
        yield from super().post_process(paths, dry_run, **options)


def join(entry: str, read: Any) -> str:
    """The text of a module with all that it imports in front of it, without documentation comments.

    `read` gives the text of a module of the same folder by its name without `.js`. Every imported module becomes a
    function that returns what it exports, so names can't collide.

    Raises:
        ValueError: a module imports or exports in another form than `import { name } from "./other.js"` and `export`
            before a function, a class or a const.
    """
    parts: dict[str, str] = {}

    def add(name: str, under: tuple[str, ...]) -> None:
        if name in under:
            raise ValueError(f"{name}.js imports itself by way of {', '.join(under)}.")
        if name in parts:
            return
        text = _DOCUMENTATION.sub("", read(name))
        for _, other in _IMPORT.findall(text):
            add(other, (*under, name))
        text = _IMPORT.sub(_take, text)
        exported = [found[1] for found in _EXPORT.findall(text)]
        text = _EXPORT.sub(r"\1\2", text)
        if left := _LEFT.search(text):
            raise ValueError(f"{name}.js can't be joined: {left[0]}")
        if under:
            text = f"const {_variable(name)} = (() => {{\n{text}return {{ {', '.join(exported)} }};\n}})();\n"
        parts[name] = text

    add(entry, ())
    return "".join(parts.values())


def _take(found: re.Match[str]) -> str:
    names, module = found.groups()
    return f"const {names.replace(' as ', ': ')} = {_variable(module)};\n" if names else ""


def _variable(module: str) -> str:
    return "$" + module.replace("-", "_")

"""The sentences of the annotator's pages and their translations: `python -m tests.translations` brings them up to date.

It adds the sentences that are new to `locale/*/LC_MESSAGES/django.po`, to be translated there by hand, takes out those
that are gone, and compiles `django.mo`. The console is in English, so that its templates are not looked at.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polib
from django.utils.translation.template import templatize

ROOT = Path(__file__).resolve().parent.parent
CATALOGUES = sorted((ROOT / "locale").glob("*/LC_MESSAGES/django.po"))
# How gettext is called, in Python under the names that the project imports it by, and in compiled templates.
PLAIN = {"gettext", "gettext_lazy", "gettext_noop", "_", "_lazy", "_noop"}
CALL = re.compile(r"\b(?:gettext|ngettext|pgettext|npgettext|_)\(")


@dataclass(frozen=True)
class Message:
    text: str
    plural: str = ""
    context: str = ""


def messages() -> dict[Message, list[str]]:
    """Every sentence, with the files that say it."""
    found: dict[Message, list[str]] = {}
    for path in [
        *sorted((ROOT / "annotations").rglob("*.py")),
        *sorted((ROOT / "frontend" / "templates" / "annotate").rglob("*.html")),
    ]:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text) if path.suffix == ".py" else _template(text, path)
        for message in _calls(tree):
            files = found.setdefault(message, [])
            if (name := path.relative_to(ROOT).as_posix()) not in files:
                files.append(name)
    return found


def _template(text: str, path: Path) -> ast.Module:
    """The calls that Django's own extraction makes of a template; the rest of its output is filling."""
    source = templatize(text, origin=str(path))
    calls = []
    for start in (match.start() for match in CALL.finditer(source)):
        for end in (match.end() for match in re.compile(r"\)").finditer(source, start)):
            try:
                calls.append(ast.parse(source[start:end], mode="eval").body)
            except SyntaxError:
                continue  # a bracket inside the sentence
            break
    return ast.Module([ast.Expr(call) for call in calls], [])


def _calls(tree: ast.Module) -> Iterator[Message]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        words = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        match node.func.id, words:
            case (name, [text]) if name in PLAIN:
                yield Message(text)
            case ("ngettext" | "ngettext_lazy", [text, plural]):
                yield Message(text, plural)
            case ("pgettext", [context, text]):
                yield Message(text, context=context)
            case ("npgettext", [context, text, plural]):
                yield Message(text, plural, context)


def entries(catalogue: Path) -> dict[Message, polib.POEntry]:
    return {
        Message(entry.msgid, entry.msgid_plural, entry.msgctxt or ""): entry
        for entry in polib.pofile(str(catalogue))
        if not entry.obsolete
    }


def update(catalogue: Path) -> int:
    """Bring one catalogue up to date; returns how many sentences still wait for a translation."""
    known = entries(catalogue)
    said = messages()
    file = polib.pofile(str(catalogue), wrapwidth=120)
    file.clear()
    for message, files in said.items():
        entry = known.get(message) or polib.POEntry(
            msgid=message.text,
            msgid_plural=message.plural,
            msgctxt=message.context or None,
            msgstr_plural={0: ""} if message.plural else {},
        )
        entry.occurrences = [(name, "") for name in files]
        entry.flags = ["python-brace-format"] if re.search(r"\{\w+\}", message.text) else entry.flags
        entry.flags = ["python-format"] if re.search(r"%\(\w+\)s", message.text) else entry.flags
        file.append(entry)
    file.save(str(catalogue))
    file.save_as_mofile(str(catalogue.with_suffix(".mo")))
    return len(file.untranslated_entries())


if __name__ == "__main__":
    for each in CATALOGUES:
        sys.stdout.write(f"{each.relative_to(ROOT)}: {update(each)} to translate\n")

"""The sentences of refused answers in the page's language. `elicit.labels`, which refuses, knows of no languages."""

from __future__ import annotations

from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_noop as _noop

from elicit.labels import AnswerRules
from elicit.labels.elicited import Contradiction

SENTENCES = {
    "nothing_answered": _noop("Name the category that is most likely."),
    "unknown_category": _noop("Choose one of the categories."),
    "unknown_impossible": _noop("An impossible category is not in the list."),
    "category_named_twice": _noop("This category is already named above."),
    "named_and_impossible": _noop("This category is named as likely and marked as impossible."),
    "percentage_missing": _noop("Say how likely this category is."),
    "percentage_not_a_number": _noop("The percentage has to be a number."),
    "percentage_out_of_range": _noop("The percentage has to lie between 0 and 100."),
    "alternative_likelier": _noop("This is given as likelier than the category above it: put the likelier one first."),
    "nothing_likely": _noop("The most likely category needs more than 0 %."),
    "sum_over_limit": _noop("The percentages may add up to {limit} % at most."),
    "impossible_not_asked": _noop("This study does not ask for impossible categories."),
}


def in_words(error: Contradiction, rules: AnswerRules) -> Contradiction:
    """The same contradiction, told in the active language."""
    fields = {where: _sentence(code, where, rules) for where, code in error.codes.items()}
    return Contradiction(error.code, " ".join(dict.fromkeys(fields.values())), fields, error.codes)


def _sentence(code: str, where: str, rules: AnswerRules) -> str:
    if code == "too_many_named":
        most = min(rules.most_named or rules.categories, rules.categories)
        return ngettext("Name {most} category at most.", "Name {most} categories at most.", most).format(most=most)
    if code == "unknown_category" and where == "impossible":
        code = "unknown_impossible"
    limit = "" if rules.sum_limit is None else f"{rules.sum_limit:g}"
    return gettext(SENTENCES[code]).format(limit=limit)

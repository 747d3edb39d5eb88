"""Images whose answer is known: what keeps a study's from being used."""

from __future__ import annotations

from functools import cache

from annotations.models import CheckItem, CheckKind, Study
from annotations.statements import Statement


def check_items(study: Study) -> list[CheckItem]:
    """In the order made, each with its image."""
    return list(study.check_items.select_related("image").order_by("pk"))


def checks_to_show(study: Study) -> list[CheckItem]:
    """As `check_items`, with no more than what a session's trials are laid out by."""
    return [found["check_item"] for found, _ in _to_show().all(study.pk)]


@cache
def _to_show() -> Statement:
    return Statement(
        "SELECT {columns} FROM {check_item} WHERE check_item.study_id = %s ORDER BY check_item.id",
        tables={"check_item": CheckItem},
        columns="check_item.id check_item.image check_item.kind",
        parameters="check_item.study",
    )


def check_problems(study: Study) -> list[str]:
    """What keeps a draft with these check items from being launched, in words; empty when nothing does."""
    items = check_items(study)
    own = set(study.study_images.filter(image__in=[item.image_id for item in items]).values_list("image_id", flat=True))
    practised = {item["image"] for item in study.practice}
    categories = study.dataset.categories.count()
    problems = []
    for item in items:
        where = f"Check image {item.image.index}"
        if item.image.dataset_id != study.dataset_id:
            problems.append(f"{where}: it belongs to another dataset.")
        elif item.image_id in own:
            problems.append(f"{where}: it is one of the study’s own, so its answers would be judged and released.")
        elif item.image.index in practised:
            problems.append(f"{where}: it is one of the practice’s, so everybody has been told of it.")
        elif problem := item_problem(item, categories):
            problems.append(f"{where}: {problem}")
    return problems


def item_problem(item: CheckItem, categories: int) -> str:
    """What is wrong with an item itself, on so many categories; empty where nothing is."""
    if bool(item.allowed) == bool(item.target):
        return "it needs either the categories that pass or a target, not both."
    if item.allowed and not all(0 <= category < categories for category in item.allowed):
        return "it allows a category that the dataset lacks."
    if item.target and (len(item.target) != categories or abs(sum(item.target) - 1) > 1e-6):
        return "its target does not give every category a share of 1."
    if item.target and item.tolerance is None:
        return "its target needs a tolerance."
    if item.kind == CheckKind.ATTENTION and not item.note:
        return "an attention check says what to answer."
    return ""

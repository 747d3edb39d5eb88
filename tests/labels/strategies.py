"""Hypothesis strategies for answers that break no rule."""

from __future__ import annotations

from hypothesis import strategies as st

from elicit.labels import AnswerRules, Depth, Elicited, LabelVariety, Redistribution, check


@st.composite
def answers(draw: st.DrawFn, categories: int) -> Elicited:
    """Any answer on ``categories`` classes that ``check`` lets pass."""
    order = draw(st.permutations(range(categories)))
    count = draw(st.integers(1, categories))
    whole = st.integers(0, 100).map(float)
    percentages = draw(st.lists(whole | st.floats(0, 100), min_size=count, max_size=count))
    percentages.sort(reverse=True)
    percentages[0] = max(percentages[0], 1e-6)
    impossible = draw(st.sets(st.sampled_from(order[count:]))) if count < categories else set()
    named = list(zip(order[:count], percentages, strict=True))
    return check(named, impossible, AnswerRules(categories))


@st.composite
def answer_lists(draw: st.DrawFn) -> tuple[list[Elicited], int]:
    """Some answers on the same classes, and how many classes those are."""
    categories = draw(st.integers(2, 12))
    return draw(st.lists(answers(categories), min_size=1, max_size=5)), categories


def varieties() -> st.SearchStrategy[LabelVariety]:
    """Any label variety."""
    return st.builds(
        LabelVariety,
        st.sampled_from(Depth),
        st.sampled_from(Redistribution),
        st.floats(0, 1, exclude_max=True),
        st.just(1.0) | st.floats(0, 1),
    )

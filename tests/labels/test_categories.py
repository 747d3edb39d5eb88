from __future__ import annotations

import pickle

import pytest

from elicit.labels import CategorySet, Contradiction, Refusal


def test_it_maps_names_to_places_and_back() -> None:
    categories = CategorySet(("Bird", "Cat", "Dog"))
    assert len(categories) == 3
    assert categories.index("Cat") == 1
    assert categories.name(2) == "Dog"
    assert list(categories) == ["Bird", "Cat", "Dog"]


@pytest.mark.parametrize(
    ("names", "code"),
    [
        ((), "categories_too_few"),
        (("Cat",), "categories_too_few"),
        (("Cat", "Dog", "Cat"), "category_name_repeated"),
        (("Cat", ""), "category_name_invalid"),
        (("Cat", " Dog"), "category_name_invalid"),
        (("Cat", "Dog\n"), "category_name_invalid"),
        (("Cat", "Do\x00g"), "category_name_invalid"),
    ],
)
def test_it_refuses_a_set_that_is_none(names: tuple[str, ...], code: str) -> None:
    with pytest.raises(Refusal) as caught:
        CategorySet(names)
    assert caught.value.code == code


def test_it_refuses_names_and_places_that_are_not_in_the_set() -> None:
    categories = CategorySet(("Bird", "Cat"))
    for ask in (
        lambda: categories.index("Dog"),
        lambda: categories.name(2),
        lambda: categories.name(-1),
    ):
        with pytest.raises(Refusal) as caught:
            ask()
        assert caught.value.code == "unknown_category"


def test_a_refusal_reads_as_its_message() -> None:
    refusal = Refusal("too_late", "The study is closed.", {"study": "Closed."})
    assert str(refusal) == refusal.message == "The study is closed."
    assert (refusal.code, refusal.fields) == ("too_late", {"study": "Closed."})
    assert Refusal("too_late", "The study is closed.").fields == {}


def test_a_refusal_travels_between_processes() -> None:
    refusal = pickle.loads(pickle.dumps(Refusal("too_late", "Closed.", {"study": "Closed."})))  # noqa: S301
    assert (refusal.code, refusal.message, refusal.fields) == ("too_late", "Closed.", {"study": "Closed."})
    contradiction = pickle.loads(pickle.dumps(Contradiction("a", "A.", {"f": "A."}, {"f": "a"})))  # noqa: S301
    assert (contradiction.code, contradiction.codes) == ("a", {"f": "a"})

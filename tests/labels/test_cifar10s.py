"""The published files: what the raw rows say, what was repaired by hand, and the published labels' quirks."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from elicit.labels import Answers, Contradiction, Depth, Elicited, LabelVariety, Redistribution, Refusal, cifar10s
from elicit.labels.cifar10s import CATEGORIES, Answer

HEADER = ["", "trial_type", "trial_index", "subject", "condition", "rt", "response", "task", "img_id"]
AIRPLANE, AUTOMOBILE, BIRD, CAT, DEER, DOG = range(6)


def form(
    first: str = "Cat", prob: str = "70", second: str = "No", prob2: str = "", impossible: tuple[str, ...] = ()
) -> dict[str, str]:
    """What the published page sends."""
    return {
        "classSelect": f"mostProb{first}",
        "prob": prob,
        "classSelect2": f"secondProb{second}",
        "prob2": prob2,
        **{f"improbClassSelect{name}": "1" for name in impossible},
    }


def row(said: dict[str, str] | str, **changes: str) -> dict[str, str]:
    usual = {
        "": "40",
        "trial_type": "survey-html-form",
        "trial_index": "6",
        "subject": "someone",
        "condition": "8",
        "rt": "1500.5",
        "task": "spec_conf",
        "img_id": "17.0",
        "response": said if isinstance(said, str) else json.dumps(said),
    }
    return usual | changes


def raw_file(folder: Path, *rows: dict[str, str]) -> Path:
    path = folder / "raw.csv"
    with path.open("w", encoding="utf-8", newline="") as out:
        table = csv.DictWriter(out, HEADER)
        table.writeheader()
        table.writerows(rows)
    return path


def read_one(folder: Path, **said: Any) -> tuple[Answer, list[cifar10s.Repair]]:
    (response,), repairs = cifar10s.read_raw(raw_file(folder, row(form(**said))))
    return response.answer, repairs


# The raw file


def test_a_row_becomes_a_response(tmp_path: Path) -> None:
    said = form("Cat", "70", "Dog", "20", ("Ship", "Truck"))
    instructions = row("", trial_type="instructions", task="", img_id="", rt="")
    again = row(said, task="rerun_spec_conf", trial_index="31")
    (first, second), repairs = cifar10s.read_raw(raw_file(tmp_path, instructions, row(said), again))
    assert first.answer == Answer(CAT, 70.0, DOG, 20.0, (8, 9))
    assert (first.row, first.subject, first.batch, first.image, first.position) == (2, "someone", 8, 17, 6)
    assert first.milliseconds == 1500.5
    assert [first.repeat, second.repeat] == [False, True]
    assert repairs == []


def test_what_the_log_does_not_say_is_none(tmp_path: Path) -> None:
    (response,), _ = cifar10s.read_raw(raw_file(tmp_path, row(form(), condition="", trial_index="", rt=" ")))
    assert (response.batch, response.position, response.milliseconds) == (None, None, None)


@pytest.mark.parametrize(("typed", "read"), [("8p", 80), ("0", 100), ("0.0", 100), ("00", 100)])
def test_repairs_made_by_hand_are_made_and_listed(tmp_path: Path, typed: str, read: int) -> None:
    answer, (repair,) = read_one(tmp_path, prob=typed)
    assert answer.first_percentage == read
    assert isinstance(answer.first_percentage, int)
    assert (repair.where, repair.image, repair.annotator) == ("row 1", 17, "someone")
    assert (repair.before, repair.after) == (typed, str(read))
    assert repair.what == ("percentage_typed_wrong" if typed == "8p" else "nothing_likely")
    assert repair.why


@pytest.mark.parametrize(
    ("second", "prob2", "expected"),
    [
        ("No", "", (None, None)),
        ("No", "0", (None, None)),
        ("No", "100", (None, None)),
        ("No", "p\\\\\\", (None, None)),
        ("No Alternative", "30", (None, None)),
        ("Dog", "", (DOG, None)),
        ("Dog", "0", (DOG, 0.0)),
        ("Dog", "05", (DOG, 5.0)),
        ("Cat", "40", (CAT, 40.0)),
    ],
)
def test_the_second_class_is_read_as_published(
    tmp_path: Path, second: str, prob2: str, expected: tuple[int | None, float | None]
) -> None:
    answer, repairs = read_one(tmp_path, second=second, prob2=prob2)
    assert (answer.second, answer.second_percentage) == expected
    assert repairs == []


def test_a_blank_before_the_number_is_no_repair(tmp_path: Path) -> None:
    answer, repairs = read_one(tmp_path, prob=" 80")
    assert answer.first_percentage == 80.0
    assert isinstance(answer.first_percentage, float)
    assert repairs == []


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (row("{"), "Row 1 can't be read: response is no JSON"),
        (row('["Cat"]'), "not a form"),
        (row(form("Cow")), "no category named 'Cow'"),
        (row(form(prob="")), "'' is no percentage"),
        (row(form(prob="nan")), "'nan' is no percentage"),
        (row(form(prob="9p")), "'9p' is no percentage"),
        (row(form(second="Dog", prob2="p")), "'p' is no percentage"),
        (row(form(), img_id="x"), "img_id is 'x', not a number"),
        (row(form(), img_id="1.5"), "img_id is '1.5', not a count"),
        (row({"prob": "1"}), "classSelect"),
    ],
)
def test_a_row_that_can_not_be_read_is_refused_by_number(tmp_path: Path, bad: dict[str, str], match: str) -> None:
    with pytest.raises(Refusal, match=match) as caught:
        cifar10s.read_raw(raw_file(tmp_path, bad))
    assert caught.value.code == "raw_answer_unreadable"


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", ",".join(HEADER) + "\n"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "raw.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(Refusal) as caught:
        cifar10s.read_raw(path)
    assert caught.value.code == "raw_file_unreadable"


def entered_twice(folder: Path) -> Path:
    once = [
        row(form("Cat", "70"), img_id="1", trial_index="6"),
        row(form("Dog", "60"), img_id="2", trial_index="7"),
        row(form("Cat", "80"), img_id="1", trial_index="8", task="rerun_spec_conf"),
    ]
    other = [row(form("Deer", "50"), subject="another", img_id="1")]
    return raw_file(folder, *once, *other, *once)


def test_repeats_and_a_file_entered_twice_stay_in_the_published_answers(tmp_path: Path) -> None:
    responses, _ = cifar10s.read_raw(entered_twice(tmp_path))
    answers = cifar10s.answers_of(responses)
    assert {image: len(entries) for image, entries in answers.items()} == {1: 5, 2: 2}


def test_first_answers_leave_out_repeats_and_what_was_entered_twice(tmp_path: Path) -> None:
    responses, _ = cifar10s.read_raw(entered_twice(tmp_path))
    kept, twice = cifar10s.first_answers(responses)
    assert [(response.row, response.subject) for response in kept] == [(1, "someone"), (2, "someone"), (4, "another")]
    assert [(repair.where, repair.what, repair.after) for repair in twice] == [
        ("row 5", "entered_twice", "row 1"),
        ("row 6", "entered_twice", "row 2"),
        ("row 7", "entered_twice", "row 3"),
    ]


def test_a_retest_pair_counts_once_and_as_published_twice_where_the_file_is_there_twice(tmp_path: Path) -> None:
    responses, _ = cifar10s.read_raw(entered_twice(tmp_path))
    assert [(a.row, b.row) for a, b in cifar10s.retest_pairs(responses)] == [(1, 3)]
    assert [(a.row, b.row) for a, b in cifar10s.retest_pairs(responses, published=True)] == [(1, 3), (1, 3)]


# The JSON layouts


def test_answers_come_back_as_they_were_written(tmp_path: Path) -> None:
    answers = {
        4108: [Answer(CAT, 100, None, None, ()), Answer(CAT, 70.5, DOG, None, (9, 0))],
        7: [Answer(DOG, 60.0, CAT, 0.0, (CAT,))],
    }
    path = tmp_path / "answers.json"
    cifar10s.write_answers(path, answers)
    assert cifar10s.read_answers(path) == answers
    entry = json.loads(path.read_text(encoding="utf-8"))["4108"][0]
    assert entry == {
        "Most Probable Class": "Cat",
        "Most Probable Class Prob": 100,
        "Second Most Probable Class": "No",
        "Second Most Probable Class Prob": None,
        "Impossible Class(es)": [],
    }
    assert isinstance(entry["Most Probable Class Prob"], int)


GOOD = {
    "Most Probable Class": "Cat",
    "Most Probable Class Prob": 70.0,
    "Second Most Probable Class": "No",
    "Second Most Probable Class Prob": None,
    "Impossible Class(es)": [],
}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "can't be read"),
        ("[]", "no object of images"),
        ('{"x": []}', "'x' is no number of an image"),
        ('{"1": [], "1": []}', "there twice"),
        ('{"1": {}}', "no list"),
        ('{"1": [3]}', "image 1, entry 1 can't be read: it is no object"),
        (json.dumps({"1": [GOOD, {"Most Probable Class": "Cat"}]}), "image 1, entry 2 .* lacks"),
        (json.dumps({"1": [GOOD | {"Most Probable Class": "Cow"}]}), "no category named 'Cow'"),
        (json.dumps({"1": [GOOD | {"Most Probable Class": None}]}), "no category named None"),
        (json.dumps({"1": [GOOD | {"Most Probable Class Prob": "70"}]}), "'70' is no percentage"),
        (json.dumps({"1": [GOOD | {"Most Probable Class Prob": math.nan}]}), "nan is no percentage"),
        (json.dumps({"1": [GOOD | {"Impossible Class(es)": "Cat"}]}), "no list"),
    ],
)
def test_an_answers_file_that_can_not_be_read_is_refused(tmp_path: Path, content: str, match: str) -> None:
    path = tmp_path / "answers.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(Refusal, match=match) as caught:
        cifar10s.read_answers(path)
    assert caught.value.code == "answers_unreadable"


def test_labels_come_back_bit_for_bit(tmp_path: Path) -> None:
    labels = np.random.default_rng(3).dirichlet(np.ones(10), size=50)
    images = np.repeat(np.arange(10, 0, -1), 5)
    cifar10s.write_labels(tmp_path / "labels.json", images, labels)
    read_images, read = cifar10s.read_labels(tmp_path / "labels.json")
    assert (read == labels).all()
    assert read_images.tolist() == images.tolist()
    assert list(tmp_path.iterdir()) == [tmp_path / "labels.json"]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{}", "no label"),
        ('{"1": [[0.5, 0.5], [1.0]]}', "image 1, entry 2"),
        ('{"1": [[0.5, "0.5"]]}', "image 1, entry 1"),
        ('{"1": [[0.5, 0.6]]}', "does not sum to 1"),
        ('{"1": [[NaN, 1.0]]}', "nan"),
    ],
)
def test_a_labels_file_that_can_not_be_read_is_refused(tmp_path: Path, content: str, match: str) -> None:
    path = tmp_path / "labels.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(Refusal, match=match) as caught:
        cifar10s.read_labels(path)
    assert caught.value.code == "labels_unreadable"


def test_labels_that_no_file_can_hold_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nan"):
        cifar10s.write_labels(tmp_path / "labels.json", [1], [[math.nan, 1.0]])
    with pytest.raises(ValueError, match="must be"):
        cifar10s.write_labels(tmp_path / "labels.json", [1, 2], [[0.5, 0.5]])
    assert list(tmp_path.iterdir()) == []


# The published labels


def published(answer: Answer, slug: str = "t2-clamp") -> list[float]:
    label: list[float] = cifar10s.published_labels([answer], LabelVariety.from_slug(slug))[0].tolist()
    return label


def others(named: dict[int, float], share: float, *receivers: int) -> list[float]:
    return [named.get(index, share if index in receivers else 0.0) for index in range(10)]


ALL = tuple(range(10))
BUT_TWO = ALL[2:]


@pytest.mark.parametrize(
    ("answer", "slug", "expected"),
    [
        # 70 + 20: .1 over the four classes that are neither named nor impossible.
        (Answer(CAT, 70, DOG, 20, (0, 1, 8, 9)), "t2-clamp", others({CAT: 0.7, DOG: 0.2}, 0.025, 2, 4, 6, 7)),
        # The second class is the first again: 40 replaces 60. Of nine free classes each gets .6 / 9.
        (Answer(CAT, 60, CAT, 40, ()), "t2-clamp", others({CAT: 0.4}, 0.6 / 9, 0, 1, 2, 4, 5, 6, 7, 8, 9)),
        # ... and with 100 and then 0 nothing is left: all ten classes share.
        (Answer(CAT, 100, CAT, 0.0, ()), "t2-clamp", [0.1] * 10),
        # A second class without a percentage, or of 0 %, is as good as unnamed.
        (Answer(CAT, 60, DOG, None, (2, 4, 6, 7, 8, 9)), "t2-clamp", others({CAT: 0.6}, 0.4 / 3, 0, 1, DOG)),
        # The named cat is impossible too: two classes are possible, one is thought free, so each gets all of .1
        # where both should share it: (.9, .1, .1) / 1.1.
        (Answer(CAT, 90, None, None, BUT_TWO), "t2-clamp", others({CAT: 0.9 / 1.1}, 0.1 / 1.1, 0, 1)),
        # One class is possible, one named: none is thought free, and .1 goes back to the cat.
        (Answer(CAT, 90, None, None, ALL[1:]), "t2-clamp", others({CAT: 1.0}, 0.0)),
        # All ten impossible, full: thought free is -1; gamma is taken and given back by the last division.
        (Answer(CAT, 100, None, None, ALL), "t2-clamp", others({CAT: 1.0}, 0.0)),
        # Both named classes impossible, one possible: thought free is -1, which takes -.1 to the airplane.
        (Answer(CAT, 50, DOG, 50, ALL[1:]), "t2-clamp", others({CAT: 0.45 / 0.8, DOG: 0.45 / 0.8}, -0.1 / 0.8, 0)),
        # Likelier alternative: taken as it stands. 30 + 90 = 120.
        (Answer(CAT, 30, DOG, 90, ()), "t2-uniform", others({CAT: 0.25, DOG: 0.75}, 0.0)),
        (Answer(CAT, 30, DOG, 90, ()), "t1-uniform", others({CAT: 0.3}, 0.7 / 9, *(set(ALL) - {CAT}))),
        (Answer(CAT, 30, DOG, 30, ()), "t2-none", others({CAT: 0.5, DOG: 0.5}, 0.0)),
    ],
)
def test_the_quirks_worked_by_hand(answer: Answer, slug: str, expected: list[float]) -> None:
    assert published(answer, slug) == pytest.approx(expected, abs=1e-12)


def test_where_the_published_code_divides_by_nothing_the_label_is_nan() -> None:
    assert np.isnan(published(Answer(CAT, 100, CAT, 0.0, ()), "t2-none")).all()


def one_by_one(answer: Answer, variety: LabelVariety) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The published rule for one answer, in steps and in numpy's order of adding."""
    label = np.zeros(10)
    label[answer.first] = answer.first_percentage
    if variety.depth is Depth.T2 and answer.second is not None and answer.second_percentage is not None:
        label[answer.second] = answer.second_percentage
    label = label / 100
    possible = set(range(10)) - set(answer.impossible)
    clamp = variety.redistribution is Redistribution.CLAMP
    total = np.sum(label)
    keep: Any = 1.0
    if total < 1:
        given: Any = 1 - total
    else:
        label = label / total
        believed_free = len(possible) - int((label > 0).sum())
        given = variety.gamma if clamp and believed_free != 0 else 0.0
        keep = 1 - given
    believed_free = len(possible) - int((label > 0).sum())
    if clamp and believed_free != 0:
        for category in range(10):
            if label[category] != 0:
                label[category] *= keep
            elif category in possible:
                label[category] = given / believed_free
    if variety.redistribution is Redistribution.UNIFORM and not (label > 0).all():
        label[label == 0] = given / (10 - int((label > 0).sum()))
    with np.errstate(invalid="ignore"):
        return np.asarray(label / np.sum(label))


percentages = st.integers(0, 100).map(float) | st.floats(0, 100) | st.sampled_from([33.3, 66.7, 100, 80])
published_answers = st.builds(
    Answer,
    st.integers(0, 9),
    percentages.filter(lambda value: value == 0 or value > 1e-6),
    st.none() | st.integers(0, 9),
    st.none() | percentages.filter(lambda value: value == 0 or value > 1e-6),
    st.sets(st.integers(0, 9)).map(tuple),
)


@given(
    st.lists(published_answers, min_size=1, max_size=20),
    st.sampled_from([Depth.T1, Depth.T2]),
    st.sampled_from(Redistribution),
    st.floats(0, 0.5),
)
@settings(max_examples=300)
def test_many_published_labels_equal_one_at_a_time_bit_for_bit(
    answers: list[Answer], depth: Depth, redistribution: Redistribution, gamma: float
) -> None:
    variety = LabelVariety(depth, redistribution, gamma)
    alone = np.stack([one_by_one(answer, variety) for answer in answers])
    assert np.array_equal(cifar10s.published_labels(answers, variety), alone, equal_nan=True)


def test_varieties_that_were_never_published_are_refused() -> None:
    for variety in (LabelVariety(Depth.TALL), LabelVariety(spread=0.5)):
        with pytest.raises(Refusal) as caught:
            cifar10s.published_labels([], variety)
        assert caught.value.code == "not_published"


def test_two_votes_share_and_as_published_lose_half_where_both_are_the_same() -> None:
    answers = [Answer(CAT, 90, None, None, ()), Answer(CAT, 90, DOG, None, ()), Answer(CAT, 90, CAT, 50, ())]
    assert cifar10s.two_votes(answers)[:, [CAT, DOG]].tolist() == [[1, 0], [0.5, 0.5], [1, 0]]
    assert cifar10s.two_votes(answers, published=True)[:, [CAT, DOG]].tolist() == [[1, 0], [0.5, 0.5], [0.5, 0]]


# Contradictions, mended or refused


@pytest.mark.parametrize(
    ("answer", "expected", "whats"),
    [
        (Answer(CAT, 70, DOG, 20, (8,)), Elicited(((CAT, 70), (DOG, 20)), frozenset({8})), []),
        (Answer(CAT, 60, CAT, 40, ()), Elicited(((CAT, 60),), frozenset()), ["category_named_twice"]),
        (Answer(CAT, 60, CAT, None, ()), Elicited(((CAT, 60),), frozenset()), ["category_named_twice"]),
        (Answer(CAT, 0, CAT, 40, ()), Elicited(((CAT, 40),), frozenset()), ["category_named_twice"]),
        (Answer(CAT, 60, DOG, None, ()), Elicited(((CAT, 60),), frozenset()), ["percentage_missing"]),
        (Answer(CAT, 0, None, None, ()), Elicited(((CAT, 100),), frozenset()), ["nothing_likely"]),
        (Answer(CAT, 0, DOG, 0, ()), Elicited(((CAT, 100),), frozenset()), ["nothing_likely"]),
        (Answer(CAT, 30, DOG, 60, ()), Elicited(((DOG, 60), (CAT, 30)), frozenset()), ["alternative_likelier"]),
        (Answer(CAT, 60, None, None, (CAT, 8)), Elicited(((CAT, 60),), frozenset({8})), ["named_and_impossible"]),
        (Answer(CAT, 60, DOG, 0, (DOG,)), Elicited(((CAT, 60),), frozenset({DOG})), ["named_and_impossible"]),
        (
            Answer(CAT, 20, DOG, 70, (CAT, DOG)),
            Elicited(((DOG, 70), (CAT, 20)), frozenset()),
            ["alternative_likelier", "named_and_impossible"],
        ),
    ],
)
def test_contradictions_are_mended_by_rule_and_listed(answer: Answer, expected: Elicited, whats: list[str]) -> None:
    mended, repairs = cifar10s.repaired({17: [Answer(DEER, 100, None, None, ()), answer]})
    assert mended == {17: [Elicited(((DEER, 100),), frozenset()), expected]}
    assert [repair.what for repair in repairs] == whats
    assert all((repair.where, repair.image) == ("image 17, entry 2", 17) for repair in repairs)
    assert all(repair.before != repair.after and repair.why for repair in repairs)


@given(published_answers)
def test_every_answer_within_range_can_be_mended(answer: Answer) -> None:
    mended, _ = cifar10s.repaired({1: [answer]})
    assert mended == cifar10s.repaired({1: [answer]})[0]
    again, changes = cifar10s.repaired({1: [as_answer(mended[1][0])]})
    assert again == mended
    assert changes == []


def as_answer(said: Elicited) -> Answer:
    (first, percentage), *rest = said.named
    second = rest[0] if rest else (None, None)
    return Answer(first, percentage, second[0], second[1], tuple(said.impossible))


@pytest.mark.parametrize("percentage", [101.0, -1.0])
def test_a_percentage_out_of_range_has_no_repair(percentage: float) -> None:
    with pytest.raises(Contradiction, match="image 17, entry 1") as caught:
        cifar10s.repaired({17: [Answer(CAT, percentage, None, None, ())]})
    assert caught.value.codes == {"17.1.named.0.percentage": "percentage_out_of_range"}


def test_strict_refuses_the_whole_file_with_the_codes_of_check() -> None:
    answers = {
        5: [Answer(CAT, 70, DOG, 20, ()), Answer(CAT, 70, CAT, 20, (9,))],
        6: [Answer(CAT, 30, DOG, 60, (DOG,)), Answer(CAT, 60, DOG, None, ())],
    }
    with pytest.raises(Contradiction, match=r"3 answers contradict themselves, first image 5, entry 2") as caught:
        cifar10s.strict(answers)
    assert caught.value.code == "category_named_twice"
    assert caught.value.codes == {
        "5.2.named.1.category": "category_named_twice",
        "6.1.named.1.percentage": "alternative_likelier",
        "6.1.impossible.5": "named_and_impossible",
        "6.2.named.1.percentage": "percentage_missing",
    }


def test_strict_lets_sound_answers_pass() -> None:
    assert cifar10s.strict({5: [Answer(CAT, 70, DOG, 20, (9,))]}) == {
        5: [Elicited(((CAT, 70), (DOG, 20)), frozenset({9}))]
    }


def test_repairs_are_written_as_rows(tmp_path: Path) -> None:
    repair = cifar10s.Repair("row 3", 17, "someone", "what", "why, of course", "a", "b")
    cifar10s.write_repairs(tmp_path / "repairs.csv", [repair])
    assert (tmp_path / "repairs.csv").read_text(encoding="utf-8") == (
        'where,image,annotator,what,why,before,after\nrow 3,17,someone,what,"why, of course",a,b\n'
    )


# The published files themselves


def entries_of(path: Path) -> dict[str, Counter[str]]:
    """Each image's entries, in one spelling and in no order."""
    content = json.loads(path.read_text(encoding="utf-8"))
    spelled: dict[str, Counter[str]] = {}
    for image, entries in content.items():
        sorted_entries = [entry | {cifar10s.IMPOSSIBLE: sorted(entry[cifar10s.IMPOSSIBLE])} for entry in entries]
        spelled[image] = Counter(json.dumps(entry, sort_keys=True) for entry in sorted_entries)
    return spelled


def test_the_raw_file_gives_the_published_answers(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "cifar10s"
    responses, repairs = cifar10s.read_raw(folder / "raw_human_data_even_batches.csv")
    cifar10s.write_answers(tmp_path / "answers.json", cifar10s.answers_of(responses))
    ours = entries_of(tmp_path / "answers.json")
    assert ours == entries_of(folder / "human_soft_labels_even_batches.json")
    assert len(ours) == 500
    assert Counter(repair.what for repair in repairs) == {"nothing_likely": 4, "percentage_typed_wrong": 1}


def test_the_published_answers_give_the_published_labels_bit_for_bit(shared_data: Path) -> None:
    folder = shared_data / "cifar10s"
    theirs = json.loads((folder / "t2clamp_redist10_even_batches.json").read_text(encoding="utf-8"))
    answers = cifar10s.read_answers(folder / "human_soft_labels_even_batches.json")
    assert len(answers) == 500
    for image, entries in answers.items():
        ours = Counter(map(tuple, cifar10s.published_labels(entries).tolist()))
        assert ours == Counter(map(tuple, theirs[str(image)])), image


def test_sound_published_answers_need_no_repair(shared_data: Path) -> None:
    answers = cifar10s.read_answers(shared_data / "cifar10s" / "human_soft_labels_even_batches.json")
    _, repairs = cifar10s.repaired(answers)
    with pytest.raises(Contradiction, match="79 answers"):
        cifar10s.strict(answers)
    assert len({repair.where for repair in repairs}) == 79


def test_the_categories_are_those_of_the_dataset() -> None:
    assert CATEGORIES.names[AUTOMOBILE] == "Automobile"
    assert CATEGORIES.names[BIRD] == "Bird"
    assert CATEGORIES.names[AIRPLANE] == "Airplane"


@given(published_answers, st.sampled_from([Depth.T1, Depth.T2]), st.sampled_from(Redistribution))
def test_answers_without_contradiction_get_the_same_label_either_way(
    answer: Answer, depth: Depth, redistribution: Redistribution
) -> None:
    (said,) = cifar10s.repaired({1: [answer]})[0][1]
    sound, variety = as_answer(said), LabelVariety(depth, redistribution)
    # The published code has no tolerance: 100 less a rounding error is no full answer to it.
    assume(not 1 - 1e-9 <= sum(percentage / 100 for _, percentage in said.named) < 1)
    ours = variety.soft_labels(Answers.from_elicited([said], categories=10))
    np.testing.assert_allclose(cifar10s.published_labels([sound], variety), ours, rtol=0, atol=1e-8)


def test_a_rounding_error_short_of_a_hundred_is_a_leftover_only_to_the_published_code() -> None:
    assert 64.1 / 100 + 35.9 / 100 < 1
    pairs = [(tenths / 10, (1000 - tenths) / 10) for tenths in range(500, 1000)]
    short = [(p, q) for p, q in pairs if p / 100 + q / 100 < 1]
    assert short
    answers = [Answer(CAT, p, DOG, q, ()) for p, q in short]
    elicited = [Elicited(((CAT, p), (DOG, q)), frozenset()) for p, q in short]
    ours = LabelVariety().soft_labels(Answers.from_elicited(elicited, categories=10))
    assert ours[:, AIRPLANE] == pytest.approx(0.1 / 8)
    assert cifar10s.published_labels(answers)[:, AIRPLANE] == pytest.approx(0, abs=1e-15)

from __future__ import annotations

import http.server
import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elicit.labels import Answers, Elicited, Refusal, cifar10s, read_release, zip_release
from tests.training.conftest import SIZE, labelled_images
from training.label_sets import (
    LabelSet,
    Said,
    Sources,
    Votes,
    first_people,
    label_sets_of,
    labels_of,
    name_of,
    read_split,
    release_at,
    require_simplex,
    said_in_published,
    said_in_release,
    targets_of,
    with_top,
)

HARD = np.array([0, 1, 2, 3])
IMAGES = np.array([10, 11, 12, 13])
COUNTS = np.zeros((14, 10), dtype=np.int64)
COUNTS[10:14] = [[5, 5] + [0] * 8, [0, 9, 1] + [0] * 7, [0, 0, 4] + [0] * 7, [1] * 10]


def votes(counts: np.ndarray[tuple[int, ...], np.dtype[np.int64]] = COUNTS) -> Votes:
    sums = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shares = np.where(counts.sum(axis=1, keepdims=True) > 0, counts / sums, np.nan)
    return Votes(shares, counts, "votes", "digest")


def said() -> Said:
    """Images 10 and 12: three people each, two of them the same, one of whom answers image 10 twice."""
    rows = [(12, "ann"), (10, "bob"), (10, "ann"), (12, "bob"), (10, "cyd"), (12, "dee"), (10, "bob")]
    answers = [
        Elicited(named=((row % 3, 80.0), (3 + row % 3, 10.0)), impossible=frozenset({9})) for row in range(len(rows))
    ]
    return Said(
        images=np.array([image for image, _ in rows]),
        people=np.array([person for _, person in rows]),
        answers=Answers.from_elicited(answers, categories=10),
        seconds=np.full(len(rows), 20.0),
        named=True,
        categories=tuple(labelled_images(1).categories),
        origin="here",
        digest="digest",
    )


SOURCES = Sources(said(), votes())


def labels(name: str, sources: Sources = SOURCES, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return targets_of(LabelSet.from_name(name), IMAGES, HARD, sources, seed, 10).labels


OF_RELEASES = ["released", "released:birds-v2", "released:Birds_2.final:fixed"]
ALL = [
    *("hard", "smooth", "uniform", "random", "h", "h@2", "simselect2", "recommended"),
    *(f"{depth}-{spread}" for depth in ("t1", "t2", "tall") for spread in ("clamp", "uniform", "none")),
    *("t2-clamp@2", "t2-clamp:each", "h@3:each", "recommended:fixed", "smooth:all", "h:all", "t2-clamp-s0.5"),
]


@pytest.mark.parametrize("name", ALL)
def test_every_label_set_gives_every_image_a_distribution(name: str) -> None:
    found = targets_of(LabelSet.from_name(name), IMAGES, HARD, SOURCES, 0, 10)
    for drawn in (found.labels, found.draw(np.random.default_rng(0))):
        assert drawn.shape == (4, 10)
        assert (drawn >= 0).all()
        np.testing.assert_allclose(drawn.sum(axis=1), 1)
    if ":all" not in name:
        # Nobody relabelled 11 and 13.
        np.testing.assert_array_equal(found.labels[[1, 3]], np.eye(10)[[1, 3]])


@pytest.mark.parametrize("name", [*ALL, *OF_RELEASES, "h@12", "t2-clamp@2:each:fixed"])
def test_a_name_is_read_as_it_is_written(name: str) -> None:
    assert LabelSet.from_name(name).name == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "soft",
        "t3-clamp",
        "hard@2",
        "h@0",
        "released:each",
        "released:a:b:fixed",
        "released@2:birds-v2",
        "t2-clamp:all",
        "h:each:each",
        "h:best",
        "smooth:each",
    ],
)
def test_a_name_that_means_nothing_is_refused(name: str) -> None:
    with pytest.raises(Refusal) as caught:
        LabelSet.from_name(name)
    assert caught.value.code == "label_set_unknown"


def test_only_sets_that_count_people_are_made_for_each_number_of_them() -> None:
    found = [each.name for each in label_sets_of("hard,h,t2-clamp,recommended@6:fixed,h@all", "1,3")]
    assert found == ["hard", "h@1", "h@3", "t2-clamp@1", "t2-clamp@3", "recommended@6:fixed", "h"]
    for wrong in ("0", "few", "1,-2", ""):
        with pytest.raises(Refusal):
            label_sets_of("h", wrong)


def test_smoothed_labels_sum_to_one_and_the_sets_are_what_they_say() -> None:
    smooth = labels("smooth", replace(SOURCES, smoothing=0.2))
    np.testing.assert_allclose(smooth[0], [0.82] + [0.02] * 9)
    np.testing.assert_allclose(labels("uniform")[2], 0.1)
    np.testing.assert_allclose(labels("h")[0], [0.5, 0.5] + [0] * 8)
    np.testing.assert_allclose(labels("h:all")[3], 0.1)
    np.testing.assert_allclose(labels("hard", replace(SOURCES, rest="h"))[[1, 3]], votes().shares[[11, 13]])


def test_a_person_who_answers_twice_is_one_person() -> None:
    # Image 10: bob says 1 (row 1) and 0 (row 6), ann 2, cyd 1; halves of votes go to 3 more.
    found = labels("t1-none")[0]
    np.testing.assert_allclose(found[:3], [0.5 / 3, (0.5 + 1) / 3, 1 / 3])


def test_two_selected_classes_get_half_a_vote_each() -> None:
    one, two = Elicited(named=((4, 60.0),), impossible=frozenset()), Elicited(((4, 90.0), (1, 2.0)), frozenset())
    found = labels_of("simselect2", Answers.from_elicited([one, two], categories=5))
    assert found.tolist() == [[0, 0, 0, 0, 1], [0, 0.5, 0, 0, 0.5]]


def test_people_are_drawn_never_rows() -> None:
    images = np.repeat(np.arange(30), 8)
    people = np.tile(np.array(["ann", "ann", "ann", "ann", "ann", "bob", "cyd", "dee"]), 30)
    drawn = []
    for seed in range(300):
        kept = first_people(images, people, 1, np.random.default_rng(seed))
        names = set(people[kept])
        assert len(names) == 1  # all saw all images, so one is first everywhere
        assert kept.sum() == 30 * (5 if names == {"ann"} else 1)
        drawn.append(names.pop())
    # Ann's five answers make her no likelier.
    assert 45 < drawn.count("ann") < 105


def test_fewer_people_are_among_more_of_the_same_seed_and_everybody_is_everybody() -> None:
    random = np.random.default_rng(5)
    images, people = random.integers(20, size=200), random.integers(12, size=200).astype(str)
    masks = [first_people(images, people, m, np.random.default_rng(9)) for m in (1, 2, 3, 12)]
    for few, more in itertools.pairwise(masks):
        assert (few <= more).all()
    assert masks[-1].all()
    for m, mask in zip((1, 2, 3), masks, strict=False):
        for image in np.unique(images):
            here = images == image
            assert len(set(people[here & mask])) == min(m, len(set(people[here])))


def test_sampled_votes_are_votes_that_were_cast() -> None:
    seen = [labels("h@3", seed=seed)[2] for seed in range(5)]
    assert all(label.tolist() == np.eye(10)[2].tolist() for label in seen)
    for seed in range(5):
        counts = labels("h@4:all", seed=seed) * 4
        np.testing.assert_allclose(counts, counts.round(), atol=1e-9)
        assert (counts <= COUNTS[10:14] + 1e-9).all()
    # No more votes than there are.
    np.testing.assert_allclose(labels("h@99"), labels("h"))


def test_each_draw_takes_one_person_s_own_label() -> None:
    found = targets_of(LabelSet.from_name("t2-clamp:each"), IMAGES, HARD, SOURCES, 0, 10)
    random = np.random.default_rng(0)
    drawn = np.stack([found.draw(random) for _ in range(200)])
    # Image 12: ann, bob and dee, whose first classes are 0, 0 and 2.
    firsts = drawn[:, 2].argmax(axis=1)
    assert set(firsts) == {0, 2}
    assert 0.15 < (firsts == 2).mean() < 0.5
    assert (drawn[:, 1] == np.eye(10)[1]).all()
    np.testing.assert_allclose(drawn.mean(axis=0)[2], found.labels[2], atol=0.1)


def test_a_fixed_top_class_keeps_how_soft_a_label_is() -> None:
    before = np.array([[0.2, 0.5, 0.3], [0.5, 0.5, 0.0]])
    after = with_top(before, np.array([2, 1]))
    np.testing.assert_allclose(after, [[0.2, 0.3, 0.5], [0.5, 0.5, 0.0]])
    fixed, free = labels("recommended:fixed"), labels("recommended")
    assert (fixed.argmax(axis=1) == HARD).all()
    np.testing.assert_allclose(np.sort(fixed, axis=1), np.sort(free, axis=1))


def test_pools_that_learn_see_training_images_alone() -> None:
    hidden = targets_of(LabelSet("recommended"), IMAGES[:2], HARD[:2], SOURCES, 0, 10).labels[0]
    assert not np.allclose(hidden, labels("recommended")[0])


@pytest.mark.parametrize("bad", [[np.nan, 1.0], [0.7, 0.7], [1.2, -0.2], [np.inf, 0.0]])
def test_a_label_that_is_no_distribution_is_refused_by_image_and_annotator(bad: list[float]) -> None:
    found = np.array([[0.5, 0.5], bad])
    with pytest.raises(Refusal, match=r"image 12 by annotator ann ") as caught:
        require_simplex(found, np.array([10, 12]), np.array(["bob", "ann"]))
    assert caught.value.code == "label_invalid"
    require_simplex(found[:1], np.array([10]))


def test_what_is_missing_is_named() -> None:
    for name, sources, sentence in [
        ("t2-clamp", Sources(None, votes()), "--release or --answers"),
        ("h", Sources(said()), "--reference"),
        ("released", SOURCES, "--release"),
        ("t2-clamp@2", Sources(replace(said(), named=False)), "who answered"),
        ("h@2", Sources(None, replace(votes(), counts=None)), "counts"),
    ]:
        with pytest.raises(Refusal, match=sentence):
            labels(name, sources)
    with pytest.raises(Refusal, match="no votes for image 99"):
        votes().of(np.array([10, 99]))
    with pytest.raises(Refusal, match="no votes for image 3"):
        votes().of(np.array([3, 10]))


def test_a_release_gives_the_labels_that_it_released(release: Path) -> None:
    read = read_release(release)
    mine = said_in_release(read)
    assert len(mine.images) == 2 * SIZE
    assert set(mine.people) == {"ann-1", "ann-2"}
    found = targets_of(LabelSet("t2-clamp"), read.images, np.zeros(SIZE, dtype=np.int64), Sources(mine), 0, 10)
    np.testing.assert_allclose(found.labels, read.soft_labels)
    released = targets_of(LabelSet("released"), read.images, np.zeros(SIZE, dtype=np.int64), Sources(mine), 0, 10)
    np.testing.assert_array_equal(released.labels, read.soft_labels)


def test_the_published_answers_are_read_from_either_file(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    answer = cifar10s.Answer(3, 70.0, 5, 20.0, (0, 1))
    cifar10s.write_answers(path, {7: [answer, answer], 2: [answer]})
    found = said_in_published(path)
    assert sorted(found.images.tolist()) == [2, 7, 7]
    assert not found.named
    assert len(set(found.people)) == 3
    assert found.answers.percentages[0, [3, 5]].tolist() == [70, 20]


def test_the_published_table_names_people_and_leaves_repeats_out(shared_data: Path) -> None:
    found = said_in_published(shared_data / "cifar10s" / "raw_human_data_even_batches.csv")
    assert (len(found.images), len(set(found.people)), found.named) == (3050, 122, True)
    assert len(set(zip(found.images.tolist(), found.people.tolist(), strict=True))) == 3050
    train, held_out = read_split(shared_data / "cifar10s")
    assert (len(train), len(held_out)) == (7000, 3000)
    assert np.isin(found.images, train).all()
    # Against CIFAR-10H: the figures of docs/decisions/0008.
    reference = Votes.read(shared_data / "cifar10h" / "cifar10h-counts.npy")
    hard = reference.shares[train].argmax(axis=1)
    here = np.isin(train, found.images)
    for name, expected in (("t2-clamp", 0.1550), ("recommended", 0.1237)):
        made = targets_of(LabelSet.from_name(name), train, hard, Sources(found, reference), 0, 10).labels[here]
        distance = 0.5 * np.abs(made - reference.of(train)[here]).sum(axis=1).mean()
        assert distance == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("train", "held_out", "sentence"),
    [
        ([0, 1], [1, 2], "in both"),
        ([0, 0], [2], "twice"),
        ([0.5], [2], "no list"),
        ([-1], [2], "no list"),
        ([[1]], [2], "no list"),
        ([], [2], "no list"),
    ],
)
def test_a_split_that_leaks_or_is_none_is_refused(
    tmp_path: Path, train: list[float], held_out: list[float], sentence: str
) -> None:
    np.save(tmp_path / "train_indices.npy", np.array(train))
    np.save(tmp_path / "test_indices.npy", np.array(held_out))
    with pytest.raises(Refusal, match=sentence):
        read_split(tmp_path)


def test_a_split_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"train_indices\.npy can't be read"):
        read_split(tmp_path)


class _Site(http.server.BaseHTTPRequestHandler):
    zipped = b""

    def do_GET(self) -> None:
        if self.path != "/api/releases/birds/3/files/release.zip" or self.headers["Authorization"] != "Token key":
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.zipped)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def site(release: Path, tmp_path: Path) -> Iterator[str]:
    _Site.zipped = zip_release(release, tmp_path / "site.zip").read_bytes()
    server = http.server.HTTPServer(("127.0.0.1", 0), _Site)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/api/releases"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_release_is_fetched_from_its_site_with_a_key(site: str, tmp_path: Path) -> None:
    path = release_at(f"{site}/birds/3/", tmp_path, "key")
    assert len(read_release(path).images) == SIZE
    assert release_at("here.zip", tmp_path, None) == Path("here.zip")


@pytest.mark.parametrize(
    ("place", "key", "code"),
    [
        ("{site}/birds/3", None, "token_missing"),
        ("{site}/birds/3", "other", "download_failed"),
        ("{site}/birds/4", "key", "download_failed"),
        ("http://example.org/api/releases/birds/3", "key", "download_failed"),
        ("file:///etc", "key", "download_failed"),
    ],
)
def test_a_key_is_asked_for_sent_safely_and_not_passed_on(
    site: str, tmp_path: Path, place: str, key: str | None, code: str
) -> None:
    with pytest.raises(Refusal) as caught:
        release_at(place.format(site=site), tmp_path, key)
    assert caught.value.code == code


def released(images: list[int], likeliest: int, digest: str = "other", **changes: Any) -> Said:
    """A release of these images that gives 0.9 to one class, all said by one person."""
    soft = np.full((len(images), 10), 0.1 / 9)
    soft[:, likeliest] = 0.9
    answers = [Elicited(named=((likeliest, 90.0),), impossible=frozenset()) for _ in images]
    return replace(
        said(),
        images=np.array(images),
        people=np.array(["eve"] * len(images)),
        answers=Answers.from_elicited(answers, categories=10),
        seconds=np.full(len(images), 5.0),
        digest=digest,
        released=(np.array(images), soft),
        sha256={image: f"picture {image}" for image in images},
        **changes,
    )


def test_the_labels_of_a_further_release_go_by_its_name_and_to_the_images_that_both_label() -> None:
    sources = Sources(released([10, 11, 12], 4), others={"birds-v2": released([11, 12, 13], 7)})
    assert sources.relabelled is not None
    assert sources.relabelled.tolist() == [11, 12]
    first, other = labels("released", sources), labels("released:birds-v2", sources)
    assert first.argmax(axis=1).tolist() == [0, 4, 4, 3]
    assert other.argmax(axis=1).tolist() == [0, 7, 7, 3]


def test_a_release_that_was_not_given_is_asked_for_by_name() -> None:
    sources = Sources(released([10, 11], 4), others={"birds-v2": released([10, 11], 7)})
    with pytest.raises(Refusal, match=r"released:birds-v3: .* only birds-v2") as caught:
        labels("released:birds-v3", sources)
    assert caught.value.code == "label_set_unknown"


@pytest.mark.parametrize(
    ("other", "word"),
    [
        (released([12, 13], 7), "shares no image"),
        (released([10], 7, categories=("a", "b")), "other categories"),
        (replace(released([10], 7), sha256={10: "another picture"}), "other pictures"),
    ],
)
def test_releases_of_other_images_are_not_compared(other: Said, word: str) -> None:
    with pytest.raises(Refusal, match=f"birds-v2 .*{word}") as caught:
        Sources(released([10, 11], 4), others={"birds-v2": other})
    assert caught.value.code == "releases_differ"


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("releases/birds-v2.zip", "birds-v2"),
        ("releases/birds-v2/", "birds-v2"),
        ("https://site.example/api/releases/birds/2", "birds-v2"),
    ],
)
def test_a_release_is_called_as_its_file_is(place: str, name: str) -> None:
    assert name_of(place) == name

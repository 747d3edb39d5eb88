"""Label sets by name: what an image may be trained on, and how it comes about.

A name is ``WHAT``, then optionally ``@M`` for M annotators per image, then options, each after a colon:

    hard          the archive's class
    smooth        the archive's class with ``smoothing`` s: (1 - s) one-hot + s / K (Szegedy et al. 2016)
    uniform       1 / K for every class
    random        a random point: K uniform numbers divided by their sum, as in the published protocol
    h             CIFAR-10H: the shares of its hard votes (Peterson et al. 2019)
    t2-clamp ...  a variety of the answers, pooled by the mean (docs/label-varieties.md)
    recommended   the recommended variety and pool (docs/decisions/0008)
    simselect2    half a vote for each of the two likeliest classes: people who could only have selected
    released      a release's own pooled labels; ``released:bird-study-v2`` those of another one, by its file's name

    :each         one person's label, drawn anew each time the image is (the published "per annotator")
    :fixed        the likeliest class is the archive's: its mass and that of the label's top class change places.
                  What is then gained over ``hard`` is not gained by relabelling (Pavlovic et al. 2026)
    :all          every training image, not the relabelled ones alone

M annotators are drawn by person, never by answer: each seed puts all people in one random order, and an image keeps
the first M of those who saw it. So M = 1 is part of M = 2, and the varieties of one seed rest on the same people.
CIFAR-10H's file names no people; there each image's votes are shuffled.
"""

from __future__ import annotations

import functools
import hashlib
import http.client
import json
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from elicit.labels import RECOMMENDED, Answers, ConfusionPool, LabelVariety, MeanPool, ReadRelease, Refusal
from elicit.labels import cifar10h as cifar10h_files
from elicit.labels import cifar10s as cifar10s_files
from elicit.labels.simplex import TOLERANCE

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

PLAIN = ("hard", "smooth", "uniform", "random")
"""Need nobody's answers."""
FROM_PEOPLE = ("recommended", "simselect2", "released")
OPTIONS = ("each", "fixed", "all")
_OF_ANOTHER = re.compile(r"released:(?P<of>[A-Za-z0-9_.-]+)(?P<options>(?::[a-z]+)*)")
_NAME = re.compile(r"(?P<what>[a-z0-9.-]+)(?:@(?P<annotators>[1-9][0-9]*|all))?(?P<options>(?::[a-z]+)*)")


@dataclass(frozen=True, order=True)
class LabelSet:
    """A label set's name, taken apart; ``annotators`` None means everybody, ``of`` empty the first release."""

    what: str
    annotators: int | None = None
    each: bool = False
    fixed: bool = False
    everywhere: bool = False
    of: str = ""

    @classmethod
    def from_name(cls, name: str) -> Self:
        """Raises Refusal ``label_set_unknown`` or, for a variety, what LabelVariety.from_slug raises."""
        of, rest = "", name.strip()
        if (other := _OF_ANOTHER.fullmatch(rest)) and other["of"] not in OPTIONS:
            of, rest = other["of"], f"released{other['options']}"
        found = _NAME.fullmatch(rest)
        if found is None:
            raise _unknown(name)
        what, options = found["what"], [option for option in found["options"].split(":") if option]
        if len(set(options)) != len(options) or not set(options) <= set(OPTIONS):
            raise _unknown(name)
        if what not in (*PLAIN, *FROM_PEOPLE, "h"):
            try:
                LabelVariety.from_slug(what)
            except Refusal as refusal:
                raise refusal if refusal.code != "unknown_variety" else _unknown(name) from None
        drawn = found["annotators"]
        label_set = cls(
            what,
            None if drawn in (None, "all") else int(drawn),
            each="each" in options,
            fixed="fixed" in options,
            everywhere="all" in options,
            of=of,
        )
        if what in PLAIN and (drawn or label_set.each):
            raise Refusal("label_set_unknown", f"{name}: nobody gave these labels, so they have no annotators.")
        if what == "released" and (drawn or label_set.each):
            raise Refusal("label_set_unknown", f"{name}: a release's pooled labels are of all its annotators.")
        if label_set.everywhere and label_set.asks_people:
            raise Refusal("label_set_unknown", f"{name}: people labelled some images only; `:all` is for {PLAIN}, h.")
        return label_set

    @property
    def asks_people(self) -> bool:
        """Whether it is made of a release's or an answers file's answers."""
        return self.what not in (*PLAIN, "h")

    @property
    def counts_annotators(self) -> bool:
        """Whether a number of annotators makes a difference to it."""
        return self.what not in (*PLAIN, "released")

    @property
    def name(self) -> str:
        """The canonical name, as from_name reads it."""
        options = [name for name, on in zip(OPTIONS, (self.each, self.fixed, self.everywhere), strict=True) if on]
        drawn = "" if self.annotators is None else f"@{self.annotators}"
        return ":".join([self.what + drawn, *([self.of] if self.of else []), *options])

    @property
    def curve(self) -> str:
        """The name without M: sets that differ in M alone lie on one curve."""
        return replace(self, annotators=None).name


def _unknown(name: str) -> Refusal:
    return Refusal(
        "label_set_unknown",
        f"There is no label set {name!r}. Known: {', '.join((*PLAIN, 'h', *FROM_PEOPLE))}, or a variety such as "
        "t2-clamp; then @M for M annotators, then :each, :fixed or :all.",
    )


def label_sets_of(names: str, annotators: str) -> tuple[LabelSet, ...]:
    """``hard,t2-clamp`` with ``1,2,all``: each set that counts annotators once for each M, unless it names its own.

    Raises Refusal ``label_set_unknown``.
    """
    try:
        numbers = [None if m.strip() == "all" else int(m) for m in annotators.split(",")]
    except ValueError:
        numbers = [0]
    if any(m is not None and m < 1 for m in numbers):
        raise Refusal("label_set_unknown", f"Annotators per image are numbers from 1, or all; got {annotators!r}.")
    found: dict[LabelSet, None] = {}
    for name in names.split(","):
        label_set = LabelSet.from_name(name)
        crossed = label_set.counts_annotators and "@" not in name
        for m in numbers if crossed else [label_set.annotators]:
            found[replace(label_set, annotators=m)] = None
    return tuple(found)


# What people said


@dataclass(frozen=True, eq=False)
class Said:
    """R first answers of people: who said what of which image.

    ``people`` (R,) text; ``named`` is False where a file does not tell who answered, and each answer stands for
    a person. ``seconds`` (R,) time on the answer, nan if unknown. ``released``: images and pooled labels of a
    release, and ``sha256`` its images' pixel_sha256. ``origin`` says in words where it comes from, ``digest`` which
    bytes.
    """

    images: Integers
    people: NDArray[np.str_]
    answers: Answers
    seconds: Floats
    named: bool
    categories: tuple[str, ...]
    origin: str
    digest: str
    released: tuple[Integers, Floats] | None = None
    sha256: Mapping[int, str] = field(default_factory=dict)


def release_at(place: str, scratch: Path, token: str | None) -> Path:
    """The path of a release; one at ``https://SITE/api/releases/STUDY/VERSION`` is fetched into ``scratch`` first.

    Raises Refusal ``token_missing`` or ``download_failed``.
    """
    if "://" not in place:
        return Path(place)
    if not token:
        raise Refusal("token_missing", "A release on a site needs a key from its page /releases/, in ELICIT_TOKEN.")
    url = f"{place.rstrip('/')}/files/release.zip"
    local = urllib.parse.urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
    if not url.startswith("https://") and not (local and url.startswith("http://")):
        raise Refusal("download_failed", f"{place}: a key is sent over https only.")
    request = urllib.request.Request(url, headers={"Authorization": f"Token {token}"})  # noqa: S310 - checked above
    target = scratch / "release.zip"
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=60) as answer, target.open("wb") as out:
            shutil.copyfileobj(answer, out)
    except urllib.error.HTTPError as error:
        with error:  # it holds the connection
            raise Refusal("download_failed", f"{url} answers {error.code}: the wrong address or key?") from None
    except (OSError, http.client.HTTPException) as error:
        raise Refusal("download_failed", f"{url} can't be fetched: {error}.") from None
    return target


def name_of(place: str) -> str:
    """What a release is called in ``released:NAME``: its folder or file without .zip, or STUDY-vVERSION of a site."""
    if "://" in place:
        study, _, version = place.rstrip("/").rpartition("/")
        return f"{study.rpartition('/')[2]}-v{version}"
    return Path(place).resolve().name.removesuffix(".zip")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would take the key to another address."""

    def redirect_request(self, *_: object) -> None:
        return None


def said_in_release(release: ReadRelease) -> Said:
    """The first answers of a release; its repeats are no more people and are left out."""
    table = release.table()
    main = table["kind"] == "main"
    place = {name: index for index, name in enumerate(release.categories)}
    columns = sorted((name for name in table if re.fullmatch(r"category_[0-9]+", name)), key=lambda n: int(n[9:]))
    classes = np.stack([[-1 if c is None else place[c] for c in table[name][main]] for name in columns], axis=1)
    percentages = np.stack([table[name.replace("category", "percentage")][main] for name in columns], axis=1)
    impossible = np.stack([table[f"impossible_{name}"][main] for name in release.categories], axis=1)
    named = classes >= 0
    return Said(
        images=np.asarray(table["image"][main], dtype=np.int64),
        people=np.asarray(table["annotator"][main], dtype=np.str_),
        answers=Answers.from_flat(
            named.sum(axis=1),
            classes[named].astype(np.int64),
            percentages[named].astype(np.float64),
            impossible.sum(axis=1),
            np.nonzero(impossible)[1],
            categories=len(release.categories),
        ),
        seconds=np.asarray(table["duration_ms"][main], dtype=np.float64) / 1000,
        named=True,
        categories=tuple(release.categories),
        origin=f"release {release.manifest['version']}",
        digest=str(release.manifest["digest"]),
        released=(np.asarray(release.images, dtype=np.int64), np.asarray(release.soft_labels)),
        sha256=dict(zip(np.asarray(release.images).tolist(), release.image_sha256, strict=True)),
    )


def said_in_published(path: Path) -> Said:
    """The published answers of CIFAR-10S: the raw table (.csv), which names people, or the parsed answers (.json).

    Contradictions are repaired as docs/label-varieties.md tells; repeats, and one person's file that is in the table
    twice, are left out. The parsed answers hold both as if by other people, and no names.
    Raises Refusal as elicit.labels.cifar10s does.
    """
    # A row each, so that the answers keep their order.
    if path.suffix == ".csv":
        responses, _ = cifar10s_files.first_answers(cifar10s_files.read_raw(path)[0])
        images = np.array([response.image for response in responses], dtype=np.int64)
        people = np.array([response.subject for response in responses])
        seconds = np.array([r.milliseconds / 1000 if r.milliseconds is not None else np.nan for r in responses])
        rows = {row: [response.answer] for row, response in enumerate(responses)}
    else:
        by_image = cifar10s_files.read_answers(path)
        images = np.repeat(np.array(list(by_image), dtype=np.int64), [len(entries) for entries in by_image.values()])
        entries = [answer for those in by_image.values() for answer in those]
        people = np.array([f"entry {row + 1}" for row in range(len(entries))])
        seconds = np.full(len(entries), np.nan)
        rows = {row: [answer] for row, answer in enumerate(entries)}
    mended, _ = cifar10s_files.repaired(rows)
    categories = cifar10s_files.CATEGORIES.names
    return Said(
        images=images,
        people=people,
        answers=Answers.from_elicited([answer for (answer,) in mended.values()], categories=len(categories)),
        seconds=seconds,
        named=path.suffix == ".csv",
        categories=tuple(categories),
        origin=path.name,
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


@dataclass(frozen=True, eq=False)
class Votes:
    """CIFAR-10H, or a table of its layout: ``shares`` (N, K), ``counts`` (N, K) or None; row i is image i."""

    shares: Floats
    counts: Integers | None
    origin: str
    digest: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """From counts or shares; only counts can be sampled. Raises Refusal ``reference_unreadable``."""
        shares = cifar10h_files.read(path)
        raw = np.load(path, allow_pickle=False)
        counts = raw.astype(np.int64) if np.issubdtype(raw.dtype, np.integer) else None
        # From single precision in places: sums are off by a rounding error.
        shares = shares / shares.sum(axis=1, keepdims=True)
        return cls(shares, counts, path.name, hashlib.sha256(path.read_bytes()).hexdigest())

    def of(self, images: Integers) -> Floats:
        """(n, K) shares of these images. Raises Refusal ``votes_missing`` naming one without."""
        self._require(images)
        return np.asarray(self.shares[images])

    def sample(self, images: Integers, annotators: int, random: np.random.Generator) -> list[Integers]:
        """The classes that ``annotators`` of each image's votes are for; all votes where there are fewer.

        Raises Refusal ``votes_missing``, also for a table of shares.
        """
        self._require(images)
        if self.counts is None:
            raise Refusal("votes_missing", f"{self.origin} holds shares; votes are sampled from the file of counts.")
        classes = np.arange(self.counts.shape[1])
        return [random.permutation(np.repeat(classes, self.counts[image]))[:annotators] for image in images]

    def _require(self, images: Integers) -> None:
        known = images < len(self.shares)
        known[known] = np.isfinite(self.shares[images[known]]).all(axis=1)
        if not known.all():
            raise Refusal("votes_missing", f"{self.origin} has no votes for image {images[~known][0]}.")


# From names to targets


@dataclass(frozen=True, eq=False)
class Targets:
    """What N training images are trained on: ``labels`` (N, K), distributions.

    Where people's own labels are drawn anew in each epoch, ``own`` (T, K) holds them, image i's from
    ``starts[i]`` on, ``lengths[i]`` of them; ``labels`` are then their means.
    """

    labels: Floats
    own: Floats | None = None
    starts: Integers | None = None
    lengths: Integers | None = None

    def draw(self, random: np.random.Generator) -> Floats:
        """(N, K): this epoch's labels."""
        if self.own is None or self.starts is None or self.lengths is None:
            return self.labels
        return np.asarray(self.own[self.starts + random.integers(self.lengths)])


@dataclass(frozen=True, eq=False)
class Sources:
    """All that labels are made of. ``rest``, hard or h: what the images get that nobody relabelled.

    ``others``: further releases by name, whose own pooled labels are compared. Raises Refusal ``releases_differ`` where
    they can't be.
    """

    said: Said | None = None
    votes: Votes | None = None
    rest: str = "hard"
    smoothing: float = 0.1
    others: Mapping[str, Said] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, other in self.others.items():
            if self.said is None or self.said.categories != other.categories:
                raise Refusal("releases_differ", f"{name} has other categories than the first release.")
            both = self.said.sha256.keys() & other.sha256.keys()
            if any(self.said.sha256[image] != other.sha256[image] for image in both):
                raise Refusal("releases_differ", f"{name} gives the first release's numbers to other pictures.")
            if not both:
                raise Refusal("releases_differ", f"{name} shares no image with the first release.")

    def said_for(self, label_set: LabelSet) -> Said | None:
        """The answers that the set is made of. Raises Refusal ``label_set_unknown`` for a release that isn't there."""
        if label_set.of and label_set.of not in self.others:
            raise Refusal(
                "label_set_unknown",
                f"{label_set.name}: no further release has that name, only {', '.join(self.others) or 'the first'}.",
            )
        return self.others[label_set.of] if label_set.of else self.said

    @property
    def everyone(self) -> tuple[Said, ...]:
        """What is said in the first release, or file of answers, and in the others."""
        return () if self.said is None else (self.said, *self.others.values())

    @property
    def relabelled(self) -> Integers | None:
        """The images that people labelled, in all releases, ascending; None where no file tells."""
        if self.said is None:
            return None
        return functools.reduce(np.intersect1d, (np.unique(said.images) for said in self.everyone))


def targets_of(label_set: LabelSet, images: Integers, hard: Integers, sources: Sources, seed: int, k: int) -> Targets:
    """The targets of training images ``images`` (N,), whose classes in the archive are ``hard`` (N,), of K classes.

    The relabelled images (all, with ``:all`` or where nobody relabelled) get the set, the rest ``sources.rest``.
    Pools that learn from other images see training images only. ``seed`` draws people, votes and random labels.
    Raises Refusal: ``answers_missing``, ``people_unknown``, ``votes_missing``, ``label_invalid``.
    """
    one_hot = np.asarray(np.eye(k)[hard])
    labels = one_hot.copy()
    if sources.rest == "h":
        labels = _votes(sources).of(images)
    relabelled = sources.relabelled
    here = np.ones(len(images), dtype=np.bool_)
    if relabelled is not None and not label_set.everywhere:
        here = np.isin(images, relabelled)
    # The same people whatever the label set: a draw depends on the seed and on nothing else.
    made = _made(label_set, images[here], one_hot[here], sources, np.random.default_rng([seed, 0x5AD]))
    own, lengths = made
    require_simplex(own, np.repeat(images[here], lengths))
    if label_set.fixed:
        own = with_top(own, np.repeat(hard[here], lengths))
    starts = np.cumsum(lengths) - lengths
    labels[here] = np.add.reduceat(own, starts) / lengths[:, np.newaxis] if len(own) else own
    if not label_set.each:
        return Targets(labels)
    rest = labels[~here]
    all_starts, all_lengths = np.empty(len(images), dtype=np.int64), np.ones(len(images), dtype=np.int64)
    all_starts[here], all_lengths[here] = starts, lengths
    all_starts[~here] = len(own) + np.arange(len(rest))
    return Targets(labels, np.concatenate([own, rest]), all_starts, all_lengths)


def _made(
    label_set: LabelSet, images: Integers, one_hot: Floats, sources: Sources, random: np.random.Generator
) -> tuple[Floats, Integers]:
    """(T, K) labels and (n,) how many of them each image has, in the order of the images."""
    n, k = one_hot.shape
    if label_set.what in PLAIN:
        if label_set.what == "hard":
            made = one_hot
        elif label_set.what == "smooth":
            made = (1 - sources.smoothing) * one_hot + sources.smoothing / k
        elif label_set.what == "uniform":
            made = np.full((n, k), 1 / k)
        else:
            drawn = random.random((n, k))
            made = drawn / drawn.sum(axis=1, keepdims=True)
        return made, np.ones(n, dtype=np.int64)
    if label_set.what == "h":
        return _voted(label_set, images, _votes(sources), random)
    return _of_people(label_set, images, sources, random)


def _votes(sources: Sources) -> Votes:
    if sources.votes is None:
        raise Refusal("votes_missing", "The label set h needs the votes of CIFAR-10H: name them with --reference.")
    return sources.votes


def _voted(label_set: LabelSet, images: Integers, votes: Votes, random: np.random.Generator) -> tuple[Floats, Integers]:
    if label_set.annotators is None and not label_set.each:
        return votes.of(images), np.ones(len(images), dtype=np.int64)
    most = np.iinfo(np.int64).max if label_set.annotators is None else label_set.annotators
    drawn = votes.sample(images, most, random)
    one_hot = np.eye(votes.shares.shape[1])
    if label_set.each:
        return np.asarray(one_hot[np.concatenate(drawn)]), np.array([len(d) for d in drawn], dtype=np.int64)
    return np.stack([one_hot[d].mean(axis=0) for d in drawn]), np.ones(len(images), dtype=np.int64)


def _of_people(
    label_set: LabelSet, images: Integers, sources: Sources, random: np.random.Generator
) -> tuple[Floats, Integers]:
    said = sources.said_for(label_set)
    if said is None:
        raise Refusal("answers_missing", f"The label set {label_set.name} needs --release or --answers.")
    order = np.argsort(images)
    if label_set.what == "released":
        if said.released is None:
            raise Refusal("answers_missing", "The label set released needs --release.")
        pooled_images, pooled = said.released
        return np.asarray(pooled[np.searchsorted(pooled_images, images)]), np.ones(len(images), dtype=np.int64)
    kept = np.isin(said.images, images)
    if label_set.annotators is not None:
        if not said.named:
            raise Refusal(
                "people_unknown",
                f"{said.origin} does not say who answered, so no {label_set.annotators} people can be drawn from it; "
                "the raw table (.csv) does.",
            )
        kept &= first_people(said.images, said.people, label_set.annotators, random)
    rows = np.flatnonzero(kept)
    answers = Answers(said.answers.percentages[rows], said.answers.ranks[rows], said.answers.impossible[rows])
    own = labels_of(label_set.what, answers)
    require_simplex(own, said.images[rows], said.people[rows])
    if label_set.each:
        # An image's rows side by side, in the order of the images.
        place = np.empty(len(images), dtype=np.int64)
        place[order] = np.arange(len(images))
        of_row = order[np.searchsorted(images[order], said.images[rows])]
        by_image = np.argsort(of_row, kind="stable")
        return own[by_image], np.bincount(of_row, minlength=len(images)).astype(np.int64)
    pool = ConfusionPool() if label_set.what == "recommended" else MeanPool()
    pooled = pool.fit_predict(own, said.images[rows], said.people[rows])
    made = np.empty_like(pooled)
    made[order] = pooled
    return made, np.ones(len(images), dtype=np.int64)


def labels_of(what: str, answers: Answers) -> Floats:
    """(R, K): each answer's own label under a variety's slug, ``recommended`` or ``simselect2``."""
    if what == "simselect2":
        selected = (answers.ranks == 1) | (answers.ranks == 2)
        return np.asarray(selected / selected.sum(axis=1, keepdims=True))
    variety = RECOMMENDED if what == "recommended" else LabelVariety.from_slug(what)
    return variety.soft_labels(answers)


def first_people(
    images: Integers, people: NDArray[np.str_], annotators: int, random: np.random.Generator
) -> NDArray[np.bool_]:
    """(R,) whether a row is by one of its image's first ``annotators`` people, in a random order of all people.

    All rows of a person on an image are in or out together.
    """
    names, who = np.unique(people, return_inverse=True)
    rank = random.permutation(len(names))[who]
    order = np.lexsort((rank, images))
    new_image = np.append(True, images[order][1:] != images[order][:-1])
    new_person = new_image | np.append(True, rank[order][1:] != rank[order][:-1])
    nth = np.cumsum(new_person)
    before = np.maximum.accumulate(np.where(new_image, nth - 1, 0))
    kept = np.empty(len(images), dtype=np.bool_)
    kept[order] = nth - before <= annotators
    return kept


def with_top(labels: Floats, classes: Integers) -> Floats:
    """(T, K) labels whose top class is ``classes`` (T,): its mass and the largest mass change places."""
    rows, top = np.arange(len(labels)), labels.argmax(axis=1)
    swapped = labels.copy()
    swapped[rows, classes], swapped[rows, top] = labels[rows, top], labels[rows, classes]
    return swapped


def require_simplex(labels: Floats, images: Integers, people: NDArray[np.str_] | None = None) -> None:
    """Raises Refusal ``label_invalid``, naming image and annotator, for a label that is no distribution."""
    with np.errstate(invalid="ignore"):
        wrong = ~np.isfinite(labels).all(axis=1) | (labels < -TOLERANCE).any(axis=1)
        wrong |= np.abs(labels.sum(axis=1) - 1) > TOLERANCE
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        by = "" if people is None else f" by annotator {people[row]}"
        numbers = ", ".join(f"{value:g}" for value in labels[row])
        raise Refusal("label_invalid", f"The label of image {images[row]}{by} is no distribution: {numbers}.")


def read_split(folder: Path) -> tuple[Integers, Integers]:
    """The published split: the images to train on and those to hold out, from train_indices.npy, test_indices.npy.

    Raises Refusal ``split_unreadable``: a file that is no list of different image numbers, or an image in both.
    """
    found = []
    for name in ("train_indices.npy", "test_indices.npy"):
        try:
            array = np.load(folder / name, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise Refusal("split_unreadable", f"{folder / name} can't be read: {error}.") from None
        if array.ndim != 1 or not len(array) or not np.issubdtype(array.dtype, np.integer) or array.min() < 0:
            raise Refusal("split_unreadable", f"{name} holds no list of image numbers.")
        if len(np.unique(array)) != len(array):
            raise Refusal("split_unreadable", f"{name} names an image twice.")
        found.append(array.astype(np.int64))
    both = np.intersect1d(*found)
    if len(both):
        raise Refusal("split_unreadable", f"{len(both)} images are in both parts of the split, such as {both[0]}.")
    return found[0], found[1]


def digest_of(value: object) -> str:
    """sha256 of a JSON value in its shortest form with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

"""The dashboard in words, tables and plots: what each number means and what it says now. Reads nothing itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from annotations.selectors.dashboard import WINDOWS, Coverage, Live, Rate, Step, money
from annotations.selectors.recruitment import Cost
from elicit.figures import Entropies, Figure, entropy, number, percent, plots
from elicit.labels import summary as summaries

SIZE = (460, 300)
Data = dict[str, Any]


@dataclass(frozen=True)
class Tile:
    """A main number: ``live`` ones change as people answer."""

    key: str
    name: str
    value: str
    beside: str
    means: str
    live: bool = True


def digest(figure: Figure) -> str:
    """Changes with what the figure shows, so that a browser asks for the drawing only then."""
    shown = json.dumps([figure.name, list(figure.head), [list(row) for row in figure.rows], figure.finding])
    return hashlib.sha256(shown.encode()).hexdigest()[:16]


def ago(seconds: float) -> str:
    """How long, in the largest unit that fits."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(max(0, seconds))} s"


def tiles(live: Live) -> list[Tile]:
    """The numbers on top."""
    data: Data = live.summary.data if live.summary else {}
    cover = live.coverage
    times, repeats, work = data.get("times"), data.get("repeats"), data.get("work")
    last = "none yet" if live.last_answer is None else f"{ago((live.now - live.last_answer).total_seconds())} ago"
    total = live.cost.total_minor
    return [
        Tile("work", "At work now", number(live.at_work), f"last answer {last}",
             "Sessions under way that gave a sign of life within five minutes."),
        Tile("completed", "Completed", number(live.completed), f"of {number(live.came)} who agreed",
             "Sessions that came to the end, whether excluded later or not."),
        Tile("labels", "Labels", number(cover.labels), f"of {number(cover.labels_wanted)} ({percent(cover.share)})",
             "Answers that count towards K: of main trials whose session holds its place."),
        Tile("median", "Median time", _seconds(times["median"]) if times else "–", "active, per answer",
             "From the painted image to the answer, without the time the tab was hidden.", False),
        Tile("wage", "Wage per hour", _wage(work, "wall"), _beside_wage(work),
             "What completed sessions earn by the hour, at the median: first from consent to completion, then over the "
             "time spent on answers alone.", False),
        Tile("consistency", "Class flips", percent(repeats["flips"] / repeats["pairs"]) if repeats else "–",
             f"of {number(repeats['pairs'])} repeats" if repeats else "no repeat yet",
             "Repeats that name another class as the most likely one than the first answer did.", False),
        Tile("flagged", "Flagged", number(live.flagged), f"{number(live.excluded)} excluded",
             "Completed sessions that break a rule of Quality, and are not excluded."),
        Tile("cost", "Cost so far", money(total, live.cost.currency) if total else "–",
             "fees and bonuses with it" if total else "no pay is set",
             "Pay of finished sessions, frozen bonuses, and the platform's fees on both."),
    ]  # fmt: skip


def _wage(work: Data | None, over: str) -> str:
    if not work or not work["paid"] or not work[over]["wages_minor"]:
        return "–"
    return money(work[over]["wages_minor"][1], work["currency"])


def _beside_wage(work: Data | None) -> str:
    if not work or not work["completed"]:
        return "nobody is done yet"
    if not work["paid"]:
        return "no pay is set"
    return f"{_wage(work, 'active')} over active time"


def _seconds(value: float) -> str:
    return f"{value:.1f} s"


def of_summary(data: Data, categories: int) -> list[Figure]:
    """Those of the worker's summary that have something to show."""
    found = [
        learning(data.get("times")),
        wages(data.get("work")),
        second_thoughts(data.get("repeats")),
        agreement(data.get("agreement")),
        entropy(Entropies(**data["entropy"]), categories) if data.get("entropy") else None,
        right(data.get("accuracy")),
        remarks(data),
    ]
    return [each for each in found if each is not None]


def people(steps: Sequence[Step]) -> Figure:
    came, done = steps[0].reached, steps[-1].reached
    worst = max(steps[:-1], key=lambda step: step.lost)
    finding = f"{number(done)} of {number(came)} who agreed have completed." if came else "Nobody has come yet."
    if worst.lost:
        finding += f" Most were lost after they {worst.name}: {number(worst.lost)}."
    return Figure(
        name="people",
        title="People by step",
        finding=finding,
        note="How many sessions came as far as each step. Lost: went no further, and do not stand there any more. At "
        "work: gave a sign of life within five minutes.",
        size=SIZE,
        head=("Step", "Came so far", "Stand there", "At work", "Lost"),
        rows=[
            (step.name, number(step.reached), number(step.open), number(step.at_work), number(step.lost))
            for step in steps
        ],
        draw=lambda: plots().bars(
            [step.name for step in steps], [step.reached for step in steps], what="sessions", size=SIZE
        ),
    )


def pace(rate: Rate) -> Figure:
    total = sum(rate.answers)
    most = max(rate.answers, default=0)
    when = WINDOWS[rate.window]
    unit = {1: "minute", 10: "ten minutes", 60: "hour"}.get(rate.minutes, f"{rate.minutes // 1440} days")
    finding = f"{number(total)} answers in {when}"
    finding += f"; the most in one {unit}: {number(most)}." if total else "."
    return Figure(
        name="pace",
        title="Answers as they came",
        finding=finding,
        note="Answers received, repeats and checks too, in equal spans of time (UTC), divided by the length of a span.",
        size=SIZE,
        head=("From", "Answers", "Per minute"),
        rows=[
            (name, number(count), f"{per_minute:.1f}")
            for name, count, per_minute in zip(rate.names, rate.answers, rate.per_minute, strict=True)
            if count
        ],
        draw=lambda: plots().columns(
            rate.names or ["–"],
            rate.per_minute or [0.0],
            what="time (UTC)",
            of_what="answers per minute",
            size=SIZE,
            ticks=4,
        ),
    )


def covered(cover: Coverage) -> Figure:
    last = max(cover.wanted, max((n for n, images in enumerate(cover.images) if images), default=0))
    return Figure(
        name="coverage",
        title="Coverage of K",
        finding=f"{number(cover.full)} of {number(cover.all_images)} images have all {cover.wanted} labels; the image "
        f"in the middle has {cover.median}.",
        note="How many images have 0, 1, ... labels that count: of main trials whose session holds its place.",
        size=SIZE,
        head=("Labels", "Images", "Share"),
        rows=[
            (number(labels), number(images), percent(images / max(1, cover.all_images)))
            for labels, images in enumerate(cover.images)
        ],
        draw=lambda: plots().count_bars(
            list(range(last + 1)), cover.images[: last + 1], what="labels of the image", of_what="images", size=SIZE
        ),
    )


def learning(times: Data | None) -> Figure | None:
    if not times:
        return None
    curve = times["by_position"]
    first, last = curve[0], curve[-1]
    finding = f"The median is {_seconds(times['median'])}; half of all answers take {_seconds(times['low'])} to "
    finding += f"{_seconds(times['high'])}."
    if len(curve) > 1:
        finding += f" It goes from {_seconds(first[3])} at position {first[0]} to {_seconds(last[3])} at {last[0]}."
    return Figure(
        name="times",
        title="Active seconds per answer",
        finding=finding,
        note=f"From the painted image to the answer, without the time the tab was hidden, of {number(times['count'])} "
        f"answers; their mean is {_seconds(times['mean'])}. The line is the median at each position of a session, the "
        "band holds the middle half: it falls as people learn.",
        size=SIZE,
        head=("Position", "Answers", "Lower quartile (s)", "Median (s)", "Upper quartile (s)"),
        rows=[
            ("all", number(times["count"]), *(f"{times[each]:.3f}" for each in ("low", "median", "high"))),
            *(
                (number(position), number(count), f"{low:.3f}", f"{middle:.3f}", f"{high:.3f}")
                for position, count, low, middle, high in curve
            ),
        ],
        draw=lambda: plots().curve(
            [each[0] for each in curve],
            [each[3] for each in curve],
            band=([each[2] for each in curve], [each[4] for each in curve]),
            what="position in the session",
            of_what="active seconds",
            size=SIZE,
        ),
    )


def wages(work: Data | None) -> Figure | None:
    """A session's minutes and what an hour earned: numbers alone, where there is no time there is no figure."""
    if not work or not work["completed"]:
        return None
    spans = [("consent to completion", work["wall"]), ("active time on answers", work["active"])]
    known = [(name, span) for name, span in spans if span["sessions"]]
    if not known:
        return None
    currency = work["currency"]

    def pay(minor: float) -> str:
        return money(minor, currency) if work["paid"] else "no pay is set"

    means = (
        f"The median session takes {known[0][1]['minutes'][1]:.1f} minutes from {known[0][0]}"
        if known[0][1] is work["wall"]
        else f"The median session spends {known[0][1]['minutes'][1]:.1f} minutes on its answers"
    )
    earns = f"; an hour earns {pay(known[0][1]['wages_minor'][1])}." if work["paid"] else "; no pay is set."
    return Figure(
        name="wages",
        title="Time and pay of a session",
        finding=means + earns,
        note="Of completed sessions that are not excluded. An hour's wage is a session's pay (its payments, or the "
        "base pay where none was made out yet) divided by its own time; the mean is all pay divided by all time.",
        size=(460, 60 + 70 * len(known)),
        head=(
            "Over",
            "Sessions",
            "Median minutes",
            "Mean minutes",
            "Lower quartile",
            "Median wage",
            "Upper quartile",
            "Mean wage",
        ),
        rows=[
            (
                name,
                number(span["sessions"]),
                f"{span['minutes'][1]:.2f}",
                f"{span['mean_minutes']:.2f}",
                *(pay(each) for each in span["wages_minor"]),
                pay(span["mean_wage_minor"]),
            )
            for name, span in known
        ],
        draw=lambda: plots().bars(
            [name for name, _ in known],
            [span["minutes"][1] for _, span in known],
            what="median minutes",
            size=(460, 60 + 70 * len(known)),
        ),
    )


def second_thoughts(repeats: Data | None) -> Figure | None:
    if not repeats:
        return None
    pairs, flips = repeats["pairs"], repeats["flips"]
    same = pairs - flips
    change = repeats["mean_change"]
    return Figure(
        name="repeats",
        title="Second answers beside first ones",
        finding=f"{number(flips)} of {number(pairs)} repeats name another class ({percent(flips / pairs)}); the "
        f"answers lie {repeats['mean_distance']:.3f} apart on average.",
        note="Flip: another class is named most likely. Change: by how many points its percentage moved where the "
        "class stayed. Total variation: 0 the same label, 1 nothing in common.",
        size=(460, 200),
        head=("Measure", "Value"),
        rows=[
            ("repeats", number(pairs)),
            ("flips", number(flips)),
            ("share that flip", percent(flips / pairs)),
            ("mean change of the percentage (points)", "–" if change is None else f"{change:.3f}"),
            ("percentage unchanged", number(repeats["unchanged"])),
            ("share unchanged, where the class stayed", percent(repeats["unchanged"] / same) if same else "–"),
            ("mean total variation", f"{repeats['mean_distance']:.4f}"),
        ],
        draw=lambda: plots().bars(
            ["another class", "same class, moved", "unchanged"],
            [flips, same - repeats["unchanged"], repeats["unchanged"]],
            what="repeats",
            size=(460, 200),
        ),
    )


_AGREEMENT = (
    ("total_variation", "between people", "mean total variation of two people on an image"),
    ("within", "within a person", "mean total variation of a person's own answers on an image"),
    ("ratio", "within / between", "how much of what looks like disagreement is one person's own noise"),
    ("jensen_shannon", "Jensen-Shannon", "mean divergence of two people on an image, nats"),
    ("alpha", "Krippendorff's alpha", "1 where people agree everywhere, 0 where no more than by chance"),
)


def agreement(found: Data | None) -> Figure | None:
    known = [(name, means, found[key]) for key, name, means in _AGREEMENT if found and found[key]]
    if not found or not known or not found["total_variation"]:
        return None
    between, alpha = found["total_variation"], found["alpha"]
    of_all = (
        f" Worked out on {number(found['images'])} images drawn at random of {number(found['images_in_all'])}."
        if found["images"] < found["images_in_all"]
        else ""
    )
    return Figure(
        name="agreement",
        title="Agreement between people",
        finding=f"Two people on one image lie {between['value']:.3f} apart"
        + (f"; Krippendorff's alpha is {alpha['value']:.3f}." if alpha else "."),
        note="Of main answers on images that two people or more have answered, as whole distributions; within a "
        f"person by the repeats. Lines: 95 % intervals by bootstrap over images ({summaries.DRAWS} draws).{of_all}",
        size=SIZE,
        head=("Measure", "Value", "From", "To", "Images", "Means"),
        rows=[
            (
                name,
                f"{each['value']:.4f}",
                *(f"{end:.4f}" for end in each["interval"] or ()),
                *(["–", "–"] if not each["interval"] else []),
                number(each["units"]),
                means,
            )
            for name, means, each in known
        ],
        draw=lambda: plots().intervals(
            [name for name, _, _ in known],
            [each["value"] for _, _, each in known],
            [tuple(each["interval"]) if each["interval"] else None for _, _, each in known],
            what="value with its 95 % interval",
            size=SIZE,
        ),
    )


def right(found: Data | None) -> Figure | None:
    if not found:
        return None
    answers, bins = found["answers"], found["bins"]
    return Figure(
        name="accuracy",
        title="Stated percentages beside the dataset's own label",
        finding=f"{percent(found['first'] / answers)} of main answers name the dataset's class first, "
        f"{percent(found['first_two'] / answers)} first or second; calibration error (ECE) {found['error']:.3f}.",
        note="Of those who said 80 to 90 %, how many were right? On the dashed line stated and right agree; below it "
        "people are too sure. An ambiguous image's own label need not be what people see. ECE: the mean distance from "
        "that line, by answers.",
        size=(460, 380),
        head=("Stated", "Answers", "Mean stated", "Right"),
        rows=[
            (f"{low:g}–{high:g} %" if low < high else f"{low:g} %", number(count), percent(stated), percent(share))
            for low, high, count, stated, share in bins
        ]
        + [
            ("first", number(answers), percent(found["stated"]), percent(found["first"] / answers)),
            ("first or second", number(answers), "–", percent(found["first_two"] / answers)),
            ("calibration error", number(answers), "–", f"{found['error']:.4f}"),
        ],
        draw=lambda: plots().curve(
            [each[3] for each in bins],
            [each[4] for each in bins],
            beside=("as stated", [0, 1], [0, 1]),
            name="right",
            what="stated share of the likeliest class",
            of_what="share that is the dataset's class",
            size=(460, 380),
            top=1.0,
        ),
    )


def remarks(data: Data) -> Figure | None:
    """What was asked back on the screen, and what an import mended."""
    asked, mended = data.get("warnings", []), data.get("mended", [])
    if not asked and not mended:
        return None
    rows = [(f"asked back: {_words(code)}", number(shown), number(kept)) for code, shown, kept in asked]
    rows += [(f"mended at the import: {_words(code)}", number(count), "–") for code, count in mended]
    in_all = sum(shown for _, shown, _ in asked)
    finding = [f"{number(in_all)} questions were asked back"] if asked else []
    finding += [f"{number(data['answers_mended'])} answers contradicted themselves and were mended"] if mended else []
    names = [*(_words(code) for code, _, _ in asked), *(_words(code) for code, _ in mended)]
    values = [*(shown for _, shown, _ in asked), *(count for _, count in mended)]
    size = (460, 110 + 32 * len(names))
    return Figure(
        name="remarks",
        title="Contradictions and questions asked back",
        finding="; ".join(finding) + ".",
        note="The screen lets no contradiction through. Asked back: it looked like a slip, and the annotator could "
        "keep or change it. Mended: the published study took contradictions; its import mends and counts them.",
        size=size,
        head=("What", "How often", "Kept unchanged"),
        rows=[*rows, *([("answers mended", number(data["answers_mended"]), "–")] if mended else [])],
        draw=lambda: plots().bars(names, values, what="how often", size=size),
    )


def _words(code: str) -> str:
    return code.replace("_", " ")


def costs(cost: Cost, cover: Coverage, planned: Any) -> Figure | None:
    """What was spent beside the planner's curve, by labels."""
    total, labels, currency = cost.total_minor, cover.labels, cost.currency
    if planned is None and not total:
        return None
    parts = [
        ("pay of finished sessions", cost.base_minor),
        ("bonuses", cost.bonus_minor),
        ("the platform's fees", cost.fees_minor),
    ]
    rows = [(name, "", money(minor, currency), "") for name, minor in parts]
    rows.append(("so far", number(labels), money(total, currency), ""))
    per_label = f", {money(total / labels, currency)} a label" if labels else ""
    finding = f"{money(total, currency)} for {number(labels)} labels{per_label}."
    beside = None
    if planned is not None:
        counts, minor, error, metric = planned
        beside = ("planned", list(counts), [each / 100 for each in minor])
        rows += [
            ("planned", number(round(count)), money(cost, currency), f"{metric} {loss:.4f}")
            for count, cost, loss in zip(counts, minor, error, strict=True)
        ]
    return Figure(
        name="costs",
        title="Cost so far",
        finding=finding,
        note="Pay of finished sessions, whether it is sent already or not, frozen bonuses, and the platform's fees"
        + (", beside what the planner expected for as many labels." if planned is not None else "."),
        size=SIZE,
        head=("What", "Labels", "Cost", "Expected error"),
        rows=rows,
        draw=lambda: plots().curve(
            [0, labels],
            [0, total / 100],
            beside=beside,
            name="so far",
            what="labels",
            of_what=f"cost ({currency})",
            size=SIZE,
        ),
    )

"""What a release says of itself: a dataset card, a datasheet and Croissant metadata, filled from the study's facts.

Nothing here is made up: where the facts are silent, the files say so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from elicit.labels.release_files.common import (
    ANNOTATOR_SOFT_LABELS_NPY,
    CIFAR10H_COUNTS,
    CIFAR10H_PROBS,
    CIFAR10S,
    CIFAR10S_ANSWERS,
    DATASHEET,
    IMAGES_NPY,
    JSON,
    README,
    RESPONSES_CSV,
    RESPONSES_JSONL,
    RESPONSES_PARQUET,
    SOFT_LABELS_CSV,
    SOFT_LABELS_NPY,
    SOFT_LABELS_PARQUET,
    Sink,
)
from elicit.labels.release_files.contents import Contents, quoted
from elicit.labels.varieties import Depth, Redistribution

Told = Callable[[int], None]

DESCRIPTIONS = {
    RESPONSES_CSV: "One row a response: what was said, and its soft label.",
    RESPONSES_JSONL: "One object a response: what was said, by category name.",
    RESPONSES_PARQUET: "One row a response: what was said as lists, and its soft label.",
    SOFT_LABELS_CSV: "One row an image: the pooled soft label, a column a category.",
    SOFT_LABELS_PARQUET: "One row an image: the pooled soft label as a list.",
    SOFT_LABELS_NPY: "Pooled soft labels, images x categories.",
    IMAGES_NPY: "Which image each row of the arrays by image is about.",
    ANNOTATOR_SOFT_LABELS_NPY: "Soft labels of single responses, in the order of the responses' rows.",
    CIFAR10S: "Soft labels of single responses in the layout of CIFAR-10S.",
    CIFAR10S_ANSWERS: "Answers in the layout of CIFAR-10S.",
    CIFAR10H_COUNTS: "Votes for the most likely category in the layout of CIFAR-10H.",
    CIFAR10H_PROBS: "Those votes as shares, in the layout of CIFAR-10H.",
    README: "This dataset's card.",
    DATASHEET: "Datasheet: how the labels came about.",
}
_MEDIA = {
    "csv": "text/csv",
    "json": "application/json",
    "jsonl": "application/jsonlines",
    "md": "text/markdown",
    "npy": "application/octet-stream",
    "parquet": "application/x-parquet",
}

# Why sessions are not in a release, by their key in the facts.
_LEFT_OUT = {
    "not_completed": "not completed when the release was asked for",
    "place_given_away": "back after their place was given to somebody else",
    "inconsistent": "inconsistent: their repeats differ too much from the first answers",
    "not_checked_yet": "not checked yet when the release was asked for",
}
_SPREADS = {
    Redistribution.CLAMP: "goes in equal parts to the categories that are neither named nor ruled out",
    Redistribution.UNIFORM: "goes in equal parts to all unnamed categories",
    Redistribution.NONE: "goes back to the named ones in proportion",
}
_DEPTHS = {
    Depth.T1: "the most likely category",
    Depth.T2: "the most likely category and the next one",
    Depth.TALL: "every named category",
}
_POOLS = {
    "mean": "the mean of its annotators' labels",
    "median": "the median of its annotators' labels, category by category",
    "log": "the geometric mean of its annotators' labels",
    "reliability": "the mean of its annotators' labels, weighted by how well each agrees with the others",
    "confusion": "the mean of its annotators' labels, drawn towards what people confuse and sharpened",
}
_SILENT = "Not recorded."


def _name(facts: Mapping[str, Any]) -> str:
    return str(facts.get("study_name") or facts.get("study") or "Soft labels")


def _said(facts: Mapping[str, Any], key: str, silent: str = _SILENT) -> str:
    """A fact in words on one line."""
    value = facts.get(key)
    if value is None or value in ("", [], {}):
        return silent
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(each) for each in value)
    return " ".join(str(value).split())


def _licence(facts: Mapping[str, Any]) -> str:
    return _said(facts, "licence", "")


def _summary(contents: Contents) -> str:
    counts, facts = contents.counts, contents.facts
    return (
        f"Soft labels of {counts['images']} images in {len(contents.categories)} categories, "
        f"elicited from {counts['annotators']} people in {counts['responses']} responses. "
        f"Dataset: {_said(facts, 'dataset', 'not recorded')}; origin: {_said(facts, 'dataset_origin', 'not recorded')}"
    ).rstrip(".") + "."


def _labelling(contents: Contents) -> str:
    recipe = contents.recipe
    variety = recipe.variety
    full = (
        f" Where the percentages add up to 100 or more, such categories get {variety.gamma:g} of the whole."
        if variety.redistribution is Redistribution.CLAMP
        else ""
    )
    given = "all" if variety.spread == 1 else f"a share of {variety.spread:g} (the rest goes back to the named ones)"
    repeats = "averaged in" if recipe.include_repeats else "left out"
    return (
        f"An answer becomes a soft label by the variety `{variety.slug}` (gamma {variety.gamma:g}): it counts "
        f"{_DEPTHS[variety.depth]}; of what is left to 100 %, {given} {_SPREADS[variety.redistribution]}."
        f"{full} "
        f"An image's label is {_POOLS.get(recipe.pool, recipe.pool)} (pool `{recipe.pool}`); repeats by the same "
        f"person are {repeats}."
    )


def _left_out(facts: Mapping[str, Any]) -> list[str]:
    counts = facts.get("sessions_left_out")
    if not isinstance(counts, Mapping):
        return [_SILENT]
    return [f"{number} {_LEFT_OUT.get(reason, reason)}" for reason, number in counts.items()]


# The card


def write_readme(out: Sink, contents: Contents, told: Told) -> None:
    """The card that Hugging Face shows and `datasets` reads; the release's folder is the dataset."""
    licence, categories = _licence(contents.facts), list(contents.categories)
    configurations = []
    for config, names in (
        ("soft_labels", (SOFT_LABELS_PARQUET, SOFT_LABELS_CSV)),
        ("responses", (RESPONSES_PARQUET, RESPONSES_CSV)),
    ):
        name = next(name for name in names if name in contents.files)
        default = ["  default: true"] if config == "soft_labels" else []
        configurations += [
            f"- config_name: {config}",
            *default,
            "  data_files:",
            "  - split: train",
            f"    path: {name}",
        ]
    size = next((words for most, words in _SIZES if contents.counts["images"] < most), "n>1M")
    header = [
        "---",
        f"pretty_name: {quoted(_name(contents.facts))}",
        *([f"license: {quoted(licence)}"] if licence else []),
        "task_categories:",
        "- image-classification",
        "annotations_creators:",
        "- crowdsourced",
        "size_categories:",
        f"- {quoted(size)}",
        "tags:",
        "- soft-labels",
        "- human-uncertainty",
        "- croissant",
        "configs:",
        *configurations,
        "---",
    ]
    lines = [
        *header,
        "",
        f"# {_name(contents.facts)}",
        "",
        _summary(contents),
        "",
        _labelling(contents),
        "",
        f"Licence: {licence or 'none was given.'}",
        "",
        "Categories, in the order of every label: " + ", ".join(categories) + ".",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        'labels = load_dataset("path/to/this/folder", "soft_labels", split="train")',
        "```",
        "",
        "| file | content |",
        "|---|---|",
        *(f"| `{name}` | {DESCRIPTIONS[name]} |" for name in sorted(contents.files)),
        "",
        f"How the labels came about: `{DATASHEET}`. The files hold no pixels: `image` is the image's number in its "
        "dataset, `image_sha256` the hash of its pixels.",
    ]
    out.text("\n".join(lines) + "\n")
    told(1)


_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


# The datasheet


def write_datasheet(out: Sink, contents: Contents, told: Told) -> None:
    """A datasheet in the order of Gebru et al. 2021, *Datasheets for datasets*."""
    facts, counts = contents.facts, contents.counts
    by_kind = ", ".join(f"{number} {kind}" for kind, number in counts["by_kind"].items() if number)
    missing = [f"- `{name}`: {why}" for name, why in sorted(contents.left_out.items())]
    sections: list[tuple[str, list[str]]] = [
        (
            "Motivation",
            [
                f"What people believe an image shows, with how sure they are: the study “{_name(facts)}”.",
                f"Protocol: {_said(facts, 'preset', 'its own')}.",
            ],
        ),
        (
            "Composition",
            [
                _summary(contents),
                f"- Responses: {by_kind}; {counts['pooled_responses']} are pooled.",
                f"- Images in the study: {_said(facts, 'images_in_study')}",
                f"- Labels wanted for each image: {_said(facts, 'labels_per_image_wanted')}",
                "- Categories: " + ", ".join(contents.categories),
                "- The files hold no pixels, no reference labels and no id of a person or platform. Annotators appear "
                "under random pseudonyms.",
            ],
        ),
        (
            "Collection",
            [
                f"- Question: {_said(facts, 'framing')}",
                *_arms(facts),
                f"- Most categories that could be named: {_said(facts, 'most_named', 'as many as people liked')}",
                f"- Limit on the sum of percentages: {_said(facts, 'sum_limit', 'none')}",
                f"- Impossible categories were asked for: {_said(facts, 'ask_impossible')}",
                f"- Order of the categories drawn for each person: {_said(facts, 'category_order_shuffled')}",
                f"- Repeats in a session: {_said(facts, 'repeats_per_session')}",
                f"- Recruitment: {_said(facts, 'recruitment')}",
                f"- Pay, as people were told: {_said(facts, 'pay')}",
                f"- Time, as people were told: {_said(facts, 'time_estimate')}",
                f"- Versions of the consent text that were agreed to: {_said(facts, 'consent_versions')}",
                *_consents(facts),
            ],
        ),
        (
            "Who was left out",
            [
                f"- Sessions in the release: {_said(facts, 'sessions')}",
                "- Sessions left out:",
                *(f"  - {line}" for line in _left_out(facts)),
            ],
        ),
        ("Labelling", [_labelling(contents), f"The recipe's digest is `{contents.recipe.digest}`."]),
        (
            "Uses",
            [
                "Training and calibration of classifiers on distributions, and the study of human uncertainty. "
                "The labels say what people believe, not what is true; they carry the views of those who took part. "
                "Answers of one person are not independent of each other: split by annotator or by image.",
            ],
        ),
        (
            "Distribution and upkeep",
            [
                f"- Licence: {_licence(facts) or 'none was given.'}",
                "- A release never changes. Another recipe or more answers make another version; every file's sha256 "
                "is in `manifest.json`.",
                *(["- Files that could not be written where the release was made:", *missing] if missing else []),
            ],
        ),
    ]
    text = "\n".join(f"\n## {title}\n\n" + "\n".join(lines) for title, lines in sections)
    out.text(f"# Datasheet: {_name(facts)}\n{text}\n")
    told(1)


def _arms(facts: Mapping[str, JSON]) -> list[str]:
    """Whose answers they are, where annotators were drawn into arms that were asked in different ways."""
    arms = facts.get("arms")
    if not isinstance(arms, Mapping) or not arms:
        return []
    each = "; ".join(f"{name}: {settings or 'as the study'}" for name, settings in arms.items())
    return [f"- Annotators were drawn at random into arms; here are the answers of {each}"]


def _consents(facts: Mapping[str, Any]) -> list[str]:
    texts = facts.get("consent_texts")
    if not isinstance(texts, Mapping):
        return []
    return [
        line
        for version, text in texts.items()
        for line in ("", f"Consent, version {version}:", "", *(f"> {each}".rstrip() for each in str(text).splitlines()))
    ]


# Croissant


_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataBiases": "cr:dataBiases",
    "dataCollection": "cr:dataCollection",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "personalSensitiveInformation": "cr:personalSensitiveInformation",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def write_croissant(out: Sink, contents: Contents, told: Told) -> None:
    """Croissant 1.0 with the RAI 1.0 properties: files, record sets of the two tables, and how it was collected."""
    facts, counts, licence = contents.facts, contents.counts, _licence(contents.facts)
    metadata: dict[str, JSON] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": _name(facts),
        "description": f"{_summary(contents)} Licence: {licence or 'none was given.'}",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        **({"license": licence} if licence else {}),
        "keywords": ["soft labels", "human uncertainty", "image classification"],
        "rai:dataCollection": (
            f"People looked at one image at a time, named categories with percentages and ruled others out. "
            f"Question: {_said(facts, 'framing')}"
        ),
        "rai:dataCollectionType": ["Surveys"],
        "rai:dataCollectionRawData": f"Every answer as it was given is in {RESPONSES_CSV} and {RESPONSES_JSONL}.",
        "rai:dataAnnotationProtocol": _labelling(contents),
        "rai:dataAnnotationPlatform": ["Elicit"],
        "rai:dataAnnotationAnalysis": [
            f"Repeats in a session: {_said(facts, 'repeats_per_session')}.",
            "Sessions left out: " + "; ".join(_left_out(facts)).rstrip(".") + ".",
        ],
        "rai:annotationsPerItem": _said(facts, "labels_per_image_wanted"),
        "rai:annotatorDemographics": [_said(facts, "demographics")],
        "rai:machineAnnotationTools": ["None: every answer is a person's."],
        "rai:dataReleaseMaintenancePlan": "A release never changes; more answers or another recipe make a new one.",
        "rai:personalSensitiveInformation": [
            "None is known: annotators appear under random pseudonyms, and no id of a recruiting platform is released."
        ],
        "rai:dataSocialImpact": (
            f"Recruitment: {_said(facts, 'recruitment')} Pay, as people were told: {_said(facts, 'pay')} "
            f"Versions of the consent text that {counts['annotators']} people agreed to: "
            f"{_said(facts, 'consent_versions')}"
        ),
        "rai:dataBiases": [
            "The labels are the beliefs of those who took part, under the question that they were asked."
        ],
        "rai:dataLimitations": ["The labels say what people believe an image shows, not what is true of it."],
        "rai:dataUseCases": ["Training", "Calibration", "Study of human uncertainty"],
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": name,
                "name": name,
                "description": DESCRIPTIONS[name],
                "contentUrl": name,
                "contentSize": f"{seal['bytes']} B",
                "encodingFormat": _MEDIA[name.rpartition(".")[2]],
                "sha256": seal["sha256"],
            }
            for name, seal in sorted(contents.files.items())
        ],
        "recordSet": [
            _record_set(
                "soft_labels",
                SOFT_LABELS_CSV,
                [
                    ("image", "image", "sc:Integer", "Number in the dataset."),
                    ("image_sha256", "image_sha256", "sc:Text", "Hash of the image's pixels."),
                    ("annotators", "annotators", "sc:Integer", "How many people's labels are pooled."),
                    *_label_fields(contents, ""),
                ],
                key="image",
            ),
            _record_set(
                "responses",
                RESPONSES_CSV,
                [
                    ("annotator", "annotator", "sc:Text", "Pseudonym."),
                    ("image", "image", "sc:Integer", "Number in the dataset."),
                    ("kind", "kind", "sc:Text", "main or repeat."),
                    ("position", "position", "sc:Integer", "Place in the session."),
                    ("category_1", "category_1", "sc:Text", "The most likely category."),
                    ("percentage_1", "percentage_1", "sc:Float", "Its percentage, 0 to 100."),
                    *_label_fields(contents, "soft_"),
                ],
            ),
        ],
    }
    out.text(json.dumps(metadata, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    told(1)


def _label_fields(contents: Contents, prefix: str) -> list[tuple[str, str, str, str]]:
    # By number: a category may be called anything, an id may not; and `image` is a column's name already.
    return [
        (f"soft_{number}", f"{prefix}{name}", "sc:Float", f"Probability of {name}, 0 to 1.")
        for number, name in enumerate(contents.categories)
    ]


def _record_set(name: str, file: str, fields: list[tuple[str, str, str, str]], key: str = "") -> dict[str, JSON]:
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": DESCRIPTIONS[file],
        **({"key": {"@id": f"{name}/{key}"}} if key else {}),
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{name}/{field}",
                "name": field,
                "description": words,
                "dataType": kind,
                "source": {"fileObject": {"@id": file}, "extract": {"column": column}},
            }
            for field, column, kind, words in fields
        ],
    }

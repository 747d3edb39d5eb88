"""The dashboard, the alarms and their page speak of metrics that there are."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from elicit import counters, metrics
from tests.services import ROOT

FOLDER = ROOT / "docs" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "elicit.json").read_text(encoding="utf-8"))
ALERTS: dict[str, Any] = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PAGE = (ROOT / "docs" / "how-to" / "operate.md").read_text(encoding="utf-8")
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
# What a histogram and a counter are exported as.
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "gauge": ("",)}


@pytest.fixture
def exported(db: None) -> dict[str, set[str]]:
    """Every sample's name with the labels that it has."""
    found = {}
    for family in [*counters.REGISTRY.collect(), *metrics.Standing().collect()]:
        for suffix in SUFFIXES[family.type]:
            found[family.name + suffix] = labels_of(family.name) | ({"le"} if suffix == "_bucket" else set())
    return found


def labels_of(family: str) -> set[str]:
    """As the page tells; tests/test_metrics.py has them of the samples."""
    names = {f"`{family}`", f"`{family}_total`"}
    [row] = [
        line for line in PAGE.splitlines() if line.startswith("|") and names & set(re.split("[ ,]", line.split("|")[1]))
    ]
    return {label.strip() for label in row.split("|")[2].split(",")} - {""}


def named(text: str) -> set[str]:
    return set(re.findall(r"\belicit_[a-z_]+", text))


def test_the_dashboard_has_panels_of_their_own_ids_in_places_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids) >= 15
    taken = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24
    for panel in panels:
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters) > 0, panel["title"]


def test_every_metric_of_the_dashboard_and_the_alarms_is_exported(exported: dict[str, set[str]]) -> None:
    for expression in [*EXPRESSIONS, *(rule["expr"] for rule in RULES)]:
        assert named(expression), expression
        assert named(expression) <= set(exported), expression


def test_every_label_that_is_asked_for_is_one_of_the_metric(exported: dict[str, set[str]]) -> None:
    for expression in [*EXPRESSIONS, *(rule["expr"] for rule in RULES)]:
        there = set().union(*(exported[name] for name in named(expression)))
        asked = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
        asked |= set(re.findall(r"[{,]\s*([a-z]+)=", expression))
        assert asked <= there, expression


def test_the_legends_name_labels_that_their_expressions_keep() -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            kept = {
                each.strip() for group in re.findall(r"by \(([^)]*)\)", target["expr"]) for each in group.split(",")
            }
            assert shown <= kept, panel["title"]


def test_every_metric_is_on_the_dashboard_and_on_the_page(exported: dict[str, set[str]]) -> None:
    shown = set().union(*map(named, EXPRESSIONS))
    for family in [*counters.REGISTRY.collect(), *metrics.Standing().collect()]:
        assert {family.name + suffix for suffix in SUFFIXES[family.type]} & shown, family.name
    told = named(PAGE) - {"elicit_request_seconds"}
    assert told <= set(exported)


def test_every_alarm_says_what_is_the_matter_and_stands_on_the_page() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    assert {"ElicitDatabaseDown", "ElicitQueueWaits", "ElicitAnswersSlow", "ElicitAnswersResent"} <= set(names)
    for rule in RULES:
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert re.fullmatch(r"\d+m", rule.get("for", "0m"))
        assert f"| `{rule['alert']}` |" in PAGE


def test_the_example_of_scraping_is_valid() -> None:
    compose, prometheus = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
    [scrape] = prometheus["scrape_configs"]
    mounted = {volume.split(":")[1] for volume in compose["services"]["prometheus"]["volumes"]}
    assert scrape["authorization"]["credentials_file"] in mounted
    assert f"/etc/prometheus/{prometheus['rule_files'][0]}" in mounted
    site = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]["web"]
    [where] = scrape["dns_sd_configs"]
    assert (where["names"], f"0.0.0.0:{where['port']}" in site["command"]) == (["web"], True)

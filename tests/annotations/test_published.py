"""A published study becomes a study like any other."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from annotations import selectors
from annotations.errors import AnnotationError
from annotations.models import (
    ConsistencyCheck,
    Participant,
    Place,
    Response,
    Session,
    SessionStatus,
    Study,
    StudyStatus,
    Trial,
    TrialKind,
)
from annotations.services.published import Imported, import_cifar10s
from elicit.labels.cifar10s import Answer, RawResponse
from tests import factories as make

pytestmark = pytest.mark.django_db


def said(
    row: int, subject: str, image: int, first: int = 3, percentage: float = 80, *, repeat: bool = False, batch: int = 0
) -> RawResponse:
    return RawResponse(row, subject, batch, image, row, repeat, 1500.0, Answer(first, percentage, None, None, (9,)))


def imported(*raw: RawResponse) -> Imported:
    dataset = make.make_dataset()
    return import_cifar10s(raw=raw, dataset=dataset, name="Published", slug="published", now=make.NOON)


def test_each_person_becomes_a_completed_session_in_a_place_of_its_own() -> None:
    done = imported(
        said(1, "ana", 4), said(2, "ana", 5), said(3, "ana", 4, percentage=60, repeat=True), said(4, "bea", 4)
    )
    assert (done.sessions, done.responses, list(done.repairs)) == (2, 4, [])
    study = Study.objects.get()
    assert (study.status, study.labels_per_image, study.batches.count()) == (StudyStatus.CLOSED, 2, 1)
    assert set(Session.objects.values_list("status", flat=True)) == {SessionStatus.COMPLETED}
    assert Place.objects.filter(session__isnull=False).count() == 2
    repeat = Trial.objects.get(kind=TrialKind.REPEAT)
    assert repeat.repeat_of is not None
    assert (repeat.repeat_of.image_id, repeat.responses.get().top_percentage) == (repeat.image_id, 60)
    assert Response.objects.first().duration_ms == 1500  # type: ignore[union-attr]


def test_its_sessions_are_checked_like_any_other() -> None:
    imported(said(1, "ana", 4), said(2, "ana", 4, repeat=True), said(3, "bea", 4))
    checks = ConsistencyCheck.objects.select_related("session__participant")
    verdicts = {check.session.participant.platform_id: check.verdict for check in checks}
    assert verdicts == {"ana": "consistent", "bea": "undetermined"}


def test_whoever_is_in_the_file_twice_comes_in_once() -> None:
    done = imported(said(1, "ana", 4), said(2, "ana", 5), said(3, "ana", 4), said(4, "ana", 5))
    assert done.responses == 2
    assert [repair.what for repair in done.repairs] == ["entered_twice", "entered_twice"]


def test_an_answer_that_contradicts_itself_is_mended_and_reported() -> None:
    done = imported(said(1, "ana", 4, percentage=0))
    assert Response.objects.get().top_percentage == 100
    assert [repair.what for repair in done.repairs] == ["nothing_likely"]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ([said(1, "ana", 4), said(2, "ana", 99)], "99"),
        ([said(1, "ana", 4), said(2, "ana", 5, batch=1)], "in several"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_imported(raw: list[RawResponse], words: str) -> None:
    with pytest.raises(Exception, match=words) as refused:
        imported(*raw)
    assert isinstance(refused.value, AnnotationError) or words == "99"
    assert (Study.objects.count(), Participant.objects.count(), Response.objects.count()) == (0, 0, 0)


def test_a_file_that_is_no_table_is_refused_in_a_line(tmp_path: Path) -> None:
    make.make_dataset(slug="cifar10-test")
    (tmp_path / "raw.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(CommandError, match=r"raw\.csv lacks the column"):
        call_command("import_responses", tmp_path / "raw.csv")
    with pytest.raises(CommandError, match="There is no dataset nowhere"):
        call_command("import_responses", tmp_path / "raw.csv", dataset="nowhere")
    assert Study.objects.count() == 0


def top(form: dict[str, str]) -> str:
    """The class that a raw answer makes the likeliest."""
    first, second = form["classSelect"].removeprefix("mostProb"), form["classSelect2"].removeprefix("secondProb")
    percentage, other = (float(form[name].strip(" p\\") or 0) for name in ("prob", "prob2"))
    return second if second not in ("No", first) and other > percentage else first


def test_the_published_half_shows_the_figures_of_its_own_table(shared_data: Path, tmp_path: Path) -> None:
    """Counts, repeats and class flips against a plain reading of the CSV."""
    make.make_dataset(images=10_000, slug="cifar10-test")
    table = shared_data / "cifar10s" / "raw_human_data_even_batches.csv"
    call_command("import_responses", table, repairs=tmp_path / "repairs.csv", verbosity=0)
    with table.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["task"] in ("spec_conf", "rerun_spec_conf")]
    tops = {(row["subject"], row["img_id"], row["task"]): top(json.loads(row["response"])) for row in rows}
    pairs = [key for key in tops if key[2] == "rerun_spec_conf"]
    flips = sum(tops[key] != tops[(key[0], key[1], "spec_conf")] for key in pairs)

    assert Response.objects.count() == len(tops)
    assert Session.objects.count() == len({key[0] for key in tops})
    checks = ConsistencyCheck.objects.all()
    assert sum(check.repeats for check in checks) == len(pairs)
    assert sum(check.repeats - check.same_top for check in checks) == flips
    progress = selectors.study_progress(Study.objects.get())
    assert progress.labels == len(tops) - len(pairs)
    assert (tmp_path / "repairs.csv").read_text(encoding="utf-8").count("\n") > 50

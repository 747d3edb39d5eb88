"""Backing up, wiping, restoring and going on: real processes, on PostgreSQL and on SQLite."""

from __future__ import annotations

import io
import json
import re
import signal
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest

from elicit.backups import archive, databases
from elicit.backups.archive import BackupError, Writer
from tests import services
from tests.backed_up import ANSWERED
from tests.sites import KEYS, Site, Sites

pytestmark = pytest.mark.timeout(600)

FACTS = {"product": "elicit", "format": archive.FORMAT, "version": "0"}


KINDS = [pytest.param("postgresql", marks=pytest.mark.postgres), "sqlite"]


@pytest.fixture(params=KINDS)
def sites(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sites]:
    made = Sites(tmp_path, request.param)
    yield made
    for site in made.made:
        site.drop()


@pytest.fixture
def site(sites: Sites) -> Site:
    return sites()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "backup.tar"


# --- Wiped and restored


@pytest.mark.slow
def test_a_study_under_way_goes_on_after_everything_was_wiped_and_restored(site: Site, target: Path) -> None:
    made, before, _, done, then = site("prepare", "look", f"backup {target}", "work", "look")
    assert done[-1] == "exports.build_release done"

    site.wipe()
    site.restore(target)

    half, code = made["half"], made["codes"][0]
    after, done, now, ends, *signed_in = site(
        "look", "work", "look", f"finish {' '.join(half)}", f"sign_in {code}", f"sign_in {code}"
    )
    assert after == before
    assert (after["ready"], len(after["releases"])) == (200, 1)
    assert {"done-0", "done-1", "half-0", "half-1"} <= set(after["platform_ids"])
    assert all(after["pictures"].values())
    assert [status for _, status in after["sessions"]].count("withdrawn") == 1
    # The release that waited for a worker waits still, and comes to the same bytes.
    assert done[-1] == "exports.build_release done"
    assert now["releases"] == then["releases"]
    assert len(now["releases"]) == 2
    links = sorted(path.name for path in (site.folder / "releases").iterdir() if path.is_symlink())
    assert links == ["birds-v1", "birds-v1.zip", "birds-v2", "birds-v2.zip"]
    left = ends[half[0]][0]
    assert left >= 10
    assert ends == {token: [left, "completed"] for token in half}
    assert signed_in == ["/releases/", "refused"]


@pytest.mark.slow
def test_a_restore_in_the_place_of_another_site_leaves_nothing_of_that_and_brings_back_nobody_who_withdrew(
    site: Site, target: Path
) -> None:
    made, before = site("prepare", "look")
    if site.database:
        # Tables are not all that a database has.
        site.sql("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$")
        site.sql("CREATE TRIGGER t BEFORE UPDATE ON jobs_job FOR EACH ROW EXECUTE FUNCTION f()")
    site.backup(target)
    first, second = made["half"]
    *_, changed = site(f"withdraw {first}", f"finish {second}", "work", "look")
    assert len(changed["releases"]) == 2

    refused = site.manage("restore", "--from", str(target))
    assert refused.returncode == 1
    assert "not empty. --replace" in refused.stderr
    assert "Erased again: 1" in site.restore(target, "--replace")

    [after] = site("look")
    assert after["releases"] == before["releases"]
    status = dict(after["sessions"])
    assert status.pop(first) == "withdrawn"
    assert status.items() <= dict(before["sessions"]).items()
    assert len(before["responses"]) - len(after["responses"]) == ANSWERED
    assert "half-0" not in after["platform_ids"]
    assert "half-1" in after["platform_ids"]
    assert len(list((site.folder / "releases" / "builds").iterdir())) == 1


@pytest.mark.slow
def test_backups_of_a_site_at_work_hold_every_file_that_their_rows_name(sites: Sites, tmp_path: Path) -> None:
    site = sites()
    site("prepare 300")
    targets = [tmp_path / f"backup-{number}.tar" for number in range(3)]
    with ExitStack() as stack:
        busy = [stack.enter_context(site.start(command)) for command in ("answer", "change")]
        try:
            for process in busy:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            site(*(f"backup {target}" for target in targets))
            rounds = [json.loads(process.communicate("stop\n", timeout=120)[0])[0] for process in busy]
        finally:
            for process in busy:
                process.kill()
    assert min(rounds) >= 1

    for target in targets:
        with target.open("rb") as stream:
            held = archive.read(stream).facts["counts"]["responses"]
        restored = sites()
        restored.restore(target)
        seen, found, _, later = restored("look", "named", "work", "named")
        assert len(seen["responses"]) == held
        assert found["gone"] == found["wrong"] == later["gone"] == later["wrong"] == []


@pytest.mark.slow
def test_a_file_that_goes_meanwhile_makes_the_copy_begin_anew_and_one_that_was_lost_is_named(
    sites: Sites, target: Path
) -> None:
    _, said = sites()("prepare", f"pulled {target}")
    assert "Files were removed meanwhile: looking again." in said
    [lost] = re.findall("Lost before this backup, and not in it: (.*)", said)
    assert lost.startswith("images/")
    assert lost.endswith("the lost one.png")
    with target.open("rb") as stream:
        assert archive.read(stream).facts["counts"]["datasets"] == 1
    other = sites()
    assert "Lost before the backup was made: images/" in other.restore(target)
    [found] = other("named")
    assert [name[:7] for name in found["gone"]] == ["images/"]


@pytest.mark.slow
def test_a_restore_that_is_killed_at_any_moment_can_be_run_again(sites: Sites, target: Path) -> None:
    _, before, _ = sites()("prepare", "look", f"backup {target}")
    other = sites()
    other("prepare")
    began = time.monotonic()
    sites().restore(target)
    takes = time.monotonic() - began
    killed = 0
    for part in (0.5, 0.65, 0.8, 0.9):
        process = subprocess.Popen(
            [sys.executable, "manage.py", "restore", "--from", str(target), "--replace"],
            cwd=services.ROOT,
            env=other.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(part * takes)
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        [found] = other("named")
        assert found["gone"] == []
    assert killed
    for _ in range(20):
        # The server may need a moment to see that the last one is dead.
        done = other.manage("restore", "--from", str(target), "--replace")
        if "Somebody else is connected" not in done.stderr:
            break
        time.sleep(0.5)
    assert done.returncode == 0, done.stderr
    assert other("look") == [before]
    assert [path.name for path in other.folder.iterdir() if path.name.startswith(("backup-work", "restore"))] == []


# --- What it says


@pytest.mark.slow
def test_a_backup_is_private_whole_and_takes_the_place_of_the_oldest(sites: Sites, tmp_path: Path) -> None:
    site, folder = sites(), tmp_path / "backups"
    site("prepare")
    folder.mkdir()
    for number in range(3):
        (folder / f"elicit-2026010{number}T000000Z.tar").write_text("old")
    (folder / "elicit-notes.tar").write_text("somebody's own")
    (folder / ".elicit-backup-of-one-that-was-killed").write_text("half")

    done = site.manage("backup", "--to", str(folder), "--keep", "2")

    assert done.returncode == 0, done.stderr
    oldest, new, notes = sorted(folder.iterdir())
    assert (oldest.name, notes.name) == ("elicit-20260102T000000Z.tar", "elicit-notes.tar")
    assert stat.S_IMODE(new.stat().st_mode) == 0o600
    assert not any(key.encode() in new.read_bytes() for key in KEYS.values())
    assert "files are as they were" in site.manage("backup", "--verify", str(new)).stdout
    # Other keys are told of before anything changes.
    other = sites()
    for name in KEYS:
        refused = other.manage("restore", "--from", str(new), **{name: "f" * 64})
        assert refused.returncode == 1
        assert f"not the keys with which this backup was made: {name}." in refused.stderr
    # After a rotation the old key is still among them.
    rotated = f"{'f' * 64},{KEYS['ELICIT_FIELD_KEYS']}"
    done = other.manage("restore", "--from", str(new), ELICIT_FIELD_KEYS=rotated)
    assert done.returncode == 0, done.stderr
    done = other.manage("restore", "--from", str(new), "--replace", "--other-keys", ELICIT_FIELD_KEYS="f" * 64)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_pipe_takes_a_backup_and_gives_it_back(sites: Sites) -> None:
    site, other = sites(), sites()
    _, before = site("prepare", "look")
    manage = [sys.executable, "manage.py"]
    made = subprocess.run(
        [*manage, "backup", "--to", "-"], cwd=services.ROOT, env=site.environment, capture_output=True, check=True
    )
    subprocess.run(
        [*manage, "restore", "--from", "-"],
        cwd=services.ROOT,
        env=other.environment,
        input=made.stdout,
        capture_output=True,
        check=True,
    )
    assert other("look") == [before]


@pytest.mark.slow
def test_a_damaged_backup_changes_nothing(site: Site, target: Path) -> None:
    _, before, _ = site("prepare", "look", f"backup {target}")
    whole = target.read_bytes()
    with tarfile.open(target) as tar:
        [database] = [member for member in tar if member.name.startswith("database.")]
    bad = bytearray(whole)
    bad[database.offset_data + 100] ^= 1
    for body, words in ((bytes(bad), "is not what its manifest says"), (whole[: len(whole) // 2], "damaged")):
        target.write_bytes(body)
        refused = site.manage("restore", "--replace", "--from", str(target))
        assert refused.returncode == 1
        assert words in refused.stderr
    assert site("look") == [before]


@pytest.mark.slow
def test_what_cannot_be_restored_here_is_refused_with_the_reason(site: Site, target: Path) -> None:
    assert site.manage("migrate", "-v0").returncode == 0
    site.backup(target)
    with target.open("rb") as stream:
        facts = archive.read(stream).facts
    newer = [*facts["migrations"], ["annotations", "9999_from_tomorrow"]]
    for change, words in (
        ({"migrations": newer}, "annotations.9999_from_tomorrow: install that version first"),
        ({"database": "oracle"}, "The backup is of a site on oracle"),
        ({"format": archive.FORMAT + 1}, "this version of Elicit reads"),
        ({"server": 99}, "use a newer one"),
    ):
        with target.open("wb") as stream:
            Writer(stream, {**facts, **change}).close("")
        refused = site.manage("restore", "--from", str(target))
        assert refused.returncode == 1
        assert words in refused.stderr


@pytest.mark.slow
def test_an_older_backup_is_migrated_when_it_is_restored(sites: Sites, target: Path) -> None:
    site, other = sites(), sites()
    assert site.manage("migrate", "-v0").returncode == 0
    assert site.manage("migrate", "-v0", "otp_static", "0002").returncode == 0
    assert "[ ]" in site.manage("showmigrations", "--plan").stdout
    site.backup(target)
    other.restore(target)
    assert "[ ]" not in other.manage("showmigrations", "--plan").stdout


@pytest.mark.postgres
@pytest.mark.slow
@pytest.mark.parametrize("sites", KINDS[:1], indirect=True)
def test_a_site_in_use_and_a_server_that_is_away_are_told_of(site: Site, target: Path) -> None:
    assert site.manage("migrate", "-v0").returncode == 0
    site.backup(target)
    with closing(psycopg2.connect(site.database)):
        refused = site.manage("restore", "--from", str(target))
    assert refused.returncode == 1
    assert "Somebody else is connected to the database (1)" in refused.stderr
    nobody = urlsplit(site.database)._replace(path="/nobody_made_this").geturl()
    refused = site.manage("restore", "--from", str(target), ELICIT_DATABASE_URL=nobody)
    assert refused.returncode == 1
    assert "The database does not answer" in refused.stderr
    # Neither says the password.
    assert str(urlsplit(site.database).password) not in refused.stderr


def _program(folder: Path, name: str, version: int) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}.1'\n")
    path.chmod(0o755)


def test_the_programs_taken_are_those_of_the_server_s_version_or_the_next_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (15, 17, 18):
        (tmp_path / str(version)).mkdir()
        _program(tmp_path / str(version), "pg_dump", version)
    monkeypatch.setattr(databases, "PROGRAM_FOLDERS", [f"{str(tmp_path).lstrip('/')}/*"])
    monkeypatch.setenv("PATH", str(tmp_path))

    found = [databases.program("pg_dump", least).parent.name for least in (14, 15, 16, 17, 18)]

    assert found == ["15", "15", "17", "17", "18"]
    with pytest.raises(
        BackupError, match=r"pg_dump is of version 18 here .* 19 is needed: install postgresql-client-19"
    ):
        databases.program("pg_dump", 19)
    with pytest.raises(BackupError, match=r"psql was not found: .*apt-get install postgresql-client-17"):
        databases.program("psql", 17)


# --- The archive by itself


def _written(*files: tuple[str, bytes], folder: Path, close: bool = True) -> bytes:
    stream = io.BytesIO()
    writer = Writer(stream, FACTS)
    for number, (name, body) in enumerate(files):
        path = folder / str(number)
        path.write_bytes(body)
        writer.add(name, path)
    if close:
        writer.close("signed")
    return stream.getvalue()


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    body = _written(("database.dump", b"rows"), ("images/ab/c.png", b"png" * 9999), folder=tmp_path)
    out = tmp_path / "out"
    out.mkdir()

    backup = archive.read(io.BytesIO(body), into=out)

    assert (backup.facts, backup.signature) == (FACTS, "signed")
    assert (out / "database.dump").read_bytes() == b"rows"
    assert (out / "images" / "ab" / "c.png").read_bytes() == b"png" * 9999
    assert sorted(path.name for path in out.iterdir()) == ["database.dump", "images"]


def test_what_is_no_backup_is_told_as_such() -> None:
    for body in (b"", b"nothing", b"\0" * 20_000):
        with pytest.raises(BackupError, match=r"no backup|not whole"):
            archive.read(io.BytesIO(body))


def test_every_flipped_byte_that_counts_is_seen(tmp_path: Path) -> None:
    body = _written(("database.dump", b"rows" * 50), folder=tmp_path)
    original = archive.read(io.BytesIO(body))
    for position in range(0, len(body), 7):
        bad = bytearray(body)
        bad[position] ^= 0x11
        try:
            found = archive.read(io.BytesIO(bytes(bad)))
        except BackupError:
            continue
        # What tar itself does not check, such as whose a file is, or the padding.
        assert (found.facts, found.files, found.digest()) == (original.facts, original.files, original.digest())


def test_one_that_was_cut_short_at_any_place_is_not_whole(tmp_path: Path) -> None:
    body = _written(("database.dump", b"rows"), ("media/x", b"y" * 2000), folder=tmp_path)
    end = body.rindex(b'"signature"')
    for length in range(0, end, 97):
        with pytest.raises(BackupError):
            archive.read(io.BytesIO(body[:length]))


@pytest.mark.parametrize(
    "name", ["../secret-key", "/etc/passwd", "images/../../x", "secret-key", "images", "static/x", "images/a\\b"]
)
def test_no_name_leads_out_of_the_folders_of_a_backup(tmp_path: Path, name: str) -> None:
    body = _written(("database.dump", b"rows"), (name, b"x"), folder=tmp_path)
    out = tmp_path / "out" / "in"
    out.mkdir(parents=True)
    with pytest.raises(BackupError, match="no place in a backup"):
        archive.read(io.BytesIO(body), into=out)
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["in", "database.dump"]


def test_links_and_files_beside_the_manifest_are_refused(tmp_path: Path) -> None:
    def with_member(entry: tarfile.TarInfo, body: bytes = b"") -> io.BytesIO:
        written = _written(("database.dump", b"rows"), folder=tmp_path, close=False)
        return io.BytesIO(written + entry.tobuf() + body.ljust(-len(body) % 512 + len(body), b"\0") + b"\0" * 1024)

    link = tarfile.TarInfo("images/x")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with pytest.raises(BackupError, match="no place in a backup"):
        archive.read(with_member(link))
    manifest = tarfile.TarInfo(archive.MANIFEST)
    body = json.dumps({"files": {}, "signature": ""}).encode()
    manifest.size = len(body)
    with pytest.raises(BackupError, match="is not what its manifest says"):
        archive.read(with_member(manifest, body))

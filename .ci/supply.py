"""What the image is made of: `sbom` writes it down (CycloneDX), `audit` asks whether any of it is known to be unsafe.

Both read the locks, and nothing of what happens to be installed. An audit that no service answered says so.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# What the Dockerfile installs for the site.
LOCKS = ("base.txt", "formats.txt", "s3.txt")
SBOM = ROOT / "build" / "sbom.json"
ENTRY = re.compile(r"^([\w.-]+)(?:\[[^\]]*\])?==([^\s;]+)")
# Where advisories come from, in the order in which they are asked.
SERVICES = ("osv", "pypi")
SKIPPED = "audit: SKIPPED, nothing was checked: no advisory service can be reached from here"


def entries() -> dict[tuple[str, str], str]:
    """Each locked package once, by name and version, with its marker and hashes as pip reads them."""
    found = {}
    for lock in LOCKS:
        text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
        for entry in re.split(r"^(?=[\w.-]+(?:\[[^\]]*\])?==)", text, flags=re.MULTILINE):
            if match := ENTRY.match(entry):
                lines = [line for line in entry.splitlines() if line.strip() and not line.strip().startswith("#")]
                found[match[1].lower(), match[2]] = "\n".join(lines).rstrip(" \\") + "\n"
    return dict(sorted(found.items()))


def hashes(entry: str) -> set[str]:
    return set(re.findall(r"--hash=sha256:([0-9a-f]{64})", entry))


def sbom() -> int:
    """Write `build/sbom.json`; fail where a locked package, its version or one of its hashes is missing from it."""
    locked = entries()
    SBOM.parent.mkdir(exist_ok=True)
    subprocess.run(
        [
            # It warns that the lock does not tell which package wanted which.
            *(sys.executable, "-W", "ignore::UserWarning", "-m", "cyclonedx_py", "requirements", "-"),
            *("--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible", "--of", "JSON", "-o", str(SBOM)),
        ],
        input="".join(locked.values()),
        text=True,
        check=True,
    )
    missing = missing_from(json.loads(SBOM.read_text(encoding="utf-8")), locked)
    for line in missing:
        sys.stderr.write(f"sbom: {line}\n")
    sys.stdout.write(f"sbom: {len(locked)} packages in {SBOM.name}\n")
    return 1 if missing else 0


def missing_from(bom: dict[str, Any], locked: dict[tuple[str, str], str]) -> list[str]:
    """What the lock has and the SBOM has not, and the other way round, in words."""
    listed = {
        (component["name"].lower(), component.get("version", "")): {
            each["content"]
            for reference in component.get("externalReferences", [])
            for each in reference.get("hashes", [])
            if each["alg"] == "SHA-256"
        }
        for component in bom.get("components", [])
    }
    lines = [f"{name} {version} is in no lock" for name, version in listed.keys() - locked.keys()]
    for (name, version), entry in locked.items():
        if not hashes(entry):
            lines.append(f"{name} {version} has no hash in the lock")
        elif (name, version) not in listed:
            lines.append(f"{name} {version} is missing")
        elif hashes(entry) != listed[name, version]:
            lines.append(f"{name} {version} has other hashes than the lock")
    return sorted(lines)


def ask(service: str, requirements: str) -> dict[str, Any] | None:
    """What pip-audit says of these requirements, or None where the service gave no answer."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, told = Path(folder, "requirements.txt"), Path(folder, "audit.json")
        wanted.write_text(requirements, encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "-r", str(wanted), "--disable-pip", "--require-hashes"]
        command += ["-s", service, "--timeout", "15", "--progress-spinner", "off", "-f", "json", "-o", str(told)]
        # It ends with 1 where it found something, and where it could not ask: only the report tells them apart.
        subprocess.run(command, capture_output=True, check=False)
        report: dict[str, Any] | None = json.loads(told.read_text(encoding="utf-8")) if told.is_file() else None
    return report


def judged(report: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What a report knows to be unsafe, and what it knows nothing of, in words."""
    unsafe, unknown = [], []
    for package in report["dependencies"]:
        if "skip_reason" in package:
            unknown.append(f"{package['name']}: {package['skip_reason']}")
        for found in package.get("vulns", []):
            mended = ", ".join(found.get("fix_versions", [])) or "no version"
            unsafe.append(f"{package['name']} {package['version']}: {found['id']}, mended in {mended}")
    return unsafe, unknown


def audit() -> int:
    """0 where nothing is known, or where nobody could be asked, which is said; 1 for anything else."""
    locked = entries()
    probe = next(entry for (name, _), entry in locked.items() if name == "django")
    for service in SERVICES:
        # A mirror of the index may answer without knowing of any advisory: that is no answer.
        first = ask(service, probe)
        if first is None or judged(first)[1]:
            continue
        report = ask(service, "".join(locked.values()))
        if report is None:
            sys.stderr.write(f"audit: {service} answered once and then no more\n")
            return 1
        unsafe, unknown = judged(report)
        for line in (*unsafe, *unknown):
            sys.stderr.write(f"audit: {line}\n")
        sys.stdout.write(f"audit: {len(report['dependencies'])} packages, {len(unsafe)} findings ({service})\n")
        return 1 if unsafe or unknown else 0
    sys.stdout.write(f"{SKIPPED} ({', '.join(SERVICES)})\n")
    return 0


if __name__ == "__main__":
    sys.exit({"sbom": sbom, "audit": audit}[sys.argv[1]]())

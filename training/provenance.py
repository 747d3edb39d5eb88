"""Which code ran, and on what: for result.json."""

from __future__ import annotations

import hashlib
import platform
import tomllib
from pathlib import Path
from typing import Any

import torch


def code_version() -> dict[str, str | None]:
    """The product's version where the source tree says it, and a sha256 over the code that trained."""
    here = Path(__file__).parent
    project = here.parent / "pyproject.toml"
    version = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"] if project.is_file() else None
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(here.glob("*.py"))]
    return {"version": version, "training_sha256": hashlib.sha256("".join(lines).encode()).hexdigest()}


def environment(device: str, threads: int) -> dict[str, Any]:
    """Python, torch and the machine's parts that decide over speed and last digits."""
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cpu": _cpu(),
        "device": device if gpu is None else f"{device}: {gpu}",
        "threads": threads,
    }


def _cpu() -> str:
    """The processor's name where the system tells it, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()

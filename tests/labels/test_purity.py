from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[2]

IMPORTS = """
import sys
for blocked in ("celery", "django", "foolbox", "pandas", "PIL", "pyarrow", "rest_framework", "torch"):
    sys.modules[blocked] = None
import elicit.labels, elicit.archives
mine = {name for name in sys.modules if name.split(".")[0] in ("elicit", "annotations", "exports", "jobs")}
print(*sorted(mine))
"""


def test_the_core_imports_without_the_rest_of_the_product() -> None:
    found = subprocess.run(
        [sys.executable, "-c", IMPORTS], cwd=SOURCE, capture_output=True, text=True, check=True, timeout=60
    )
    modules = found.stdout.split()
    assert "elicit.labels.varieties" in modules
    assert all(name == "elicit" or name.startswith(("elicit.labels", "elicit.archives")) for name in modules)


def test_the_package_itself_is_empty() -> None:
    assert (SOURCE / "elicit" / "__init__.py").read_text(encoding="utf-8").strip() == ""

"""What a page tells its script."""

from __future__ import annotations

import json
import re
from typing import Any


def trial_data(response: Any) -> dict[str, Any]:
    """Of the trial screen, as the browser reads it."""
    found = re.search(r'<script id="trial-data" type="application/json">(.*?)</script>', response.content.decode())
    assert found is not None
    return dict(json.loads(found.group(1)))

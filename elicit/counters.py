"""What each process counts: answers, requests, and who was told to wait. docs/how-to/operate.md explains each.

`gunicorn.conf.py` names a folder where the processes of a site keep their counts, and `elicit.metrics` adds them up.
Without one a process counts for itself.
"""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

FOLDER = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")
if FOLDER:
    # Somebody may have tidied up since the site began, and a new worker could not start.
    Path(FOLDER).mkdir(parents=True, exist_ok=True)
disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY = CollectorRegistry()
ACCEPTED = Counter("elicit_answers_accepted", "Answers stored.", ["study"], registry=REGISTRY)
RESENT = Counter(
    "elicit_answers_resent", "Answers that came again and were stored already.", ["study"], registry=REGISTRY
)
REFUSED = Counter("elicit_answers_refused", "Answers refused, by the error's code.", ["code"], registry=REGISTRY)
THROTTLED = Counter(
    "elicit_requests_throttled", "Requests told to wait, by the rule of ELICIT_RATES.", ["rule"], registry=REGISTRY
)
REQUESTS = Histogram(
    "elicit_request_seconds",
    "From a request's arrival at Django to its answer, by route and class of status.",
    ["route", "status"],
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
    registry=REGISTRY,
)

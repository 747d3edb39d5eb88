"""The WSGI entry point: `gunicorn elicit.wsgi`."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

from elicit import patience

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "elicit.settings")

patience.be_impatient()

application = get_wsgi_application()

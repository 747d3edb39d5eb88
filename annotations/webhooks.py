"""What platforms send by themselves. Answers fast: a webhook is stored, and a worker acts on it."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from annotations.services import recruitment
from annotations.services.recruitment import LONGEST_BODY, Forged, Hook


@csrf_exempt  # signed by the platform instead
@require_POST
def prolific(request: HttpRequest) -> HttpResponse:
    """Prolific's events. 204 for a new one and for one that came before; 403 for one that Prolific did not sign now."""
    if int(request.headers.get("Content-Length") or 0) > LONGEST_BODY:
        return HttpResponse(status=413)
    hook = Hook(
        body=request.body,
        signature=request.headers.get("X-Prolific-Request-Signature", ""),
        timestamp=request.headers.get("X-Prolific-Request-Timestamp", ""),
        event_id=request.headers.get("X-Event-ID", ""),
    )
    try:
        recruitment.take_event(hook, secret=settings.PROLIFIC_WEBHOOK_SECRET, now=timezone.now())
    except Forged:
        return HttpResponse(status=403)
    return HttpResponse(status=204)

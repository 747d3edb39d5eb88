"""The researcher's pages: the list of releases, one release, its files, and an API token."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe
from knox.models import get_token_model

from elicit.labels.errors import Refusal
from exports import looking, selectors
from exports.downloads import file_response
from exports.keys import key
from exports.looking import SEE

# Why sessions are not in a release, in the words of its page.
REASONS = {
    "not_completed": "not completed",
    "place_given_away": "back too late",
    "inconsistent": "inconsistent",
    "not_checked_yet": "not checked yet",
}


@never_cache
@require_safe
@login_required
@SEE
def release_list(request: HttpRequest) -> HttpResponse:
    rows = [(release, selectors.build_state(release)) for release in selectors.releases()[:500]]
    return render(request, "releases/list.html", {"rows": rows})


@never_cache
@require_safe
@login_required
@SEE
def release_detail(request: HttpRequest, study: str, version: int) -> HttpResponse:
    release = get_object_or_404(selectors.releases(), study__slug=study, version=version)
    state = selectors.build_state(release)
    counts = release.manifest.get("facts", {}).get("sessions_left_out", {})
    left_out = [(REASONS.get(reason, reason), number) for reason, number in counts.items() if number]
    context = {"release": release, "state": state, "left_out": left_out}
    if release.is_ready:
        try:
            context["glimpse"] = looking.glimpse(release)
        except Refusal as refusal:
            context["no_glimpse"] = refusal.message
        others = selectors.comparable_releases(release.manifest["categories"])
        context["key"] = key(release)
        context["others"] = [(key(other), str(other)) for other in others if other.pk != release.pk]
    return render(request, "releases/detail.html", context)


@require_safe
@login_required
@SEE
def release_file(request: HttpRequest, study: str, version: int, name: str) -> HttpResponseBase:
    release = get_object_or_404(selectors.ready_releases(), study__slug=study, version=version)
    try:
        return file_response(request, release, name)
    except Refusal as refusal:
        return looking.sorry(request, refusal)


@never_cache
@require_POST
@login_required
@SEE
def new_token(request: HttpRequest) -> HttpResponse:
    """Make an API token. It is shown now and never again: only its hash is kept."""
    _, token = get_token_model().objects.create(request.user)
    return render(request, "releases/token.html", {"token": token})

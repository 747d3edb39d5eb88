"""Pages to look into a release: its figures, its images, and what was said of each. All of it from its files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np
from django import forms
from django.contrib.auth.decorators import login_required, permission_required
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotModified
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.http import parse_etags
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from elicit import shares
from elicit.figures import DRAWING_POLICY, number
from elicit.labels.errors import Refusal
from elicit.labels.overview import Overview
from elicit.labels.release_files import OpenRelease, ReleasedResponse
from elicit.labels.simplex import entropy
from exports import derived, figures, selectors
from exports.models import Release

SEE = permission_required("exports.view_release", raise_exception=True)
PER_PAGE = 24
STATUS = {"release_not_found": 404, "image_not_in_release": 404, "release_withheld": 410}
# The largest image number that a form takes: what fits a column of the arrays.
LARGEST = 2**63 - 1

View = Callable[..., HttpResponseBase]


def researcher_page(view: View) -> View:
    """For those who may see releases; a Refusal becomes a page that says why."""

    @wraps(view)
    def guarded(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
        try:
            return view(request, **kwargs)
        except Refusal as refusal:
            return sorry(request, refusal)

    return never_cache(require_safe(login_required(SEE(guarded))))


def sorry(request: HttpRequest, refusal: Refusal) -> HttpResponse:
    return render(request, "releases/sorry.html", {"refusal": refusal}, status=STATUS.get(refusal.code, 409))


def ready(study: str, version: int) -> Release:
    return get_object_or_404(selectors.ready_releases(), study__slug=study, version=version)


# Figures


@require_safe
@login_required
@SEE
def figure(request: HttpRequest, study: str, version: int, name: str) -> HttpResponseBase:
    """One drawing of a release, as SVG."""
    if name not in figures.NAMES:
        raise Http404("This release has no such figure.")
    release = ready(study, version)
    return drawing(request, derived.tag(release.digest, name), lambda: derived.figure(release, name), release)


def drawing(request: HttpRequest, etag: str, draw: Callable[[], bytes], *releases: Release) -> HttpResponseBase:
    """An SVG of these releases, or 304 for who has it; 404 where their files are gone or withheld."""
    if any(release.withheld for release in releases):
        raise Http404("This release is not given out any more.")
    headers = {
        "ETag": etag,
        # It never changes, but who may see it can: the browser asks each time.
        "Cache-Control": "private, no-cache",
        # With 304 too: the browser takes over what that says.
        "Content-Security-Policy": DRAWING_POLICY,
    }
    if etag in (each.removeprefix("W/") for each in parse_etags(request.headers.get("If-None-Match", ""))):
        return HttpResponseNotModified(headers=headers)
    try:
        body = draw()
    except Refusal as refusal:
        raise Http404(refusal.message) from refusal
    return HttpResponse(body, content_type="image/svg+xml", headers=headers)


# The images


UNSETTLED, SETTLED, NUMBER = "unsettled", "settled", "number"
ORDERS = ((UNSETTLED, "least settled first"), (SETTLED, "most settled first"), (NUMBER, "by number"))


class Narrowing(forms.Form):
    """Which images of a release, in which order."""

    top = forms.TypedChoiceField(label="Most likely class", required=False, coerce=int, empty_value=None)
    sort = forms.ChoiceField(label="Order", required=False, choices=ORDERS)
    page = forms.IntegerField(required=False, min_value=1, widget=forms.HiddenInput)

    def __init__(self, data: Any, seen: Overview, categories: Sequence[str]) -> None:
        super().__init__(data)
        self._seen = seen
        counts = seen.top_images.tolist()
        self.fields["top"].choices = [  # type: ignore[attr-defined]
            ("", f"any ({number(len(seen.top))})"),
            *((index, f"{name} ({number(counts[index])})") for index, name in enumerate(categories)),
        ]

    def clean_page(self) -> int:
        return self.cleaned_data["page"] or 1

    def rows(self) -> list[int]:
        """Rows of the release's arrays."""
        top, sort = self.cleaned_data["top"], self.cleaned_data["sort"] or UNSETTLED
        found = np.arange(len(self._seen.top)) if top is None else np.flatnonzero(self._seen.top == top)
        if sort != NUMBER:
            keys = self._seen.entropy[found]
            found = found[np.argsort(-keys if sort == UNSETTLED else keys, kind="stable")]
        return found.tolist()


class Jump(forms.Form):
    """To one image by its number."""

    image = forms.IntegerField(label="Image number", min_value=0, max_value=LARGEST)

    def __init__(self, data: Any, files: OpenRelease) -> None:
        super().__init__(data)
        self._files = files
        self.fields["image"].widget.attrs["inputmode"] = "numeric"

    def clean_image(self) -> int:
        image = int(self.cleaned_data["image"])
        if self._files.row_of(image) is None:
            raise forms.ValidationError(not_here(self._files, image))
        return image


def not_here(files: OpenRelease, image: int) -> str:
    """That an image is not in a release, and which ones are near it."""
    place = int(np.searchsorted(files.images, image))
    near = " and ".join(map(str, files.images[max(0, place - 1) : place + 1].tolist()))
    return f"Image {image} is not in this release. Near it are {near}."


@researcher_page
def images(request: HttpRequest, study: str, version: int) -> HttpResponseBase:
    """The images of a release, a page at a time."""
    release = ready(study, version)
    files, seen = derived.opened(release), derived.overview(release)
    jump = Jump(request.GET if "image" in request.GET else None, files)
    if jump.is_bound and jump.is_valid():
        return redirect("release-image", study, version, jump.cleaned_data["image"])
    form = Narrowing(request.GET, seen, files.categories)
    context: dict[str, Any] = {"release": release, "form": form, "jump": jump, "total": len(seen.top)}
    if not form.is_valid() or jump.is_bound:
        return render(request, "releases/images.html", context, status=400)
    pages = Paginator(form.rows(), PER_PAGE)
    asked = form.cleaned_data["page"]
    if asked > pages.num_pages:
        form.add_error("page", f"There is no page {asked}: the last one is {pages.num_pages}.")
        return render(request, "releases/images.html", context, status=404)
    page = pages.page(asked)
    context |= {
        "page": page,
        "numbers": pages.get_elided_page_range(asked, on_each_side=2, on_ends=1),
        "cards": [
            {
                "image": pooled,
                "entropy": float(seen.entropy[row]),
                "shares": shares.of_label(pooled.label, files.categories),
            }
            for row, pooled in zip(page.object_list, files.pooled(page.object_list), strict=True)
        ],
    }
    return render(request, "releases/images.html", context)


@dataclass(frozen=True)
class Said:
    """One answer as its page shows it."""

    response: ReleasedResponse
    named: list[shares.Share]
    impossible: list[str]
    shares: shares.Shares

    @property
    def seconds(self) -> float | None:
        """Time to answer; None if unknown."""
        duration = self.response.duration_ms
        return None if duration is None else duration / 1000


@researcher_page
def image(request: HttpRequest, study: str, version: int, index: int) -> HttpResponseBase:
    """One image of a release, and what everybody said of it."""
    release = ready(study, version)
    files = derived.opened(release)
    row = files.row_of(index) if index <= LARGEST else None
    if row is None:
        raise Refusal("image_not_in_release", not_here(files, min(index, LARGEST)))
    (pooled,) = files.pooled([row])
    names = files.categories
    answers = [
        Said(
            response,
            [shares.Share(names[category], percentage) for category, percentage in response.elicited.named],
            [names[category] for category in sorted(response.elicited.impossible)],
            shares.of_label(label, names),
        )
        for response, label in files.responses_of(index)
    ]
    context = {
        "release": release,
        "image": pooled,
        "entropy": float(entropy(pooled.label)),
        "shares": shares.of_label(pooled.label, names, shown=12),
        "answers": answers,
        "before": int(files.images[row - 1]) if row else None,
        "after": int(files.images[row + 1]) if row + 1 < len(files) else None,
    }
    return render(request, "releases/image.html", context)


# On the release's own page

FIRST_ROWS = 5
COLUMNS = 10


def glimpse(release: Release) -> dict[str, Any]:
    """The release's first rows and its figures, for its page; Refusal where its files can't be looked into."""
    files = derived.opened(release)
    return {
        "categories": files.categories[:COLUMNS],
        "more_categories": max(0, len(files.categories) - COLUMNS),
        "rows": [
            (each, [f"{share:.3f}" for share in each.label[:COLUMNS].tolist()])
            for each in files.pooled(range(min(FIRST_ROWS, len(files))))
        ],
        "more_rows": max(0, len(files) - FIRST_ROWS),
        "figures": figures.of_release(derived.overview(release), files.categories),
    }

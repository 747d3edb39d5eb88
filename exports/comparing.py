"""Two releases side by side: which recipe, which images and people, and how far the labels moved."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_safe

from elicit import shares
from exports import derived, figures, looking, selectors
from exports.keys import find, key
from exports.looking import SEE, researcher_page
from exports.models import Release

# Of the most changed images, and of names and numbers in a list.
SHOWN_IMAGES = 24
SHOWN_NAMES = 60


class ReleaseField(forms.CharField):
    """The key of a ready release; any, also one that the list has no room for."""

    def clean(self, value: Any) -> Release:
        text = super().clean(value)
        release = find(text)
        if release is None:
            raise forms.ValidationError(f"There is no finished release {text}. A release is named like study/v1.")
        return release


class Pair(forms.Form):
    """Two releases. The fields are called as in the address, where `from` and `to` read best."""

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        known = selectors.comparable_releases()
        choices = [("", "choose a release"), *((key(release), str(release)) for release in known)]
        for name, label in (("from", "From"), ("to", "To")):
            wanted = (data or {}).get(name, "")
            mine = choices if wanted in dict(choices) else [*choices, (wanted, wanted)]
            self.fields[name] = ReleaseField(label=label, widget=forms.Select(choices=mine))


@researcher_page
def compare(request: HttpRequest) -> HttpResponseBase:
    """Choose two releases, and see what differs."""
    asked = "from" in request.GET and "to" in request.GET
    form = Pair(request.GET if asked else None)
    if not asked:
        form.initial = {name: request.GET.get(name, "") for name in ("from", "to")}
        return render(request, "releases/compare.html", {"form": form})
    if not form.is_valid():
        return render(request, "releases/compare.html", {"form": form}, status=400)
    older, newer = form.cleaned_data["from"], form.cleaned_data["to"]
    found = derived.difference(older, newer)
    names = found["categories"]
    context = {
        "form": form,
        "older": older,
        "newer": newer,
        "older_key": key(older),
        "newer_key": key(newer),
        "found": found,
        "counts": [
            ("Images", found["counts"]["images"]),
            ("Annotators", found["counts"]["annotators"]),
            ("Responses", found["counts"]["responses"]),
        ],
        "figure": figures.moved(found) if found["labels_changed"] else None,
        "figure_source": f"{reverse('release-compare-figure')}?{urlencode({'from': key(older), 'to': key(newer)})}",
        "lists": [
            _listed("Images only in", older, found["images_removed"], "release-image"),
            _listed("Images only in", newer, found["images_added"], "release-image"),
            _listed("Annotators only in", older, found["annotators_removed"]),
            _listed("Annotators only in", newer, found["annotators_added"]),
        ],
        "changed": [
            {
                **each,
                "before": shares.of_label(each["from"], names),
                "after": shares.of_label(each["to"], names),
                "sha256": pooled.sha256,
            }
            for each, pooled in _with_pictures(newer, found["most_changed"][:SHOWN_IMAGES])
        ],
    }
    return render(request, "releases/compare.html", context)


def _listed(what: str, release: Release, values: list[Any], link: str = "") -> dict[str, Any]:
    shown = values[:SHOWN_NAMES]
    return {
        "what": f"{what} {release}",
        "release": release,
        "number": len(values),
        "shown": shown,
        "more": len(values) - len(shown),
        "link": link,
    }


def _with_pictures(release: Release, changed: list[dict[str, Any]]) -> list[tuple[dict[str, Any], Any]]:
    files = derived.opened(release)
    rows = [row for each in changed if (row := files.row_of(each["image"])) is not None]
    return list(zip(changed, files.pooled(rows), strict=True))


@require_safe
@login_required
@SEE
def figure(request: HttpRequest) -> HttpResponseBase:
    """The drawing of how far the labels moved, as SVG."""
    older, newer = (find(request.GET.get(name, "")) for name in ("from", "to"))
    if older is None or newer is None:
        raise Http404("There are no such releases.")
    etag = derived.tag(older.digest, newer.digest)
    return looking.drawing(request, etag, lambda: derived.difference_figure(older, newer), older, newer)

"""Releases over the API, for scripts. `Authorization: Token KEY`."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from django.db.models import QuerySet
from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_field
from rest_framework import permissions, serializers
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.generics import ListAPIView
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.pagination import LimitOffsetPagination
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from exports import derived, selectors
from exports.downloads import file_response
from exports.keys import KEY, find
from exports.models import Release


class MayReadReleases(permissions.BasePermission):
    """Researchers: whoever has the permission to view releases."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        return request.user.has_perm("exports.view_release")


class FileOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    bytes = serializers.IntegerField()
    sha256 = serializers.CharField()
    url = serializers.CharField()


class ReleaseOut(serializers.Serializer[Release]):
    study = serializers.CharField(source="study.slug")
    version = serializers.IntegerField()
    digest = serializers.CharField(help_text="Hash over the hashes of all files: the release's identity.")
    recipe = serializers.DictField()
    ready_at = serializers.DateTimeField()
    counts = serializers.DictField(source="manifest.counts")
    files = serializers.SerializerMethodField()

    @extend_schema_field(FileOut(many=True))
    def get_files(self, release: Release) -> list[dict[str, Any]]:
        whole = {"bytes": release.zip_bytes, "sha256": release.zip_sha256}
        listed = [("release.zip", whole), *sorted(release.manifest["files"].items())]
        return [
            {
                "name": name,
                "bytes": entry["bytes"],
                "sha256": entry["sha256"],
                "url": reverse("release-file-api", args=[release.study.slug, release.version, name]),
            }
            for name, entry in listed
        ]


class Pages(LimitOffsetPagination):
    """As REST framework's own, but what is no number is refused, not passed over."""

    default_limit = 50
    max_limit = 500
    least: ClassVar = {"limit": 1, "offset": 0}

    def get_limit(self, request: Request) -> int:
        return min(self._asked(request, "limit", self.default_limit), self.max_limit)

    def get_offset(self, request: Request) -> int:
        return self._asked(request, "offset", 0)

    def _asked(self, request: Request, name: str, otherwise: int) -> int:
        text = request.query_params.get(name, str(otherwise))
        if not re.fullmatch("[0-9]{1,9}", text) or int(text) < self.least[name]:
            raise ValidationError({name: [f"Give a whole number from {self.least[name]} to 999999999."]})
        return int(text)

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        parameters = super().get_schema_operation_parameters(view)
        for parameter in parameters:
            parameter["schema"].update(minimum=self.least[parameter["name"]], maximum=999_999_999)
        return parameters


class ReleasesApi(ListAPIView[Release]):
    """The releases that are ready, newest first."""

    permission_classes = (MayReadReleases,)
    serializer_class = ReleaseOut
    pagination_class = Pages
    queryset = selectors.ready_releases()

    @extend_schema(
        parameters=[
            OpenApiParameter("study", str, description="Slug of a study: only its releases."),
            OpenApiParameter("variety", str, description="Slug of a label variety (`t2-clamp`): only such releases."),
        ]
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[Release]:
        queryset, query = super().get_queryset(), self.request.query_params
        for name, field in (("study", "study__slug"), ("variety", "recipe__variety__slug")):
            if asked := query.get(name):
                if "\0" in asked:  # PostgreSQL takes none, and inside JSON fails on it
                    raise ValidationError({name: ["A slug has letters, digits, hyphens and underscores."]})
                queryset = queryset.filter(**{field: asked})
        return queryset


class ReleaseApi(APIView):
    permission_classes = (MayReadReleases,)

    @extend_schema(operation_id="get_release", responses=ReleaseOut)
    def get(self, request: Request, study: str, version: int) -> Response:
        """One release, with its files and their hashes."""
        return Response(ReleaseOut(_ready(study, version)).data)


class AnyType(DefaultContentNegotiation):
    """A file is sent as it is: what the client says that it accepts is not weighed."""

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        return renderers[0], renderers[0].media_type


class ReleaseFileApi(APIView):
    permission_classes = (MayReadReleases,)
    content_negotiation_class = AnyType

    @extend_schema(
        operation_id="get_release_file",
        parameters=[
            OpenApiParameter("Range", str, OpenApiParameter.HEADER, description="`bytes=1000-`: what is missing."),
            OpenApiParameter("If-Range", str, OpenApiParameter.HEADER, description="The ETag that the part came with."),
            OpenApiParameter("If-None-Match", str, OpenApiParameter.HEADER, description="The ETag of what is here."),
        ],
        responses={
            (200, "*/*"): OpenApiResponse(OpenApiTypes.BINARY, "The file. Its ETag is its sha256 in quotes."),
            (206, "*/*"): OpenApiResponse(OpenApiTypes.BINARY, "The bytes that were asked for."),
            304: OpenApiResponse(description="It is what you have."),
            (410, "application/json"): OpenApiResponse(
                OpenApiTypes.OBJECT, "`release_withheld`: it held answers that were erased."
            ),
            (416, "application/json"): OpenApiResponse(
                OpenApiTypes.OBJECT, "`range_not_satisfiable`: the file has none of these bytes."
            ),
        },
    )
    def get(self, request: Request, study: str, version: int, name: str) -> HttpResponseBase:
        """One file of a release; `release.zip` is all of it.

        Send the ETag back in `If-None-Match` to learn whether you have it, and `Range` to go on with a broken download.
        """
        return file_response(request, _ready(study, version), name)


class ReleaseKeyOut(serializers.Serializer[Release]):
    study = serializers.CharField(source="study.slug")
    version = serializers.IntegerField()
    digest = serializers.CharField()


class FromTo(serializers.Serializer[Any]):
    """A value in each of the two releases."""

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        # `from` is a word of Python's own.
        return {name: self.value() for name in ("from", "to")}

    def value(self) -> serializers.Field[Any, Any, Any, Any]:
        return serializers.IntegerField()


class ImageCountsOut(FromTo):
    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        return {**super().get_fields(), "in_both": serializers.IntegerField()}


class CountsOut(serializers.Serializer[Any]):
    images = ImageCountsOut()
    annotators = FromTo()
    responses = FromTo()


class RecipePartOut(FromTo):
    def value(self) -> serializers.Field[Any, Any, Any, Any]:
        return serializers.JSONField(allow_null=True)

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        part = serializers.CharField(help_text="Where in the recipe: `variety.gamma`.")
        return {"part": part, **super().get_fields()}


class TotalVariationOut(serializers.Serializer[Any]):
    """Over the images in both releases; all null or empty where there are none."""

    mean = serializers.FloatField(allow_null=True)
    median = serializers.FloatField(allow_null=True)
    p90 = serializers.FloatField(allow_null=True)
    largest = serializers.FloatField(allow_null=True)
    edges = serializers.ListField(child=serializers.FloatField())
    images = serializers.ListField(child=serializers.IntegerField(), help_text="Changed labels between two edges.")


class LabelChangeOut(FromTo):
    def value(self) -> serializers.Field[Any, Any, Any, Any]:
        return serializers.ListField(child=serializers.FloatField(), help_text="The soft label.")

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        return {
            "image": serializers.IntegerField(),
            "total_variation": serializers.FloatField(help_text="0 to 1."),
            **super().get_fields(),
        }


class DifferencesOut(serializers.Serializer[Any]):
    same = serializers.BooleanField(help_text="Same labels, from the same responses, by the same recipe.")
    categories = serializers.ListField(child=serializers.CharField())
    counts = CountsOut()
    recipe = RecipePartOut(many=True)
    images_added = serializers.ListField(child=serializers.IntegerField())
    images_removed = serializers.ListField(child=serializers.IntegerField())
    annotators_added = serializers.ListField(child=serializers.CharField())
    annotators_removed = serializers.ListField(child=serializers.CharField())
    responses_added = serializers.IntegerField()
    responses_removed = serializers.IntegerField()
    labels_changed = serializers.IntegerField()
    total_variation = TotalVariationOut()
    most_changed = LabelChangeOut(many=True)

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        return {"from": ReleaseKeyOut(), "to": ReleaseKeyOut(), **super().get_fields()}


class DifferencesIn(serializers.Serializer[Any]):
    """What to compare with."""

    limit = serializers.IntegerField(
        required=False, default=50, min_value=0, max_value=derived.MOST_CHANGED, help_text="Of the most changed images."
    )

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        other = serializers.RegexField(
            rf"^{KEY.pattern}$|^[0-9]{{1,9}}$",
            help_text="The other release: a version of the same study (`2`), or `study/2`.",
            error_messages={"invalid": "Give a version of the same study, like 2, or a release, like study/2."},
        )
        return {"with": other, **super().get_fields()}


class ReleaseDifferencesApi(APIView):
    permission_classes = (MayReadReleases,)

    @extend_schema(operation_id="get_release_differences", parameters=[DifferencesIn], responses=DifferencesOut)
    def get(self, request: Request, study: str, version: int) -> Response:
        """What changed from this release to another one: recipe, images, annotators, and labels that moved.

        409 `categories_differ` where the releases have other categories.
        """
        asked = DifferencesIn(data=request.query_params)
        asked.is_valid(raise_exception=True)
        other, limit = asked.validated_data["with"], asked.validated_data["limit"]
        older = _ready(study, version)
        newer = find(other if "/" in other else f"{study}/{other}")
        if newer is None:
            raise NotFound(f"There is no finished release {other}.")
        found = derived.difference(older, newer)
        found["most_changed"] = found["most_changed"][:limit]
        return Response(DifferencesOut({"from": older, "to": newer, **found}).data)


def _ready(study: str, version: int) -> Release:
    return get_object_or_404(selectors.ready_releases(), study__slug=study, version=version)

from __future__ import annotations

from django.urls import path

from exports import api, comparing, looking, pages

urlpatterns = [
    path("releases/", pages.release_list, name="releases"),
    path("releases/token", pages.new_token, name="release-token"),
    path("releases/compare", comparing.compare, name="release-compare"),
    path("releases/compare/moved.svg", comparing.figure, name="release-compare-figure"),
    path("releases/<slug:study>/<int:version>/", pages.release_detail, name="release"),
    path("releases/<slug:study>/<int:version>/files/<path:name>", pages.release_file, name="release-file"),
    path("releases/<slug:study>/<int:version>/figures/<slug:name>.svg", looking.figure, name="release-figure"),
    path("releases/<slug:study>/<int:version>/images", looking.images, name="release-images"),
    path("releases/<slug:study>/<int:version>/images/<int:index>", looking.image, name="release-image"),
    path("api/releases", api.ReleasesApi.as_view(), name="releases-api"),
    path("api/releases/<slug:study>/<int:version>", api.ReleaseApi.as_view(), name="release-api"),
    path(
        "api/releases/<slug:study>/<int:version>/differences",
        api.ReleaseDifferencesApi.as_view(),
        name="release-differences-api",
    ),
    path(
        "api/releases/<slug:study>/<int:version>/files/<path:name>",
        api.ReleaseFileApi.as_view(),
        name="release-file-api",
    ),
]

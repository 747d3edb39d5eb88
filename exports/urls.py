from __future__ import annotations

from django.urls import path

from exports import api, pages

urlpatterns = [
    path("releases/", pages.release_list, name="releases"),
    path("releases/token", pages.new_token, name="release-token"),
    path("releases/<slug:study>/<int:version>/", pages.release_detail, name="release"),
    path("releases/<slug:study>/<int:version>/files/<path:name>", pages.release_file, name="release-file"),
    path("api/releases", api.ReleasesApi.as_view(), name="releases-api"),
    path("api/releases/<slug:study>/<int:version>", api.ReleaseApi.as_view(), name="release-api"),
    path(
        "api/releases/<slug:study>/<int:version>/files/<path:name>",
        api.ReleaseFileApi.as_view(),
        name="release-file-api",
    ),
]

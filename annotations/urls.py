from __future__ import annotations

from django.urls import path, re_path

from annotations import api, pages

urlpatterns = [
    path("", pages.front_page, name="front"),
    path("study/<slug:slug>/", pages.study_page, name="study"),
    path("session/<str:token>/", pages.session_page, name="session"),
    path("session/<str:token>/instructions", pages.begin_trials, name="begin-trials"),
    path("session/<str:token>/questionnaire", pages.questionnaire, name="questionnaire"),
    re_path(r"^image/(?P<sha256>[0-9a-f]{64})-(?P<scale>[1-9]|10)x\.png$", pages.image, name="image"),
    path(
        "api/trials/<uuid:trial_id>/responses/<uuid:response_id>",
        api.ResponseApi.as_view(),
        name="put-response",
    ),
]

from __future__ import annotations

from django.urls import path, re_path

from annotations import api, pages, sittings_api, webhooks

urlpatterns = [
    path("", pages.front_page, name="front"),
    path("study/<slug:slug>/", pages.study_page, name="study"),
    path("study/<slug:slug>/no-thanks", pages.no_thanks, name="no-thanks"),
    path("webhooks/prolific", webhooks.prolific, name="prolific-webhook"),
    path("session/<str:token>/", pages.session_page, name="session"),
    path("session/<str:token>/instructions", pages.leave_instructions, name="leave-instructions"),
    path("session/<str:token>/practice", pages.leave_practice, name="leave-practice"),
    path("session/<str:token>/comprehension", pages.comprehension, name="comprehension"),
    path("session/<str:token>/questionnaire", pages.questionnaire, name="questionnaire"),
    path("session/<str:token>/withdraw", pages.withdraw, name="withdraw"),
    re_path(r"^image/(?P<sha256>[0-9a-f]{64})-(?P<scale>[1-9]|10)x\.png$", pages.image, name="image"),
    path(
        "api/trials/<uuid:trial_id>/responses/<uuid:response_id>",
        api.ResponseApi.as_view(),
        name="put-response",
    ),
    path("api/studies/<slug:slug>", sittings_api.StudyApi.as_view(), name="study-api"),
    path("api/studies/<slug:slug>/sessions", sittings_api.BeginApi.as_view(), name="begin-session"),
    path("api/session", sittings_api.OneSessionApi.as_view(), name="session-api"),
    path("api/session/step", sittings_api.StepApi.as_view(), name="session-step"),
    path("api/studies/<slug:slug>/dashboard", api.DashboardApi.as_view(), name="dashboard-api"),
    path("api/trials/<uuid:trial_id>/skip", api.SkipApi.as_view(), name="skip-trial"),
]

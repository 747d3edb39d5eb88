from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path
from django.views.i18n import set_language
from drf_spectacular.views import SpectacularAPIView
from knox.models import get_token_model

from elicit import health

admin.site.site_header = "Elicit"
admin.site.site_title = "Elicit"
admin.site.index_title = "Curator's console"

# Tokens are made on the releases page, which shows each once; there is nothing to see of them in the console.
admin.site.unregister(get_token_model())

urlpatterns = [
    path("", include("annotations.urls")),
    path("", include("exports.urls")),
    path("language/", set_language, name="set_language"),
    path("login/", LoginView.as_view(template_name="login.html"), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("admin/", admin.site.urls),
    path(
        "api/schema",
        SpectacularAPIView.as_view(authentication_classes=[], permission_classes=[]),
        name="schema",
    ),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
]

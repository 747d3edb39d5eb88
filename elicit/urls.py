from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.views import LogoutView
from django.urls import include, path
from django.views.i18n import set_language
from django_otp.plugins.otp_static.models import StaticDevice
from django_otp.plugins.otp_totp.models import TOTPDevice
from drf_spectacular.views import SpectacularAPIView
from knox.models import get_token_model

from elicit import console, health, metrics, signing_in

admin.site.site_header = "Elicit"
admin.site.site_title = "Elicit"
admin.site.index_title = "Curator's console"

# Tokens are made on the releases page, which shows each once; authenticators on a page of their owner's. There is
# nothing to see of either in the console, and nobody's secret to read.
for model in (get_token_model(), TOTPDevice, StaticDevice):
    admin.site.unregister(model)

handler500 = "elicit.unavailable.server_error"

urlpatterns = [
    path("", include("annotations.urls")),
    path("", include("exports.urls")),
    path("language/", set_language, name="set_language"),
    path("login/", signing_in.SignIn.as_view(), name="login"),
    path("login/code/", signing_in.enter_code, name="login-code"),
    path("login/two-factor/", signing_in.two_factor, name="two-factor"),
    path("login/two-factor/codes/", signing_in.new_recovery_codes, name="recovery-codes"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("admin/login/", console.sign_in),
    path("admin/access/", console.access, name="access"),
    path("admin/", admin.site.urls),
    path(
        "api/schema",
        SpectacularAPIView.as_view(authentication_classes=[], permission_classes=[]),
        name="schema",
    ),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", metrics.metrics, name="metrics"),
]

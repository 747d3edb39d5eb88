"""Signing in: a password, then a code of the authenticator app. Until the code is right nobody is signed in.

Between the two the browser's session holds who gave the right password, for ten minutes. Where two-factor login is
compulsory (`ELICIT_REQUIRE_TWO_FACTOR`) whoever has no authenticator yet sets it up at that point.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable
from typing import Any

import django_otp
import segno
from django import forms
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, get_user_model, load_backend, login, logout
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.contrib.auth.views import LoginView
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST
from django_otp import DEVICE_ID_SESSION_KEY
from django_otp.models import Device
from django_otp.oath import TOTP
from django_otp.plugins.otp_static.models import StaticDevice, StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice
from limits import RateLimitItemPerMinute

from annotations import audit
from annotations.sealing import Unreadable, fingerprint, fingerprints, seal, unseal
from elicit import throttling
from elicit.models import Authenticator

HALFWAY = "elicit-halfway"
NEW_KEY = "elicit-new-key"
HALFWAY_SECONDS = 600
RECOVERY_CODES = 8
# Of a code written down on paper: no letter that is taken for another.
_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"
# So many wrong passwords for one account close it for as long, counted from the first.
MOST_WRONG_PASSWORDS = 10
CLOSED_MINUTES = 10
WRONG_PASSWORDS = RateLimitItemPerMinute(MOST_WRONG_PASSWORDS, CLOSED_MINUTES, namespace="wrong-passwords")


# --- The password


def _counted_as(username: str) -> str:
    return fingerprint("wrong passwords", username.casefold())


class PasswordForm(AuthenticationForm):
    """Django's form, closed for a while to an account after many wrong passwords, right ones included."""

    def clean(self) -> dict[str, Any]:
        username = self.cleaned_data.get("username") or ""
        if throttling.counts().is_used_up(WRONG_PASSWORDS, _counted_as(username)):
            text = f"Too many wrong passwords. Please try again in {CLOSED_MINUTES} minutes."
            raise ValidationError(text, code="closed")
        return super().clean()


class StaffPasswordForm(PasswordForm):
    """For the console: whoever is no staff has nothing to see there."""

    required_css_class = "required"

    def confirm_login_allowed(self, user: User) -> None:
        super().confirm_login_allowed(user)
        if not user.is_staff:
            raise ValidationError(self.error_messages["invalid_login"], code="invalid_login", params={
                "username": self.username_field.verbose_name,
            })  # fmt: skip


class SignIn(LoginView):
    """The password. Whoever has an authenticator, or has to set one up, is not signed in by it alone."""

    template_name = "login.html"
    authentication_form = PasswordForm

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        user = form.get_user()
        assert isinstance(user, User)  # noqa: S101 (the one user model)
        throttling.counts().forget(WRONG_PASSWORDS, _counted_as(user.get_username()))
        has_device = Authenticator.objects.devices_for_user(user, confirmed=True).exists()
        if not has_device and not settings.REQUIRE_TWO_FACTOR:
            return super().form_valid(form)
        self.request.session.cycle_key()
        self.request.session[HALFWAY] = {
            "user": user.pk,
            "backend": user.backend,  # type: ignore[attr-defined]  # as authenticate() leaves it
            "hash": user.get_session_auth_hash(),
            "until": time.time() + HALFWAY_SECONDS,
            "next": self.get_success_url(),
        }
        return redirect("login-code" if has_device else "two-factor")


def _halfway(request: HttpRequest) -> User | None:
    """Who gave the right password in this browser a short while ago."""
    told = request.session.get(HALFWAY)
    if not told or told["until"] < time.time():
        return None
    user = load_backend(told["backend"]).get_user(told["user"])
    if not isinstance(user, User) or not secrets.compare_digest(user.get_session_auth_hash(), told["hash"]):
        return None
    return user


def _enter(request: HttpRequest, user: User, device: Device) -> str:
    """Sign in for good, under a new session key. Returns where to go on."""
    told = request.session.pop(HALFWAY)
    login(request, user, backend=told["backend"])
    django_otp.login(request, device)
    address = str(told["next"])
    fine = url_has_allowed_host_and_scheme(address, {request.get_host()}, require_https=request.is_secure())
    return address if fine else settings.LOGIN_REDIRECT_URL


# --- The code


class CodeForm(forms.Form):
    code = forms.CharField(
        max_length=20,
        widget=forms.TextInput(
            attrs={"autocomplete": "one-time-code", "autofocus": True, "spellcheck": "false", "autocapitalize": "none"}
        ),
    )

    def clean_code(self) -> str:
        return "".join(str(self.cleaned_data["code"]).lower().split()).replace("-", "")


def _verified(user: User, code: str) -> tuple[Device | None, str]:
    """The device that the code is of, or what to tell. Wrong codes make the device wait, longer each time."""
    kind = Authenticator if code.isdigit() and len(code) == 6 else StaticDevice
    with transaction.atomic():
        device: Any = kind.objects.select_for_update().filter(user=user, confirmed=True).first()
        if device is None:
            return None, "This code is not right."
        allowed, why = device.verify_is_allowed()
        if not allowed:
            until = (why or {}).get("locked_until") or timezone.now()
            seconds = max(1, round((until - timezone.now()).total_seconds()))
            return None, f"Too many wrong codes. Please wait: {seconds} s."
        said = code if kind is Authenticator else _kept_as(device, code)
        try:
            right = device.verify_token(said)
        except Unreadable:
            return None, "The site can’t read the key of your app. Please ask for a reset of your second factor."
        if right:
            return device, ""
    return None, "This code is not right."


def _kept_as(device: StaticDevice, code: str) -> str:
    """How a recovery code stands in the database: as a keyed hash, cut to the column."""
    known = [each[:16] for each in fingerprints("recovery code", str(device.user_id), code)]
    return next((each for each in known if device.token_set.filter(token=each).exists()), known[0])


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def enter_code(request: HttpRequest) -> HttpResponse:
    """The second step of signing in."""
    user = _halfway(request)
    if user is None:
        return redirect("login")
    form = CodeForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        device, problem = _verified(user, form.cleaned_data["code"])
        if device is not None:
            return redirect(_enter(request, user, device))
        audit.record("gave a wrong code at sign-in", user, actor=user)
        form.add_error("code", problem)
    left = StaticToken.objects.filter(device__user=user).count()
    return render(request, "login_code.html", {"form": form, "left": left}, status=422 if form.is_bound else 200)


# --- Setting it up


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def two_factor(request: HttpRequest) -> HttpResponse:
    """Set up an authenticator app, or another in its place; the recovery codes are shown once."""
    halfway = None if request.user.is_authenticated else _halfway(request)
    user = request.user if request.user.is_authenticated else halfway
    if not isinstance(user, User) or (halfway and Authenticator.objects.filter(user=halfway, confirmed=True).exists()):
        return redirect("login")
    key = _new_key(request)
    form = CodeForm(request.POST if request.method == "POST" else None)
    form.fields["code"].widget.attrs["inputmode"] = "numeric"
    if form.is_valid() and (device := _new_device(user, key, form.cleaned_data["code"])):
        with audit.acting(lambda: user):
            codes = _new_recovery_codes(user)
        del request.session[NEW_KEY]
        if halfway:
            following = _enter(request, user, device)
        else:
            django_otp.login(request, device)
            following = reverse("admin:index") if user.is_staff else settings.LOGIN_REDIRECT_URL
        return render(request, "two_factor_codes.html", {"codes": codes, "following": following})
    if form.is_valid():
        form.add_error("code", "This code is not right. Is the clock of your phone?")
    words = base64.b32encode(bytes.fromhex(key)).decode()
    preview = TOTPDevice(user=user, key=key)
    context = {
        "form": form,
        "qr": segno.make(preview.config_url, error="m").svg_data_uri(border=3, scale=5, light="white", dark="#111"),
        "key": " ".join(words[start : start + 4] for start in range(0, len(words), 4)),
        "has_one": Authenticator.objects.filter(user=user, confirmed=True).exists(),
        "compulsory": settings.REQUIRE_TWO_FACTOR,
        "halfway": halfway is not None,
        "left": StaticToken.objects.filter(device__user=user).count(),
    }
    return render(request, "two_factor.html", context, status=422 if form.is_bound else 200)


def _new_key(request: HttpRequest) -> str:
    """The key that this browser was shown, or one drawn now; sealed, as sessions are rows of the database."""
    try:
        key = unseal(request.session.get(NEW_KEY, ""))
    except Unreadable:
        key = ""
    if not key:
        key = secrets.token_hex(20)
        request.session[NEW_KEY] = seal(key)
    return key


def _new_device(user: User, key: str, code: str) -> Authenticator | None:
    """The authenticator in place of any other, if the code shows that it holds the key."""
    check = TOTP(bytes.fromhex(key))
    check.time = time.time()
    if not code.isdigit() or not check.verify(int(code), tolerance=1):
        return None
    with transaction.atomic(), audit.acting(lambda: user):
        Authenticator.objects.filter(user=user).delete()
        # The code that was given just now is used up.
        device = Authenticator(user=user, name="authenticator app", key=key, last_t=check.t())
        device.save()
    return device


def _new_recovery_codes(user: User) -> list[str]:
    """New codes in place of the old ones. Only their keyed hashes are kept."""
    codes = ["".join(secrets.choice(_LETTERS) for _ in range(10)) for _ in range(RECOVERY_CODES)]
    with transaction.atomic():
        StaticDevice.objects.filter(user=user).delete()
        device = StaticDevice.objects.create(user=user, name="recovery codes")
        StaticToken.objects.bulk_create(
            StaticToken(device=device, token=fingerprint("recovery code", str(user.pk), code)[:16]) for code in codes
        )
    return [f"{code[:5]}-{code[5:]}" for code in codes]


@never_cache
@require_POST
@login_required
def new_recovery_codes(request: HttpRequest) -> HttpResponse:
    """Show new recovery codes, once; the old ones end."""
    user = request.user
    assert isinstance(user, User)  # noqa: S101 (signed in)
    if not Authenticator.objects.filter(user=user, confirmed=True).exists():
        return redirect("two-factor")
    context = {"codes": _new_recovery_codes(user), "following": reverse("two-factor")}
    return render(request, "two_factor_codes.html", context)


def reset(user: User) -> None:
    """Take a person's authenticator and recovery codes away: they sign in with the password and set up anew."""
    with transaction.atomic():
        Authenticator.objects.filter(user=user).delete()
        StaticDevice.objects.filter(user=user).delete()
        audit.record("took away the second factor", user)


# --- Every request


class TwoFactor:
    """Puts who acts into the audit log, and lets no session go on that has no second factor where that is compulsory.

    Sessions without one are those from before it became so.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        with audit.acting(_Later(request)):
            if (
                settings.REQUIRE_TWO_FACTOR
                # Annotators have no such cookie: their pages don't come to depend on one.
                and settings.SESSION_COOKIE_NAME in request.COOKIES
                and BACKEND_SESSION_KEY in request.session
                and DEVICE_ID_SESSION_KEY not in request.session
            ):
                logout(request)
            return self.get_response(request)


class _Later:
    """The request's user, looked up no sooner than somebody asks; an API token may name them only in the view."""

    def __init__(self, request: HttpRequest) -> None:
        self.request = request

    def __call__(self) -> Any:
        return getattr(self.request, "user", None)


# --- What the audit log is told


def _signed_in(sender: object, user: Any, request: HttpRequest, **_: object) -> None:
    audit.record("signed in", user, actor=user)


def _signed_out(sender: object, user: Any, request: HttpRequest, **_: object) -> None:
    if user is not None:
        audit.record("signed out", user, actor=user)


def _failed(sender: object, credentials: dict[str, Any], **_: object) -> None:
    username = str(credentials.get("username", ""))
    throttling.counts().take(WRONG_PASSWORDS, _counted_as(username))
    # Whoever mistakes the field types a password as a name: only names of accounts are put down.
    user = get_user_model().objects.filter(username=username).first()
    audit.record("gave a wrong password", user)


def connect() -> None:
    user_logged_in.connect(_signed_in, dispatch_uid="elicit.signed_in")
    user_logged_out.connect(_signed_out, dispatch_uid="elicit.signed_out")
    user_login_failed.connect(_failed, dispatch_uid="elicit.login_failed")

"""Django settings. Everything that differs between machines comes from the environment (see `.env.example`)."""

from __future__ import annotations

import hashlib
import logging
import os
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import django
import django_stubs_ext
from django.core.exceptions import ImproperlyConfigured

from elicit import env
from elicit.logs import FORMATS

# Lets `ModelAdmin[Study]` and the like be written where Django itself has no generics yet.
django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent
FRONTEND = BASE_DIR / "frontend"
# Everything that this installation writes: database, images, releases, broker folder, secret key.
VAR = Path(os.environ.get("ELICIT_VAR", BASE_DIR / "var")).resolve()
try:
    VAR.mkdir(parents=True, exist_ok=True)
except OSError as error:
    raise ImproperlyConfigured(f"ELICIT_VAR: {VAR} cannot be made ({error.strerror}).") from error

# `manage.py run` asks for this much room on the disk before it begins.
LEAST_FREE_MB = int(env.number("ELICIT_LEAST_FREE_MB", 300))

DEBUG = env.flag("ELICIT_DEBUG")
SECRET_KEY = env.secret_key(VAR)
# What platform ids are encrypted with, see annotations/sealing.py.
FIELD_KEYS = env.field_keys(VAR)
PUBLIC_URL = env.text("ELICIT_PUBLIC_URL").rstrip("/")
_public = urlsplit(PUBLIC_URL)
ALLOWED_HOSTS = [*env.words("ELICIT_ALLOWED_HOSTS", _public.hostname or ""), "localhost", "127.0.0.1", "[::1]"]
CSRF_TRUSTED_ORIGINS = env.words("ELICIT_CSRF_TRUSTED_ORIGINS", PUBLIC_URL)

INSTALLED_APPS = [
    "elicit",
    "jobs",
    "annotations",
    "exports",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.humanize",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "knox",
    "django_otp",
    "django_otp.plugins.otp_totp",
    "django_otp.plugins.otp_static",
    "auditlog",
]
MIDDLEWARE = [
    "elicit.observing.Observe",
    "elicit.json_errors.JsonErrors",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "elicit.middleware.ContentSecurityPolicy",
    "elicit.middleware.NulInAddress",
    "elicit.unavailable.Unavailable",
    "elicit.throttling.Throttle",
    "annotations.languages.SiteLanguage",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_otp.middleware.OTPMiddleware",
    "elicit.signing_in.TwoFactor",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "elicit.urls"
WSGI_APPLICATION = "elicit.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [FRONTEND / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES = {"default": env.database(VAR)}
# Prepared statements belong to a connection: a pool that hands connections out by transaction mixes them up.
DATABASE_KEEPS_PLANS = env.flag("ELICIT_DATABASE_KEEPS_PLANS", default=True)
# How long a web process waits, see elicit/patience.py: for a statement, for a lock, and to connect.
DATABASE_STATEMENT_SECONDS = env.number("ELICIT_DATABASE_STATEMENT_SECONDS", 20)
DATABASE_LOCK_SECONDS = env.number("ELICIT_DATABASE_LOCK_SECONDS", 10)
DATABASE_CONNECT_SECONDS = env.number("ELICIT_DATABASE_CONNECT_SECONDS", 5)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LANGUAGE_CODE = "en"
# Of the annotator's pages; the console is in English.
LANGUAGES = [("en", "English"), ("zh-hans", "简体中文")]
LOCALE_PATHS = [BASE_DIR / "locale"]
LANGUAGE_COOKIE_NAME = "elicit-language"
LANGUAGE_COOKIE_AGE = 365 * 86_400
LANGUAGE_COOKIE_SAMESITE = "Lax"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "releases"
LOGOUT_REDIRECT_URL = "login"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]

# Whoever signs in has to give a code of their authenticator app: by itself wherever the site has a public address.
REQUIRE_TWO_FACTOR = env.flag("ELICIT_REQUIRE_TWO_FACTOR", default=bool(PUBLIC_URL))
OTP_TOTP_ISSUER = "Elicit"
DEFAULT_EXCEPTION_REPORTER = "elicit.failing.Reporter"
# The audit log knows people by name, not by network address.
AUDITLOG_DISABLE_REMOTE_ADDR = True

# --- Files


def _front_end_version() -> str:
    """A hash of the front end's content: static files live under it and are cached for ever."""
    digest = hashlib.sha256(django.__version__.encode() + (BASE_DIR / "elicit" / "static_files.py").read_bytes())
    for path in sorted((FRONTEND / "static").rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(FRONTEND).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


STATIC_URL = f"static/{_front_end_version()}/"
STATIC_ROOT = Path(os.environ.get("ELICIT_STATIC_ROOT", VAR / "static"))
STATICFILES_DIRS = [FRONTEND / "static"]
MEDIA_ROOT = VAR / "media"
# Releases are private: only the download view reads them, never a web server's file root.
RELEASES_ROOT = VAR / "releases"
# Enlarged images that a proxy sends, made when they are first asked for; elicit/handing_over.py says how.
RENDERED_ROOT = VAR / "rendered"
ACCEL_REDIRECT = env.location("ELICIT_ACCEL_REDIRECT")
# What training runs read and write, a folder each.
TRAINING_ROOT = VAR / "training"
DOWNLOADS = VAR / "downloads"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "elicit.static_files.JoinedStaticFilesStorage"},
    "images": env.image_storage(VAR / "images"),
}
# What an import of images takes; docs/how-to/datasets.md says more.
IMAGE_LARGEST_SIDE = int(env.number("ELICIT_IMAGES_LARGEST_SIDE", 1024))
IMAGE_MOST_PIXELS = int(1e6 * env.number("ELICIT_IMAGES_MOST_MEGAPIXELS", 50))
IMAGE_MOST_FILES = int(env.number("ELICIT_IMAGES_MOST_FILES", 200_000))
IMAGE_MOST_TOTAL = int(1e6 * env.number("ELICIT_IMAGES_MOST_MB", 20_000))
# Beside where they go, and not in /tmp, which may be memory.
FILE_UPLOAD_TEMP_DIR = VAR / "arriving"
FILE_UPLOAD_TEMP_DIR.mkdir(exist_ok=True)
FILE_UPLOAD_MAX_MEMORY_SIZE = 1 << 20
DATA_UPLOAD_MAX_MEMORY_SIZE = 1 << 20


def WHITENOISE_IMMUTABLE_FILE_TEST(path: str, url: str) -> bool:
    """Every static URL carries the version of the whole front end, so each may be cached for ever."""
    return True


# --- Web security

_https = _public.scheme == "https"
SECURE_SSL_REDIRECT = _https
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if _https else None
SECURE_HSTS_SECONDS = 31_536_000 if _https else 0
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$"]
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = LANGUAGE_COOKIE_SECURE = _https
CSRF_COOKIE_HTTPONLY = True
X_FRAME_OPTIONS = "DENY"

# How many proxies stand before the site, each of which appends to X-Forwarded-For whom it heard.
PROXIES = env.whole("ELICIT_PROXIES", 1 if PUBLIC_URL else 0)
# How often somebody may ask, see elicit/throttling.py: by network address, in all, to begin sessions and to sign in;
# and by session link or API token.
RATES = env.rates(
    "ELICIT_RATES",
    {"address": "12000/minute", "begin": "300/minute", "sign-in": "30/minute", "holder": "600/minute"},
)
# Subdomains, and browsers' own lists, are for whoever owns the domain to decide.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
if env.flag("ELICIT_ALLOW_HTTP") or _public.hostname in {"localhost", "127.0.0.1", "::1"}:
    # HSTS, the redirect to https, and cookies that are sent over https alone.
    SILENCED_SYSTEM_CHECKS += ["security.W004", "security.W008", "security.W012", "security.W016"]

# Whoever reads /metrics says so as a bearer token; without one there is no such page.
METRICS_TOKEN = env.token("ELICIT_METRICS_TOKEN")

# Where studies may send their annotators back to; `*.` stands for any subdomain.
RETURN_HOSTS = env.words("ELICIT_RETURN_HOSTS", "app.prolific.com,connect.cloudresearch.com,*.sona-systems.com")

# --- Prolific: token and secret come from the environment alone, as ELICIT_..., or a file that ELICIT_..._FILE names

PROLIFIC_URL = env.text("ELICIT_PROLIFIC_URL", "https://api.prolific.com").rstrip("/")
PROLIFIC_TOKEN = env.text("ELICIT_PROLIFIC_TOKEN")
PROLIFIC_WEBHOOK_SECRET = env.text("ELICIT_PROLIFIC_WEBHOOK_SECRET")

# --- API

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "knox.auth.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["elicit.api.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "elicit.api.handle_exception",
}
REST_KNOX = {
    "TOKEN_TTL": timedelta(days=180),
    "AUTH_HEADER_PREFIX": "Token",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Elicit",
    "DESCRIPTION": "Take part in a study; list, compare and download releases.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "COMPONENT_SPLIT_REQUEST": True,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "elicit.api.document_errors",
        "elicit.api.link_operations",
    ],
}

# --- Celery: the job row is the queue, the message is only the bell

# Without a broker to install messages are files; the host stands there only because kombu asks for one.
CELERY_BROKER_URL = env.text("ELICIT_BROKER_URL", "filesystem://localhost")
if CELERY_BROKER_URL.startswith("filesystem:"):
    _queue = VAR / "queue"
    for _folder in ("messages", "control", "processed"):
        (_queue / _folder).mkdir(parents=True, exist_ok=True)
    CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, object] = {
        "data_folder_in": str(_queue / "messages"),
        "data_folder_out": str(_queue / "messages"),
        "control_folder": str(_queue / "control"),
        "processed_folder": str(_queue / "processed"),
        "polling_interval": 0.2,
    }
else:
    # Longer than any job's lease: Redis must not hand a message out again while its job still runs.
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "visibility_timeout": 3600,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        # One try, and not for long (in a web process still less, see elicit/patience.py). The sweep makes up for it.
        "max_retries": 0,
        "socket_connect_timeout": 2,
        "socket_timeout": 5,
    }
# Requests and wrong passwords are counted there too; without Redis there is one web process, which counts for itself.
THROTTLE_STORAGE = CELERY_BROKER_URL if CELERY_BROKER_URL.startswith(("redis:", "rediss:")) else ""
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TIMEZONE = TIME_ZONE
# Work of hours has a queue of its own, so that nothing waits behind it.
CELERY_TASK_ROUTES = {"exports.train": {"queue": "training"}}
# How long a worker may be silent before its job goes to another, and how long a message may be on its way.
JOB_LEASE_SECONDS = env.number("ELICIT_JOB_LEASE_SECONDS", 90)
JOB_PATIENCE_SECONDS = env.number("ELICIT_JOB_PATIENCE_SECONDS", 10)
JOB_SWEEP_SECONDS = env.number("ELICIT_JOB_SWEEP_SECONDS", 15)
JOB_ROOM_SECONDS = env.number("ELICIT_JOB_ROOM_SECONDS", 60)
ABANDONED_SWEEP_SECONDS = env.number("ELICIT_ABANDONED_SWEEP_SECONDS", 60)
# A live study's summary is worked out anew this often at most, where answers came.
SUMMARY_SECONDS = env.number("ELICIT_SUMMARY_SECONDS", 30)
# What an hour has to earn, by currency: a dashboard raises an alarm below it.
LEAST_WAGE_MINOR = env.amounts("ELICIT_LEAST_WAGE", "GBP:6,USD:8")
CELERY_BEAT_SCHEDULE = {
    "sum up the studies that people answer": {
        "task": "annotations.summarise_live_studies",
        "schedule": SUMMARY_SECONDS,
        "options": {"expires": SUMMARY_SECONDS},
    },
    "ring for jobs whose message was lost": {
        "task": "jobs.sweep",
        "schedule": JOB_SWEEP_SECONDS,
        "options": {"expires": JOB_SWEEP_SECONDS},
    },
    "erase what has been kept long enough": {
        "task": "annotations.erase_what_is_due",
        "schedule": 3600.0,
        "options": {"expires": 3600.0},
    },
    "remove folders whose import never began": {
        "task": "annotations.sweep_uploads",
        "schedule": 3600.0,
        "options": {"expires": 3600.0},
    },
    "give back the places of abandoned sessions": {
        "task": "annotations.give_back_places",
        "schedule": ABANDONED_SWEEP_SECONDS,
        "options": {"expires": ABANDONED_SWEEP_SECONDS},
    },
    "ask the recruiting platforms what was not heard": {
        "task": "annotations.watch_platforms",
        "schedule": 60.0,
        "options": {"expires": 60.0},
    },
}
CELERY_BEAT_SCHEDULE_FILENAME = str(VAR / "beat-schedule")

LOG_FORMAT = env.choice("ELICIT_LOG_FORMAT", FORMATS)
# Python's warnings, else lines of another form among the JSON.
logging.captureWarnings(LOG_FORMAT == "json")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "elicit.logs.Line"}, "json": {"()": "elicit.logs.Json"}},
    "filters": {"redact": {"()": "elicit.logs.Redact"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT, "filters": ["redact"]}},
    "root": {"handlers": ["console"], "level": env.text("ELICIT_LOG_LEVEL", "INFO")},
    # A refused answer is part of the protocol, not news.
    "loggers": {"django.request": {"level": "ERROR"}},
}

"""The least that a server can do for an answer: `gunicorn benchmarks.floor`, the floor of `python -m benchmarks.serve`.

One Django view does one indexed SELECT and one INSERT, as a form without users, rules or pages would: no middleware, no
session, no validation, one commit. It runs on the server and in the database that are measured beside it.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import ClassVar

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection, models
from django.http import HttpRequest, JsonResponse
from django.urls import path

from elicit import env

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    DATABASES={"default": env.database(Path())},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
)
django.setup()


class Item(models.Model):
    objects: ClassVar[models.Manager[Item]] = models.Manager()

    key = models.CharField(max_length=40, unique=True)
    text = models.TextField()

    class Meta:
        app_label = "floor"

    def __str__(self) -> str:
        return self.key


class Said(models.Model):
    objects: ClassVar[models.Manager[Said]] = models.Manager()

    id = models.UUIDField(primary_key=True)
    item = models.ForeignKey(Item, on_delete=models.CASCADE)
    body = models.JSONField()

    class Meta:
        app_label = "floor"

    def __str__(self) -> str:
        return str(self.id)


def answer(request: HttpRequest, key: str) -> JsonResponse:
    item = Item.objects.get(key=key)
    Said.objects.create(id=uuid.uuid4(), item=item, body=request.body.decode())
    response = JsonResponse({"next": item.text}, status=201)
    # A middleware of Django's does this elsewhere; without it gunicorn would close the connection.
    response.headers["Content-Length"] = str(len(response.content))
    return response


def healthz(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"status": "ok"})


urlpatterns = [path("answer/<str:key>", answer), path("healthz", healthz)]


def prepare(items: int) -> None:
    """Make the tables, with so many rows to look among."""
    with connection.schema_editor() as editor:
        editor.create_model(Item)
        editor.create_model(Said)
    Item.objects.bulk_create(Item(key=f"item-{number}", text="x" * 200) for number in range(items))


application = get_wsgi_application()

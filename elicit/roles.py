"""Who may do what. The groups of the console are made from this table, and kept like it, at every `migrate`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from auditlog.context import disable_auditlog
from django.apps import apps as installed
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Group, Permission
from django.db.models import Q
from django.db.models.signals import post_migrate

WHOLE = ("annotations", "exports", "jobs")


@dataclass(frozen=True)
class Role:
    """`may` holds `app.codename`s; `app.*` stands for all of an app. `words` say it to whoever adds users."""

    words: str
    may: tuple[str, ...]


ROLES: Final = {
    "curator": Role(
        "Makes, launches and closes studies, imports datasets, sees sessions and platform ids, pays, asks for "
        "releases, and reads the audit log. Everything but the users.",
        (*(f"{app}.*" for app in WHOLE), "auditlog.view_logentry"),
    ),
    "reviewer": Role(
        "Looks at sessions and their quality, excludes and takes back, and answers appeals. Changes no settings, "
        "sees no pay and no platform ids.",
        (
            "annotations.view_study",
            "annotations.view_session",
            "annotations.exclude_session",
            "annotations.view_trial",
            "annotations.view_response",
            "annotations.view_consistencycheck",
            "annotations.view_sessionquality",
            "annotations.view_checkoutcome",
            "annotations.view_checkitem",
            "annotations.view_appeal",
            "annotations.add_appeal",
            "annotations.change_appeal",
        ),
    ),
    "researcher": Role(
        "Reads and downloads releases, reads what training on them found, makes API tokens, and watches the studies' "
        "dashboards. Sees no single session and no platform id, and changes nothing.",
        ("annotations.view_study", "exports.view_release", "exports.view_trainingrun"),
    ),
}


def permissions_of(role: Role) -> Iterable[Permission]:
    """The permissions of a role, as far as they exist."""
    wanted = Q(pk__in=())
    for name in role.may:
        app, codename = name.split(".")
        wanted |= Q(content_type__app_label=app) if codename == "*" else Q(
            content_type__app_label=app, codename=codename
        )  # fmt: skip
    return Permission.objects.filter(wanted)


def keep_roles(*, apps: Any = installed, using: str = "default", **_: object) -> None:
    """Make each role's group, and give it the permissions of the table, no more and no less."""
    try:
        apps.get_model("auth", "Group")
    except LookupError:
        return  # a migration back, to before there were any
    for label in (*WHOLE, "auditlog"):
        # Whichever app's turn it is: the permissions have to be there by now.
        create_permissions(installed.get_app_config(label), verbosity=0, apps=apps, using=using)
    with disable_auditlog():
        for name, role in ROLES.items():
            group, _made = Group.objects.using(using).get_or_create(name=name)
            group.permissions.set(permissions_of(role))


def connect() -> None:
    # The signal comes once for each app that has models; once is enough.
    post_migrate.connect(keep_roles, sender=installed.get_app_config("annotations"), dispatch_uid="elicit.roles")

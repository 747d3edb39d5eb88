"""`manage.py reset_two_factor USER`: for somebody who lost phone and recovery codes."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError

from elicit import signing_in


class Command(BaseCommand):
    help = "Take a person's authenticator and recovery codes away. They sign in with their password and set it up anew."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("user", help="the name of the account")

    def handle(self, *, user: str, **options: Any) -> None:
        found = User.objects.filter(username=user).first()
        if found is None:
            raise CommandError(f"There is no account {user!r}.")
        signing_in.reset(found)
        self.stdout.write(f"{user} signs in by password alone and sets up two-factor login anew.")

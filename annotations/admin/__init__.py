"""The curator's console: Django's admin on top of the services."""

from annotations.admin import datasets, participants, sessions, studies

__all__ = ["datasets", "participants", "sessions", "studies"]

"""The curator's console: Django's admin on top of the services."""

from annotations.admin import datasets, sessions, studies

__all__ = ["datasets", "sessions", "studies"]

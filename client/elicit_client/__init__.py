"""Elicit's HTTP API from Python: `Elicit` for releases, `Sitting` for taking part in a study."""

from elicit_client.calling import ElicitError
from elicit_client.releases import Elicit
from elicit_client.sitting import Sitting

__all__ = ["Elicit", "ElicitError", "Sitting"]

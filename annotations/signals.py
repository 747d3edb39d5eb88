"""What happens here that others may have to answer."""

from __future__ import annotations

from django.dispatch import Signal

# Sent inside the transaction in which a session's answers cease to count, just before they do.
# `session`: the Session; `why`: `withdrawn` or `excluded`; `reason`: an ExclusionReason, empty for a withdrawal.
session_leaves = Signal()

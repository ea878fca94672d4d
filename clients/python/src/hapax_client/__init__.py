"""One idempotency key per intent, held over retries, restarts and crashes.

``hapax_client.transports`` is for httpx, ``hapax_client.adapter`` for requests; neither is imported here.
"""

from hapax_client.backoff import Budget
from hapax_client.errors import IntentPending, OutcomeUnknown
from hapax_client.policy import Limits
from hapax_client.store import FileStore, IntentStore, MemoryStore

__all__ = ["Budget", "FileStore", "IntentPending", "IntentStore", "Limits", "MemoryStore", "OutcomeUnknown"]

"""What a caller can act on."""

from __future__ import annotations

from typing import Any, Callable


class OutcomeUnknown(Exception):
    """Nobody can know yet whether the operation ran. Resume it with the same key; never start it anew by itself (P44).

    ``why``: ``answer`` (it says so), ``attempts``, ``deadline`` or ``budget`` (used up), ``expired`` (the key is too old to
    be sent). ``response`` is the last answer, if one came; ``__cause__`` the last error, if one came.
    """

    def __init__(self, key: str | None, why: str, attempts: int, response: Any, resume: Callable[[], Any]) -> None:
        super().__init__(f"whether the operation ran is unknown ({why}, after {attempts} attempts)")
        self.key = key
        self.why = why
        self.attempts = attempts
        self.response = response
        #: Sends the same bytes with the same key again; to be awaited where the client is asynchronous.
        self.resume = resume


class IntentPending(Exception):
    """The intent is pending with other bytes. Resume it, or forget it if a second operation is really wanted."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the intent {name!r} is pending with another request: resume() or forget() it first")
        self.name = name

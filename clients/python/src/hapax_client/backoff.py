"""How long to wait, and what a retry may cost (P43)."""

from __future__ import annotations

import re
import threading
from email.utils import parsedate_to_datetime

BASE_MS = 50
BASE_THROTTLED_MS = 1000
CAP_MS = 20_000
#: Tokens of a host's full budget.
BUDGET = 500

# The one date format that senders may generate (RFC 9110, section 5.6.7).
_IMF_DATE = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT")
# More digits than any deadline: an int of any length would do, but not every length is worth parsing.
_MAX_DIGITS = 15


def backoff(n: int, throttled: bool, random: float) -> int:
    """Full jitter: a part of ``min(20 s, base * 2**n)``, in whole milliseconds.

    ``n`` is how many retries were made before this one, ``random`` is in [0, 1).
    """
    base = BASE_THROTTLED_MS if throttled else BASE_MS
    return int(random * min(CAP_MS, base * 2 ** min(n, 30)))


def retry_after(field: str | None, member: int | None, now_ms: int) -> int:
    """What the server asks to wait, in milliseconds: the field, else the problem's member (milliseconds), else 0."""
    if field is not None and field.isascii() and field.isdigit():
        return int(field[:_MAX_DIGITS]) * 1000
    if field is not None and _IMF_DATE.fullmatch(field):
        try:
            return max(0, round(parsedate_to_datetime(field).timestamp() * 1000) - now_ms)
        except ValueError:
            pass
    return member or 0


class Budget:
    """Tokens for the retries towards one host. When a server is down, they run out, and with them the extra load."""

    def __init__(self) -> None:
        self.tokens = BUDGET
        self._lock = threading.Lock()

    def take(self, cost: int) -> bool:
        """Takes the cost of a retry, or nothing if too little is left; says whether it was there."""
        with self._lock:
            if self.tokens < cost:
                return False
            self.tokens -= cost
            return True

    def success(self, cost: int) -> None:
        """A final answer came: gives back what its last retry took, or one token."""
        with self._lock:
            self.tokens = min(BUDGET, self.tokens + (cost or 1))


_budgets: dict[str, Budget] = {}
_budgets_lock = threading.Lock()
# Hosts remembered; beyond, the one that was asked for longest ago starts anew.
_MAX_HOSTS = 1000


def budget_of(host: str) -> Budget:
    """The budget of a host (name and port); one for the whole process."""
    with _budgets_lock:
        budget = _budgets.pop(host, None) or Budget()
        _budgets[host] = budget
        if len(_budgets) > _MAX_HOSTS:
            del _budgets[next(iter(_budgets))]
        return budget

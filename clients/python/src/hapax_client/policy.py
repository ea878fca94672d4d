"""What is sent again, and what an answer means for the intent (P42, P44). Pure.

The rules stand in clients/README.md; clients/vectors.json has their cases.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal, Mapping

from hapax_client.backoff import backoff, retry_after

#: How an attempt failed without an answer. ``connect``: nothing was sent. The others may have run.
Failure = Literal["connect", "reset", "timeout", "cut"]
#: ``final``: it settles the intent. ``unknown``: it may have run. ``give_up``: nothing ran.
Do = Literal["final", "retry", "unknown", "give_up"]
Why = Literal["answer", "attempts", "deadline", "budget", "no_key"]

_IDEMPOTENT = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")
_SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
_AGAIN = (408, 425, 429, 500, 502, 503, 504)
# Answers that give the key back unused (P25) and are not sent again.
_RELEASED = (301, 302, 307, 308, 401, 403, 407, 409, 421, 423, 426)
_NOTHING_RAN = ("store-unavailable", "overloaded", "request-timeout", "upstream-unreachable")
_COST = 14
_COST_THROTTLED = 5


@dataclass(frozen=True)
class Limits:
    """How often and how long: attempts, and seconds for one attempt and for everything, waits included."""

    attempts: int = 3
    attempt: float = 30.0
    deadline: float = 90.0


@dataclass(frozen=True)
class Answer:
    """An answer: its status, its fields by name in lower case, and its content if that is a problem."""

    status: int
    fields: Mapping[str, str]
    body: bytes | str = b""


@dataclass(frozen=True)
class Attempt:
    """What an attempt is judged by. Times in milliseconds, ``random`` in [0, 1)."""

    method: str
    keyed: bool
    attempt: int
    attempts: int
    maybe: bool
    tokens: int
    elapsed_ms: int
    deadline_ms: int
    now_ms: int
    random: float


@dataclass(frozen=True)
class Decision:
    """What to do: for ``retry`` after how many milliseconds and for how many tokens, for an end why."""

    do: Do
    why: Why | None = None
    after_ms: int = 0
    cost: int = 0
    maybe: bool = False


@dataclass(frozen=True)
class _Meaning:
    kind: Literal["final", "stop", "again"]
    maybe: bool = False
    throttled: bool = False
    after_ms: int = 0


_FINAL = _Meaning("final")


def judge(outcome: Answer | Failure, attempt: Attempt) -> Decision:
    """Decides what follows from what came back."""
    if isinstance(outcome, Answer):
        meaning = _of_answer(outcome, attempt.now_ms)
    else:
        meaning = _Meaning("again", maybe=outcome != "connect")
    if meaning.kind == "final":
        return Decision("final")
    if not attempt.keyed and attempt.method not in _IDEMPOTENT:
        return Decision("give_up", "no_key")
    maybe = attempt.method not in _SAFE and (attempt.maybe or meaning.maybe)
    end: Do = "unknown" if maybe else "give_up"
    if meaning.kind == "stop":
        return Decision(end, "answer")
    if attempt.attempt >= attempt.attempts:
        return Decision(end, "attempts")
    after_ms = meaning.after_ms + backoff(attempt.attempt - 1, meaning.throttled, attempt.random)
    if attempt.elapsed_ms + after_ms >= attempt.deadline_ms:
        return Decision(end, "deadline")
    cost = _COST_THROTTLED if meaning.throttled else _COST
    if attempt.tokens < cost:
        return Decision(end, "budget")
    return Decision("retry", after_ms=after_ms, cost=cost, maybe=maybe)


def is_problem(fields: Mapping[str, str]) -> bool:
    """Whether the content is ``application/problem+json``; only then is it looked at."""
    return fields.get("content-type", "").split(";")[0].strip().lower() == "application/problem+json"


def _of_answer(answer: Answer, now_ms: int) -> _Meaning:
    status = answer.status
    if 200 <= status < 300:
        return _FINAL
    if answer.fields.get("idempotent-replayed") == "true":
        is_declared = answer.fields.get("idempotency-status") == "replayed"
        return _Meaning("stop", maybe=True) if status >= 500 and not is_declared else _FINAL
    problem = _read_problem(answer)
    if problem.kind in ("outcome-unknown", "key-expired"):
        return _Meaning("stop", maybe=True)
    if problem.kind == "response-unavailable":
        return _FINAL
    ran_not = problem.kind in _NOTHING_RAN
    is_in_progress = status == 409 and (problem.kind == "in-progress" or problem.retryable is True)
    is_again = status in _AGAIN or is_in_progress
    if problem.retryable is False and status >= 500:
        return _Meaning("stop", maybe=not ran_not)
    if problem.retryable is False and is_again:
        return _Meaning("stop")
    if is_again:
        maybe = status not in (425, 429) and not ran_not
        after_ms = retry_after(answer.fields.get("retry-after"), problem.retry_after_ms, now_ms)
        return _Meaning("again", maybe, throttled=status in (429, 503), after_ms=after_ms)
    if status in _RELEASED:
        return _Meaning("stop")
    return _Meaning("stop", maybe=True) if status >= 500 else _FINAL


@dataclass(frozen=True)
class _Problem:
    kind: str = ""
    retryable: bool | None = None
    retry_after_ms: int | None = None


def _read_problem(answer: Answer) -> _Problem:
    if not is_problem(answer.fields):
        return _Problem()
    try:
        body: Any = json.loads(answer.body)
    except ValueError:
        return _Problem()
    if not isinstance(body, dict):
        return _Problem()
    kind, retryable, after = body.get("type"), body.get("retryable"), body.get("retry_after")
    is_number = isinstance(after, (int, float)) and not isinstance(after, bool)
    seconds = float(after) if is_number and after is not None else math.nan
    return _Problem(
        kind=kind.replace("/", "#").rpartition("#")[2] if isinstance(kind, str) else "",
        retryable=retryable if isinstance(retryable, bool) else None,
        retry_after_ms=int(seconds * 1000) if math.isfinite(seconds) and seconds >= 0 else None,
    )

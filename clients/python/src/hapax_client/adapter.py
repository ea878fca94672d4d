"""An adapter for requests."""

from __future__ import annotations

import time
import uuid
from typing import Any, Callable, Literal, Mapping
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError

from hapax_client.attempts import Attempts, Timing, nothing_ran
from hapax_client.backoff import Budget, budget_of
from hapax_client.errors import OutcomeUnknown
from hapax_client.policy import Answer, Decision, Failure, Limits, is_problem

#: Attribute of a response: whether it settles the intent.
FINAL = "hapax_final"


class SafeAdapter(HTTPAdapter):
    """Sends keyed requests until it has ended: ``session.mount("https://", SafeAdapter())``.

    Raises :class:`OutcomeUnknown` where nobody can know; the network's error when nothing ran. Options as of
    :class:`hapax_client.transports.SafeTransport`. A time-out of the call is the time of one attempt.
    """

    def __init__(
        self,
        *,
        limits: Limits = Limits(),
        keys: Literal["each", "given"] = "each",
        header: str = "Idempotency-Key",
        budget: Budget | None = None,
        on_attempt: Callable[[int, Answer | Failure, Decision], None] | None = None,
        timing: Timing = Timing(),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__()
        self._limits = limits
        self._keys = keys
        self._header = header
        self._budget = budget
        self._on_attempt = on_attempt
        self._timing = timing
        self._sleep = sleep

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """See requests."""
        _fix_body(request)
        method = request.method or "GET"
        key = request.headers.get(self._header)
        if key is None and self._keys == "each" and method in ("POST", "PATCH"):
            key = str(uuid.uuid4())
            request.headers[self._header] = key
        budget = self._budget or budget_of(urlsplit(request.url or "").netloc)
        attempts = Attempts(method, key, self._limits, budget, self._timing, self._on_attempt)

        def once() -> requests.Response:
            times = _capped(timeout, attempts.seconds())
            return super(SafeAdapter, self).send(request, True, times, verify, cert, proxies)

        while True:
            response, error = None, None
            outcome: Answer | Failure
            try:
                response = once()
                body = _read(response, key)
                if key is not None and not _is_whole(response):
                    raise requests.ConnectionError("the answer's head broke off")
                outcome = Answer(response.status_code, _Fields(response.headers), body)
            except requests.RequestException as failed:
                outcome, error = _failure(failed, response is not None), failed
                response = None
            decision = attempts.judge(outcome)
            if decision.do == "retry":
                self._sleep(decision.after_ms / 1000)
                continue
            if decision.do == "unknown":
                resume = lambda: self.send(request, stream, timeout, verify, cert, proxies)  # noqa: E731
                raise OutcomeUnknown(key, str(decision.why), attempts.made, response, resume) from error
            if response is None:
                raise nothing_ran(error) if error is not None else RuntimeError("neither answer nor error")
            setattr(response, FINAL, decision.do == "final")
            return response


class _Fields(dict[str, str]):
    """Fields by their names in lower case."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__((name.lower(), value) for name, value in headers.items())


def _fix_body(request: requests.PreparedRequest) -> None:
    """Files and generators become bytes: every attempt sends the same."""
    body: Any = request.body
    if body is None or isinstance(body, (bytes, str)):
        return
    if hasattr(body, "read"):
        body = body.read()
    else:
        body = b"".join(part.encode() if isinstance(part, str) else part for part in body)
    request.body = body.encode() if isinstance(body, str) else body
    request.headers.pop("Transfer-Encoding", None)
    request.headers["Content-Length"] = str(len(request.body or b""))


def _capped(timeout: Any, seconds: float) -> tuple[float, float]:
    """Connect and read time-outs no longer than what is left."""
    connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    return (
        seconds if connect is None else min(seconds, connect),
        seconds if read is None else min(seconds, read),
    )


def _read(response: requests.Response, key: str | None) -> bytes:
    """Reads the answer in full, but for streams and for requests that have no key; returns a problem's content."""
    fields = _Fields(response.headers)
    is_stream = fields.get("content-type", "").startswith("text/event-stream")
    if (key is None and not is_problem(fields)) or is_stream:
        return b""
    content: bytes = response.content
    return content if is_problem(fields) else b""


def _is_whole(response: requests.Response) -> bool:
    """Python's HTTP client takes a head that breaks off for one that ends: such an answer has lost its framing, and comes
    out as an empty success. An answer that ends with its connection has to say so, and to have content.
    """
    fields = _Fields(response.headers)
    if response.status_code in (204, 304) or (response.request.method or "") == "HEAD":
        return True
    if "content-length" in fields or "transfer-encoding" in fields:
        return True
    if fields.get("content-type", "").startswith("text/event-stream"):
        return True
    is_old = getattr(response.raw, "version", 11) < 11
    return (is_old or "close" in fields.get("connection", "").lower()) and bool(response.content)


def _failure(error: requests.RequestException, has_answer: bool) -> Failure:
    if has_answer:
        return "cut"
    if isinstance(error, requests.ConnectTimeout):
        return "connect"
    if isinstance(error, requests.Timeout):
        return "timeout"
    reason: Any = error.args[0] if error.args else None
    if isinstance(reason, MaxRetryError):
        reason = reason.reason
    return "connect" if isinstance(reason, (NewConnectionError, ConnectTimeoutError)) else "reset"

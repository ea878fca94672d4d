"""Transports for httpx, synchronous and asynchronous."""

from __future__ import annotations

import time
import uuid
from typing import Callable, Literal

import anyio
import httpx

from hapax_client.attempts import Attempts, Timing, nothing_ran
from hapax_client.backoff import Budget, budget_of
from hapax_client.errors import OutcomeUnknown
from hapax_client.policy import Answer, Decision, Failure, Limits, is_problem

#: Extension of a response: whether it settles the intent.
FINAL = "hapax_final"
OnAttempt = Callable[[int, "Answer | Failure", Decision], None]
# The caller's mistakes: nothing is sent, and nothing would be better the second time.
_MISTAKES = (httpx.UnsupportedProtocol, httpx.InvalidURL)


class _Base:
    def __init__(
        self,
        *,
        limits: Limits = Limits(),
        keys: Literal["each", "given"] = "each",
        header: str = "Idempotency-Key",
        budget: Budget | None = None,
        on_attempt: OnAttempt | None = None,
        timing: Timing = Timing(),
    ) -> None:
        """``keys``: ``each`` gives a POST or PATCH without a key one of its own, held over the retries of that call;
        ``given`` leaves such requests alone. ``budget``: instead of the host's. ``on_attempt`` is told of every attempt.
        """
        self._limits = limits
        self._keys = keys
        self._header = header
        self._budget = budget
        self._on_attempt = on_attempt
        self._timing = timing

    def _attempts(self, request: httpx.Request) -> Attempts:
        key = request.headers.get(self._header)
        if key is None and self._keys == "each" and request.method in ("POST", "PATCH"):
            key = str(uuid.uuid4())
            request.headers[self._header] = key
        budget = self._budget or budget_of(request.url.netloc.decode("ascii"))
        return Attempts(request.method, key, self._limits, budget, self._timing, self._on_attempt)

    def _end(
        self,
        decision: Decision,
        attempts: Attempts,
        response: httpx.Response | None,
        error: Exception | None,
        resume: Callable[[], object],
    ) -> httpx.Response:
        if decision.do == "unknown":
            raise OutcomeUnknown(attempts.key, str(decision.why), attempts.made, response, resume) from error
        if response is None:
            raise nothing_ran(error) if error is not None else RuntimeError("neither answer nor error")
        response.extensions[FINAL] = decision.do == "final"
        return response


class SafeTransport(_Base, httpx.BaseTransport):
    """Sends keyed requests until it has ended: ``httpx.Client(transport=SafeTransport())``.

    Raises :class:`OutcomeUnknown` where nobody can know; the network's error when nothing ran.
    """

    def __init__(
        self,
        inner: httpx.BaseTransport | None = None,
        *,
        limits: Limits = Limits(),
        keys: Literal["each", "given"] = "each",
        header: str = "Idempotency-Key",
        budget: Budget | None = None,
        on_attempt: OnAttempt | None = None,
        timing: Timing = Timing(),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(limits=limits, keys=keys, header=header, budget=budget, on_attempt=on_attempt, timing=timing)
        self._inner = inner or httpx.HTTPTransport()
        self._sleep = sleep

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx."""
        request.read()
        attempts = self._attempts(request)
        while True:
            response, error = None, None
            outcome: Answer | Failure
            try:
                outcome, response = self._once(request, attempts)
            except _MISTAKES:
                raise
            except httpx.TransportError as failed:
                outcome, error = _failure(failed), failed
            decision = attempts.judge(outcome)
            if decision.do != "retry":
                return self._end(decision, attempts, response, error, lambda: self._resume(request))
            self._sleep(decision.after_ms / 1000)

    def close(self) -> None:
        """See httpx."""
        self._inner.close()

    def _resume(self, request: httpx.Request) -> httpx.Response:
        response = self.handle_request(request)
        response.request = request
        response.read()
        return response

    def _once(self, request: httpx.Request, attempts: Attempts) -> tuple[Answer, httpx.Response]:
        seconds = attempts.seconds()
        until = self._timing.monotonic() + seconds
        response = self._inner.handle_request(_timed(request, seconds))
        if not _is_read(response, attempts):
            return _answer(response, b""), response
        raw = bytearray()
        try:
            assert isinstance(response.stream, httpx.SyncByteStream)
            for part in response.stream:
                raw += part
                _check_time(self._timing, until)
        except httpx.TransportError as failed:
            raise _Cut(str(failed)) from failed
        finally:
            response.close()
        whole = _whole(response, bytes(raw))
        return _answer(whole, whole.read() if is_problem(whole.headers) else b""), whole


class AsyncSafeTransport(_Base, httpx.AsyncBaseTransport):
    """The same for ``httpx.AsyncClient``; ``resume()`` of its :class:`OutcomeUnknown` is to be awaited."""

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport | None = None,
        *,
        limits: Limits = Limits(),
        keys: Literal["each", "given"] = "each",
        header: str = "Idempotency-Key",
        budget: Budget | None = None,
        on_attempt: OnAttempt | None = None,
        timing: Timing = Timing(),
        sleep: Callable[[float], object] = anyio.sleep,
    ) -> None:
        super().__init__(limits=limits, keys=keys, header=header, budget=budget, on_attempt=on_attempt, timing=timing)
        self._inner = inner or httpx.AsyncHTTPTransport()
        self._sleep = sleep

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx."""
        await request.aread()
        attempts = self._attempts(request)
        while True:
            response, error = None, None
            outcome: Answer | Failure
            try:
                outcome, response = await self._once(request, attempts)
            except _MISTAKES:
                raise
            except httpx.TransportError as failed:
                outcome, error = _failure(failed), failed
            decision = attempts.judge(outcome)
            if decision.do != "retry":
                return self._end(decision, attempts, response, error, lambda: self._resume(request))
            await self._sleep(decision.after_ms / 1000)  # type: ignore[misc]

    async def aclose(self) -> None:
        """See httpx."""
        await self._inner.aclose()

    async def _resume(self, request: httpx.Request) -> httpx.Response:
        response = await self.handle_async_request(request)
        response.request = request
        await response.aread()
        return response

    async def _once(self, request: httpx.Request, attempts: Attempts) -> tuple[Answer, httpx.Response]:
        seconds = attempts.seconds()
        until = self._timing.monotonic() + seconds
        response = await self._inner.handle_async_request(_timed(request, seconds))
        if not _is_read(response, attempts):
            return _answer(response, b""), response
        raw = bytearray()
        try:
            assert isinstance(response.stream, httpx.AsyncByteStream)
            async for part in response.stream:
                raw += part
                _check_time(self._timing, until)
        except httpx.TransportError as failed:
            raise _Cut(str(failed)) from failed
        finally:
            await response.aclose()
        whole = _whole(response, bytes(raw))
        return _answer(whole, whole.read() if is_problem(whole.headers) else b""), whole


class _Cut(httpx.ReadError):
    """The answer broke off."""


def _failure(error: httpx.TransportError) -> Failure:
    if isinstance(error, _Cut):
        return "timeout" if isinstance(error.__cause__, httpx.TimeoutException) else "cut"
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)):
        return "connect"
    return "timeout" if isinstance(error, httpx.TimeoutException) else "reset"


def _timed(request: httpx.Request, seconds: float) -> httpx.Request:
    """The request with time-outs no longer than what is left."""
    wanted: dict[str, float | None] = request.extensions.get("timeout", {})
    capped = {
        kind: seconds if wanted.get(kind) is None else min(seconds, wanted[kind] or 0)
        for kind in ("connect", "read", "write", "pool")
    }
    return httpx.Request(
        request.method,
        request.url,
        headers=request.headers,
        stream=httpx.ByteStream(request.content),
        extensions={**request.extensions, "timeout": capped},
    )


def _check_time(timing: Timing, until: float) -> None:
    """A server that drips an answer keeps every read short: the whole has its time, too."""
    if timing.monotonic() > until:
        raise httpx.ReadTimeout("the answer took too long")


def _is_read(response: httpx.Response, attempts: Attempts) -> bool:
    """Whether the answer must be whole before it counts: not streams, nor answers to requests that have no key."""
    is_stream = response.headers.get("content-type", "").startswith("text/event-stream")
    return (attempts.key is not None or is_problem(response.headers)) and not is_stream


def _whole(response: httpx.Response, raw: bytes) -> httpx.Response:
    return httpx.Response(
        response.status_code,
        headers=response.headers,
        stream=httpx.ByteStream(raw),
        extensions={name: value for name, value in response.extensions.items() if name != "network_stream"},
    )


def _answer(response: httpx.Response, body: bytes) -> Answer:
    return Answer(response.status_code, response.headers, body)

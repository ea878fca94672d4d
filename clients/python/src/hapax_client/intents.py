"""An intent: something wanted once. Its key and bytes are kept before the first send and forgotten only after a final
answer (P41), whatever happens to the network, the process or the machine in between.
"""

from __future__ import annotations

import base64
import contextlib
import time
import uuid
from typing import TYPE_CHECKING, Any, Callable, Generic, Mapping, TypeVar

from hapax_client.errors import IntentPending, OutcomeUnknown
from hapax_client.policy import Answer, Attempt, judge
from hapax_client.store import IntentStore, MemoryStore

if TYPE_CHECKING:
    import httpx
    import requests

Response = TypeVar("Response")
Kept = dict[str, Any]

# Credentials are the client's to give, again; framing is made anew.
_NOT_STORED = ("authorization", "proxy-authorization", "cookie", "host", "content-length", "transfer-encoding", "connection")
# How long those who wait in other processes may look at what is settled, in seconds.
_LEFT_OVER = 600.0


class _Intent:
    """What both kinds of intents know: the life of what is kept."""

    def __init__(self, name: str, store: IntentStore | None, ttl: float, new_key: Callable[[], str], now: Callable[[], float]) -> None:
        self.name = name
        self._store = store or _SHARED
        self._ttl = ttl
        self._new_key = new_key
        self._now = now

    @property
    def key(self) -> str | None:
        """The pending key."""
        kept = self._store.get(self.name)
        return None if kept is None or kept["settled"] is not None else str(kept["key"])

    def _begin(self, wanted: Kept, called: float) -> Kept:
        """What to send: what is pending, what was settled while the caller waited, or a new one, kept from here on."""
        kept = self._store.get(self.name)
        if kept is not None and kept["settled"] is not None and kept["settled"] < called:
            kept = None
        if kept is not None and not kept["maybe"] and kept["settled"] is None and self._is_old(kept):
            kept = None
        if kept is not None:
            if all(kept[part] == wanted[part] for part in ("method", "url", "body", "type")):
                return self._checked(kept)
            if kept["maybe"]:
                raise IntentPending(self.name)
        kept = {**wanted, "version": 1, "key": self._new_key(), "born": self._now(), "maybe": True, "settled": None}
        self._store.put(self.name, kept)
        return kept

    def _pending(self) -> Kept | None:
        kept = self._store.get(self.name)
        return None if kept is None or kept["settled"] is not None else self._checked(kept)

    def _checked(self, kept: Kept) -> Kept:
        if self._is_old(kept):
            # The server may have forgotten the key: to send it now could run it a second time.
            raise OutcomeUnknown(kept["key"], "expired", 0, None, self._resume)
        if not kept["maybe"]:
            kept = {**kept, "maybe": True}
            self._store.put(self.name, kept)
        return kept

    def _is_old(self, kept: Kept) -> bool:
        return bool(self._now() - kept["born"] > self._ttl)

    def _settle(self, kept: Kept, is_final: bool) -> None:
        # A settled intent stays for those who wait for their turn: they send the same key, and get the same answer.
        self._store.put(self.name, {**kept, "maybe": False, "settled": self._now() if is_final else None})

    def _sweep(self) -> None:
        for name in self._store.names():
            kept = self._store.get(name)
            if kept is None or kept["settled"] is None or kept["settled"] + _LEFT_OVER > self._now():
                continue
            with self._store.alone(name):
                kept = self._store.get(name)
                if kept is not None and kept["settled"] is not None:
                    self._store.remove(name)

    def _resume(self) -> Any:
        raise NotImplementedError


_SHARED = MemoryStore()
_DAY = 86_400.0


class Intent(_Intent, Generic[Response]):
    """The intent of this name, sent by an ``httpx.Client`` or a ``requests.Session``; best one with a
    :class:`SafeTransport` or :class:`SafeAdapter`, which retry. One name is one thing wanted: ``purchase:cart-42``.

    ``ttl``: seconds that its key is good, not longer than the server keeps its records. ``record`` is called with a final
    answer before the key is forgotten: keep there what must not be lost. If it raises, or the process dies, the intent stays
    pending, and the next send gets the same answer.
    """

    def __init__(
        self,
        name: str,
        client: httpx.Client | requests.Session,
        store: IntentStore | None = None,
        *,
        ttl: float = _DAY,
        header: str = "Idempotency-Key",
        record: Callable[[Response], None] | None = None,
        new_key: Callable[[], str] = lambda: str(uuid.uuid4()),
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(name, store, ttl, new_key, now)
        self._client: Any = client
        self._header = header
        self._record = record

    def send(self, method: str, url: str, **options: Any) -> Response:
        """Sends it once. Options as of the client: ``json``, ``content`` or ``data``, ``headers``, …

        Pending with the same bytes: resumed with its key. Raises :class:`OutcomeUnknown` (the intent stays),
        :class:`IntentPending`, or the network's error when nothing ran.
        """
        called = self._now()
        wanted = _fix(self._client, method, url, options)
        with self._store.alone(self.name):
            response = self._run(self._begin(wanted, called))
        self._sweep()
        return response

    def resume(self) -> Response | None:
        """Sends what is pending again, with its key and its bytes; None if nothing is."""
        with self._store.alone(self.name):
            kept = self._pending()
            return None if kept is None else self._run(kept)

    def forget(self) -> None:
        """Drops key and bytes. The next send is a new operation: only the caller may decide that."""
        with self._store.alone(self.name):
            self._store.remove(self.name)

    def _resume(self) -> Any:
        return self.resume()

    def _run(self, kept: Kept) -> Response:
        with _kept_safe(self, kept):
            response: Any = _send(self._client, kept, self._header)
        is_final = _is_final(response, kept)
        if is_final and self._record is not None:
            self._record(response)
        self._settle(kept, is_final)
        return response  # type: ignore[no-any-return]


class AsyncIntent(_Intent):
    """The same for ``httpx.AsyncClient``. The store is used in worker threads."""

    def __init__(
        self,
        name: str,
        client: httpx.AsyncClient,
        store: IntentStore | None = None,
        *,
        ttl: float = _DAY,
        header: str = "Idempotency-Key",
        record: Callable[[httpx.Response], None] | None = None,
        new_key: Callable[[], str] = lambda: str(uuid.uuid4()),
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(name, store, ttl, new_key, now)
        self._client = client
        self._header = header
        self._record = record

    async def send(self, method: str, url: str, **options: Any) -> httpx.Response:
        """See :meth:`Intent.send`."""
        from anyio.to_thread import run_sync

        called = self._now()
        wanted = _fix(self._client, method, url, options)
        async with self._alone():
            response = await self._run(await run_sync(self._begin, wanted, called))
        await run_sync(self._sweep)
        return response

    async def resume(self) -> httpx.Response | None:
        """See :meth:`Intent.resume`."""
        from anyio.to_thread import run_sync

        async with self._alone():
            kept = await run_sync(self._pending)
            return None if kept is None else await self._run(kept)

    async def forget(self) -> None:
        """See :meth:`Intent.forget`."""
        from anyio.to_thread import run_sync

        async with self._alone():
            await run_sync(self._store.remove, self.name)

    def _resume(self) -> Any:
        return self.resume()

    @contextlib.asynccontextmanager
    async def _alone(self) -> Any:
        import anyio
        from anyio.to_thread import run_sync

        lock = self._store.alone(self.name)
        # A thread that waits for the lock cannot be called off: hold on, or the lock would be taken for nobody.
        with anyio.CancelScope(shield=True):
            await run_sync(lock.__enter__)
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await run_sync(lock.__exit__, None, None, None)

    async def _run(self, kept: Kept) -> httpx.Response:
        from anyio.to_thread import run_sync

        request: httpx.Request = _build(self._client, kept, self._header)
        with _kept_safe(self, kept):
            response = await self._client.send(request)
        is_final = _is_final(response, kept)
        if is_final and self._record is not None:
            await run_sync(self._record, response)
        await run_sync(self._settle, kept, is_final)
        return response


@contextlib.contextmanager
def _kept_safe(intent: _Intent, kept: Kept) -> Any:
    """An error leaves the intent pending; it is free of doubt only if the transport knows that nothing ran."""
    try:
        yield
    except OutcomeUnknown as unknown:
        unknown.resume = intent._resume
        raise
    except Exception as error:
        if getattr(error, "hapax_nothing_ran", False):
            intent._settle(kept, False)
        raise


def _is_httpx(client: Any) -> bool:
    return hasattr(client, "build_request")


def _fix(client: Any, method: str, url: str, options: Mapping[str, Any]) -> Kept:
    """The bytes of a request, as the client would send them."""
    if _is_httpx(client):
        request = client.build_request(method, url, **options)
        body = request.read()
        headers = request.headers.multi_items()
    else:
        import requests

        request = client.prepare_request(requests.Request(method, url, **options))
        content = request.body
        body = b"" if content is None else content.encode() if isinstance(content, str) else content
        if not isinstance(body, bytes):
            raise TypeError("an intent needs bytes that can be kept: give data as bytes, str, dict or json")
        headers = request.headers.items()
    stored = [[name, value] for name, value in headers if name.lower() not in _NOT_STORED]
    content_type = next((value for name, value in stored if name.lower() == "content-type"), "")
    return {
        "method": request.method,
        "url": str(request.url),
        "headers": stored,
        "type": content_type.split("boundary=")[0],
        "body": base64.b64encode(body).decode("ascii"),
    }


def _build(client: Any, kept: Kept, header: str) -> Any:
    body = base64.b64decode(kept["body"])
    if _is_httpx(client):
        headers = [(name, value) for name, value in kept["headers"] if name.lower() != header.lower()]
        return client.build_request(kept["method"], kept["url"], headers=[*headers, (header, kept["key"])], content=body)
    import requests

    fields = {**dict(kept["headers"]), header: kept["key"]}
    return client.prepare_request(requests.Request(kept["method"], kept["url"], headers=fields, data=body))


def _send(client: Any, kept: Kept, header: str) -> Any:
    request = _build(client, kept, header)
    if _is_httpx(client):
        return client.send(request)
    return client.send(request, **client.merge_environment_settings(request.url, {}, None, None, None))


def _is_final(response: Any, kept: Kept) -> bool:
    """What the transport says; else, of a client that does not retry, what the policy says of its one answer."""
    marked = getattr(response, "hapax_final", None)
    if marked is None:
        marked = getattr(response, "extensions", {}).get("hapax_final")
    if marked is not None:
        return bool(marked)
    fields = {name.lower(): value for name, value in response.headers.items()}
    answer = Answer(response.status_code, fields, response.content)
    return judge(answer, Attempt(kept["method"], True, 1, 1, True, 0, 0, 1, 0, 0.0)).do == "final"

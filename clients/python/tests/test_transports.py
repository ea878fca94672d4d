"""httpx and requests over scripted servers."""

import asyncio
import http.server
import json
import socket
import threading
from typing import Any, Iterator

import httpx
import pytest
import requests

from hapax_client import Budget, Limits, OutcomeUnknown
from hapax_client.adapter import SafeAdapter
from hapax_client.attempts import Timing
from hapax_client.transports import FINAL, AsyncSafeTransport, SafeTransport

URL = "http://shop.test/create-order"


class Script:
    """Answers in turn; an exception is raised. Time passes when somebody waits."""

    def __init__(self, *answers: Any) -> None:
        self.answers = answers
        self.asked: list[httpx.Request] = []
        self.waits: list[float] = []
        self.now = 1_700_000_000.0

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            return answer(request)
        status, fields, body = answer
        return httpx.Response(status, headers=fields, content=body)

    async def handle_async(self, request: httpx.Request) -> httpx.Response:
        return self.handle(request)

    def options(self, **more: Any) -> dict[str, Any]:
        timing = Timing(monotonic=lambda: self.now, wall=lambda: self.now, random=lambda: 0.5)
        return {"budget": Budget(), "timing": timing, **more}

    def client(self, **more: Any) -> httpx.Client:
        def sleep(seconds: float) -> None:
            self.waits.append(seconds)
            self.now += seconds

        inner = httpx.MockTransport(self.handle)
        return httpx.Client(transport=SafeTransport(inner, sleep=sleep, **self.options(**more)))

    def async_client(self, **more: Any) -> httpx.AsyncClient:
        async def sleep(seconds: float) -> None:
            self.waits.append(seconds)
            self.now += seconds

        inner = httpx.MockTransport(self.handle_async)
        return httpx.AsyncClient(transport=AsyncSafeTransport(inner, sleep=sleep, **self.options(**more)))

    @property
    def keys(self) -> set[str | None]:
        return {request.headers.get("idempotency-key") for request in self.asked}


MADE = (201, {"content-type": "application/json"}, b'{"order":1}')
UNKNOWN = (504, {"content-type": "application/problem+json"}, b'{"type":"urn:hapax:problems#outcome-unknown","retryable":false}')
RESET = httpx.ReadError("reset")
REFUSED = httpx.ConnectError("refused")


def test_every_attempt_sends_the_same_key_and_the_same_bytes() -> None:
    script = Script(RESET, (502, {}, b""), MADE)
    response = script.client().post(URL, json={"item": "book"})
    assert response.json() == {"order": 1}
    assert response.extensions[FINAL] is True
    assert len(script.asked) == 3 and len(script.keys) == 1 and None not in script.keys
    assert {request.content for request in script.asked} == {b'{"item":"book"}'}
    assert script.waits == [0.025, 0.05]


def test_a_generator_is_read_once_and_sent_every_time() -> None:
    script = Script(RESET, MADE)
    script.client().post(URL, content=(part for part in (b"a", b"b")))
    assert [request.content for request in script.asked] == [b"ab", b"ab"]


def test_an_unknown_outcome_is_typed_and_resumed_with_the_same_key() -> None:
    script = Script(RESET, RESET, RESET, MADE)
    with pytest.raises(OutcomeUnknown) as caught:
        script.client().post(URL, json={})
    unknown = caught.value
    assert (unknown.why, unknown.attempts) == ("attempts", 3)
    assert unknown.__cause__ is RESET
    assert unknown.resume().json() == {"order": 1}
    assert script.keys == {unknown.key}


def test_an_answer_that_says_unknown_is_not_sent_again() -> None:
    script = Script(UNKNOWN)
    with pytest.raises(OutcomeUnknown) as caught:
        script.client().post(URL, json={})
    assert caught.value.response.status_code == 504
    assert len(script.asked) == 1


def test_an_error_is_handed_over_when_nothing_ran() -> None:
    script = Script(REFUSED)
    with pytest.raises(httpx.ConnectError):
        script.client().post(URL, json={})
    assert len(script.asked) == 3


def test_a_post_without_a_key_is_sent_once() -> None:
    script = Script(RESET)
    with pytest.raises(httpx.ReadError):
        script.client(keys="given").post(URL, json={})
    assert len(script.asked) == 1
    answered = Script((503, {}, b""))
    assert answered.client(keys="given").post(URL, json={}).status_code == 503
    assert len(answered.asked) == 1


def test_a_key_of_the_caller_is_kept() -> None:
    script = Script(RESET, MADE)
    script.client(keys="given").post(URL, json={}, headers={"Idempotency-Key": "mine"})
    assert script.keys == {"mine"} and len(script.asked) == 2


def test_an_answer_that_breaks_off_is_no_answer() -> None:
    class Broken(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield b'{"or'
            raise httpx.RemoteProtocolError("cut")

    seen: list[Any] = []
    script = Script(lambda _: httpx.Response(201, stream=Broken()), MADE)
    client = script.client(on_attempt=lambda *event: seen.append(event))
    assert client.post(URL, json={}).json() == {"order": 1}
    assert seen[0][1] == "cut"


def test_an_answer_that_drips_past_its_time_is_a_time_out() -> None:
    script = Script()

    class Dripping(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            while True:
                script.now += 1
                yield b"."

    seen: list[Any] = []
    script.answers = (lambda _: httpx.Response(201, stream=Dripping()), MADE)
    client = script.client(on_attempt=lambda *event: seen.append(event), limits=Limits(attempt=5))
    assert client.post(URL, json={}).status_code == 201
    assert seen[0][1] == "timeout"


def test_a_compressed_answer_comes_through() -> None:
    import gzip

    body = gzip.compress(b'{"order":1}')
    script = Script((201, {"content-type": "application/json", "content-encoding": "gzip"}, body))
    assert script.client().post(URL, json={}).json() == {"order": 1}


def test_the_time_of_an_attempt_is_no_longer_than_what_is_left() -> None:
    script = Script(MADE)
    script.client(limits=Limits(attempt=2, deadline=1)).post(URL, json={}, timeout=60)
    assert set(script.asked[0].extensions["timeout"].values()) == {1}


def test_the_asynchronous_transport_does_the_same() -> None:
    async def run() -> None:
        script = Script(RESET, (503, {"retry-after": "2"}, b""), MADE)
        async with script.async_client() as client:
            response = await client.post(URL, json={"item": "book"})
        assert response.json() == {"order": 1}
        assert len(script.keys) == 1 and script.waits == [0.025, 3.0]
        lost = Script(RESET, RESET, RESET, MADE)
        async with lost.async_client() as client:
            with pytest.raises(OutcomeUnknown) as caught:
                await client.post(URL, json={})
            assert (await caught.value.resume()).status_code == 201
        assert lost.keys == {caught.value.key}

    asyncio.run(run())


class Lossy(http.server.BaseHTTPRequestHandler):
    """Runs every order and cuts the first two answers to every key."""

    protocol_version = "HTTP/1.1"
    seen: dict[str, list[bytes]] = {}

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        bodies = self.seen.setdefault(self.headers["Idempotency-Key"], [])
        bodies.append(body)
        if len(bodies) == 1:
            self.close_connection = True
            return
        answer = json.dumps({"order": 1}).encode()
        self.send_response(201)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer[:3] if len(bodies) == 2 else answer)
        self.close_connection = len(bodies) == 2

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def lossy() -> Iterator[str]:
    Lossy.seen = {}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Lossy)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/create-order"
    server.shutdown()
    server.server_close()
    thread.join()


def test_requests_sends_an_order_over_a_network_that_loses_two_answers(lossy: str) -> None:
    session = requests.Session()
    session.mount("http://", SafeAdapter())
    assert session.post(lossy, data=(part for part in (b"a", b"b"))).json() == {"order": 1}
    assert list(Lossy.seen.values()) == [[b"ab", b"ab", b"ab"]]


def test_httpx_sends_an_order_over_a_network_that_loses_two_answers(lossy: str) -> None:
    with httpx.Client(transport=SafeTransport()) as client:
        assert client.post(lossy, json={"a": 1}).json() == {"order": 1}
    assert list(Lossy.seen.values()) == [[b'{"a":1}'] * 3]


def test_requests_has_a_typed_unknown_outcome_too(lossy: str) -> None:
    session = requests.Session()
    session.mount("http://", SafeAdapter(limits=Limits(attempts=2)))
    with pytest.raises(OutcomeUnknown) as caught:
        session.post(lossy, json={})
    assert caught.value.resume().json() == {"order": 1}
    assert list(Lossy.seen) == [caught.value.key]


def test_requests_hands_over_a_refused_connection() -> None:
    session = requests.Session()
    session.mount("http://", SafeAdapter())
    with pytest.raises(requests.ConnectionError):
        session.post("http://127.0.0.1:9/", json={})


@pytest.mark.parametrize("client", ["requests", "httpx"])
def test_a_head_that_breaks_off_is_no_answer(client: str) -> None:
    """Python's own HTTP client takes it for an empty success."""
    parts = [b"HTTP/1.1 201 Created\r\ncontent-ty", b"HTTP/1.1 201 Created\r\n", b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/create-order"

        def serve() -> None:
            for part in parts:
                connection, _ = server.accept()
                with connection:
                    held = b""
                    while not held.endswith(b"{}"):
                        held += connection.recv(4096)
                    connection.sendall(part)

        thread = threading.Thread(target=serve)
        thread.start()
        if client == "requests":
            session = requests.Session()
            session.mount("http://", SafeAdapter())
            assert session.post(url, json={}).content == b"{}"
        else:
            with httpx.Client(transport=SafeTransport()) as plain:
                assert plain.post(url, json={}).content == b"{}"
        thread.join(20)


@pytest.mark.parametrize("answer", [REFUSED, RESET, (503, {}, b"")], ids=["refused", "reset", "503"])
def test_a_server_that_is_down_for_30_s_gets_at_most_a_tenth_more_requests(answer: Any) -> None:
    """200 callers of one process, a request a second each; time passes only by waiting."""
    script = Script(answer)
    client = script.client()
    intents = 0
    for second in range(30):
        for _ in range(200):
            script.now = 1_700_000_000.0 + second
            intents += 1
            with pytest.raises((OutcomeUnknown, httpx.TransportError)):
                client.post(URL, json={})
    extra = (len(script.asked) - intents) / intents
    assert 0 < extra <= 0.1, f"{len(script.asked)} requests for {intents} intents"

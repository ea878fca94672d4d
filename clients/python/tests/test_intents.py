"""Keys that are held: over retries, restarts, two callers at once."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests

from hapax_client import FileStore, IntentPending, IntentStore, Limits, MemoryStore, OutcomeUnknown
from hapax_client.adapter import SafeAdapter
from hapax_client.intents import AsyncIntent, Intent
from test_transports import MADE, REFUSED, RESET, UNKNOWN, URL, Lossy, Script, lossy  # noqa: F401


@pytest.fixture(params=["memory", "file"])
def store(request: Any, tmp_path: Path) -> IntentStore:
    return MemoryStore() if request.param == "memory" else FileStore(tmp_path)


def test_key_and_bytes_are_kept_before_the_first_byte_is_sent(store: IntentStore) -> None:
    def look(request: httpx.Request) -> httpx.Response:
        kept = store.get("cart-1")
        assert kept is not None and kept["key"] == request.headers["idempotency-key"] and kept["maybe"] is True
        return httpx.Response(201)

    purchase: Intent[httpx.Response] = Intent("cart-1", Script(look).client(), store)
    assert purchase.send("POST", URL, json={"item": "book"}).status_code == 201
    assert purchase.key is None


def test_an_unknown_outcome_keeps_the_intent_and_is_resumed_with_the_same_key(store: IntentStore) -> None:
    script = Script(RESET, RESET, RESET, MADE)
    purchase: Intent[httpx.Response] = Intent("cart-2", script.client(), store)
    with pytest.raises(OutcomeUnknown) as caught:
        purchase.send("POST", URL, json={})
    assert purchase.key == caught.value.key
    assert caught.value.resume().status_code == 201
    assert script.keys == {caught.value.key}
    assert purchase.resume() is None


def test_a_restart_resumes_with_the_key_and_the_bytes_of_before(tmp_path: Path) -> None:
    lost = Script(RESET)
    with pytest.raises(OutcomeUnknown):
        Intent[httpx.Response]("cart-3", lost.client(), FileStore(tmp_path)).send("POST", URL, json={"item": "book"})
    script = Script(MADE)
    response = Intent[httpx.Response]("cart-3", script.client(), FileStore(tmp_path)).send("POST", URL, json={"item": "book"})
    assert response.status_code == 201
    assert script.keys == lost.keys
    assert script.asked[0].content == lost.asked[0].content


def test_other_bytes_are_refused_while_pending_and_fine_when_nothing_ran(store: IntentStore) -> None:
    purchase: Intent[httpx.Response] = Intent("cart-4", Script(UNKNOWN).client(), store)
    with pytest.raises(OutcomeUnknown):
        purchase.send("POST", URL, json={"item": "book"})
    with pytest.raises(IntentPending):
        purchase.send("POST", URL, json={"item": "two books"})
    script = Script(REFUSED, REFUSED, REFUSED, MADE)
    other: Intent[httpx.Response] = Intent("cart-5", script.client(), store)
    with pytest.raises(httpx.ConnectError):
        other.send("POST", URL, json={"item": "book"})
    assert other.send("POST", URL, json={"item": "two books"}).status_code == 201


def test_two_calls_at_once_have_one_key(store: IntentStore) -> None:
    under_way, called = threading.Event(), threading.Event()

    def slow(_: httpx.Request) -> httpx.Response:
        under_way.set()
        assert called.wait(20)
        return httpx.Response(201)

    def now() -> float:
        if under_way.is_set():
            called.set()
        return time.time()

    script = Script(slow)
    client = script.client()
    answers: list[int] = []

    def call() -> None:
        answers.append(Intent[httpx.Response]("cart-6", client, store, now=now).send("POST", URL, json={}).status_code)

    first = threading.Thread(target=call)
    first.start()
    assert under_way.wait(20)
    call()
    first.join(20)
    assert answers == [201, 201]
    assert len(script.keys) == 1


def test_a_call_after_the_answer_is_a_new_intent(store: IntentStore) -> None:
    script = Script(MADE)
    now = [1000.0]
    purchase: Intent[httpx.Response] = Intent("cart-7", script.client(), store, now=lambda: now[0])
    purchase.send("POST", URL, json={})
    now[0] += 1
    purchase.send("POST", URL, json={})
    assert len(script.keys) == 2
    now[0] += 10_000
    Intent[httpx.Response]("cart-8", script.client(), store, now=lambda: now[0]).send("POST", URL, json={})
    assert store.names() == ["cart-8"], "what is settled is cleared away"


def test_a_key_older_than_its_time_is_not_sent(store: IntentStore) -> None:
    script = Script(UNKNOWN, MADE)
    now = [1000.0]
    purchase: Intent[httpx.Response] = Intent("cart-9", script.client(), store, ttl=10, now=lambda: now[0])
    with pytest.raises(OutcomeUnknown):
        purchase.send("POST", URL, json={})
    now[0] += 11
    with pytest.raises(OutcomeUnknown) as caught:
        purchase.send("POST", URL, json={})
    assert caught.value.why == "expired" and len(script.asked) == 1
    purchase.forget()
    assert purchase.send("POST", URL, json={}).status_code == 201


def test_credentials_are_not_stored_and_come_from_the_client_again(tmp_path: Path) -> None:
    script = Script((401, {}, b""), MADE)
    client = script.client()
    client.headers["Authorization"] = "Bearer old-secret"
    purchase: Intent[httpx.Response] = Intent("cart-10", client, FileStore(tmp_path))
    assert purchase.send("POST", URL, json={}).status_code == 401
    assert "secret" not in "".join(file.read_text() for file in tmp_path.iterdir())
    client.headers["Authorization"] = "Bearer new-secret"
    assert purchase.send("POST", URL, json={}).status_code == 201
    assert len(script.keys) == 1
    assert [request.headers["authorization"] for request in script.asked] == ["Bearer old-secret", "Bearer new-secret"]


def test_a_client_that_does_not_retry_keeps_the_intent_too(store: IntentStore) -> None:
    script = Script(RESET, (503, {}, b""), MADE)
    plain = httpx.Client(transport=httpx.MockTransport(script.handle))
    purchase: Intent[httpx.Response] = Intent("cart-11", plain, store)
    with pytest.raises(httpx.ReadError):
        purchase.send("POST", URL, json={})
    assert purchase.send("POST", URL, json={}).status_code == 503
    assert purchase.key is not None
    assert purchase.send("POST", URL, json={}).status_code == 201
    assert len(script.keys) == 1 and purchase.key is None


def test_the_asynchronous_intent_does_the_same(store: IntentStore) -> None:
    async def run() -> None:
        script = Script(RESET, RESET, RESET, MADE)
        async with script.async_client() as client:
            purchase = AsyncIntent("cart-12", client, store)
            with pytest.raises(OutcomeUnknown) as caught:
                await purchase.send("POST", URL, json={})
            assert purchase.key == caught.value.key
            assert (await caught.value.resume()).status_code == 201
            assert await purchase.resume() is None
        assert script.keys == {caught.value.key}

    asyncio.run(run())


def test_an_intent_over_requests_survives_a_lost_answer(lossy: str, store: IntentStore) -> None:  # noqa: F811
    session = requests.Session()
    session.mount("http://", SafeAdapter(limits=Limits(attempts=2)))
    purchase: Intent[requests.Response] = Intent("cart-13", session, store)
    with pytest.raises(OutcomeUnknown):
        purchase.send("POST", lossy, json={"item": "book"})
    assert purchase.send("POST", lossy, json={"item": "book"}).json() == {"order": 1}
    assert [len(bodies) for bodies in Lossy.seen.values()] == [3]


def test_an_answer_is_recorded_before_its_key_is_forgotten(store: IntentStore) -> None:
    script = Script(MADE)
    recorded: list[Any] = []

    def record(response: httpx.Response) -> None:
        recorded.append(response.json())
        if len(recorded) == 1:
            raise OSError("the disk is full")

    purchase: Intent[httpx.Response] = Intent("cart-15", script.client(), store, record=record)
    with pytest.raises(OSError):
        purchase.send("POST", URL, json={})
    assert purchase.key is not None
    assert purchase.send("POST", URL, json={}).json() == {"order": 1}
    assert recorded == [{"order": 1}] * 2 and len(script.keys) == 1


def test_a_damaged_file_is_an_error_and_never_an_absent_intent(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.put("cart-14", {"key": "k"})
    (file,) = tmp_path.glob("*.json")
    file.write_text('{"key":')
    with pytest.raises(ValueError):
        Intent[httpx.Response]("cart-14", Script(MADE).client(), store).send("POST", URL, json={})


def test_a_write_is_flushed_before_it_is_renamed_and_the_folder_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (log.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda a, b: (log.append("replace"), replace(a, b)))
    FileStore(tmp_path).put("cart", {})
    assert log == ["fsync", "replace", "fsync"]


def test_processes_take_turns(tmp_path: Path) -> None:
    code = (
        "import sys; from hapax_client import FileStore\n"
        "store = FileStore(sys.argv[1])\n"
        "for _ in range(50):\n"
        "    with store.alone('n'):\n"
        "        kept = store.get('n') or {'count': 0}\n"
        "        store.put('n', {'count': kept['count'] + 1})\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert FileStore(tmp_path).get("n") == {"count": 150, "name": "n"}
    assert json.dumps(sorted(path.suffix for path in tmp_path.iterdir())) == '[".json"]'

"""Buys N lamps, 16 at a time, each once: KIND URL FOLDER N. Survives being killed: keys in files, a book of orders."""

from __future__ import annotations

import asyncio
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable

import httpx
import requests

from hapax_client import FileStore, OutcomeUnknown
from hapax_client.adapter import SafeAdapter
from hapax_client.intents import AsyncIntent, Intent
from hapax_client.transports import AsyncSafeTransport, SafeTransport

kind, url, folder, count = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
store = FileStore(folder / "intents")
book = folder / "book"
lock = threading.Lock()
ROUNDS = 20


def note(number: int) -> Callable[[Any], None]:
    def record(response: Any) -> None:
        with lock, book.open("a") as file:
            file.write(f"{number} {response.json()['id']}\n")

    return record


def order(number: int) -> dict[str, Any]:
    return {"item": "a lamp", "quantity": 1 + number % 100}


def buy(client: Any, number: int) -> None:
    purchase: Intent[Any] = Intent(f"purchase:{number}", client, store, record=note(number))
    for _ in range(ROUNDS):
        try:
            purchase.send("POST", url, json=order(number))
            return
        except OutcomeUnknown:
            pass
    raise SystemExit(f"purchase {number} stays unknown")


async def buy_async(client: httpx.AsyncClient, number: int, places: asyncio.Semaphore) -> None:
    purchase = AsyncIntent(f"purchase:{number}", client, store, record=note(number))
    async with places:
        for _ in range(ROUNDS):
            try:
                await purchase.send("POST", url, json=order(number))
                return
            except OutcomeUnknown:
                pass
    raise SystemExit(f"purchase {number} stays unknown")


async def all_async(left: list[int]) -> None:
    places = asyncio.Semaphore(16)
    async with httpx.AsyncClient(transport=AsyncSafeTransport()) as client:
        await asyncio.gather(*(buy_async(client, number, places) for number in left))


known = {line.split()[0] for line in book.read_text().splitlines()} if book.exists() else set()
left = [number for number in range(count) if str(number) not in known]
if kind == "async":
    asyncio.run(all_async(left))
else:
    client: Any
    if kind == "httpx":
        client = httpx.Client(transport=SafeTransport())
    else:
        client = requests.Session()
        client.mount("http://", SafeAdapter())
    with ThreadPoolExecutor(16) as pool:
        for done in [pool.submit(buy, client, number) for number in left]:
            done.result()

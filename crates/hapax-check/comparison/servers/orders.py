"""The order handler that every Python product stands in front of: a ledger, forced to the disk half way through the work."""

import asyncio
import json
import os
import time
import uuid

LEDGER = os.environ["LEDGER"]
WORK = float(os.environ["WORK_MS"]) / 1000


def charge(body: bytes) -> dict:
    wanted = json.loads(body)
    order = {"id": uuid.uuid4().hex, "item": wanted["item"], "quantity": wanted["quantity"]}
    with open(LEDGER, "a", encoding="utf-8") as ledger:
        ledger.write(json.dumps(order) + "\n")
        ledger.flush()
        os.fsync(ledger.fileno())
    return order


def count() -> dict:
    if not os.path.exists(LEDGER):
        return {"count": 0}
    with open(LEDGER, encoding="utf-8") as ledger:
        return {"count": sum(1 for _ in ledger)}


def starlette_app(**options):
    """The handler as an application of Starlette, which FastAPI is built on."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def create_order(request):
        body = await request.body()
        await asyncio.sleep(WORK / 2)
        order = charge(body)
        await asyncio.sleep(WORK / 2)
        return JSONResponse(order, 201, headers={"Location": f"/order/{order['id']}"})

    async def ledger(_request):
        return JSONResponse(count())

    routes = [Route("/create-order", create_order, methods=["POST"]), Route("/ledger", ledger)]
    return Starlette(routes=routes, **options)


def django_view(request):
    from django.http import JsonResponse

    time.sleep(WORK / 2)
    order = charge(request.body)
    time.sleep(WORK / 2)
    return JsonResponse(order, status=201, headers={"Location": f"/order/{order['id']}"})


def django_ledger(_request):
    from django.http import JsonResponse

    return JsonResponse(count())

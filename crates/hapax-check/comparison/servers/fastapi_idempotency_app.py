"""fastapi-idempotency: the middleware on its persistent store, with a caller that is the Authorization."""

import contextlib
import os

from fastapi_idempotency import IdempotencyMiddleware
from fastapi_idempotency.stores.tortoise import TortoiseStore
from orders import starlette_app
from tortoise import Tortoise


@contextlib.asynccontextmanager
async def lifespan(_app):
    models = {"models": ["fastapi_idempotency.stores.tortoise"]}
    await Tortoise.init(db_url=f"sqlite://{os.environ['DATABASE']}", modules=models, _enable_global_fallback=True)
    await Tortoise.generate_schemas(safe=True)
    yield
    await Tortoise.close_connections()


app = starlette_app(lifespan=lifespan)
app.add_middleware(
    IdempotencyMiddleware,
    store=TortoiseStore(),
    scope=lambda request: request.headers.get("authorization", ""),
)

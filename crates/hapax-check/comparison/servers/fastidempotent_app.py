"""fastidempotent: the middleware on Redis, which its README recommends for production."""

import contextlib
import os

from fastidempotent import IdempotencyMiddleware, RedisBackend
from orders import starlette_app

backend = RedisBackend(url=os.environ["REDIS_URL"], key_prefix="idempotent:", ttl=3600)


@contextlib.asynccontextmanager
async def lifespan(_app):
    await backend.init()
    yield
    await backend.close()


app = starlette_app(lifespan=lifespan)
app.add_middleware(IdempotencyMiddleware, backend=backend, ttl=3600, methods=["POST", "PUT", "PATCH"])

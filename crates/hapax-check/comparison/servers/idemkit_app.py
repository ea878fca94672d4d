"""idemkit: the middleware on Redis with a scope, as its README has it for production."""

import os

from idemkit import HttpConfig, IdempotencyMiddleware, RedisBackend
from orders import starlette_app

app = starlette_app()
app.add_middleware(
    IdempotencyMiddleware,
    backend=RedisBackend.from_url(os.environ["REDIS_URL"]),
    config=HttpConfig(scope=lambda request: request.headers.get("authorization", "anonymous")),
)

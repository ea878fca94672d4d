"""asgi-idempotency-header: the middleware on Redis."""

import os

from idempotency_header_middleware import IdempotencyHeaderMiddleware
from idempotency_header_middleware.backends import RedisBackend
from orders import starlette_app
from redis.asyncio import from_url
from starlette.middleware import Middleware

backend = RedisBackend(redis=from_url(os.environ["REDIS_URL"]))
app = starlette_app(middleware=[Middleware(IdempotencyHeaderMiddleware, backend=backend)])

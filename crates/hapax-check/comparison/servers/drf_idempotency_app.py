"""drf-idempotency: the middleware on its Redis backend."""

import os

import django
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    SECRET_KEY=os.environ["LEDGER"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["drf_idempotency"],
    MIDDLEWARE=["drf_idempotency.middleware.IdempotencyMiddleware"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DATABASE"]}},
    IDEMPOTENCY={
        "BACKEND": "drf_idempotency.backends.redis.RedisBackend",
        "BACKEND_OPTIONS": {"url": os.environ["REDIS_URL"]},
    },
)
django.setup()
call_command("migrate", verbosity=0)

from orders import django_ledger, django_view  # noqa: E402

urlpatterns = [path("create-order", django_view), path("ledger", django_ledger)]
application = get_wsgi_application()

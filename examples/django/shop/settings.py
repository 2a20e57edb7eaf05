"""The settings of the project: the database, and the app of pgqrs."""

import os
from urllib.parse import unquote, urlsplit

import django

_url = urlsplit(os.environ.get("DATABASE_URL", "postgresql://localhost/mydb"))

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _url.path.lstrip("/"),
        "HOST": _url.hostname or "",
        "PORT": str(_url.port or ""),
        "USER": unquote(_url.username or ""),
        "PASSWORD": unquote(_url.password or ""),
    }
}
INSTALLED_APPS = ["pgqrs.django", "shop"]
ROOT_URLCONF = "shop.urls"
SECRET_KEY = "only for the example"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

if django.VERSION >= (6,):
    TASKS = {"default": {"BACKEND": "pgqrs.django.TasksBackend", "OPTIONS": {"max_attempts": 2}}}

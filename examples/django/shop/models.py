"""Orders."""

from django.db import models


class Order(models.Model):
    customer: "models.TextField[str, str]" = models.TextField()
    is_mailed: "models.BooleanField[bool, bool]" = models.BooleanField(default=False)

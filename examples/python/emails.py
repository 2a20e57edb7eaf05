"""Shared by the programs of this folder: a queue, and the type that it carries."""

from dataclasses import dataclass

import pgqrs


@dataclass
class SendEmail:
    to: str
    subject: str = "Hello"


EMAILS = pgqrs.Queue("emails", SendEmail)

"""What the programs of this folder share: a queue, and what it carries."""

from dataclasses import dataclass

import pgqrs


@dataclass
class SendEmail:
    to: str
    subject: str = "Hello"


EMAILS = pgqrs.Queue("emails", SendEmail)

"""A queue and the type of its payloads, shared by the programs of this folder."""

from dataclasses import dataclass

import pgqrs


@dataclass
class SendEmail:
    to: str
    subject: str = "Hello"


EMAILS = pgqrs.Queue("emails", SendEmail)

"""A worker: handles messages until SIGTERM, and then lets its handlers finish.

    DATABASE_URL=postgresql://localhost/mydb python worker.py

An exception is a failed attempt, after which the message is delivered again later; when its attempts are used up, it
becomes a dead letter. While a handler runs, no other consumer gets its message.
"""

import asyncio
import os

from emails import EMAILS, SendEmail

import pgqrs
from pgqrs import Delivery, Outcome


async def send(email: SendEmail) -> None:
    print(f"sent {email.subject!r} to {email.to}", flush=True)


async def handle(delivery: Delivery[SendEmail]) -> Outcome | None:
    email = delivery.payload
    if "@" not in email.to:
        # A retry would not help.
        return Outcome.dead_letter("no address")
    await send(email)
    return None


async def main() -> None:
    async with await pgqrs.connect(os.environ["DATABASE_URL"], install=True) as store:
        await store.queue(EMAILS)
        consumer = await store.consumer(EMAILS, hostname="worker")
        print("ready", flush=True)
        report = await consumer.run(handle, concurrency=8)
        print(f"{report.done} done, {report.dead} dead", flush=True)


if __name__ == "__main__":
    asyncio.run(main())

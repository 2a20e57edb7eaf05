"""A web service that enqueues, with FastAPI: one store and one producer for all requests.

    pip install fastapi uvicorn
    DATABASE_URL=postgresql://localhost/mydb uvicorn web_producer:app

    curl -X POST 'localhost:8000/emails?to=ada@example.com'

Requests that come at the same time share a statement and its commit, and each is answered when its own message is
durable.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from emails import EMAILS, SendEmail
from fastapi import FastAPI, HTTPException, Request

import pgqrs


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with await pgqrs.connect(os.environ["DATABASE_URL"], install=True) as store:
        await store.queue(EMAILS)
        async with await store.producer(EMAILS, hostname="web") as producer:
            app.state.emails = producer
            yield


app = FastAPI(lifespan=lifespan)


@app.post("/emails", status_code=202)
async def send_email(request: Request, to: str, minutes: int = 0) -> dict[str, int]:
    producer: pgqrs.Producer[SendEmail] = request.app.state.emails
    try:
        message = await producer.enqueue(SendEmail(to), delay=timedelta(minutes=minutes))
    except pgqrs.Error as error:
        # An operator has suspended the producer, or the database is unavailable for longer than `retry_for`.
        raise HTTPException(503, str(error)) from error
    return {"message": message}

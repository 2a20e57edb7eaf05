"""A web service that stores an order and sends its receipt in one transaction, with FastAPI and SQLAlchemy.

    pip install fastapi uvicorn 'sqlalchemy[asyncio]' asyncpg
    DATABASE_URL=postgresql://localhost/mydb uvicorn web_orders:api

    curl -X POST 'localhost:8000/orders?customer=ada@example.com'

The receipt is sent if and only if the order is stored, and consumers are woken when it is.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from emails import EMAILS, SendEmail
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import pgqrs
import pgqrs.fastapi

URL = os.environ["DATABASE_URL"]
engine = create_async_engine(f"postgresql+asyncpg://{URL.partition('://')[2]}")
jobs = pgqrs.App(URL, install=True)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    number: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]


@asynccontextmanager
async def tables(api: FastAPI) -> AsyncIterator[None]:
    await jobs.store.queue(EMAILS)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    await engine.dispose()


async def transaction() -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine) as session, session.begin():
        yield session


Transaction = Annotated[AsyncSession, Depends(transaction, scope="function")]
Store = Annotated[pgqrs.Store, Depends(pgqrs.fastapi.store)]
Emails = Annotated[pgqrs.Producer[SendEmail], Depends(pgqrs.fastapi.producer(EMAILS))]

api = FastAPI(lifespan=pgqrs.fastapi.lifespan(jobs, tables))


@api.post("/orders", status_code=201)
async def place_order(session: Transaction, store: Store, customer: str) -> dict[str, int]:
    order = Order(customer=customer)
    session.add(order)
    await session.flush()
    await pgqrs.enqueue_in(session, EMAILS, SendEmail(customer, f"Receipt {order.number}"), store=store)
    if "@" not in customer:
        # The dependency's transaction is rolled back, and the receipt with it.
        raise HTTPException(422, "no address")
    return {"order": order.number}


@api.post("/emails", status_code=202)
async def send_email(emails: Emails, to: str) -> dict[str, int]:
    return {"message": await emails.enqueue(SendEmail(to))}

"""An order and its e-mail, in one SQLAlchemy transaction: both, or neither.

pip install 'sqlalchemy[asyncio]' 'psycopg[binary]'
DATABASE_URL=postgresql://localhost/mydb python transactional.py
"""

import asyncio
import os
from dataclasses import dataclass

from emails import EMAILS, SendEmail
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import pgqrs


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    number: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]
    paid: Mapped[bool] = mapped_column(default=False)


@dataclass
class Declined(Exception):
    number: int


async def pay(session: AsyncSession, number: int, *, declined: bool = False) -> None:
    order = await session.get_one(Order, number)
    order.paid = True
    receipt = SendEmail(order.customer, f"Receipt for order {number}")
    # On the session's own connection, so it is sent if and only if the order is paid.
    await pgqrs.enqueue_in(session, EMAILS, receipt)
    if declined:
        raise Declined(number)


async def main() -> None:
    url = os.environ["DATABASE_URL"]
    async with await pgqrs.connect(url, install=True) as store:
        await store.queue(EMAILS)
        engine = create_async_engine(url.replace(url.split(":")[0], "postgresql+psycopg", 1))
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session, session.begin():
            session.add_all(
                [Order(number=1, customer="ada@example.com"), Order(number=2, customer="lin@example.com")]
            )

        async with AsyncSession(engine) as session, session.begin():
            await pay(session, 1)
        try:
            async with AsyncSession(engine) as session, session.begin():
                await pay(session, 2, declined=True)
        except Declined as error:
            print(f"order {error.number} was declined")

        for message in await store.admin().messages(EMAILS, payload=True):
            print(f"to be sent: {message.payload['subject']}")
        await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())

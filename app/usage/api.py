"""Usage in GraphQL: how much of the month's message capacity is taken."""

from datetime import datetime

import strawberry

from app.database import now
from app.graphql.context import Info
from app.graphql.fields import query
from app.usage import service

MAX_INT = 2**31 - 1  # GraphQL's Int


@strawberry.type(description="Message capacity of a calendar month (UTC) and what is used of it.")
class Usage:
    """A month."""

    period_start: datetime = strawberry.field(description="When the month begins.")
    period_end: datetime = strawberry.field(description="When the next month begins and capacity is new.")
    messages_sent: int = strawberry.field(description="Messages sent, and those that running campaigns hold.")
    message_capacity: int | None = strawberry.field(
        description="How many the month may have; null: unlimited."
    )


@strawberry.type
class Query:
    """Queries about usage."""

    @query(description="Message capacity of the current calendar month (UTC) and what is used of it.")
    async def usage(self, info: Info) -> Usage:
        """The month of the database's clock."""
        async with info.context.database.read() as session:
            instant = await now(session)
            used = await service.used(session, instant)
        start, end = service.period_bounds(instant)
        capacity = info.context.settings.monthly_messages
        return Usage(
            period_start=start,
            period_end=end,
            messages_sent=min(used, MAX_INT),
            message_capacity=None if capacity is None else min(capacity, MAX_INT),
        )

"""What operators ask in GraphQL: whether everything works."""

from datetime import datetime
from importlib.metadata import version

import strawberry

from app.graphql.context import Info
from app.graphql.fields import MAX_SIZE, query

VERSION = version("carillon")


@strawberry.type(
    description="A worker or deliverer process that lives: it was heard of within the last ten seconds."
)
class WorkerHealth:
    """A heartbeat."""

    name: str = strawberry.field(description="Its name, its machine's and its process id.")
    last_seen_at: datetime = strawberry.field(
        description="When it last said that it lives, by its machine's clock; every second as a rule."
    )
    sending: int = strawberry.field(
        description="For how many running campaigns it has written messages within the last ten seconds; of a"
        " deliverer, to how many webhook endpoints it is posting."
    )


@strawberry.type(description="What works right now, asked when this is read.")
class SystemHealth:
    """The answers of the parts."""

    database: bool = strawberry.field(
        description="Whether the database answers within 1.5 s and has this version's schema."
    )
    queue: bool = strawberry.field(
        description="Whether the queue server answers within 1.5 s. Without it work is found up to 2 seconds"
        " later."
    )
    workers: list[WorkerHealth] = strawberry.field(
        description="The workers and deliverers that live, on all machines, by name. They are heard of"
        " through the queue.",
        metadata={MAX_SIZE: 100},
    )
    version: str = strawberry.field(description="The version of the process that answers.")


@strawberry.type
class Query:
    """Queries of operators."""

    @query(description="Whether the database and the queue answer, and which workers live.")
    async def system_health(self, info: Info) -> SystemHealth:
        """Asks everything at once, within two seconds."""
        report = await info.context.readiness.report()
        return SystemHealth(
            database=report.database,
            queue=report.queue,
            workers=[
                WorkerHealth(name=worker.name, last_seen_at=worker.at, sending=worker.sending)
                for worker in report.workers
            ],
            version=VERSION,
        )

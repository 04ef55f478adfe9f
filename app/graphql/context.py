"""What resolvers are given: one `Context` an operation, and `Info`, which carries it.

It holds the database and never a session: sibling resolvers run at the same time.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import strawberry
from graphql import DocumentNode

from app.auth import Viewer
from app.campaigns.overview import Overview
from app.campaigns.watching import Watching
from app.database import Database
from app.graphql.reading import ReadingDatabase
from app.health import Readiness
from app.idempotency.attempts import Attempt, HeldDatabase
from app.onlookers import Onlookers
from app.progress import Listener, Publisher
from app.queue import Doorbell
from app.settings import Settings


@dataclass(frozen=True)
class Services:
    """What lives as long as the process."""

    database: Database
    settings: Settings
    doorbell: Doorbell
    publisher: Publisher
    listener: Listener
    watching: Watching
    overview: Overview
    readiness: Readiness


@dataclass
class Context:
    """One operation: who asks, the process's services, and what was loaded so far.

    `document` is the parsed and admitted document, so that it is neither parsed nor validated twice, and
    `understood` what executions have found out about it. `reading` says how long it may read. With an
    Idempotency-Key, `attempt` knows what was committed under it. `onlookers` are those who are shown what a
    subscription tells.
    """

    services: Services
    viewer: Viewer
    document: DocumentNode | None = None
    understood: "Understood | None" = None
    loaders: dict[object, Any] = field(default_factory=dict)
    reading: ReadingDatabase | None = None
    attempt: Attempt | None = None
    held: HeldDatabase | None = None
    onlookers: Onlookers = field(default_factory=Onlookers)

    @property
    def database(self) -> Database:
        """The database: `async with context.database.read() as session`. While a mutation decides what is to
        be answered to repeats as well, its commit waits for that."""
        return self.held or self.reading or self.services.database

    @property
    def settings(self) -> Settings:
        """The settings of this process."""
        return self.services.settings

    @property
    def doorbell(self) -> Doorbell:
        """Wakes workers."""
        return self.services.doorbell

    @property
    def publisher(self) -> Publisher:
        """Says that a campaign changed."""
        return self.services.publisher

    @property
    def listener(self) -> Listener:
        """Hears that a campaign changed."""
        return self.services.listener

    @property
    def watching(self) -> Watching:
        """Shows what campaigns do, to all subscribers of this process."""
        return self.services.watching

    @asynccontextmanager
    async def holding(self, attempt: Attempt) -> AsyncIterator[HeldDatabase]:
        """Makes `database` one that commits when it is settled; what is not settled is rolled back."""
        held = HeldDatabase(self.services.database, attempt)
        self.held = held
        try:
            yield held
        finally:
            self.held = None
            await held.close()

    @property
    def overview(self) -> Overview:
        """Shows what happens to all campaigns, to all subscribers of this process."""
        return self.services.overview

    @property
    def readiness(self) -> Readiness:
        """Says what works."""
        return self.services.readiness

    def forget(self) -> None:
        """Drops what was loaded: between two results of a subscription everything may have changed."""
        self.loaders.clear()


if TYPE_CHECKING:
    from app.graphql.columnwise import Understood

    Info: TypeAlias = strawberry.Info[Context, None]
else:
    Info = strawberry.Info

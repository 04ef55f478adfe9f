"""Every list of the schema, executed by columns and as graphql-core does: the same answer."""

from typing import Any, cast

import pytest

from app.auth import Viewer
from app.database import Database
from app.graphql.context import Services
from app.graphql.execution import Operations, Request, answer
from app.keys.roles import Role
from app.schema import schema
from app.settings import Settings, load
from tests.api.lists import List, everything, lists
from tests.api.world import World

VIEWER = Viewer(key_id="k", name="key", role=Role.ADMIN)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Everything at once is more than a client may ask for."""
    return load(**{**settings.model_dump(), "max_document_cost": 10_000_000, "max_document_fields": 5_000})


@pytest.fixture
def operations(database: Database, settings: Settings) -> Operations:
    """Operations that only read."""
    nothing = cast(Any, None)
    services = Services(database, settings, nothing, nothing, nothing, nothing, nothing, nothing)
    return Operations(schema, services)


async def both(operations: Operations, document: str) -> tuple[Any, Any]:
    """The answers of the two ways."""
    request = Request(document, None, None)
    context, _ = operations.admit(request, VIEWER)
    by_columns = answer(await operations.execute(request, context))
    context, _ = operations.admit(request, VIEWER)
    context.understood = None
    return by_columns, answer(await operations.execute(request, context))


@pytest.mark.parametrize("listed", lists(), ids=lambda listed: listed.name)
async def test_every_list_with_everything_in_it(
    operations: Operations, database: Database, listed: List
) -> None:
    world = World(database, size=7)
    await world.build()
    for nested in (0, 2):  # lists within the items leave these to graphql-core
        selection = f"edges {{ cursor node {{ __typename {everything(listed.node, nested)} }} }}"
        for parent in world.parents(listed.parent):
            document = listed.asked(selection, "first: 6", parent_id=parent)
            if "asOf" in document:
                document = document.replace("asOf", "").replace("messagesPerSecond", "")
            by_columns, stock = await both(operations, document)
            assert "errors" not in stock and len(listed.found(stock["data"])["edges"]) == 6
            assert by_columns == stock

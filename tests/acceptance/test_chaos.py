"""The short form of `scripts/bench chaos`: each way to strike, on both databases.

A campaign is struck in its middle and then left alone. Whatever was killed, cut or full, it ends by itself;
each target has exactly one message or one reason; the stats are what is counted, at every moment that the
API was asked; and its events exist exactly once.
"""

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.chaos.ground import Ground, Postgres, PostgresGround, SqliteGround, prepared_sqlite
from tests.chaos.rounds import play
from tests.chaos.strikes import KINDS

SECONDS_AWAY = 3.0
PATIENCE = 120.0


@pytest.fixture(scope="module")
def directory(short_tmp: Path) -> Path:
    """Where the grounds are. PostgreSQL may run as another user, who must get there."""
    short_tmp.chmod(0o755)
    (short_tmp / "chaos").mkdir()
    return short_tmp / "chaos"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def on_sqlite(directory: Path) -> AsyncIterator[Ground]:
    """One running instance for every kind of strike: what one leaves behind is there for the next."""
    template = await prepared_sqlite(directory / "template.db")
    ground = await SqliteGround(directory / "sqlite", template).start()
    yield ground
    await ground.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def on_postgresql(directory: Path) -> AsyncIterator[Ground]:
    """The same on a PostgreSQL of its own, which can be killed."""
    server = Postgres(directory)
    await server.prepare()
    ground = await PostgresGround(directory / "postgresql", server).start()
    yield ground
    await ground.close()
    server.close()


def kinds(database: str) -> list[str]:
    return [name for name, kind in KINDS.items() if database in kind.databases]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", kinds("sqlite"))
async def test_sqlite_loses_and_doubles_nothing(on_sqlite: Ground, name: str) -> None:
    await struck(on_sqlite, name)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", kinds("postgresql"))
async def test_postgresql_loses_and_doubles_nothing(on_postgresql: Ground, name: str) -> None:
    await struck(on_postgresql, name)


async def struck(ground: Ground, name: str) -> None:
    """Plays until a strike has counted: a campaign may be over before its middle is seen."""
    kind, dice, counted = KINDS[name], random.Random(name), 0
    strikes = 2 if kind.weight == 1 else 1
    while not counted:
        played = await play(ground, kind, dice, strikes=strikes, seconds_away=SECONDS_AWAY, patience=PATIENCE)
        assert played.problems == []
        assert (played.lost, played.doubled, played.unbalanced) == (0, 0, 0)
        counted = played.counted

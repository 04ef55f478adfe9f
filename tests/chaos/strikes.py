"""How a running instance is struck. Each way is a block: struck when it begins, mended when it ends."""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import cast

import redis

from app import valkey
from app.campaigns.states import Status
from tests.chaos.campaigns import Campaign, begin
from tests.chaos.ground import API, QUEUE, WORKER, Ground, PostgresGround
from tests.chaos.observer import Observer

HOUR = 3600
SHARES = (1.0, 0.5)  # of all connections: a process may lose one and keep another
SECONDS_TO_PANIC = 10.0


@dataclass
class Scene:
    """A campaign in its middle, who observes it, and how long the queue is to be away. `kills` counts what
    was killed, stopped or cut. `missed` if the last strike hit nothing, or a campaign with nothing left
    to be sent: it does not count."""

    ground: Ground
    campaign: Campaign
    observer: Observer
    dice: random.Random
    seconds_away: float
    kills: int = 0
    missed: bool = False


Strike = Callable[[Scene], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def kill_sender(scene: Scene) -> AsyncIterator[None]:
    """SIGKILL to one worker."""
    _kill(scene, scene.dice.choice(scene.ground.carillon.pids_of(WORKER)))
    yield


@asynccontextmanager
async def kill_planner(scene: Scene) -> AsyncIterator[None]:
    """SIGKILL to every worker at once, whichever plans."""
    _kill(scene, *scene.ground.carillon.pids_of(WORKER))
    yield


@asynccontextmanager
async def stop_sender_in_order(scene: Scene) -> AsyncIterator[None]:
    """SIGTERM to one worker: it ends by itself, with what it has in hand sent or given back, and another is
    started."""
    pid = scene.dice.choice(scene.ground.carillon.pids_of(WORKER))
    scene.kills += 1
    os.kill(pid, signal.SIGTERM)
    yield
    while pid in scene.ground.carillon.pids_of(WORKER):
        await asyncio.sleep(0.02)


@asynccontextmanager
async def kill_api(scene: Scene) -> AsyncIterator[None]:
    """SIGKILL to the API."""
    _kill(scene, *scene.ground.carillon.pids_of(API))
    yield


@asynccontextmanager
async def kill_supervisor(scene: Scene) -> AsyncIterator[None]:
    """SIGKILL to the supervisor, which takes everything with it; an operator starts it again."""
    scene.kills += 1
    await asyncio.to_thread(scene.ground.carillon.kill)
    yield
    await asyncio.to_thread(scene.ground.carillon.start, 120)


@asynccontextmanager
async def kill_everything(scene: Scene) -> AsyncIterator[None]:
    """SIGKILL to every process at once; an operator starts it again."""
    scene.kills += len(scene.ground.carillon.processes())
    await asyncio.to_thread(scene.ground.carillon.kill_everything)
    yield
    await asyncio.to_thread(scene.ground.carillon.start, 120)


@asynccontextmanager
async def stop_sender(scene: Scene) -> AsyncIterator[None]:
    """SIGSTOP to one worker; PostgreSQL mostly ends its transaction at once, as it does after five seconds.
    It goes on some time later, or has been killed by the supervisor."""
    pid = scene.dice.choice(scene.ground.carillon.pids_of(WORKER))
    scene.kills += 1
    os.kill(pid, signal.SIGSTOP)
    if isinstance(scene.ground, PostgresGround) and scene.dice.random() < 0.7:
        await asyncio.to_thread(scene.ground.backends, "pg_terminate_backend(pid)")
    yield
    await asyncio.sleep(scene.dice.choice([0.2, 0.5, 1.0, 2.0, 6.5]))
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def kill_queue(scene: Scene) -> AsyncIterator[None]:
    """SIGKILL to Valkey."""
    _kill(scene, *scene.ground.carillon.pids_of(QUEUE))
    yield


@asynccontextmanager
async def flush_queue(scene: Scene) -> AsyncIterator[None]:
    """FLUSHALL: all that Valkey knew is gone."""
    scene.kills += 1

    def flush() -> None:
        url = valkey.url_of(scene.ground.carillon.data_dir / "valkey")
        with redis.Redis.from_url(url) as client, suppress(redis.RedisError):  # it may be just starting
            client.flushall()

    await asyncio.to_thread(flush)
    yield


@asynccontextmanager
async def keep_queue_away(scene: Scene) -> AsyncIterator[None]:
    """SIGKILL to Valkey, and to each that the supervisor starts in its place."""
    _kill(scene, *scene.ground.carillon.pids_of(QUEUE))
    yield
    deadline = time.monotonic() + scene.seconds_away
    while time.monotonic() < deadline and not scene.missed:
        _kill(scene, *await asyncio.to_thread(scene.ground.carillon.pids_of, QUEUE))
        await asyncio.sleep(0.05)


@asynccontextmanager
async def kill_postgres(scene: Scene) -> AsyncIterator[None]:
    """The server crashes: all of it, and is away for a moment, or one of its processes, and recovers."""
    ground = cast(PostgresGround, scene.ground)
    scene.kills += 1
    if scene.dice.random() < 0.3 and (found := await asyncio.to_thread(ground.backends)):
        os.kill(scene.dice.choice(found), signal.SIGKILL)
        yield
        return
    await asyncio.to_thread(ground.server.crash, scene.dice.choice([0.0, 0.3, 1.0, 3.0]))
    yield


@asynccontextmanager
async def end_transactions(scene: Scene) -> AsyncIterator[None]:
    """pg_terminate_backend for whatever is in a transaction, or half of that, several times."""
    ground, before = cast(PostgresGround, scene.ground), scene.kills
    for _ in range(scene.dice.randint(1, 5)):
        share = scene.dice.choice(SHARES)
        scene.kills += len(await asyncio.to_thread(ground.backends, "pg_terminate_backend(pid)", share))
        await asyncio.sleep(scene.dice.uniform(0, 0.1))
    scene.missed = scene.kills == before
    yield


@asynccontextmanager
async def cut_connections(scene: Scene) -> AsyncIterator[None]:
    """Every connection to PostgreSQL is reset, or half of them, several times."""
    ground, before = cast(PostgresGround, scene.ground), scene.kills
    for _ in range(scene.dice.randint(1, 5)):
        scene.kills += await asyncio.to_thread(ground.proxy.cut, scene.dice.choice(SHARES))
        await asyncio.sleep(scene.dice.uniform(0, 0.1))
    scene.missed = scene.kills == before
    yield


@asynccontextmanager
async def lose_commits(scene: Scene) -> AsyncIterator[None]:
    """Some commits succeed, and whoever asked for them never hears of it."""
    ground = cast(PostgresGround, scene.ground)
    before, wanted = ground.proxy.commits_lost, scene.dice.randint(1, 5)
    ground.proxy.lose_answers(wanted)
    yield
    while ground.proxy.commits_lost < before + wanted and (await scene.campaign.state())[1].pending:
        await asyncio.sleep(0.01)
    ground.proxy.lose_answers(0)
    scene.kills += ground.proxy.commits_lost - before
    scene.missed |= ground.proxy.commits_lost == before


@asynccontextmanager
async def shift_clock(scene: Scene) -> AsyncIterator[None]:
    """The clock of one worker is an hour ahead or behind for a while."""
    clocks = scene.ground.clocks
    name = scene.dice.choice(clocks.names)
    scene.kills += 1
    clocks.set(name, scene.dice.choice([HOUR, -HOUR]))
    yield
    await asyncio.sleep(scene.dice.uniform(0.2, 2.0))
    clocks.set(name, 0)


@asynccontextmanager
async def fill_disk(scene: Scene) -> AsyncIterator[None]:
    """No room for another batch, until the campaign is PAUSED for that, or has been tried in vain for a while
    because not even the pause can be stored."""
    scene.kills += 1
    await scene.ground.fill_disk(scene.dice.choice([20_000, 100_000, 200_000]))
    yield
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and "STORAGE_FULL" not in scene.observer.paused_for:
        await asyncio.sleep(0.05)
    await scene.ground.empty_disk()


@asynccontextmanager
async def fill_log(scene: Scene) -> AsyncIterator[None]:
    """No room for PostgreSQL's log: it ends in a panic and cannot even recover, until somebody makes room and
    starts it again. Sometimes there is no room for its data either, which may come first."""
    ground = cast(PostgresGround, scene.ground)
    tanks = [tank for tank in (ground.server.log_tank, ground.tank) if tank]
    panics, filled = ground.server.panics(), tanks[: scene.dice.randint(1, 2)]
    room = scene.dice.choice([0, 100_000, 1_500_000])
    scene.kills += 1
    try:
        for tank in filled:
            await asyncio.to_thread(tank.fill, room)
        deadline = time.monotonic() + SECONDS_TO_PANIC
        while not (hit := _is_full(scene, ground, panics)) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        await asyncio.sleep(scene.dice.choice([0.0, 1.0, 3.0]))
    finally:
        for tank in filled:
            tank.empty()
        await asyncio.to_thread(ground.server.come_back)
    scene.missed = not hit
    yield


def _is_full(scene: Scene, ground: PostgresGround, panics: int) -> bool:
    return ground.server.panics() > panics or "STORAGE_FULL" in scene.observer.paused_for


@asynccontextmanager
async def refuse_one(scene: Scene) -> AsyncIterator[None]:
    """One recipient always raises, and fails alone."""
    campaign = scene.campaign
    scene.kills += 1
    if await scene.ground.raise_on_messages(campaign.campaign_no, campaign.last_target, "data"):
        campaign.sent, campaign.failed = campaign.sent - 1, 1
    scene.missed = not campaign.failed
    yield
    await campaign.until(Status.COMPLETED)
    await scene.ground.raise_no_more()


@asynccontextmanager
async def keep_failing(scene: Scene) -> AsyncIterator[None]:
    """The infrastructure fails under one campaign until that is PAUSED with INTERNAL_FAULT, unless it was
    faster; another one is created meanwhile and completes."""
    scene.kills += 1
    await scene.ground.raise_on_messages(scene.campaign.campaign_no, None, "fault")
    yield
    while "INTERNAL_FAULT" not in scene.observer.paused_for:
        if (await scene.campaign.state())[0] == Status.COMPLETED:
            break
        await asyncio.sleep(0.05)
    other = await begin(scene.ground, "created", "few", None)
    await other.until(Status.COMPLETED)
    await scene.ground.raise_no_more()


def _kill(scene: Scene, *pids: int) -> None:
    for pid in pids:
        scene.kills += 1
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True)
class Kind:
    """A way to strike. Slow ones come up more rarely: `weight` times as often as others. `planning` strikes
    while the audience is still being planned. `pauses_for` is what the server must pause the campaign for.
    `on_tanks` needs a PostgreSQL whose log lies in a tank."""

    strike: Strike
    databases: tuple[str, ...] = ("sqlite", "postgresql")
    weight: float = 1.0
    audience: str = "some"
    shapes: tuple[str, ...] = ("created", "distinct", "rooms", "paused", "retried")
    planning: bool = False
    pauses_for: str | None = None
    on_tanks: bool = False


_SERVER = ("postgresql",)
_USERS = ("created", "distinct")
_LEFT_ALONE = (*_USERS, "rooms", "retried")  # whoever pauses a campaign himself forgives it its faults
KINDS = {
    "sender killed": Kind(kill_sender),
    "sender told to stop": Kind(stop_sender_in_order),
    "planner killed": Kind(kill_planner, audience="many", shapes=("created",), planning=True, weight=0.7),
    "API killed": Kind(kill_api),
    "supervisor killed": Kind(kill_supervisor),
    "all killed at once": Kind(kill_everything),
    "sender stopped": Kind(stop_sender),
    "Valkey killed": Kind(kill_queue),
    "Valkey flushed": Kind(flush_queue),
    "Valkey away": Kind(keep_queue_away, weight=0.15),
    "PostgreSQL killed": Kind(kill_postgres, _SERVER),
    "transactions ended": Kind(end_transactions, _SERVER),
    "connections cut": Kind(cut_connections, _SERVER),
    "commits unanswered": Kind(lose_commits, _SERVER),
    "clock an hour off": Kind(shift_clock),
    "disk full": Kind(fill_disk, weight=0.7, shapes=_LEFT_ALONE, pauses_for="STORAGE_FULL"),
    "log of PostgreSQL full": Kind(fill_log, _SERVER, weight=0.7, on_tanks=True),
    "recipient raises": Kind(refuse_one, weight=0.5, audience="few", shapes=_USERS),
    "campaign keeps failing": Kind(keep_failing, weight=0.5, shapes=_LEFT_ALONE, pauses_for="INTERNAL_FAULT"),
}

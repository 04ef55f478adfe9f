"""Striking running Carillons at random moments, on both databases side by side."""

import asyncio
import math
import random
import signal
import tempfile
import time
import traceback
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from scripts.benchmarks.interrupts import Interrupted
from scripts.benchmarks.places import PlaceName
from tests.chaos.ground import Ground, PostgresGround, SqliteGround, prepared_sqlite
from tests.chaos.rounds import Round, play
from tests.chaos.server import Postgres
from tests.chaos.strikes import KINDS
from tests.chaos.tank import Tank

ROUNDS_AN_INSTANCE = 40
PATIENCE = 180.0

Making = Callable[[Path, bool], Ground]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be played. `abreast` are the instances on each database that are struck at the same time."""

    rounds: int
    seed: int
    kinds: Sequence[str]
    seconds_away: float
    abreast: int
    directory: Path | None


@dataclass(slots=True)
class Tally:
    """What came of one kind on one database. `rounds` are those that counted; the campaigns of the others are
    in every other number too. `unended` did not end by themselves. `seconds` were spent on all of them."""

    rounds: int = 0
    unended: int = 0
    kills: int = 0
    targets: int = 0
    moments: int = 0
    lost: int = 0
    doubled: int = 0
    unbalanced: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def add(self, played: Round) -> None:
        """One more round."""
        self.rounds += played.counted
        self.unended += not played.ended
        for name in ("kills", "targets", "moments", "lost", "doubled", "unbalanced", "seconds", "problems"):
            setattr(self, name, getattr(self, name) + getattr(played, name))


Tallies = dict[str, Tally]


def run(plan: Plan, played: Mapping[PlaceName, Tallies]) -> None:
    """Plays on each of these databases until enough rounds have counted, and keeps the tallies there; shows
    how far it is. SIGINT and SIGTERM end it with nothing left running; then it raises `Interrupted`."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with (
        tempfile.TemporaryDirectory(prefix="car-", dir=plan.directory, ignore_cleanup_errors=True) as made,
        Progress(*columns) as progress,
    ):
        Path(made).chmod(0o755)  # PostgreSQL may run as another user
        asyncio.run(_run(plan, played, Path(made), progress))


async def _run(plan: Plan, played: Mapping[PlaceName, Tallies], directory: Path, progress: Progress) -> None:
    async with _interruptible(), asyncio.TaskGroup() as games:
        for name, tallies in played.items():
            games.create_task(_play_on(Game(name, plan, tallies, directory, progress), directory))


@asynccontextmanager
async def _interruptible() -> AsyncIterator[None]:
    """The first SIGINT or SIGTERM cancels the block, which ends in order, and further ones do nothing. An
    exception raised at whatever the loop is just doing would leave tasks that never end."""
    loop, playing, came = asyncio.get_running_loop(), asyncio.current_task(), list[int]()

    def interrupt(number: int) -> None:
        came.append(number)
        if playing and len(came) == 1:
            playing.cancel()

    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, interrupt, each)
    try:
        yield
    except asyncio.CancelledError:
        raise Interrupted(128 + came[0]) from None


async def _play_on(game: "Game", directory: Path) -> None:
    if game.name == "sqlite":
        template = await prepared_sqlite(directory / "template.db")
        await game.play_abreast(lambda: _on_sqlite(template))
    else:
        turn = asyncio.Lock()
        await game.play_abreast(lambda: _on_a_server(directory, turn, has_tank=game.has_tanks))


@asynccontextmanager
async def _on_sqlite(template: Path) -> AsyncIterator[Making]:
    yield lambda where, small_disk: SqliteGround(where, template, small_disk=small_disk)


@asynccontextmanager
async def _on_a_server(game: Path, turn: asyncio.Lock, *, has_tank: bool) -> AsyncIterator[Making]:
    """A PostgreSQL for one instance after the other: whoever is struck with it shares it with nobody. Servers
    are made in turn, for what makes them knows no threads."""
    async with turn:
        server = await asyncio.to_thread(_server, game, has_tank=has_tank)
    try:
        await server.prepare()
        yield lambda where, small_disk: PostgresGround(where, server, small_disk=small_disk)
    finally:
        await asyncio.to_thread(server.close)


def _server(game: Path, *, has_tank: bool) -> Postgres:
    where = Path(tempfile.mkdtemp(prefix="server-", dir=game))
    where.chmod(0o755)  # PostgreSQL may run as another user
    return Postgres(where, log_tank=Tank(where / "log") if has_tank else None)


class Card:
    """A round to be played: its kind, and dice of its own, so that a seed draws the same rounds whoever plays
    them and in whatever order."""

    def __init__(self, kind: str, seed: str) -> None:
        self.kind = kind
        self.dice = random.Random(seed)


class Game:
    """All rounds on one database: on several instances abreast, each followed by another one after a while,
    every second of them on a small disk of its own where one is to be had."""

    def __init__(
        self, name: PlaceName, plan: Plan, tallies: Tallies, directory: Path, progress: Progress
    ) -> None:
        self.name = name
        self._plan, self._tallies, self._directory, self._progress = plan, tallies, directory, progress
        self.has_tanks = Tank.is_to_be_had(directory)
        self._deck = self._shuffled()
        self._instances = 0
        kinds = {card.kind for card in self._deck}
        tallies.update({kind: Tally() for kind in KINDS if kind in kinds})
        self._task = progress.add_task(name, total=len(self._deck))

    def _shuffled(self) -> list[Card]:
        kinds = {
            name: kind
            for name, kind in KINDS.items()
            if name in self._plan.kinds
            and self.name in kind.databases
            and (self.has_tanks or not kind.on_tanks)
        }
        share = self._plan.rounds / sum(kind.weight for kind in kinds.values()) if kinds else 0
        seed = f"{self._plan.seed} {self.name}"
        deck = [
            Card(name, f"{seed} {name} {number}")
            for name, kind in kinds.items()
            for number in range(math.ceil(share * kind.weight))
        ]
        random.Random(seed).shuffle(deck)
        return deck

    async def play_abreast(self, place: Callable[[], AbstractAsyncContextManager[Making]]) -> None:
        """Plays the deck at several places at once. A round that did not count is played again."""
        async with asyncio.TaskGroup() as places:
            for _ in range(min(self._plan.abreast, len(self._deck))):
                places.create_task(self._play_at(place()))

    async def _play_at(self, place: AbstractAsyncContextManager[Making]) -> None:
        async with place as make:
            while self._deck:
                self._instances += 1
                where = self._directory / f"{self.name}-{self._instances}"
                small_disk = self.has_tanks and self._instances % 2 == 0
                ground = await asyncio.to_thread(make, where, small_disk)
                try:
                    await ground.start()
                    await self._play_on(ground)
                finally:
                    await ground.close()

    async def _play_on(self, ground: Ground) -> None:
        for _ in range(ROUNDS_AN_INSTANCE):
            if not self._deck:
                return
            card = self._deck.pop()
            played = await self._round(ground, card)
            self._tallies[card.kind].add(played)
            if played.counted or not played.ended:
                self._progress.advance(self._task)
            else:
                self._deck.append(card)
            for problem in played.problems:
                self._progress.console.print(f"{self.name}, {card.kind}: {problem}", markup=False)
            if not played.ended:
                self._progress.console.print(ground.carillon.log()[-3_000:], markup=False)
                return

    async def _round(self, ground: Ground, card: Card) -> Round:
        patience, began = PATIENCE + self._plan.seconds_away, time.monotonic()
        try:
            played = await play(
                ground, KINDS[card.kind], card.dice, seconds_away=self._plan.seconds_away, patience=patience
            )
        except Exception:  # of ours, or the instance did not start again: told, and played on
            played = Round(ended=False, problems=[traceback.format_exc()])
        played.seconds = time.monotonic() - began
        return played

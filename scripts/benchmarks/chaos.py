"""Striking a running Carillon at random moments, on both databases side by side."""

import asyncio
import random
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from scripts.benchmarks.places import PlaceName
from tests.chaos.ground import Ground, Postgres, PostgresGround, SqliteGround, prepared_sqlite
from tests.chaos.rounds import Round, play
from tests.chaos.strikes import KINDS
from tests.chaos.tank import Tank

ROUNDS_AN_INSTANCE = 40
PATIENCE = 180.0

Making = Callable[[Path, bool], Ground]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be played."""

    rounds: int
    seed: int
    kinds: Sequence[str]
    seconds_away: float
    directory: Path | None


@dataclass(slots=True)
class Tally:
    """What came of one kind on one database. `rounds` are those that counted; the campaigns of the others are
    in every other number too. `unended` did not end by themselves."""

    rounds: int = 0
    unended: int = 0
    kills: int = 0
    targets: int = 0
    moments: int = 0
    lost: int = 0
    doubled: int = 0
    unbalanced: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, played: Round) -> None:
        """One more round."""
        self.rounds += played.counted
        self.unended += not played.ended
        for name in ("kills", "targets", "moments", "lost", "doubled", "unbalanced", "problems"):
            setattr(self, name, getattr(self, name) + getattr(played, name))


Tallies = dict[str, Tally]


def run(plan: Plan, played: Mapping[PlaceName, Tallies]) -> None:
    """Plays on each of these databases until enough rounds have counted, and keeps the tallies there; shows
    how far it is."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with (
        tempfile.TemporaryDirectory(prefix="car-", dir=plan.directory, ignore_cleanup_errors=True) as made,
        Progress(*columns) as progress,
    ):
        Path(made).chmod(0o755)  # PostgreSQL may run as another user
        asyncio.run(_run(plan, played, Path(made), progress))


async def _run(plan: Plan, played: Mapping[PlaceName, Tallies], directory: Path, progress: Progress) -> None:
    async with asyncio.TaskGroup() as games:
        for name, tallies in played.items():
            games.create_task(_play_on(Game(name, plan, tallies, directory, progress), directory))


async def _play_on(game: "Game", directory: Path) -> None:
    if game.name == "sqlite":
        template = await prepared_sqlite(directory / "template.db")
        await game.play(lambda where, small_disk: SqliteGround(where, template, small_disk=small_disk))
        return
    server = await asyncio.to_thread(Postgres, directory)
    try:
        await server.prepare()
        await game.play(lambda where, small_disk: PostgresGround(where, server, small_disk=small_disk))
    finally:
        await asyncio.to_thread(server.close)


class Game:
    """All rounds on one database: on an instance after the other, every second of them on a small disk of its
    own where one is to be had."""

    def __init__(
        self, name: PlaceName, plan: Plan, tallies: Tallies, directory: Path, progress: Progress
    ) -> None:
        self.name = name
        self._plan, self._tallies, self._directory, self._progress = plan, tallies, directory, progress
        self._dice = random.Random(f"{plan.seed} {name}")
        self._deck = self._shuffled()
        tallies.update({kind: Tally() for kind in KINDS if kind in self._deck})
        self._task = progress.add_task(name, total=len(self._deck))

    def _shuffled(self) -> list[str]:
        kinds = {
            name: kind
            for name, kind in KINDS.items()
            if name in self._plan.kinds and self.name in kind.databases
        }
        share = self._plan.rounds / sum(kind.weight for kind in kinds.values()) if kinds else 0
        deck = [name for name, kind in kinds.items() for _ in range(max(1, round(share * kind.weight)))]
        self._dice.shuffle(deck)
        return deck

    async def play(self, make: Making) -> None:
        """Plays the deck; a round that did not count is played again."""
        has_tanks, instance = Tank.is_to_be_had(self._directory), 0
        while self._deck:
            instance += 1
            where = self._directory / f"{self.name}-{instance}"
            ground = await asyncio.to_thread(make, where, has_tanks and instance % 2 == 0)
            try:
                await ground.start()
                await self._play_on(ground)
            finally:
                await ground.close()

    async def _play_on(self, ground: Ground) -> None:
        for _ in range(ROUNDS_AN_INSTANCE):
            if not self._deck:
                return
            name = self._deck[-1]
            self._progress.update(self._task, description=f"{self.name}: {name}")
            played = await self._round(ground, name)
            self._tallies[name].add(played)
            if played.counted or not played.ended:
                self._deck.pop()
                self._progress.advance(self._task)
            for problem in played.problems:
                self._progress.console.print(f"{self.name}, {name}: {problem}", markup=False)
            if not played.ended:
                self._progress.console.print(ground.carillon.log()[-3_000:], markup=False)
                return

    async def _round(self, ground: Ground, name: str) -> Round:
        patience = PATIENCE + self._plan.seconds_away
        try:
            return await play(
                ground, KINDS[name], self._dice, seconds_away=self._plan.seconds_away, patience=patience
            )
        except Exception:  # of ours, or the instance did not start again: told, and played on
            return Round(ended=False, problems=[traceback.format_exc()])

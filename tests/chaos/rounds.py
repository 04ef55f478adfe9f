"""A round: a campaign is started, struck in its middle, left alone until its end, and judged."""

import asyncio
import random
from dataclasses import dataclass, field

from app.campaigns.states import Status
from app.ledger.queries import Sums
from tests.chaos.campaigns import Campaign, Fidget, begin
from tests.chaos.ground import Ground
from tests.chaos.observer import Observer
from tests.chaos.strikes import Kind, Scene
from tests.chaos.verdict import judge, uneven

SECONDS_BETWEEN_LOOKS = 0.02
PACES = {"many": (3_000,), "some": (None, 3_000, 5_000), "few": (150, 300)}


@dataclass
class Round:
    """What came of one. `counted` are the strikes when something was sent and something pending; a campaign
    that was struck at no such moment is judged all the same. `seconds` is how long it took, if somebody
    measured that."""

    counted: int = 0
    ended: bool = True
    kills: int = 0
    targets: int = 0
    moments: int = 0
    lost: int = 0
    doubled: int = 0
    unbalanced: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was lost, doubled or wrong."""
        return not (self.lost or self.doubled or self.unbalanced or self.problems)


async def play(
    ground: Ground,
    kind: Kind,
    dice: random.Random,
    *,
    strikes: int = 1,
    seconds_away: float,
    patience: float,
) -> Round:
    """One round of so many strikes, if the campaign lasts that long. What has not ended after `patience`
    seconds is a problem, and the ground is spoilt. Raises TimeoutError if it does not even begin."""
    shape = dice.choice(kind.shapes)
    played, said_before = Round(), len(ground.carillon.log())
    async with asyncio.timeout(patience):
        if kind.planning:
            await ground.slow_planning()
        campaign = await begin(ground, shape, kind.audience, dice.choice(PACES[kind.audience]))
    async with Observer(campaign) as observer:
        scene = Scene(ground, campaign, observer, dice, seconds_away)
        try:
            async with asyncio.timeout(patience):
                await _strike(kind, scene, played, strikes)
                await campaign.until(Status.COMPLETED)
                while not await observer.look():
                    await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
        except TimeoutError:
            played.ended = False
            played.problems.append(f"{campaign.campaign_id} does not end: {await campaign.state()}")
            return played
    if kind.planning:
        await ground.plan_at_full_speed()
    await _conclude(played, scene)
    if kind.pauses_for and kind.pauses_for not in observer.paused_for:
        _judge_unpaused(played, ground, ground.carillon.log()[said_before:])
    return played


def _judge_unpaused(played: Round, ground: Ground, said: str) -> None:
    """There was room all the same, or none even to store the pause; else it should have been paused. On the
    disk of SQLite's file room is kept for that."""
    if "database fault" not in said:
        played.counted = 0
    kept = ground.name == "sqlite" and ground.tank is not None
    if played.counted and (kept or "could not be paused" not in said):
        played.problems.append("it was not paused")


async def _strike(kind: Kind, scene: Scene, played: Round, strikes: int) -> None:
    campaign = scene.campaign
    fidget = Fidget(campaign, scene.dice) if campaign.shape == "paused" else None
    try:
        while strikes and await _middle(campaign, scene.dice, kind):
            strikes, scene.missed = strikes - 1, False
            async with kind.strike(scene):
                scene.missed |= not _is_open(kind, (await campaign.state())[1])
                played.problems += [f"when struck: {problem}" for problem in await uneven(campaign)]
            played.counted += not scene.missed
        if fidget:
            await fidget.leave()
    finally:
        if fidget:
            fidget.cancel()
    if kind.planning:
        await campaign.act("updateCampaign", maxMessagesPerSecond=None)


async def _middle(campaign: Campaign, dice: random.Random, kind: Kind) -> bool:
    """Waits for a random moment of what is left to be sent; False if that was over before it was seen."""
    share = 0.0 if kind.planning else dice.uniform(0.0, 0.7)
    before = (await campaign.state())[1].sent
    while True:
        status, sums = await campaign.state()
        if _is_open(kind, sums) and sums.sent > before + share * (campaign.sent - before):
            return True
        if status == Status.COMPLETED or (kind.planning and sums.planned):
            return False
        await asyncio.sleep(0 if kind.planning else SECONDS_BETWEEN_LOOKS)  # planning is over in no time


def _is_open(kind: Kind, sums: Sums) -> bool:
    return sums.pending > 0 and not (kind.planning and sums.planned)


async def _conclude(played: Round, scene: Scene) -> None:
    campaign, observer = scene.campaign, scene.observer
    verdict = await judge(campaign, observer.last)
    played.kills, played.targets, played.moments = scene.kills, campaign.targets, observer.moments
    played.lost, played.doubled, played.unbalanced = verdict.lost, verdict.doubled, len(observer.unbalanced)
    wrong = [*verdict.problems, *(f"unbalanced: {moment}" for moment in observer.unbalanced)]
    played.problems += [f"{campaign.campaign_id}: {problem}" for problem in wrong]

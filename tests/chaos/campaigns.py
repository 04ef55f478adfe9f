"""The campaigns that are struck: several shapes, each with what must have become of its targets."""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.campaigns import queries
from app.campaigns.states import Status
from app.ids import new_uuid
from app.ledger import queries as ledger
from app.ledger.queries import Sums
from app.messages.models import Message
from tests.chaos.ground import Ground
from tests.chaos.people import AUDIENCES, ODD, ROOMS, SENDER, user_id

SHAPES = ("created", "distinct", "rooms", "paused", "retried")
SECONDS_BETWEEN_TRIES = 0.1

_MUTATION = "mutation ($input: {input}!) {{ {name}(input: $input) {{ errors {{ message }} }} }}"


@dataclass
class Campaign:
    """A campaign on a ground, and how many of its targets must be sent, skipped and failed at its end.

    `started` is how often it must have started and completed: twice if it was retried.
    """

    ground: Ground
    shape: str
    audience: str
    sent: int
    skipped: int
    failed: int = 0
    started: int = 1
    campaign_id: str = ""
    campaign_no: int = 0

    @property
    def targets(self) -> int:
        """How many targets it has."""
        return self.sent + self.skipped + self.failed

    @property
    def last_target(self) -> str:
        """The user who is sent to last."""
        return user_id(AUDIENCES[self.audience] - 1)

    async def act(self, name: str, **given: Any) -> None:
        """One mutation about this campaign; a refusal is an answer too: it was done the time before."""
        await mutate(self.ground, name, {"campaignId": self.campaign_id, **given})

    async def state(self) -> tuple[Status, Sums]:
        """Status and sums, in one snapshot of the rows."""

        async def look(session: AsyncSession) -> tuple[Status, Sums]:
            found = (await queries.by_nos(session, [self.campaign_no]))[self.campaign_no]
            sums = await ledger.sums(session, [self.campaign_no])
            return Status(found.status), sums.get(self.campaign_no, Sums())

        return await self.ground.read(look)

    async def until(self, status: Status) -> None:
        """Waits for a status, for as long as it takes."""
        while (await self.state())[0] != status:
            await asyncio.sleep(0.05)

    async def until_going(self) -> None:
        """Waits until something is sent and something pending, or it is over."""
        status, sums = await self.state()
        while status != Status.COMPLETED and not (sums.sent and sums.pending):
            await asyncio.sleep(0.01)
            status, sums = await self.state()

    async def messages(self) -> int:
        """How many messages it has written, by their rows."""

        async def count(session: AsyncSession) -> int:
            number = select(func.count()).where(col(Message.campaign_no) == self.campaign_no)
            return (await session.execute(number)).scalar_one()

        return await self.ground.read(count)


async def mutate(ground: Ground, name: str, given: Mapping[str, Any]) -> None:
    """Sends a mutation until somebody answers it; faults are no answer."""
    document = _MUTATION.format(input=f"{name[0].upper()}{name[1:]}Input", name=name)
    async with ground.carillon.client() as client:
        while True:
            try:
                answer = await client.answer(document, {"input": given})
            except (aiohttp.ClientError, OSError, ValueError):  # nobody there, or half an answer
                answer = {}
            if answer and not answer.get("errors"):
                return
            await asyncio.sleep(SECONDS_BETWEEN_TRIES)


async def begin(ground: Ground, shape: str, audience: str, pace: int | None) -> Campaign:
    """Creates a campaign and starts it. One that is retried has been through its first part: half of its
    targets failed, and what made them fail is gone."""
    campaign = _of(ground, shape, audience)
    campaign.campaign_id = f"{shape}-{new_uuid()}"
    if shape == "retried":
        await _mark(ground, " ")
    await campaign.act("createCampaign", **_definition(campaign), maxMessagesPerSecond=pace)
    found = await ground.read(lambda session: queries.existing(session, campaign.campaign_id))
    campaign.campaign_no = found.campaign_no
    await campaign.act("startCampaign")
    if shape == "retried":
        await campaign.until(Status.COMPLETED)
        await _mark(ground, "")
        await campaign.act("retryRecipients")
    return campaign


def _of(ground: Ground, shape: str, audience: str) -> Campaign:
    if shape == "rooms":
        return Campaign(ground, shape, audience, sent=ROOMS, skipped=0)
    started = 2 if shape == "retried" else 1
    return Campaign(ground, shape, audience, AUDIENCES[audience], len(ODD), started=started)


def _definition(campaign: Campaign) -> dict[str, Any]:
    common = {"senderId": SENDER, "messageTemplate": {"text": "Hello {{ receiver.name }}"}}
    if campaign.shape == "rooms":
        return {**common, "segmentIds": ["rooms"]}
    own = "{{ receiver.id }}{{ receiver.mark }}-" + campaign.campaign_id
    template = {"type": "messaging", "id": own}
    if campaign.shape == "distinct":
        del template["id"]
    return {
        **common,
        "segmentIds": [campaign.audience, "odd"],
        "createChannels": True,
        "channelTemplate": template,
    }


async def _mark(ground: Ground, mark: str) -> None:
    """Gives every second user a mark, which no channel's id may have in it unless it is empty."""
    new = "json_set(custom, '$.mark', :mark)"
    if ground.name == "postgresql":
        new = "custom || jsonb_build_object('mark', CAST(:mark AS text))"
    await ground.run(
        f"UPDATE users SET custom = {new} WHERE substr(id, 7) IN ('1', '3', '5', '7', '9') AND id < :last",
        mark=mark,
        last=user_id(AUDIENCES["some"]),
    )


class Fidget:
    """Pauses and resumes a campaign at random moments until it is told to leave it alone, running."""

    def __init__(self, campaign: Campaign, dice: random.Random) -> None:
        self._campaign, self._dice = campaign, dice
        self._enough = asyncio.Event()
        self._task = asyncio.create_task(self._fidget())

    async def _fidget(self) -> None:
        longest = 0.5  # and ever longer: however slow the machine is, some batch gets through
        while not self._enough.is_set():
            await self._campaign.act("pauseCampaign")
            await asyncio.sleep(self._dice.uniform(0, 0.3))
            await self._campaign.act("resumeCampaign")
            await asyncio.sleep(self._dice.uniform(0, longest))
            longest *= 1.5

    async def leave(self) -> None:
        """Lets the last pause end."""
        self._enough.set()
        await self._task

    def cancel(self) -> None:
        """Ends at once, whether the campaign runs or not."""
        self._task.cancel()

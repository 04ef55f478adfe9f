"""Reads a campaign's stats over the API all the while, and counts the moments when they do not add up."""

import asyncio
import contextlib
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.chaos.campaigns import Campaign

STATS = """query ($id: String!) { campaign(campaignId: $id) { status statusReason
  stats { targets sent skipped failed pending planned progress messagesSent channelsCreated } } }"""
SECONDS_BETWEEN_LOOKS = 0.05


class Observer:
    """Looks until the end of its block. `moments` were seen, of which `unbalanced` were wrong in themselves
    or against the moment before; `last` is the newest. `paused_for` are the server's reasons that it saw."""

    def __init__(self, campaign: Campaign) -> None:
        self._campaign = campaign
        self.moments = 0
        self.unbalanced: list[str] = []
        self.paused_for: set[str] = set()
        self.last: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        self._client = self._campaign.ground.carillon.client()
        self._task = asyncio.create_task(self._observe())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self._client.__aexit__()

    async def _observe(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)

    async def look(self) -> bool:
        """Looks once; False if nobody answers."""
        try:
            answer = await self._client.answer(STATS, {"id": self._campaign.campaign_id})
        except (aiohttp.ClientError, OSError, ValueError):
            return False
        if answer.get("errors"):  # the database may be away
            return False
        self._judge(answer["data"]["campaign"])
        return True

    def _judge(self, found: dict[str, Any]) -> None:
        stats = found["stats"]
        self.moments += 1
        if found["statusReason"]:
            self.paused_for.add(found["statusReason"])
        parts = sum(stats[name] for name in ("sent", "skipped", "failed", "pending"))
        backwards = stats["sent"] < self.last.get("sent", 0)
        if parts != stats["targets"] or stats["sent"] != stats["messagesSent"] or backwards:
            self.unbalanced.append(f"{stats}, after {self.last}")
        self.last = stats

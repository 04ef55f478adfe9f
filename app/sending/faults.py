"""Campaigns under which something keeps failing: each is left alone for a while, and paused in the end."""

import asyncio
from collections.abc import Collection
from typing import NamedTuple

import structlog

from app.campaigns import lifecycle
from app.campaigns.queries import Working
from app.campaigns.states import StatusReason
from app.database import Database, is_infrastructure, storage_is_full
from app.ids import new_uuid
from app.progress import Publisher

log = structlog.get_logger(__name__)

FIRST_BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 5.0
SECONDS_TO_FORGET_FAULTS = 30.0  # that nothing followed

# What fails so often, one time after the other, is paused: after six seconds. If there is no room, at once:
# every further try would take some of what the pause itself needs to be stored.
FAULTS_BEFORE_PAUSE = 7
FAULTS_OF_STORAGE = 1
NO_ROOM = "The database has no room left. Make some; sending resumes by itself, or with resumeCampaign."
KEEPS_FAILING = (
    "Sending keeps failing; the log says why (incident {}). It is tried again by itself,"
    " or with resumeCampaign."
)


class Backoff(NamedTuple):
    """A campaign that failed `faults` times in a row is left alone `until` then."""

    faults: int
    until: float


class Faults:
    """What failed for one worker, by campaign."""

    def __init__(self, database: Database, publisher: Publisher) -> None:
        self.backoff: dict[int, Backoff] = {}
        self._database = database
        self._publisher = publisher

    def keep(self, campaigns: Collection[int]) -> None:
        """Forgets all others."""
        self.backoff = {number: held for number, held in self.backoff.items() if number in campaigns}

    def wait(self, campaign_no: int) -> float:
        """For how many seconds the campaign is left alone still."""
        found = self.backoff.get(campaign_no)
        return 0.0 if found is None else max(0.0, found.until - asyncio.get_running_loop().time())

    def forgive(self, campaign_no: int, seen: Backoff | None, *, sent: bool) -> None:
        """Forgets what was `seen` before a turn that went well, if anything was sent or nothing failed for
        long.

        A turn that found everything in others' hands proves nothing: with it two workers would forgive each
        fault of one another, and never pause what fails for both.
        """
        now = asyncio.get_running_loop().time()
        if seen is not None and (sent or now > seen.until + SECONDS_TO_FORGET_FAULTS):
            self.backoff.pop(campaign_no, None)

    async def add(self, campaign: Working, error: Exception, seen: Backoff | None) -> float:
        """Leaves the campaign alone for a while, twice as long each time; the others go on. What keeps
        failing is paused, for everybody to see. `seen` is what had failed before this turn. Returns the
        seconds."""
        number = campaign.campaign_no
        before = self.backoff.get(number)
        if before is not None and before is not seen:  # it failed for two lanes at once: that is one fault
            log.warning("fault of another lane too", campaign=campaign.campaign_id, error=str(error))
            return self.wait(number)
        faults = 1 if before is None else before.faults + 1
        seconds: float = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** (faults - 1))
        self.backoff[number] = Backoff(faults, asyncio.get_running_loop().time() + seconds)
        if is_infrastructure(error):
            log.warning("database fault", campaign=campaign.campaign_id, error=str(error), retry_in=seconds)
        else:
            log.error("campaign fault", campaign=campaign.campaign_id, retry_in=seconds, exc_info=error)
        full = storage_is_full(error)
        if faults >= (FAULTS_OF_STORAGE if full else FAULTS_BEFORE_PAUSE):
            await self._pause(campaign, error, full)
        return seconds

    async def _pause(self, campaign: Working, error: Exception, full: bool) -> None:
        reason = StatusReason.STORAGE_FULL if full else StatusReason.INTERNAL_FAULT
        message = NO_ROOM
        if not full:
            incident = new_uuid()
            log.error("it keeps failing", campaign=campaign.campaign_id, incident=incident, error=str(error))
            message = KEEPS_FAILING.format(incident)
        try:
            await self._store_pause(campaign.campaign_no, reason, message)
        except Exception as failure:  # nothing can be stored now: the next try comes in some seconds anyway
            log.warning("could not be paused", campaign=campaign.campaign_id, error=str(failure))

    async def _store_pause(self, number: int, reason: StatusReason, message: str) -> None:
        """Pauses it, if there is no room even for that in what was kept for this."""
        reserve = self._database.reserve
        try:
            async with self._database.transaction() as session:
                paused = await lifecycle.pause_for_fault(session, number, reason, message)
        except Exception as failure:
            if not storage_is_full(failure) or reserve is None or not reserve.give_up():
                raise
            log.warning("the disk is full; the room kept for this is given up")
            async with self._database.transaction() as session:
                paused = await lifecycle.pause_for_fault(session, number, reason, message)
        if paused is not None:
            self.backoff.pop(number, None)
            await self._publisher.publish(number)

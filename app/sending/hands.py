"""What one worker has in hand: batches whose try is counted, until they are sent or given back."""

import asyncio
from collections.abc import Collection

import structlog

from app.database import Database
from app.sending import batches, isolation
from app.sending.ahead import Held
from app.sending.strides import Strides

log = structlog.get_logger(__name__)


class Hands:
    """Takes batches for all lanes of a worker, no batch for two of them, and gives back what comes to
    nothing. What cannot be given back because the database is away is owed until the next batch."""

    def __init__(self, database: Database, strides: Strides, seconds_to_confirm: float) -> None:
        self._database = database
        self._strides = strides
        self._seconds_to_confirm = seconds_to_confirm
        self._ahead: dict[int, Held] = {}
        self._in_hand: set[tuple[int, int]] = set()
        self._owed: list[tuple[int, int]] = []
        self._suspected: dict[tuple[int, int, int], float] = {}

    async def keep(self, campaigns: Collection[int], *, alone: bool) -> None:
        """Forgets all others, and gives back what is held for one of them or, unless one runs `alone`, for
        any."""
        self._suspected = {batch: at for batch, at in self._suspected.items() if batch[0] in campaigns}
        if self._ahead and not (alone and set(campaigns).issuperset(self._ahead)):
            await self.let_go()

    async def take(self, campaign_no: int) -> Held | None:
        """The batch that is held for this campaign, or else an open one whose try is counted now. None if
        there is none that no other lane has."""
        await self._pay()
        held = self._ahead.pop(campaign_no, None) or await self._pick(campaign_no)
        if held is None:
            return None
        batch = (campaign_no, held.picked.batch_no)
        if batch in self._in_hand:  # of the lane that picked it first, and has yet to lock it
            await self.give_back(*batch)
            return None
        self._in_hand.add(batch)
        if not isolation.is_broken(held.picked.attempts, held.picked.pending):
            self._suspected.pop((*batch, held.picked.pending), None)
        return held

    def put_down(self, campaign_no: int, batch_no: int) -> None:
        """A batch that was taken is not in hand any more."""
        self._in_hand.discard((campaign_no, batch_no))

    def hold(self, campaign_no: int, held: Held) -> None:
        """Keeps a batch that was picked in the transaction of another; the next to `take` gets it."""
        self._ahead[campaign_no] = held

    def holds(self, campaign_no: int) -> bool:
        """Whether a batch is kept for this campaign."""
        return campaign_no in self._ahead

    async def give_back(self, campaign_no: int, batch_no: int) -> None:
        """Has a try of a batch not counted: now, or else, raising what the database raised, before the
        next batch is taken."""
        self.owe(campaign_no, batch_no)
        await self._pay()

    def owe(self, campaign_no: int, batch_no: int) -> None:
        """Gives a batch back before the next one is taken: the database may be away now."""
        self._owed.append((campaign_no, batch_no))

    async def let_go(self) -> None:
        """Gives back what is held, untried, and what is owed, if the database is there."""
        self._owed += [(number, held.picked.batch_no) for number, held in self._ahead.items()]
        self._ahead.clear()
        try:
            await self._pay()
        except Exception as error:
            log.warning("tries could not be taken back", error=str(error))

    def is_confirmed(self, campaign_no: int, batch_no: int, pending: int) -> bool:
        """Whether a broken batch stood as it is a second ago too, and whenever it was taken since. Workers
        that pick it at the same moment each count a try before one of them gets it: a batch that is merely
        wanted must not be taken for a broken one."""
        batch, at = (campaign_no, batch_no, pending), asyncio.get_running_loop().time()
        if at - self._suspected.setdefault(batch, at) < self._seconds_to_confirm:
            return False
        del self._suspected[batch]
        return True

    async def _pick(self, campaign_no: int) -> Held | None:
        clock = asyncio.get_running_loop().time
        picked = None
        try:
            async with self._database.transaction() as session:
                began = clock()  # once it has begun: not what it waited for other writers
                picked = await batches.pick(session, campaign_no)
        except asyncio.CancelledError:
            if picked is not None:  # the try may be counted by now
                self.owe(campaign_no, picked.batch_no)
            raise
        self._strides.picked(clock() - began)
        return None if picked is None else Held(picked, None)

    async def _pay(self) -> None:
        while self._owed:
            batch = self._owed.pop()  # nobody else gives it back too
            try:
                async with self._database.transaction() as session:
                    await batches.forgive(session, *batch)
            except BaseException:
                self._owed.append(batch)
                raise

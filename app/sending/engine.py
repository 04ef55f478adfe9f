"""The sending of one worker: a slice of a running campaign at a time, of the one that has had least.

Several lanes may take turns at once, each with a connection of its own: while the database works for one,
the process works for another. The rows say what there is to do, so any number of engines work side by side,
and one that dies leaves nothing behind. Nothing here needs the queue: it only wakes the loops sooner.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import structlog

from app.campaigns import capacity, lifecycle, queries
from app.campaigns.queries import Working
from app.campaigns.states import Status, StatusReason
from app.database import Database, is_infrastructure, took_too_long, waited_too_long
from app.ledger import queries as ledger
from app.progress import Publisher
from app.sending import batches, faults, isolation, throttle
from app.sending.ahead import Ahead, Held
from app.sending.blueprint import Blueprints
from app.sending.gate import Gate
from app.sending.hands import Hands
from app.sending.opening import BatchTaken
from app.sending.planning import Planning, plan_chunk
from app.sending.reaching import SenderMissing
from app.sending.retrying import retry_chunk
from app.sending.running import CampaignNotRunning
from app.sending.strides import LONGEST_SECONDS, Strides
from app.sending.throttle import Reservation
from app.sending.turns import Turns
from app.sending.writing import ChannelsTaken

log = structlog.get_logger(__name__)

IDLE_SECONDS = 2.0  # how long a lost wake-up can cost
OTHERS_AT_WORK_SECONDS = 0.1  # another worker holds the last batches: look again for what it leaves
SECONDS_BETWEEN_LOOKS = 0.05  # at what has come new, while others are sent: a campaign begins this much late
LONG_PLANNING_SECONDS = 0.05  # then the slice that follows is a turn of its own
SECONDS_OF_ANOTHERS_PLANNING = 2.0  # one worker plans a campaign; what it leaves behind another takes over


class Sending(StrEnum):
    """What came of a try to send."""

    SENT = "sent"
    LAST = "sent, and none was left behind it"
    NOTHING_OPEN = "nothing open"
    NEEDS_LEAVE = "the next one gets a message"
    GIVEN_BACK = "given back"  # another worker has it, or the campaign does not run any more
    FAILED = "failed"


@dataclass
class Engine:
    """One worker's hands. `turn()` again and again, in as many lanes as there are; between turns nothing is
    held."""

    database: Database
    publisher: Publisher
    messages_per_second: int | None = None
    monthly_messages: int | None = None
    seconds_to_confirm: float = 1.0  # before a batch is isolated: see `Hands.is_confirmed`
    stopping: asyncio.Event = field(default_factory=asyncio.Event)  # once set, no further slice begins
    rouse: Callable[[], None] = lambda: None  # called when there is something new for the other lanes to do
    sent: int = 0
    _faults: faults.Faults = field(init=False)
    _gate: Gate = field(default_factory=Gate)
    _planning: set[int] = field(default_factory=set)  # by a lane, just now
    _sent_at: dict[int, float] = field(default_factory=dict)
    _blueprints: Blueprints = field(default_factory=Blueprints)
    _free_at: dict[int, float] = field(default_factory=dict)
    _shares: dict[int, float] = field(default_factory=dict)  # of the server's limit
    _idle: set[int] = field(default_factory=set)  # had nothing to send when they might
    _hands: Hands = field(init=False)
    _sharing: set[int] = field(default_factory=set)  # their batches meet in channels: no use in looking ahead
    _apart: set[tuple[int, int]] = field(default_factory=set)  # batches whose channels were taken
    _turns: Turns = field(default_factory=Turns)
    _strides: Strides = field(init=False)
    _alone: bool = True
    _running: set[int] = field(default_factory=set)  # as the last look saw it
    _planned_now: set[int] = field(default_factory=set)
    _planned_elsewhere: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._faults = faults.Faults(self.database, self.publisher)
        self._strides = Strides(*LONGEST_SECONDS[self.database.dialect])
        self._hands = Hands(self.database, self._strides, self.seconds_to_confirm)

    async def turn(self) -> float:
        """A slice of each campaign that has work, or of as many as 50 ms are enough for: those
        that have had least. Returns the seconds until the next turn is worth it."""
        ended = self._turns.ended
        async with self.database.read() as session:
            working = await queries.working(session)
        self._alone = len(working) == 1
        await self._see({campaign.campaign_no for campaign in working})
        self._share(working)
        waits, clock = list[float](), asyncio.get_running_loop().time
        look_again = clock() + SECONDS_BETWEEN_LOOKS
        while working:
            if self.stopping.is_set() or clock() > look_again:
                return 0.0
            campaign = min(working, key=lambda each: self._turns.place(each.campaign_no))
            if 0.0 in waits and self._turns.is_in_hand(campaign.campaign_no):  # as are all others: look anew
                return 0.0
            working.remove(campaign)
            if self._turns.ended_after(campaign.campaign_no, ended):  # another lane did, what was read is old
                waits.append(0.0)
                continue
            waits.append(await self._turn_of(campaign))
            await asyncio.sleep(0)  # on SQLite nothing else lets housekeeping and signals in
        return min(waits, default=IDLE_SECONDS)

    def _share(self, working: list[Working]) -> None:
        if self.messages_per_second is None:
            return
        limits = {
            campaign.campaign_no: campaign.max_messages_per_second
            for campaign in working
            if campaign.status == Status.IN_PROGRESS
            and campaign.campaign_no not in self._idle
            and self._faults.wait(campaign.campaign_no) <= 0
        }
        self._shares = throttle.shares(self.messages_per_second, limits)

    async def _turn_of(self, campaign: Working) -> float:
        clock, wait = asyncio.get_running_loop().time, 0.0
        began = clock()
        self._turns.begin(campaign.campaign_no)
        try:
            wait = await self._campaign(campaign)
        finally:
            self._turns.end(campaign.campaign_no, clock() - began, busy=wait <= 0)
        return wait

    @property
    def is_idle(self) -> bool:
        """Whether nothing had to be done at the last look. Whoever looks next and finds something rouses all
        lanes, so that one is enough to look."""
        return not self._running

    async def _see(self, running: set[int]) -> None:
        if running - self._running:
            self.rouse()
        self._running = running
        await self._forget_all_but(running)

    async def _forget_all_but(self, running: set[int]) -> None:
        self._turns.keep(running)
        self._strides.keep(running)
        self._planned_now &= running
        self._planned_elsewhere = {
            number: until for number, until in self._planned_elsewhere.items() if number in running
        }
        self._sent_at = {number: at for number, at in self._sent_at.items() if number in running}
        self._free_at = {
            scope: at
            for scope, at in self._free_at.items()
            if scope == throttle.SERVER or abs(scope) in running
        }
        self._faults.keep(running)
        self._sharing &= running
        self._idle &= running
        self._apart = {batch for batch in self._apart if batch[0] in running}
        self._blueprints.keep(running)
        await self._hands.keep(running, alone=self._alone)

    async def let_go(self) -> None:
        """Gives the batch back that it holds, untried. If the database is away, that is owed until the next
        batch."""
        await self._hands.let_go()

    def campaigns_at_work(self) -> int:
        """For how many campaigns that run it has written within the last ten seconds."""
        begin = asyncio.get_running_loop().time() - ledger.SPEED_WINDOW.total_seconds()
        return sum(at > begin for at in self._sent_at.values())

    async def _campaign(self, campaign: Working) -> float:
        number = campaign.campaign_no
        if (left_alone := self._faults.wait(number)) > 0:
            return left_alone
        fault, sent_before = self._faults.backoff.get(number), self._sent_at.get(number)
        try:
            wait = await self._work_on(campaign)
        except Exception as error:
            return await self._faults.add(campaign, error, fault)
        self._faults.forgive(number, fault, sent=self._sent_at.get(number) not in (None, sent_before))
        return wait

    async def _work_on(self, campaign: Working) -> float:
        number, clock, outcome = campaign.campaign_no, asyncio.get_running_loop().time, None
        began = clock()
        if not campaign.planned and self._should_plan(number, began):
            outcome = await self._plan(campaign)
            if outcome == Planning.OVER_QUOTA:
                return IDLE_SECONDS
            if outcome == Planning.OVERTAKEN:
                self._planned_elsewhere[number] = clock() + SECONDS_OF_ANOTHERS_PLANNING
        planned = campaign.planned or outcome == Planning.FINISHED
        if campaign.status == Status.PAUSED:
            return 0.0 if outcome == Planning.STORED else IDLE_SECONDS
        if outcome == Planning.STORED and not self._alone and clock() - began > LONG_PLANNING_SECONDS:
            self._planned_now.add(number)
            return 0.0
        return await self._send(campaign, planned)

    def _should_plan(self, number: int, now: float) -> bool:
        """Not if another lane plans it, if another worker was faster just now, nor if what was planned last
        is still to get its slice: planning would keep the messages waiting."""
        if number in self._planning:
            return False
        if number in self._planned_now:
            self._planned_now.discard(number)
            return False
        return now >= self._planned_elsewhere.get(number, now)

    async def _plan(self, campaign: Working) -> Planning:
        number = campaign.campaign_no
        self._planning.add(number)
        try:
            if campaign.retrying:
                outcome = await retry_chunk(self.database, number)
            else:
                outcome = await plan_chunk(self.database, number, capacity=self.monthly_messages)
        finally:
            self._planning.discard(number)
        if outcome in (Planning.STORED, Planning.FINISHED):
            self.rouse()
        await self.publisher.publish(number)
        return outcome

    async def _send(self, campaign: Working, planned: bool) -> float:
        if campaign.campaign_no in self._idle:  # whoever is left out needs no leave
            outcome = (await self._send_batch(campaign, batches.ONLY_LEFT_OUT))[0]
        else:
            reservation, wait = await self._pace(campaign)
            if wait > 0:
                return wait
            outcome = await self._send_slice(campaign, reservation)
        if outcome == Sending.LAST and planned and not self._hands.holds(campaign.campaign_no):
            await self._finish(campaign)
        if outcome in (Sending.SENT, Sending.LAST, Sending.NEEDS_LEAVE):
            return 0.0
        if outcome == Sending.FAILED:
            return faults.FIRST_BACKOFF_SECONDS
        if not planned:  # what another worker plans may take it a moment
            elsewhere = self._planning | self._planned_elsewhere.keys()
            return OTHERS_AT_WORK_SECONDS if campaign.campaign_no in elsewhere else 0.0
        return await self._finish(campaign)

    async def _pace(self, campaign: Working) -> tuple[Reservation | None, float]:
        """The slice that is reserved for this campaign, None if it has no limit; or how long until one may
        be. Of limits that others share only what was seen last is known: it may be later."""
        number, clock = campaign.campaign_no, asyncio.get_running_loop().time
        limits = throttle.limits_of(
            number, campaign.max_messages_per_second, self.messages_per_second, self._shares
        )
        if not limits.by_scope:
            return None, 0.0
        wait = limits.wait({scope: self._free_at.get(scope, 0.0) - clock() for scope in limits.by_scope})
        if wait > 0:
            return None, wait
        reservation = await throttle.reserve(self.database, limits)
        self._free_at |= {scope: clock() + wait for scope, wait in reservation.waits.items()}
        return reservation, 0.0 if reservation.messages else limits.wait(reservation.waits)

    async def _send_slice(self, campaign: Working, reservation: Reservation | None) -> Sending:
        """One batch; of a paced campaign as many batches, or as little of one, as the slice has messages."""
        if reservation is None:
            return (await self._send_batch(campaign, None))[0]
        left, outcome, went_well = reservation.messages, Sending.SENT, (Sending.SENT, Sending.LAST)
        clock = asyncio.get_running_loop().time
        until = clock() + reservation.limits.longest
        while left > 0 and outcome in went_well and clock() < until and not self.stopping.is_set():
            outcome, sent = await self._send_batch(campaign, left)
            left -= sent
            if not sent:
                break
        if left == reservation.messages and outcome in (*went_well, Sending.NOTHING_OPEN):
            self._idle.add(campaign.campaign_no)
        await self._give_back(reservation, left)
        return Sending.LAST if left < reservation.messages else outcome

    async def _give_back(self, reservation: Reservation, unused: int) -> None:
        await throttle.give_back(self.database, reservation, unused)
        for scope, limit in reservation.limits.by_scope.items():
            if scope in self._free_at:  # and not forgotten meanwhile, with a campaign that runs no more
                self._free_at[scope] -= unused / limit

    async def _send_batch(self, campaign: Working, limit: int | None) -> tuple[Sending, int]:
        """One batch. One that failed before may be what kills its worker: alone, so that no try of another is
        counted for it."""
        number, held = campaign.campaign_no, None
        try:
            async with self._gate.together():
                held = await self._hands.take(number)
                if held is None:
                    return Sending.NOTHING_OPEN, 0
                if held.picked.attempts == 1:
                    return await self._try(campaign, held, False, limit)
            async with self._gate.alone():
                return await self._try_again(campaign, held, limit)
        except asyncio.CancelledError:  # told to stop: no fault of the batch
            if held is not None:
                self._hands.owe(number, held.picked.batch_no)
            raise
        finally:
            if held is not None:
                self._hands.put_down(number, held.picked.batch_no)

    async def _try_again(self, campaign: Working, held: Held, limit: int | None) -> tuple[Sending, int]:
        batch_no, attempts, pending, _ = held.picked
        isolate = isolation.is_broken(attempts, pending)
        if isolate and not self._hands.is_confirmed(campaign.campaign_no, batch_no, pending):
            await self._hands.give_back(campaign.campaign_no, batch_no)
            return Sending.GIVEN_BACK, 0
        return await self._try(campaign, held, isolate, limit)

    def _ahead(self, campaign_no: int, held: Held, limit: int | None) -> Ahead | None:
        """What is ready of this batch, and where the next is made so. Paced, or beside other campaigns, it
        would wait and be stale; and a crash would count as a try for a batch of each. On PostgreSQL there
        are lanes instead."""
        if (
            self.database.dialect != "sqlite"
            or limit is not None
            or not self._alone
            or campaign_no in self._sharing
        ):
            return None
        return Ahead(self.database, held.ready)

    async def _try(
        self, campaign: Working, held: Held, isolate: bool, limit: int | None
    ) -> tuple[Sending, int]:
        number, batch_no, alone = campaign.campaign_no, held.picked.batch_no, held.picked.pending == 1
        most = min(held.picked.pending, limit or held.picked.pending)
        if limit != batches.ONLY_LEFT_OUT:
            limit = self._strides.limit(number, most, alone=self._alone) or limit
        ahead, clock = self._ahead(number, held, limit), asyncio.get_running_loop().time
        try:
            async with self.database.transaction() as session:
                began = clock()
                if isolate:
                    await isolation.isolate(session, number, batch_no)
                    return Sending.FAILED, 0
                how = limit, self._blueprints, ahead, (number, batch_no) in self._apart
                sent = await batches.send_slice(session, number, batch_no, *how)
        except (BatchTaken, batches.MembersChanged, ChannelsTaken, CampaignNotRunning) as error:
            if isinstance(error, ChannelsTaken):
                self._sharing.add(number)
                self._apart.add((number, batch_no))
            await self._hands.give_back(number, batch_no)
            return Sending.GIVEN_BACK, 0
        except batches.SomebodyToSendTo:
            self._idle.discard(number)
            await self._hands.give_back(number, batch_no)
            return Sending.NEEDS_LEAVE, 0
        except SenderMissing:
            await self._hands.give_back(number, batch_no)
            await self._pause_without_sender(campaign)
            return Sending.GIVEN_BACK, 0
        except Exception as error:
            too_large = took_too_long(error) and not alone  # then halves may do
            if is_infrastructure(error) and not too_large:
                if waited_too_long(error):
                    await self._hands.give_back(number, batch_no)
                    return Sending.GIVEN_BACK, 0
                # The database may be away still: what it owes is paid when it answers again.
                self._hands.owe(number, batch_no)
                raise
            log.exception("batch failed", campaign=campaign.campaign_id, batch=batch_no)
            return Sending.FAILED, 0
        finally:
            ready = None if ahead is None else await ahead.finish()
        self.sent += sent.sent
        self._sent_at[number] = clock()
        self._strides.learn(number, sent.settled, clock() - began)
        if ahead is not None and ahead.picked is not None:
            self._hands.hold(number, Held(ahead.picked, ready))
        await self.publisher.publish(number)
        await self.database.checkpoint_if_large()
        all_of_it = sent.settled == held.picked.pending
        if all_of_it:
            self._apart.discard((number, batch_no))
        return Sending.LAST if held.picked.last and all_of_it else Sending.SENT, sent.sent

    async def _pause_without_sender(self, campaign: Working) -> None:
        async with self.database.transaction() as session:
            await lifecycle.pause_by_server(
                session,
                campaign.campaign_no,
                StatusReason.SENDER_MISSING,
                "The sender was deleted or deactivated: restore it and resume.",
            )
        await self.publisher.publish(campaign.campaign_no)

    async def _finish(self, campaign: Working) -> float:
        async with self.database.read() as session:
            if await ledger.has_open(session, campaign.campaign_no):
                return OTHERS_AT_WORK_SECONDS
        async with self.database.transaction() as session:
            completed = await lifecycle.complete(session, campaign.campaign_no)
        if completed is None:
            return OTHERS_AT_WORK_SECONDS
        await capacity.give_back(self.database, campaign.campaign_no)
        log.info(
            "campaign completed",
            campaign=campaign.campaign_id,
            **{
                name: (completed.final_stats or {})[name] for name in ("targets", "sent", "skipped", "failed")
            },
        )
        await self.publisher.publish(campaign.campaign_no)
        return 0.0

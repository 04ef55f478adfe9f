"""What a database must do for a batch; `sqlite.py` and `postgres.py` say how.

All of it runs inside the batch's one transaction, with statements as the driver takes them: a thousand
rows through the ORM would cost more than everything else together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from app.ledger.models import OutcomeReason, RecipientStatus


class Person(NamedTuple):
    """A user as the engine needs it; `custom` is JSON text, parsed only if a template asks. `created_at` and
    `custom` are None where nothing asks for details."""

    id: str
    name: str | None
    role: str
    language: str | None
    created_at: Any  # as the driver gives it: templates rarely ask
    custom: Any
    reachable: bool  # neither deactivated nor deleted


@dataclass(slots=True)
class ChannelState:
    """A channel that exists, as it was read before its row was locked."""

    cid: str
    type: str
    channel_id: str
    name: str | None
    team: str | None
    custom: Any
    frozen: bool
    last_seq: int
    members_key: str | None = None
    last_message_at: Any = None
    member_count: int = 0


# Channels that the batch writes into, in the order of cid: for each a message for every one of these targets,
# its receivers or itself.
Wanted = Mapping[str, Sequence[str]]


class TakenChannel(NamedTuple):
    """A channel whose row is locked until the commit. `first_seq` is the first of the numbers taken;
    `members_key` tells whether its members are those that were read before."""

    created: bool
    frozen: bool
    first_seq: int
    members_key: str | None = None


NEW = TakenChannel(created=True, frozen=False, first_seq=1)


@dataclass(slots=True, frozen=True)
class CreatedChannels:
    """What all channels created by one campaign share. `members` are those besides the receivers.

    `pair_keys` gives the members_key of each channel that its one receiver and the one other member found,
    None unless all of them are such.
    """

    type: str
    team: str | None
    custom: str  # JSON text
    created_by_id: str
    members: tuple["CreatedMember", ...]
    founding: Callable[[str, Sequence[str]], tuple[int, str | None]]  # of cid: member_count, members_key
    pair_keys: Callable[[Sequence[str], Sequence[str]], list[str] | None]  # of cids and receivers


@dataclass(slots=True, frozen=True)
class CreatedMember:
    """A member, other than its receivers, of every channel that a campaign creates."""

    user_id: str
    channel_role: str
    custom: Mapping[str, Any]
    hidden: bool = False
    archived: bool = False


class Entry:
    """One target on its way through a batch, ending as a ledger row. What most entries never change stays
    with the class: to fill every field in took a tenth of the sender's time."""

    status: int = RecipientStatus.PENDING
    reason: int | None = None
    detail: str | None = None
    cid: str | None = None
    created: bool = False
    seq: int = 0
    message_id: str | None = None
    text: str = ""
    attachments: str = "[]"
    custom: str = "{}"
    missing: tuple[str, ...] = ()  # variables that rendered empty, where a preview asked
    members_key: str | None = None  # of a channel whose receiver the message names: it must not change

    def __init__(self, target_id: str) -> None:
        self.target_id = target_id

    def skip(self, reason: OutcomeReason) -> None:
        """Settles it as SKIPPED."""
        self.status, self.reason = RecipientStatus.SKIPPED, reason

    def fail(self, reason: OutcomeReason, detail: str) -> None:
        """Settles it as FAILED; no channel or message of it is written."""
        self.status, self.reason, self.detail = RecipientStatus.FAILED, reason, detail


@dataclass(slots=True, frozen=True)
class Shared:
    """What all rows of one batch have in common. Without `campaign_no` they are tests: messages of no
    campaign, and no ledger rows."""

    campaign_no: int | None
    batch_no: int
    sender_id: str
    poll_id: str | None
    now: datetime
    created: CreatedChannels | None  # None: absent channels are not created
    same_for_all: tuple[str, str] | None = None  # attachments and custom, where no entry has its own


class Disagreement(Exception):
    """Ledger rows, messages and counts of a batch do not agree: nothing of it may commit."""


class BatchWriter(Protocol):
    """The statements of a batch on one kind of database."""

    async def people(self, user_ids: Sequence[str], *, details: bool = True) -> dict[str, Person]:
        """The users that exist among these ids, tombstones included; with `details` all fields of them."""

    async def deleted(self, user_ids: Sequence[str]) -> list[str]:
        """Those of these users who were deleted."""

    async def channels(self, cids: Sequence[str]) -> dict[str, ChannelState]:
        """The channels that exist among these."""

    async def receivers(self, cids: Sequence[str], sender_id: str) -> dict[str, str]:
        """For those of these channels that have exactly two members, one of them the sender: the other."""

    async def pair_channels(self, members_keys: Sequence[str]) -> dict[str, ChannelState]:
        """For each key the distinct channel of any type with exactly these members, latest used."""

    async def take_existing(self, wanted: Wanted, shared: Shared) -> dict[str, TakenChannel]:
        """Locks those that exist, in the order of cid, and raises `last_seq` of those not frozen."""

    async def take_or_create(self, wanted: Wanted, shared: Shared) -> dict[str, TakenChannel]:
        """The same, and creates the others. Nothing can come between."""

    async def write(self, entries: Sequence[Entry], shared: Shared) -> None:
        """Writes members of created channels, messages and ledger rows. Raises `Disagreement`."""

    async def add_receivers(self, shared: Shared) -> Mapping[str, int]:
        """Adds receivers (and only they) to channels written to that they are not members of; returns
        for each such channel how many joined. Unread is what comes from this batch on. After `write`."""

    async def add_to_all(self, user_id: str, shared: Shared) -> Mapping[str, int]:
        """Adds one user to every existing channel written to; returns as `add_receivers` does."""

    async def show_to_receivers(self) -> None:
        """Shows again the channels written to that their receivers had hidden. After `write`."""

    async def show_to_members(self, sender_id: str) -> None:
        """The same for all members but the sender."""

    async def count_members(self, sender_id: str) -> int:
        """How many members other than the sender the channels written to have. After `write`, before
        anybody is added."""

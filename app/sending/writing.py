"""What a database must do for a batch; `sqlite.py` and `postgres.py` say how.

All of it runs inside the batch's one transaction, with statements as the driver takes them: a thousand
rows through the ORM would cost more than everything else together.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import compress
from typing import Any, NamedTuple, Protocol, overload

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


class Standing(NamedTuple):
    """What has to be known of a channel that exists to send a plain text into it."""

    cid: str
    frozen: bool
    last_seq: int
    member_count: int


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


@dataclass(slots=True)
class Sending:
    """The messages of a slice, column by column, without those that get none.

    Without `parts` attachments and custom are what `Shared` says; without `numbers` each message is the first
    in a channel that is created for it. With `takes` each has a channel of its own, which `write` itself
    creates, or locks: then `numbers` are as they were looked up. `staged_as` is what `BatchWriter.stage` made
    of it.
    """

    target_ids: Sequence[str]
    cids: Sequence[str]
    texts: Sequence[str]
    message_ids: Sequence[str] = ()
    parts: tuple[Sequence[str], Sequence[str]] | None = None  # attachments, custom
    numbers: tuple[Sequence[int], Sequence[bool]] | None = None  # seq, whether the channel is created
    takes: bool = False
    staged_as: Any = None

    @classmethod
    def of(cls, entries: Sequence[Entry], shared: "Shared", *, takes: bool = False) -> "Sending":
        """The columns of entries that are all SENT."""
        sending = cls(
            [entry.target_id for entry in entries],
            [entry.cid or "" for entry in entries],
            [entry.text for entry in entries],
            [entry.message_id or "" for entry in entries],
            takes=takes,
        )
        if shared.same_for_all is None:
            sending.parts = ([entry.attachments for entry in entries], [entry.custom for entry in entries])
        if not all(entry.created and entry.seq == 1 for entry in entries):
            sending.numbers = ([entry.seq for entry in entries], [entry.created for entry in entries])
        return sending

    @classmethod
    def alike(
        cls,
        target_ids: Sequence[str],
        cids: Sequence[str],
        texts: Sequence[str],
        standing: Mapping[str, Standing],
    ) -> "Sending":
        """For each target a text in a channel of its own: one of those that stand, or a new one."""
        sending = cls(target_ids, cids, texts, takes=True)
        found = list(map(standing.get, cids))
        if any(found):
            seqs = [1 if channel is None else channel.last_seq + 1 for channel in found]
            sending.numbers = (seqs, [channel is None for channel in found])
        return sending

    @property
    def into_created(self) -> int:
        """How many of them go into channels that are created."""
        return len(self.cids) if self.numbers is None else sum(self.numbers[1])

    @property
    def created_cids(self) -> Sequence[str]:
        """For each of these its channel."""
        return self.cids if self.numbers is None else list(compress(self.cids, self.numbers[1]))

    def staged(self) -> dict[str, Sequence[str]]:
        """The columns that both databases stage alike."""
        columns = {
            "target_id": self.target_ids,
            "cid": self.cids,
            "message_id": self.message_ids,
            "text": self.texts,
        }
        if self.parts is not None:
            columns["attachments"], columns["custom"] = self.parts
        return columns


class Entries(Sequence[Entry]):
    """The targets of a slice. Where all that are sent are alike, each into a channel of its own, they are
    columns, and an `Entry` is made of one only if somebody asks: that halves the sender's own work. `apart`
    says that they are to be settled one by one, each by what its channel is when its row is locked."""

    def __init__(self, target_ids: Sequence[str], *, apart: bool = False) -> None:
        self.target_ids = target_ids
        self.apart = apart
        self.alike: Sending | None = None
        self.none_exist = False  # of their channels, when these were looked for
        self.takes = False  # each a channel of its own, which none has yet
        self.others: Sequence[Entry] = ()
        self._same: tuple[str, str] = ("[]", "{}")
        self._each: list[Entry] | None = None

    def settle_alike(self, sending: Sending, others: Sequence[Entry], same: tuple[str, str]) -> None:
        """These are to be sent, with the `same` attachments and custom; the others are settled."""
        self.alike, self.others, self._same, self._each = sending, others, same, None

    def number(self, alike: Sending, message_ids: Sequence[str]) -> None:
        """Those that are alike are SENT, as messages with these ids."""
        alike.message_ids, self._each = message_ids, None

    def __len__(self) -> int:
        return len(self.target_ids)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._made())

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | Sequence[Entry]:
        return self._made()[index]

    def _made(self) -> list[Entry]:
        if self._each is None:
            settled = {entry.target_id: entry for entry in self.others}
            self._each = [settled.get(target_id) or Entry(target_id) for target_id in self.target_ids]
            if self.alike is not None:
                self._fill([entry for entry in self._each if entry.reason is None], self.alike)
        return self._each

    def _fill(self, entries: Sequence[Entry], alike: Sending) -> None:
        for entry, cid, text in zip(entries, alike.cids, alike.texts, strict=True):
            entry.cid, entry.text = cid, text
            entry.attachments, entry.custom = self._same
        for entry, message_id in zip(
            entries, alike.message_ids, strict=False
        ):  # none before they are written
            entry.status, entry.message_id = RecipientStatus.SENT, message_id


def unsent(entries: Sequence[Entry]) -> Sequence[Entry]:
    """Those that are settled otherwise than by a message."""
    if isinstance(entries, Entries) and entries.alike is not None:
        return entries.others
    return [entry for entry in entries if entry.reason is not None]


def first_to_send_to(entries: Sequence[Entry]) -> int | None:
    """The place of the first that gets a message; None if none does."""
    if isinstance(entries, Entries) and entries.alike is not None:
        going = entries.alike.target_ids
        return entries.target_ids.index(going[0]) if going else None
    return next((place for place, entry in enumerate(entries) if entry.reason is None), None)


def count_sent(entries: Sequence[Entry]) -> int:
    """How many are SENT."""
    if isinstance(entries, Entries) and entries.alike is not None:
        return len(entries.alike.message_ids)
    return sum(entry.status == RecipientStatus.SENT for entry in entries)


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


class ChannelsTaken(Exception):
    """Somebody created, froze or deleted a channel after it was looked for: the batch is to be tried anew,
    its entries apart."""


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

    async def standing(self, cids: Sequence[str]) -> dict[str, Standing]:
        """`channels`, in short."""

    async def standing_pairs(self, members_keys: Sequence[str]) -> dict[str, Standing]:
        """`pair_channels`, in short."""

    async def take_existing(self, wanted: Wanted, shared: Shared) -> dict[str, TakenChannel]:
        """Locks those that exist, in the order of cid, and raises `last_seq` of those not frozen."""

    async def take_or_create(self, wanted: Wanted, shared: Shared) -> dict[str, TakenChannel]:
        """The same, and creates the others. Nothing can come between."""

    def stage(self, sending: Sending, created: CreatedChannels | None) -> None:
        """Brings the columns into the form in which `write` sends them, which does so itself otherwise. No
        statement: another writer may do it ahead of the transaction."""

    async def write(self, sending: Sending, others: Sequence[Entry], shared: Shared) -> None:
        """Writes channels that `sending` takes, members of created channels, messages and ledger rows, those
        of `others` too, which get no message. Raises `ChannelsTaken` and `Disagreement`."""

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

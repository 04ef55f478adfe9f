"""Recipients in GraphQL: what happened to each target of a campaign, and why."""

import operator
from collections.abc import Callable, Sequence
from datetime import datetime
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import strawberry
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.errors import InvalidInput
from app.filters.words import begins_a_word
from app.graphql.comparisons import StringFilter, condition, several, stored
from app.graphql.connections import Family, Listing, nested_listing
from app.graphql.context import Info
from app.graphql.fields import field
from app.graphql.keyed import reference_by
from app.graphql.loaders import Loader
from app.graphql.nodes import Node, number_key
from app.graphql.shapes import NOTHING, Derived, Shape, Source
from app.keyset import Bounds, Key, Plain
from app.ledger import models, recipients
from app.ledger.recipients import LedgerRow, Span
from app.rows import Rows
from app.segments.api import TargetFilter
from app.segments.kinds import SegmentType

if TYPE_CHECKING:
    from app.campaigns.api import Campaign
    from app.channels.api import Channel
    from app.messages.api import Message
    from app.users.api import User

RecipientKey = tuple[int, str]

settled_or_pending = Loader(recipients.by_key)


@strawberry.enum(description="What happened to a target.")
class RecipientStatus(Enum):
    """`models.RecipientStatus`."""

    PENDING = strawberry.enum_value("PENDING", description="Nothing yet; for ever so, if it was stopped.")
    SENT = strawberry.enum_value("SENT", description="It got its message.")
    SKIPPED = strawberry.enum_value("SKIPPED", description="It was left out, for the reason given.")
    FAILED = strawberry.enum_value("FAILED", description="Its message could not be made.")


@strawberry.enum(description="Why a target was skipped or failed.")
class OutcomeReason(Enum):
    """`models.OutcomeReason`."""

    SENDER = strawberry.enum_value("SENDER", description="Skipped: it is the sender.")
    UNKNOWN_USER = strawberry.enum_value("UNKNOWN_USER", description="Skipped: there is no such user.")
    UNKNOWN_CHANNEL = strawberry.enum_value(
        "UNKNOWN_CHANNEL", description="Skipped: there is no such channel."
    )
    USER_DEACTIVATED = strawberry.enum_value(
        "USER_DEACTIVATED", description="Skipped: the user is deactivated, or deleted since."
    )
    CHANNEL_FROZEN = strawberry.enum_value("CHANNEL_FROZEN", description="Skipped: the channel is frozen.")
    NO_CHANNEL = strawberry.enum_value(
        "NO_CHANNEL", description="Skipped: there is no channel, and none is to be created."
    )
    NO_RECEIVER = strawberry.enum_value(
        "NO_RECEIVER", description="Skipped: the message names a receiver, and the channel has none."
    )
    CHANNEL_ID_INVALID = strawberry.enum_value(
        "CHANNEL_ID_INVALID", description="Failed: the channel id that the template gives is not allowed."
    )
    RENDER_ERROR = strawberry.enum_value(
        "RENDER_ERROR", description="Failed: a template does not render; detail says where."
    )
    INTERNAL_ERROR = strawberry.enum_value(
        "INTERNAL_ERROR", description="Failed: a fault of ours; detail has the incident's id."
    )


STATUSES = {each.value: RecipientStatus[each.name] for each in models.RecipientStatus}
REASONS = {None: None} | {each.value: OutcomeReason[each.name] for each in models.OutcomeReason}
PLAIN = ("target_id", "detail", "message_id", "cid", "read_at")
TARGET_ID = LedgerRow._fields.index("target_id")


def _sent_at(status: int, settled_at: datetime | None) -> datetime | None:
    return settled_at if status == models.RecipientStatus.SENT else None


@strawberry.type(description="A target within one campaign: what happened to it and why.")
class Recipient(Node):
    """A row of the ledger, or a target that has none yet."""

    target_id: str = strawberry.field(description="The userId or cid that was planned, existing or not.")
    status: RecipientStatus = strawberry.field(description="What happened.")
    reason: OutcomeReason | None = strawberry.field(description="Why it was skipped or failed.")
    detail: str | None = strawberry.field(description="The reason in a sentence, where there is more to say.")
    message_id: str | None = strawberry.field(description="The message that it got.")
    cid: str | None = strawberry.field(description="The channel that the message went to.")
    sent_at: datetime | None = strawberry.field(description="When the message was sent.")
    read_at: datetime | None = strawberry.field(
        description="When the receiver had read it; of a target that is a channel, the first of its members."
    )
    owner: strawberry.Private[Any]
    user_key: strawberry.Private[str | None]
    channel_key: strawberry.Private[str | None]

    @classmethod
    def of(cls, owner: "Campaign", row: LedgerRow) -> "Recipient":
        """The GraphQL object of a row of this campaign's."""
        of_channels = _is_for_channels(owner)
        return cls(
            id=cls.global_id(f"{row.campaign_no} {row.target_id}"),
            target_id=row.target_id,
            status=STATUSES[row.status],
            reason=REASONS[row.reason],
            detail=row.detail,
            message_id=row.message_id,
            cid=row.cid,
            sent_at=_sent_at(row.status, row.settled_at),
            read_at=row.read_at,
            owner=owner,
            user_key=None if of_channels else row.target_id,
            channel_key=row.target_id if of_channels else row.cid,
        )

    @classmethod
    def shape(cls, owner: "Campaign", campaign_no: int) -> Shape:
        """Where recipients of this campaign stand in `LedgerRow`."""
        of_channels = _is_for_channels(owner)
        sources: dict[str, Source] = {
            **{name: name for name in PLAIN},
            "status": Derived(STATUSES.__getitem__, ("status",)),
            "reason": Derived(REASONS.__getitem__, ("reason",)),
            "sent_at": Derived(_sent_at, ("status", "settled_at")),
            "user_key": NOTHING if of_channels else "target_id",
            "channel_key": "target_id" if of_channels else "cid",
        }
        return Shape("Recipient", "target_id", sources, before=f"{campaign_no} ")

    @classmethod
    async def by_keys(cls, info: Info, keys: Sequence[str]) -> Sequence["Recipient | None"]:
        """Recipients by campaign number and target id, unless their campaign is deleted."""
        from app.campaigns.api import Campaign

        wanted = [_key(key) for key in keys]
        owners = await Campaign.by_keys(info, [str(number) for number, _ in wanted])
        rows = await settled_or_pending.load_many(info, wanted)
        return [
            cls.of(owner, row) if owner and row else None for owner, row in zip(owners, rows, strict=True)
        ]

    @field(description="The campaign.")
    def campaign(self) -> Annotated["Campaign", strawberry.lazy("app.campaigns.api")]:
        """The campaign whose recipient this is."""
        campaign: Campaign = self.owner
        return campaign

    user = reference_by(
        "user_key",
        Annotated["User", strawberry.lazy("app.users.api")],
        description="The user who is the target; null if there is none, or if deleted since.",
    )
    channel = reference_by(
        "channel_key",
        Annotated["Channel", strawberry.lazy("app.channels.api")],
        description="The channel that the message went to, or that is the target.",
    )
    message = reference_by(
        "message_id",
        Annotated["Message", strawberry.lazy("app.messages.api")],
        description="The message that it got; null if there is none, or if deleted since.",
    )


def _is_for_channels(campaign: "Campaign") -> bool:
    """Whether its targets are channels."""
    audience: str = campaign.row.audience
    return audience == SegmentType.CHANNEL


def _key(key: str) -> RecipientKey:
    campaign_no, space, target_id = key.partition(" ")
    if not space:
        raise InvalidInput("This is not an id of this API: its key should be a campaign and a target.")
    return number_key(campaign_no), target_id


@strawberry.input(description="Chooses by a status.")
class RecipientStatusFilter:
    """Comparisons of a status."""

    eq: RecipientStatus | None = strawberry.field(default=strawberry.UNSET, description="This status.")
    in_: list[RecipientStatus] | None = strawberry.field(
        name="in", default=strawberry.UNSET, description="One of these."
    )


@strawberry.input(description="Chooses by a reason.")
class OutcomeReasonFilter:
    """Comparisons of a reason."""

    eq: OutcomeReason | None = strawberry.field(default=strawberry.UNSET, description="This reason.")
    in_: list[OutcomeReason] | None = strawberry.field(
        name="in", default=strawberry.UNSET, description="One of these."
    )


@strawberry.input(description="Chooses recipients: everything that is given holds.")
class RecipientFilter:
    """Comparisons of a recipient."""

    status: RecipientStatusFilter | None = strawberry.field(
        default=strawberry.UNSET, description="By what happened."
    )
    reason: OutcomeReasonFilter | None = strawberry.field(default=strawberry.UNSET, description="By why.")
    read: bool | None = strawberry.field(
        default=strawberry.UNSET,
        description="Whether it has been read. False: everybody who has not, sent to or not.",
    )
    target_id: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="By target id.")


def recipient_listing(
    info: Info, campaign_no: int, given: RecipientFilter | None, owner: "Campaign"
) -> Listing[Any]:
    """The recipients of a campaign, by target id, settled and pending in one list."""
    wanted = _wanted(info, given)

    async def pages(session: AsyncSession, campaign_nos: Sequence[int], bounds: Bounds) -> dict[int, Plain]:
        span = Span(bounds.limit, _edge(bounds.after), _edge(bounds.before), bounds.backward)
        found = await recipients.pages(session, campaign_nos, wanted, span)
        return {
            number: Plain(Rows.of(rows, LedgerRow._fields), [TARGET_ID]) for number, rows in found.items()
        }

    async def counts(session: AsyncSession, campaign_nos: Sequence[int]) -> dict[int, int]:
        return await recipients.counts(session, campaign_nos, wanted)

    family, shape = Family(pages, counts, (str,)), Recipient.shape(owner, campaign_no)
    return nested_listing(info, family, campaign_no, partial(Recipient.of, owner), shape=shape)


def _edge(key: Key | None) -> str | None:
    return None if key is None else str(key[0])


def _wanted(info: Info, given: RecipientFilter | None) -> recipients.RecipientFilter:
    """The filter as the ledger takes it. Ids that are named are looked up, others are looked for."""
    if not given:
        return recipients.RecipientFilter()
    statuses, reasons = _chosen("status", given.status), _chosen("reason", given.reason)
    by_id = TargetFilter(target_id=given.target_id)
    target_id = col(models.Recipient.target_id)
    where = condition(by_id, {"target_id": target_id}, info.context.database.dialect)
    named, holds = _named(given.target_id), partial(_holds, given.target_id)
    return recipients.RecipientFilter(
        statuses=None if statuses is None else frozenset(models.RecipientStatus[name] for name in statuses),
        reasons=None if reasons is None else frozenset(models.OutcomeReason[name] for name in reasons),
        read=_read(given.read),
        target_ids=None if named is None else frozenset(filter(holds, named)),
        where=where if given.target_id and named is None else None,
        holds=holds,
    )


def _chosen(name: str, given: RecipientStatusFilter | OutcomeReasonFilter | None) -> set[str] | None:
    """The names that a filter lets through; None if it does not matter."""
    if given is strawberry.UNSET:
        return None
    if given is None or given.eq is None or given.in_ is None:
        raise InvalidInput(f"{name} and what stands in it cannot be null; leave it out")
    chosen = [{stored(given.eq)}] if given.eq is not strawberry.UNSET else []
    chosen += [set(several(list(given.in_)))] if given.in_ is not strawberry.UNSET else []
    return set.intersection(*chosen) if chosen else None


def _read(given: bool | None) -> bool | None:
    """The answer that is wanted; None if it does not matter."""
    if given is strawberry.UNSET:
        return None
    if given is None:
        raise InvalidInput("read cannot be null; leave it out")
    return given


def _named(given: StringFilter | None) -> list[str] | None:
    """The ids that the filter names; None if it only describes them."""
    if not given:
        return None
    if given.eq is not strawberry.UNSET:
        return [str(given.eq)]
    return list(given.in_) if given.in_ else None


def _holds(given: StringFilter | None, target_id: str) -> bool:
    """What `condition` asks of the column, asked of one id."""
    return not given or all(
        _COMPARISONS[name](target_id, value)
        for name, value in vars(given).items()
        if value is not strawberry.UNSET
    )


_COMPARISONS: dict[str, Callable[[str, Any], bool]] = {
    "eq": operator.eq,
    "in_": lambda target_id, ids: target_id in ids,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
    "autocomplete": lambda target_id, search: begins_a_word(search, target_id),
    "exists": lambda _, wanted: wanted,
}

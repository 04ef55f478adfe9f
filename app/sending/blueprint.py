"""A campaign made ready to send: its templates compiled once, for all of its batches."""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

import orjson

from app.campaigns.models import Campaign
from app.channels.distinct import (
    DISTINCT_PREFIX,
    MEMBERS_WITH_KEY,
    cid_of,
    distinct_id,
    members_key,
    pair_key,
    pair_keys,
)
from app.messages.rendering import (
    ChannelIdTemplate,
    MessageTemplate,
)
from app.segments.kinds import SegmentType
from app.sending.writing import ChannelState, CreatedChannels, CreatedMember

ROWS_AT_ONCE = 10_000  # members written by one transaction: it has to stay short
MOST_KEPT = 1_000  # compiled campaigns that a process keeps
MOST_CHARACTERS = 4_000_000  # of their templates, each of which takes some 10 bytes; 60 MB in all at most


@dataclass(frozen=True)
class Blueprint:
    """What every batch of one campaign needs to know. `only_looked_at`: receivers without a channel are shown
    their message too. `gone` are members of the channel template who were deleted since."""

    campaign: Campaign
    message: MessageTemplate
    channel_id: ChannelIdTemplate | None
    only_looked_at: bool = False
    gone: frozenset[str] = frozenset()

    @classmethod
    def of(cls, campaign: Campaign) -> "Blueprint":
        """Compiles the campaign's templates. They were compiled when it was created, so this cannot fail."""
        channel = campaign.channel_template or {}
        return cls(
            campaign,
            MessageTemplate.compile(
                campaign.message_template, extra_custom={"campaign_id": campaign.campaign_id}
            ),
            ChannelIdTemplate.compile(channel["id"]) if channel.get("id") else None,
        )

    @cached_property
    def characters(self) -> int:
        """How long its templates are."""
        return len(orjson.dumps((self.campaign.message_template, self.campaign.channel_template)))

    @cached_property
    def for_channels(self) -> bool:
        """Whether the targets are channels, and not users."""
        return self.campaign.audience == SegmentType.CHANNEL

    @cached_property
    def channel_type(self) -> str | None:
        """The type of the channels to write into; None without a channel template."""
        return self.campaign.channel_template["type"] if self.campaign.channel_template else None

    @cached_property
    def most_at_once(self) -> int:
        """How many targets one transaction takes at most."""
        return max(1, ROWS_AT_ONCE // (1 + len(self._members_of_created())))

    @cached_property
    def needs_details(self) -> bool:
        """Whether a template reads more of people than who they are."""
        return any(
            self.message.needs_details(who)
            or (self.channel_id is not None and self.channel_id.needs_details(who))
            for who in ("sender", "receiver")
        )

    @cached_property
    def names_channel(self) -> bool:
        """Whether the message names the channel, which is then worked out for each receiver."""
        return self.message.needs("channel")

    @cached_property
    def names_receiver(self) -> bool:
        """Whether the message names the receiver, whom a channel has only with two members."""
        return self.message.needs("receiver")

    @cached_property
    def creates(self) -> bool:
        """Whether absent channels are created."""
        return (
            self.campaign.create_channels
            and self.campaign.channel_template is not None
            and not self.for_channels
        )

    @cached_property
    def may_be_alike(self) -> bool:
        """Whether entries can be settled all together: see `Entries`."""
        plain = self.message.is_plain and (self.channel_id is None or self.channel_id.is_plain)
        return plain and not self.for_channels

    @cached_property
    def adds_sender(self) -> bool:
        """Whether the sender is a member of created channels."""
        return self.campaign.sender_mode != "EXCLUDE"

    @cached_property
    def template_members(self) -> tuple[CreatedMember, ...]:
        """Members that the channel template names."""
        channel = self.campaign.channel_template or {}
        if channel.get("members_template"):
            return tuple(
                CreatedMember(
                    member["user_id"],
                    member.get("channel_role") or "channel_member",
                    member.get("custom") or {},
                )
                for member in channel["members_template"]
            )
        return tuple(CreatedMember(user_id, "channel_member", {}) for user_id in channel.get("members") or ())

    @cached_property
    def created_channels(self) -> CreatedChannels:
        """What the channels that this campaign creates share."""
        channel = self.campaign.channel_template or {}
        return CreatedChannels(
            type=channel["type"],
            team=channel.get("team"),
            custom=orjson.dumps(channel.get("custom") or {}).decode(),
            created_by_id=self.campaign.sender_id,
            members=self._members_of_created(),
            founding=self._founding,
            pair_keys=self._pair_keys,
        )

    def _members_of_created(self) -> tuple[CreatedMember, ...]:
        named = {
            member.user_id: member for member in self.template_members if member.user_id not in self.gone
        }
        if not self.adds_sender:
            return tuple(named.values())
        sender_id, visibility = self.campaign.sender_id, self.campaign.sender_visibility
        as_named = named.pop(sender_id, CreatedMember(sender_id, "channel_member", {}))
        sender = replace(as_named, hidden=visibility == "HIDDEN", archived=visibility == "ARCHIVED")
        return (*named.values(), sender)

    def without(self, gone: frozenset[str]) -> "Blueprint":
        """The same, for the time when these members of the template are deleted."""
        return self if gone == self.gone else replace(self, gone=gone)

    @cached_property
    def _member_ids_of_created(self) -> frozenset[str]:
        return frozenset(member.user_id for member in self._members_of_created())

    @cached_property
    def _distinct_ids(self) -> frozenset[str]:
        return frozenset((self.campaign.sender_id, *(member.user_id for member in self.template_members)))

    def distinct_channel_id(self, receiver_id: str) -> str:
        """The id of the one channel of its type for sender, receiver and the template's members; the same
        whatever senderMode or later membership."""
        return distinct_id(self._distinct_ids | {receiver_id})

    @cached_property
    def _distinct_beginning(self) -> str | None:
        """What the cid of a distinct channel begins with, where its id names exactly who founds it."""
        if self.channel_id is not None or not self.adds_sender or self.gone:
            return None
        return self.cid(DISTINCT_PREFIX)

    def _founding(self, cid: str, receivers: Sequence[str]) -> tuple[int, str | None]:
        if self._only_founder is not None and len(receivers) == 1 and receivers[0] != self._only_founder:
            return 2, self._pair_key(cid, self._only_founder, receivers[0])
        members = self._member_ids_of_created.union(receivers)
        if len(members) > MEMBERS_WITH_KEY:
            return len(members), None
        if self._distinct_beginning is not None:
            return len(members), cid[len(self._distinct_beginning) :]
        return len(members), members_key(members)

    @cached_property
    def _only_founder(self) -> str | None:
        """The one member of created channels besides the receiver, in most campaigns their sender."""
        members = self._members_of_created()
        return members[0].user_id if len(members) == 1 else None

    def _pair_key(self, cid: str, founder: str, receiver: str) -> str:
        if self._distinct_beginning is not None:
            return cid[len(self._distinct_beginning) :]
        return pair_key(founder, receiver)

    def _pair_keys(self, cids: Sequence[str], receivers: Sequence[str]) -> list[str] | None:
        founder = self._only_founder
        if founder is None or founder in receivers:
            return None
        if self._distinct_beginning is not None:
            start = len(self._distinct_beginning)
            return [cid[start:] for cid in cids]
        return pair_keys(founder, receivers)

    def cid(self, channel_id: str) -> str:
        """The cid of a channel of the template's type."""
        assert self.channel_type is not None
        return cid_of(self.channel_type, channel_id)

    def channel_to_create(self, cid: str) -> ChannelState:
        """An absent channel as a template sees it: what it will be."""
        created = self.created_channels
        return ChannelState(
            cid=cid,
            type=created.type,
            channel_id=cid.partition(":")[2],
            name=None,
            team=created.team,
            custom=created.custom,
            frozen=False,
            last_seq=0,
        )


class Blueprints:
    """The blueprints of campaigns that run; an edited one gets a new one. They take some memory: those used
    longest ago make room for others."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, Blueprint] = OrderedDict()

    def kept(self, campaign_no: int, updated_at: datetime) -> Blueprint | None:
        """The blueprint of the campaign as it was at its last update, if it was made already."""
        blueprint = self._kept.get(campaign_no)
        if blueprint is None or blueprint.campaign.updated_at != updated_at:
            return None
        self._kept.move_to_end(campaign_no)
        return blueprint

    def keep(self, campaign_nos: Collection[int]) -> None:
        """Forgets all others."""
        for number in self._kept.keys() - set(campaign_nos):
            del self._kept[number]

    def of(self, campaign: Campaign) -> Blueprint:
        """The blueprint of the campaign as it is now."""
        blueprint = self.kept(campaign.campaign_no, campaign.updated_at)
        if blueprint is None:
            blueprint = self._kept[campaign.campaign_no] = Blueprint.of(campaign)
            self._kept.move_to_end(campaign.campaign_no)
            self._make_room()
        return blueprint

    def _make_room(self) -> None:
        characters = sum(blueprint.characters for blueprint in self._kept.values())
        while len(self._kept) > MOST_KEPT or (characters > MOST_CHARACTERS and len(self._kept) > 1):
            characters -= self._kept.popitem(last=False)[1].characters

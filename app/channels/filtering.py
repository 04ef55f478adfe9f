"""The fields of channels that a filter can name."""

from sqlalchemy import select
from sqlmodel import col

from app.channels.models import Channel, Member
from app.filters.fields import Field, Kind, collection

CHANNELS = collection(
    "channels",
    Field("cid", Kind.TEXT, col(Channel.cid)),
    Field("id", Kind.TEXT, col(Channel.channel_id)),
    Field("type", Kind.TEXT, col(Channel.type)),
    Field("name", Kind.SEARCHED_TEXT, col(Channel.name)),
    Field("team", Kind.TEXT, col(Channel.team)),
    Field("created_by_id", Kind.TEXT, col(Channel.created_by_id)),
    Field("frozen", Kind.BOOLEAN, col(Channel.frozen)),
    Field("created_at", Kind.TIME, col(Channel.created_at)),
    Field("last_message_at", Kind.TIME, col(Channel.last_message_at)),
    Field("member_count", Kind.NUMBER, col(Channel.member_count)),
    Field("members", Kind.MEMBERS, col(Channel.cid), select(col(Member.cid), col(Member.user_id))),
    custom=col(Channel.custom),
)

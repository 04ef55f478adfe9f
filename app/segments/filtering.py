"""Which collection a segment's filter chooses from."""

from collections.abc import Mapping

from app.channels.filtering import CHANNELS
from app.filters.fields import Collection
from app.segments.kinds import SegmentType
from app.users.filtering import USERS

COLLECTIONS: Mapping[str, Collection] = {SegmentType.USER: USERS, SegmentType.CHANNEL: CHANNELS}

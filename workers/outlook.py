"""What housekeeping finds when it looks: one statement, for as long as there is nothing to do that is all it
costs. What each of these is, is read by whoever then does it."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from app.campaigns import capacity
from app.campaigns import queries as campaigns
from app.database import ask, now
from app.segments import queries as segments
from app.users import queries as users

# Built once: it is asked every two seconds.
_LOOK = campaigns.INSTANTS.add_columns(
    capacity.UNRELEASED.exists(), segments.COMPUTING.exists(), users.ERASING.exists()
)


@dataclass(frozen=True, slots=True)
class Outlook:
    """When the next start, end or resuming of a campaign comes, or came, and what waits for housekeeping `at`
    this moment: capacity that is still held for what has ended, sizes of segments, deleted users."""

    at: datetime
    next_due: datetime | None
    unreleased: bool
    computing: bool
    erasing: bool

    @property
    def is_due(self) -> bool:
        """Whether a start, end or resuming has come."""
        return self.has_come(self.next_due)

    def has_come(self, instant: datetime | None) -> bool:
        """Whether that is past."""
        return instant is not None and instant <= self.at


async def look(session: AsyncSession) -> Outlook:
    """What there is to do."""
    at = await now(session)
    *instants, unreleased, computing, erasing = (await ask(session, _LOOK)).one()
    return Outlook(at, campaigns.earliest(instants), bool(unreleased), bool(computing), bool(erasing))

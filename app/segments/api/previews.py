"""Segments before they are stored, in GraphQL: how many targets they would have."""

import strawberry

from app.errors import AppError, Invalid
from app.graphql.context import Info
from app.graphql.errors import UserError, user_errors
from app.graphql.fields import MAX_SIZE
from app.graphql.scalars import JSON
from app.segments import previewing
from app.segments.api.segment import SegmentType
from app.segments.api.targets import Target

PREVIEW_WEIGHT = 10_000  # it looks at every user or channel


@strawberry.input(description="The definition of a segment that is not stored.")
class SegmentPreviewInput:
    """A definition; without filter and allUsers there are no targets."""

    type: SegmentType = strawberry.field(description="What its targets are.")
    filter: JSON | None = strawberry.field(
        default=strawberry.UNSET, description="Finds the targets, in the filter language of their collection."
    )
    all_users: bool = strawberry.field(default=False, description="All users; for type USER, without filter.")


@strawberry.type(description="What a segment of this definition would have now, or why there can be none.")
class SegmentPreviewPayload:
    """A size and a sample, or errors."""

    size: int | None = strawberry.field(
        default=None,
        description="How many targets; null with errors, or if counting takes longer than 10 s (what is "
        "stored is counted in the background).",
    )
    sample: list[Target] = strawberry.field(
        default_factory=list,
        description="The first of them by id, at most 10.",
        metadata={MAX_SIZE: previewing.SAMPLE},
    )
    errors: list[UserError] = strawberry.field(
        default_factory=list, description="What is wrong with the definition; empty on success."
    )


async def previewed(info: Info, input: SegmentPreviewInput) -> SegmentPreviewPayload:
    """What segmentPreview answers."""
    given = {
        "type": input.type.name,
        "filter": None if input.filter is strawberry.UNSET else input.filter,
        "all_users": input.all_users,
    }
    try:
        found = await previewing.preview(info.context.database, given)
    except (AppError, Invalid) as failure:
        return SegmentPreviewPayload(errors=user_errors(failure, SegmentPreviewInput))
    sample = [Target.of_nothing(found.type, target_id) for target_id in found.target_ids]
    return SegmentPreviewPayload(size=found.size, sample=sample)

"""What every deletion answers."""

import strawberry

from app.graphql.errors import MutationPayload


@strawberry.type(description="What was deleted, or why nothing was.")
class DeletePayload(MutationPayload):
    """Global ids that a client's cache can drop."""

    deleted_ids: list[strawberry.ID] = strawberry.field(
        default_factory=list, description="The global ids of what is gone."
    )

"""How deep a document may ask about the schema."""

from graphql import GraphQLError
from graphql.validation.rules.max_introspection_depth_rule import MAX_LIST_DEPTH, MaxIntrospectionDepthRule

from app.errors import LimitExceeded
from app.graphql.errors import extensions_of


class ShallowIntrospection(MaxIntrospectionDepthRule):
    """GraphQL's own rule, whose refusals have the code and details of a limit. `given` is where it stops to
    count: deeper questions give the same."""

    def report_error(self, error: GraphQLError) -> None:
        """Says that lists about the schema stand too deep within each other."""
        limit, given = MAX_LIST_DEPTH - 1, MAX_LIST_DEPTH
        failure = LimitExceeded(
            f"Levels of fields, interfaces, possibleTypes and inputFields of the schema within each other: "
            f"{given} were given, {limit} are allowed.",
            details={"limit": limit, "given": given},
        )
        super().report_error(GraphQLError(failure.message, error.nodes, extensions=extensions_of(failure)))

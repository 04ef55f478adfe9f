"""Webhooks in GraphQL: endpoints, and what became of everything posted to them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from functools import partial
from typing import Annotated, Any, Self

import orjson
import strawberry
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.errors import LimitExceeded
from app.events.service import TYPES
from app.graphql.connections import connection, nested_listing, select_family
from app.graphql.context import Info
from app.graphql.deleting import DeletePayload
from app.graphql.errors import MutationPayload
from app.graphql.fields import field, mutation, query
from app.graphql.loaders import Loader
from app.graphql.nodes import Node
from app.graphql.scalars import JSON
from app.keyset import By
from app.webhooks import bodies, models, queries, service
from app.webhooks.expanding import MAX_BATCH

MAX_DELIVERIES_PAGE = 100
PAYLOAD_WEIGHT = 100  # up to five hundred events are read
MAX_EVENTS_READ = 5_000  # a message has up to 15 kB

ENDPOINT_ID = "The endpoint's id."
EVENT_TYPES = f"What it hears of: {', '.join(TYPES)}. None: everything."

NEWEST_FIRST = [By(col(models.Delivery.seq), descending=True)]

endpoints = Loader(queries.by_ids)
deliveries = Loader(queries.deliveries)


async def _payloads(session: AsyncSession, delivery_ids: Sequence[str]) -> Mapping[str, Any]:
    """The bodies of deliveries. Raises LIMIT_EXCEEDED where they hold too many events together."""
    found = await queries.deliveries(session, delivery_ids)
    events = sum(delivery.size for delivery in found.values())
    if events > MAX_EVENTS_READ:
        raise LimitExceeded(
            f"Payloads of at most {MAX_EVENTS_READ:,} events can be read at once; these deliveries hold"
            f" {events:,}: ask for fewer of them.",
            details={"limit": MAX_EVENTS_READ, "given": events},
        )
    built = await bodies.build(session, list(found.values()))
    return {key: orjson.loads(body) for key, body in built.items() if body is not None}


payloads = Loader(_payloads)


@strawberry.enum(description="What became of a delivery.")
class DeliveryStatus(Enum):
    """The states of `models.DeliveryStatus`, described for clients."""

    PENDING = strawberry.enum_value(
        "PENDING", description="It waits for its first attempt, or for the next one."
    )
    DELIVERED = strawberry.enum_value("DELIVERED", description="The endpoint answered with a 2xx status.")
    FAILED = strawberry.enum_value(
        "FAILED", description="Given up after three days; redeliverWebhook begins anew."
    )


@strawberry.input(description="Chooses deliveries: everything that is given holds.")
class WebhookDeliveryFilter:
    """By status and type."""

    status: DeliveryStatus | None = strawberry.field(default=strawberry.UNSET, description="This status.")
    event_type: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="The type of the body; `batch` for those that hold several events.",
    )


@strawberry.type(description="One post to an endpoint, with all its attempts.")
class WebhookDelivery(Node):
    """A delivery."""

    status: DeliveryStatus = strawberry.field(description="What became of it.")
    delivery_id: str = strawberry.field(
        description="Its id: the header webhook-id, the same at every attempt. Deduplicate by it."
    )
    event_type: str = strawberry.field(description="The type of its body: of its event, or `batch`.")
    attempts: int = strawberry.field(description="How often it was posted.")
    status_code: int | None = strawberry.field(description="What the endpoint answered last, if it did.")
    error: str | None = strawberry.field(description="Why the last attempt failed, in a sentence.")
    delivered_at: datetime | None = strawberry.field(description="When the endpoint took it.")
    next_attempt_at: datetime | None = strawberry.field(
        description="When it is attempted next, while PENDING."
    )
    created_at: datetime = strawberry.field(description="When it was made of its events.")

    @classmethod
    def of(cls, row: models.Delivery) -> Self:
        """The GraphQL object of a row."""
        return cls(
            id=cls.global_id(row.id),
            status=DeliveryStatus[models.DeliveryStatus(row.status).name],
            delivery_id=row.id,
            event_type=row.event_type,
            attempts=row.attempts,
            status_code=row.status_code,
            error=row.error,
            delivered_at=row.delivered_at,
            next_attempt_at=row.next_attempt_at,
            created_at=row.created_at,
        )

    @classmethod
    async def by_keys(cls, info: Info, keys: Sequence[str]) -> Sequence[Self | None]:
        """Deliveries by their ids, but those of deleted endpoints."""
        rows = await deliveries.load_many(info, keys)
        return [cls.of(row) if row else None for row in rows]

    @field(
        description="The body as it would be posted now: without what was deleted since, or only its type if"
        " all was.",
        weight=PAYLOAD_WEIGHT,
    )
    async def payload(self, info: Info) -> JSON:
        """Built together with those of the other deliveries of a page."""
        return JSON(await payloads.load(info, self.delivery_id) or {"type": self.event_type})


@strawberry.type(description="A URL that events are posted to, signed by Standard Webhooks.")
class WebhookEndpoint(Node):
    """An endpoint without its secret."""

    endpoint_id: str = strawberry.field(description="The endpoint's id.")
    url: str = strawberry.field(description="Where events are posted.")
    event_types: list[str] = strawberry.field(description="What it hears of. Empty: everything.")
    enabled: bool = strawberry.field(
        description="Whether anything is posted. What waits, waits for three days."
    )
    disabled_reason: str | None = strawberry.field(description="Why the server disabled it; null if you did.")
    batch_size: int = strawberry.field(
        description=f"How many events one post holds, 1 to {MAX_BATCH}; from 2, each body is a batch."
    )
    created_at: datetime = strawberry.field(description="When it was created: it hears of what came later.")

    @classmethod
    def of(cls, row: models.Endpoint) -> Self:
        """The GraphQL object of a row."""
        return cls(
            id=cls.global_id(row.endpoint_id),
            endpoint_id=row.endpoint_id,
            url=row.url,
            event_types=row.event_types,
            enabled=row.enabled,
            disabled_reason=row.disabled_reason,
            batch_size=row.batch_size,
            created_at=row.created_at,
        )

    @classmethod
    async def by_keys(cls, info: Info, keys: Sequence[str]) -> Sequence[Self | None]:
        """Endpoints by their ids, unless deleted."""
        rows = await endpoints.load_many(info, keys)
        return [cls.of(row) if row else None for row in rows]

    @connection(
        WebhookDelivery, max_size=MAX_DELIVERIES_PAGE, description="What is and was posted, newest first."
    )
    async def deliveries(
        self,
        info: Info,
        filter: Annotated[
            WebhookDeliveryFilter | None, strawberry.argument(description="Only these.")
        ] = strawberry.UNSET,
    ) -> Any:
        """Its deliveries, as long as they are kept."""
        status, event_type = _chosen(filter)
        chosen = partial(queries.deliveries_of, status=status, event_type=event_type)
        return nested_listing(info, select_family(chosen, NEWEST_FIRST), self.endpoint_id, WebhookDelivery.of)


def _chosen(given: WebhookDeliveryFilter | None) -> tuple[models.DeliveryStatus | None, str | None]:
    """The status and the type that a filter asks for."""
    status = given.status if given else None
    return (
        models.DeliveryStatus[status.name] if isinstance(status, DeliveryStatus) else None,
        given.event_type if given and isinstance(given.event_type, str) else None,
    )


@strawberry.input(description="An endpoint to make.")
class CreateWebhookEndpointInput:
    """An endpoint to make."""

    url: str = strawberry.field(description="Where to post: https, at a public address.")
    event_types: list[str] | None = strawberry.field(default=strawberry.UNSET, description=EVENT_TYPES)
    batch_size: int = strawberry.field(
        default=1,
        description=f"How many events one post may hold, 1 to {MAX_BATCH}; from 2, each body is a batch.",
    )


@strawberry.input(description="What is to change of an endpoint; what is omitted stays.")
class UpdateWebhookEndpointInput:
    """Changes of an endpoint."""

    endpoint_id: str = strawberry.field(description=ENDPOINT_ID)
    url: str | None = strawberry.field(
        default=strawberry.UNSET, description="Where to post, what waits already included."
    )
    event_types: list[str] | None = strawberry.field(default=strawberry.UNSET, description=EVENT_TYPES)
    enabled: bool | None = strawberry.field(
        default=strawberry.UNSET, description="False: nothing is posted. True: what waits is posted at once."
    )
    batch_size: int | None = strawberry.field(
        default=strawberry.UNSET, description=f"How many events one post may hold, 1 to {MAX_BATCH}."
    )


@strawberry.input(description="An endpoint that is to have a new secret.")
class RotateWebhookSecretInput:
    """An endpoint."""

    endpoint_id: str = strawberry.field(description=ENDPOINT_ID)


@strawberry.input(description="An endpoint to delete.")
class DeleteWebhookEndpointInput:
    """An endpoint."""

    endpoint_id: str = strawberry.field(description=ENDPOINT_ID)


@strawberry.input(description="An endpoint to try out.")
class TestWebhookEndpointInput:
    """An endpoint."""

    endpoint_id: str = strawberry.field(description=ENDPOINT_ID)


@strawberry.input(description="A delivery to post again.")
class RedeliverWebhookInput:
    """A delivery."""

    delivery_id: str = strawberry.field(description="The delivery's id: its header webhook-id.")


@strawberry.type(description="The endpoint, or why nothing was done.")
class WebhookEndpointPayload(MutationPayload):
    """What changes of endpoints answer."""

    endpoint: WebhookEndpoint | None = strawberry.field(
        default=None, description="The endpoint; null where it failed."
    )
    secret: str | None = strawberry.field(
        default=None, description="What posts are signed with: shown once, on creation and rotation."
    )


@strawberry.type(description="The delivery, or why nothing was done.")
class WebhookDeliveryPayload(MutationPayload):
    """What tests and redeliveries answer."""

    delivery: WebhookDelivery | None = strawberry.field(
        default=None, description="The delivery, about to be posted; null where it failed."
    )


@strawberry.type
class Query:
    """Queries about webhooks."""

    @query(description="Every webhook endpoint, oldest first.", max_size=service.MAX_ENDPOINTS)
    async def webhook_endpoints(self, info: Info) -> list[WebhookEndpoint]:
        """All of them."""
        async with info.context.database.read() as session:
            rows = await queries.listed(session)
        return [WebhookEndpoint.of(row) for row in rows]

    @query(description="The webhook endpoint with this id; null if there is none (any more).")
    async def webhook_endpoint(
        self, info: Info, endpoint_id: Annotated[str, strawberry.argument(description=ENDPOINT_ID)]
    ) -> WebhookEndpoint | None:
        """One of them."""
        return (await WebhookEndpoint.by_keys(info, [endpoint_id]))[0]


@strawberry.type
class Mutation:
    """Changes of webhooks."""

    @mutation(description="Makes a webhook endpoint. Its secret is in the payload and never shown again.")
    async def create_webhook_endpoint(
        self, info: Info, input: CreateWebhookEndpointInput
    ) -> WebhookEndpointPayload | None:
        """A new endpoint and its secret."""
        async with info.context.database.transaction() as session:
            row = await service.create(session, _given(input), info.context.settings)
        return WebhookEndpointPayload(endpoint=WebhookEndpoint.of(row), secret=row.secret)

    @mutation(description="Changes a webhook endpoint, or enables or disables it.")
    async def update_webhook_endpoint(
        self, info: Info, input: UpdateWebhookEndpointInput
    ) -> WebhookEndpointPayload | None:
        """The changed endpoint."""
        changes = _given(input)
        endpoint_id = changes.pop("endpoint_id")
        async with info.context.database.transaction() as session:
            row = await service.update(session, endpoint_id, changes, info.context.settings)
        return WebhookEndpointPayload(endpoint=WebhookEndpoint.of(row))

    @mutation(
        description="Gives a webhook endpoint a new secret, which is in the payload and never shown again."
        " The one before it signs beside it for a day, or until the next rotation."
    )
    async def rotate_webhook_secret(
        self, info: Info, input: RotateWebhookSecretInput
    ) -> WebhookEndpointPayload | None:
        """The endpoint and its new secret."""
        async with info.context.database.transaction() as session:
            row = await service.rotate(session, input.endpoint_id)
        return WebhookEndpointPayload(endpoint=WebhookEndpoint.of(row), secret=row.secret)

    @mutation(
        description="Deletes a webhook endpoint with its deliveries. Nothing that waits is posted any more."
    )
    async def delete_webhook_endpoint(
        self, info: Info, input: DeleteWebhookEndpointInput
    ) -> DeletePayload | None:
        """What is gone."""
        async with info.context.database.transaction() as session:
            row = await service.delete(session, input.endpoint_id)
        return DeletePayload(deleted_ids=[WebhookEndpoint.global_id(row.endpoint_id)])

    @mutation(description=f"Posts an event of the type {service.TEST} to a webhook endpoint.")
    async def test_webhook_endpoint(
        self, info: Info, input: TestWebhookEndpointInput
    ) -> WebhookDeliveryPayload | None:
        """The delivery to watch."""
        async with info.context.database.transaction() as session:
            row = await service.test(session, input.endpoint_id)
        return WebhookDeliveryPayload(delivery=WebhookDelivery.of(row))

    @mutation(
        description="Posts a delivery again, whatever became of it: at once and for three days, with its id."
    )
    async def redeliver_webhook(
        self, info: Info, input: RedeliverWebhookInput
    ) -> WebhookDeliveryPayload | None:
        """The delivery to watch."""
        async with info.context.database.transaction() as session:
            row = await service.redeliver(session, input.delivery_id)
        return WebhookDeliveryPayload(delivery=WebhookDelivery.of(row))


def _given(input: CreateWebhookEndpointInput | UpdateWebhookEndpointInput) -> dict[str, Any]:
    """The fields that were given, null ones too."""
    return {name: value for name, value in vars(input).items() if value is not strawberry.UNSET}

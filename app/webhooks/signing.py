"""Signing by Standard Webhooks: three headers that anybody can verify with the published libraries."""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from standardwebhooks import Webhook

from app.webhooks.models import Endpoint


def headers(delivery_id: str, body: str, at: datetime, secrets: Sequence[str]) -> dict[str, str]:
    """The headers of one attempt, signed with each of the secrets; `at` is the time of the attempt."""
    signatures = " ".join(_signer(secret).sign(delivery_id, at, body) for secret in secrets)
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signatures,
    }


def secrets_of(endpoint: Endpoint, at: datetime) -> tuple[str, ...]:
    """What signs now: the secret, and for a day after a rotation the one before it."""
    until = endpoint.previous_secret_until
    if endpoint.previous_secret is None or until is None or until <= at:
        return (endpoint.secret,)
    return (endpoint.secret, endpoint.previous_secret)


@lru_cache(256)  # two of each of the fifty endpoints that there may be, and those before them
def _signer(secret: str) -> Webhook:
    return Webhook(secret)

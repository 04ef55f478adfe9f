"""Signatures, verified by the published library."""

from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from app.webhooks import signing
from app.webhooks.models import Endpoint
from app.webhooks.service import new_secret

BODY = '{"type":"message.new","message":{"text":"Grüße 😀"}}'


def headers(*secrets: str, at: datetime | None = None) -> dict[str, str]:
    return signing.headers("018f-1", BODY, at or datetime.now(UTC), secrets)


def test_the_published_library_verifies_it() -> None:
    secret = new_secret()
    told = Webhook(secret).verify(BODY.encode(), headers(secret))
    assert told["message"]["text"] == "Grüße 😀"


def test_another_secret_body_id_or_time_does_not_verify() -> None:
    secret = new_secret()
    signed = headers(secret)
    for body, given, by in (
        (BODY, signed, new_secret()),
        (BODY + " ", signed, secret),
        (BODY, {**signed, "webhook-id": "018f-2"}, secret),
        (BODY, {**signed, "webhook-timestamp": str(int(signed["webhook-timestamp"]) + 1)}, secret),
        (BODY, headers(secret, at=datetime.now(UTC) - timedelta(minutes=6)), secret),
    ):
        with pytest.raises(WebhookVerificationError):
            Webhook(by).verify(body, given)


def test_for_a_day_after_a_rotation_either_secret_verifies() -> None:
    old, new, at = new_secret(), new_secret(), datetime.now(UTC)
    endpoint = Endpoint(
        endpoint_id="e",
        url="https://example.com",
        secret=new,
        previous_secret=old,
        previous_secret_until=at + timedelta(days=1),
        created_at=at,
    )
    signed = headers(*signing.secrets_of(endpoint, at))
    for secret in (old, new):
        Webhook(secret).verify(BODY, signed)

    assert signing.secrets_of(endpoint, at + timedelta(hours=23)) == (new, old)
    assert signing.secrets_of(endpoint, at + timedelta(days=1)) == (new,)


def test_secrets_do_not_show() -> None:
    secret = new_secret()
    endpoint = Endpoint(endpoint_id="e", url="https://x.example", secret=secret, previous_secret=secret)
    assert secret not in repr(endpoint)
    assert secret not in str(headers(secret))

"""What a key looks like, and what of it is stored."""

import hashlib
import secrets

PREFIX = "car_"


def new_secret() -> str:
    """A new key: `car_` and 43 characters that hold 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_of(secret: str) -> str:
    """What is stored of a key: its SHA-256 in hex. 256 random bits need no salt."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()

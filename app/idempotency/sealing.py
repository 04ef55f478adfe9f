"""What of an idempotency key and its answers is stored: nothing that can be read without the API key.

An answer may hold what is shown once (the secret of a new key) or what is to be erased (a user's name). So
all that a row has is made with keys that HKDF derives from the secret of the API key that sent the request,
of which only a hash is kept: digests to find the row by, and AES-GCM, which hides its contents and notices
every change to them. The same string under another API key is another row.
"""

import hashlib
import hmac
import secrets
from enum import Enum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SALT = b"carillon idempotency"
KEY_BYTES = 32
NONCE_BYTES = 12  # random; a row is sealed a few times at most, far from where two may be the same


class Broken(Exception):
    """What is stored under an Idempotency-Key was changed by somebody, or belongs to another request."""


class Part(Enum):
    """What of a row is sealed. One never passes for the other."""

    OUTCOME = b"outcome"
    ANSWER = b"answer"


class Seal:
    """Names what is stored under one idempotency key of one API key, and seals it."""

    def __init__(self, secret: str, key: str) -> None:
        self._secret = secret.encode()
        self._key = key.encode()
        self.name = self._derived(b"name").hex()

    def digest(self, content: bytes) -> str:
        """What tells one content from another, and nothing else about it."""
        return hmac.digest(self._derived(b"content"), content, hashlib.sha256).hex()

    def row(self, request_hash: str) -> "SealedRow":
        """The row of the request with this digest."""
        return SealedRow(self.name, request_hash, self._derived(b"seal"))

    def _derived(self, purpose: bytes) -> bytes:
        """A key for one purpose. The purposes are words, so that none runs into the idempotency key."""
        info = purpose + b"\0" + self._key
        return HKDF(SHA256(), length=KEY_BYTES, salt=SALT, info=info).derive(self._secret)


class SealedRow:
    """Seals what is stored in one row, for this row alone."""

    def __init__(self, name: str, request_hash: str, key: bytes) -> None:
        self.name = name
        self._request_hash = request_hash
        self._cipher = AESGCM(key)

    def close(self, content: bytes, part: Part) -> bytes:
        """Sealed content; another time it looks different."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, content, self._bound(part))

    def open(self, sealed: bytes, part: Part) -> bytes:
        """The content that `close` was given. Raises Broken if that is not what was sealed for this."""
        nonce, rest = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, rest, self._bound(part))
        except (InvalidTag, ValueError):
            raise Broken(" ".join((Broken.__doc__ or "").split())) from None

    def _bound(self, part: Part) -> bytes:
        return b" ".join((self.name.encode(), self._request_hash.encode(), part.value))

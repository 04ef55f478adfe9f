"""What of an idempotency key and its answers is stored: nothing that can be read without the API key.

An answer may hold what is shown once (the secret of a new key) or what is to be erased (a user's name). So
all that a row has is derived from the secret of the API key that sent the request, of which only a hash is
kept: digests to find it by, and a pad that hides its contents. The same string under another API key is
another row.
"""

import hashlib
import hmac
import secrets

NONCE = 16  # bytes in front of what is sealed; no pad is ever used twice


class Seal:
    """Names and hides what is stored under one idempotency key of one API key."""

    def __init__(self, secret: str, key: str) -> None:
        self._root = hmac.digest(secret.encode(), key.encode(), "sha256")
        self.name = self._derived(b"name").hex()
        self._padding = self._derived(b"pad")

    def digest(self, content: bytes) -> str:
        """What tells one content from another, and nothing else about it."""
        return self._derived(b"content" + hashlib.sha256(content).digest()).hex()

    def close(self, content: bytes) -> bytes:
        """Sealed content; another time it looks different."""
        nonce = secrets.token_bytes(NONCE)
        return nonce + self._padded(nonce, content)

    def open(self, sealed: bytes) -> bytes:
        """The content that `close` was given."""
        return self._padded(sealed[:NONCE], sealed[NONCE:])

    def _padded(self, nonce: bytes, content: bytes) -> bytes:
        """`content` xor an endless digest of secret and nonce, which is a stream cipher."""
        size = len(content)
        pad = hashlib.shake_256(self._padding + nonce).digest(size)
        mixed = int.from_bytes(content, "little") ^ int.from_bytes(pad, "little")
        return mixed.to_bytes(size, "little")

    def _derived(self, purpose: bytes) -> bytes:
        return hmac.digest(self._root, purpose, "sha256")

"""Being told to end: once, in order, and leaving nothing behind."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(SystemExit):
    """SIGINT or SIGTERM has come; the code is the shell's for that signal."""


@contextmanager
def ending_in_order() -> Iterator[None]:
    """From now on the first SIGINT or SIGTERM raises `Interrupted` and further ones are ignored. Whatever
    libraries make of that on its way up, it is `Interrupted` that leaves the block."""
    came: list[int] = []

    def interrupt(number: int, _: FrameType | None) -> None:
        came.append(number)
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(128 + number)

    for each in _SIGNALS:
        signal.signal(each, interrupt)
    try:
        yield
    except Exception:
        if came:
            raise Interrupted(128 + came[0]) from None
        raise


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Puts an interrupt off until the end of the block: for what cannot be undone half way."""
    came: list[int] = []
    before = {each: signal.signal(each, lambda number, _: came.append(number)) for each in _SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        if came:
            signal.raise_signal(came[0])

"""Sets the clock of a running process: Python loads this by itself where this folder is in PYTHONPATH.

A process whose CARILLON_PROCESS has a file of that name in CHAOS_CLOCKS lives as many seconds in the future
as the file says (8 bytes, signed), from the moment when it says so. Monotonic clocks stay as they are, as
they do when an administrator or NTP sets a clock.
"""

import datetime
import mmap
import os
import struct
import time
from collections.abc import Callable
from typing import Any

RightDatetime = datetime.datetime
SECONDS = struct.Struct("<q")


def _shift() -> Callable[[], int] | None:
    file = os.path.join(os.environ.get("CHAOS_CLOCKS", ""), os.environ.get("CARILLON_PROCESS", ""))
    if not os.path.isfile(file):
        return None
    with open(file, "r+b") as opened:
        page = mmap.mmap(opened.fileno(), SECONDS.size)
    return lambda: int(SECONDS.unpack_from(page)[0])


def _set(seconds: Callable[[], int]) -> None:
    true_seconds, true_nanoseconds = time.time, time.time_ns

    class Kind(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, RightDatetime)

        def __subclasscheck__(cls, subclass: type) -> bool:
            return issubclass(subclass, RightDatetime)

    class Shifted(RightDatetime, metaclass=Kind):
        """Makes plain datetimes; only `now` is another one."""

        __slots__ = ()

        def __new__(cls, *given: Any, **named: Any) -> Any:
            return RightDatetime(*given, **named)

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return RightDatetime.now(tz) + datetime.timedelta(seconds=seconds())

    time.time = lambda: true_seconds() + seconds()
    time.time_ns = lambda: true_nanoseconds() + seconds() * 1_000_000_000
    datetime.datetime = Shifted  # type: ignore[misc]


if (found := _shift()) is not None:
    _set(found)

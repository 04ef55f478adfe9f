"""Room that is kept for the day when the disk is full: what has to be stored then is that it is full."""

import contextlib
import os
from pathlib import Path

BYTES = 512 * 1024  # a pause takes some 50 kB of SQLite's log; what else is going on takes its part too
LEFT_TO_OTHERS = 4 * BYTES  # keeping it must not be what fills the disk


class Reserve:
    """A file beside the database, of bytes that no file system compresses, on the same disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self) -> None:
        """Makes it if there is none, and room for it."""
        if self._is_whole():
            return
        disk = os.statvfs(self._path.parent)
        if disk.f_bavail * disk.f_frsize < BYTES + LEFT_TO_OTHERS:
            return
        try:
            self._path.write_bytes(os.urandom(BYTES))
        except OSError:
            self.give_up()

    def _is_whole(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return self._path.stat().st_size == BYTES
        return False

    def give_up(self) -> bool:
        """Gives the room to whoever takes it first; False if there is none to give."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

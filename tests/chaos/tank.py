"""A disk that can be full: a small file system in memory, for whoever may mount one (root)."""

import contextlib
import os
import subprocess
import time
from pathlib import Path

_ROOMY = "4g"
_TRIES = 100


class Tank:
    """A mounted tmpfs. It takes memory for what is stored in it only."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self._mount("-t", "tmpfs", "-o", f"size={_ROOMY}", "tmpfs")

    @staticmethod
    def is_to_be_had(directory: Path) -> bool:
        """Whether this process may mount one."""
        tried = directory / f"tank-{os.getpid()}-{time.monotonic_ns()}"
        try:
            Tank(tried).close()
        except (subprocess.CalledProcessError, FileNotFoundError):
            tried.rmdir()
            return False
        return True

    def fill(self, room: int) -> None:
        """Leaves room for so many bytes and no more."""
        for _ in range(_TRIES):  # what is written meanwhile may be more than that
            with contextlib.suppress(subprocess.CalledProcessError):
                self._mount("-o", f"remount,size={_used(self.directory) + room}")
                return
        raise RuntimeError(f"{self.directory} fills faster than it can be measured")

    def empty(self) -> None:
        """There is plenty of room again."""
        self._mount("-o", f"remount,size={_ROOMY}")

    def close(self) -> None:
        """Unmounts it; what it held is gone."""
        subprocess.run(["umount", "--lazy", self.directory], check=True)
        self.directory.rmdir()

    def _mount(self, *arguments: str) -> None:
        subprocess.run(["mount", *arguments, self.directory], check=True, capture_output=True)


def _used(directory: Path) -> int:
    found = os.statvfs(directory)
    return (found.f_blocks - found.f_bfree) * found.f_frsize

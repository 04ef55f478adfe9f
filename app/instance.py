"""What one running instance holds alone: its data directory and its port."""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.exits import ExitCode, Stop

# After SIGKILL the old instance's processes let go of the port within milliseconds.
SECONDS_FOR_PREDECESSOR = 1.0
BACKLOG = 2048


def make(data_dir: Path) -> None:
    """Makes the data directory, open to nobody else. Raises `Stop` when it cannot be made or written."""
    with _usable(data_dir):
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(_lock_file(data_dir))


def claim(data_dir: Path) -> int:
    """Makes the data directory and holds it until this process ends; returns the lock's file descriptor.

    Raises `Stop` when it cannot be written or when another instance runs in it.
    """
    make(data_dir)
    lock = _lock_file(data_dir)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 20).decode() or "unknown"
        os.close(lock)
        raise Stop(
            ExitCode.DATA_DIR_IN_USE,
            f"The data directory {data_dir.absolute()} is in use by another Carillon (process {holder}). "
            "Stop that one, or give this one its own: CARILLON_DATA_DIR=./another CARILLON_PORT=8001",
        ) from None
    with _usable(data_dir):
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


def _lock_file(data_dir: Path) -> int:
    return os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@contextmanager
def _usable(data_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Stop(
            ExitCode.DATA_DIR_UNUSABLE,
            f"The data directory {data_dir.absolute()} cannot be used: {error.strerror}. "
            "Set CARILLON_DATA_DIR to a directory that you may write.",
        ) from error


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `Stop` when the port is taken or the address is not this machine's."""
    deadline = time.monotonic() + SECONDS_FOR_PREDECESSOR
    while True:
        try:
            family, _, _, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            return knowing_its_protocol(socket.create_server(address[:2], family=family, backlog=BACKLOG))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise Stop(ExitCode.PORT_BUSY, _why(host, port, error)) from error
            time.sleep(0.05)


def knowing_its_protocol(listening: socket.socket) -> socket.socket:
    """The same socket, asked for its protocol. `create_server` leaves that open, and asyncio lets only TCP
    that is called so send at once: an answer's second half waited 40 ms for the peer to confirm the first."""
    return socket.socket(fileno=listening.detach())


def _why(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} on {host} is in use by another program. "
            f"Stop it, or choose another port: CARILLON_PORT={port % 65535 + 1}"
        )
    if error.errno == errno.EACCES:
        return f"Port {port} is open to the administrator only. Choose one from 1024: CARILLON_PORT=8000"
    return f"Cannot listen on {host}, port {port}: {error.strerror}. Check CARILLON_HOST and CARILLON_PORT."

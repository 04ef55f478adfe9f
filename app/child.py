"""A child process of `carillon run`: `python -m app.child ROLE`.

It loads its program while the others load theirs, and begins when the supervisor says so: one byte on
stdin, once the database is migrated and the queue serves. The end of stdin means that the supervisor is
gone, however it went; then so is the child.
"""

import gc
import os
import signal
import sys
import threading
import time
from importlib import import_module
from typing import Any

# Looked up by name: nothing in `app` imports `workers`.
PROGRAMS = {
    "api": "app.server",
    "worker": "workers.main",
    "deliverer": "workers.webhooks",
    "demo": "app.demo.show",
}
GO = b"g"
LISTEN_FD = "CARILLON_LISTEN_FD"  # the API's listening socket, opened by the supervisor
PREPARED_FD = "CARILLON_PREPARED_FD"  # where whoever prepares the database says that it is done
HEARTBEAT_FILE = "CARILLON_HEARTBEAT_FILE"  # a worker or deliverer that lives touches it every second
NAME = "CARILLON_PROCESS"  # the name of this process in logs and health
SECONDS_TO_END = 3.0
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """The process: its only argument is its role."""
    _end_with_parent()
    role = sys.argv[1]
    program = load(role)
    if prepared := os.environ.pop(PREPARED_FD, None):
        _prepare(int(prepared))
    if os.read(sys.stdin.fileno(), 1) != GO:
        return
    threading.Thread(target=_watch_parent, name="parent", daemon=True).start()
    program.main()


def load(role: str) -> Any:
    """The module of a role, ready to run with its `main()`; logs are configured. Ends the process with a
    sentence if a setting is wrong."""
    from app import logs, settings
    from app.exits import explained

    with explained():
        logs.configure(settings.load(), process=os.environ.get(NAME, role))
    gc.disable()  # loading makes a lot and throws nothing away: a tenth faster without
    program = import_module(PROGRAMS[role])
    gc.freeze()
    gc.enable()
    return program


def _prepare(done: int) -> None:
    """Prepares the database for all, in a process that has loaded what it takes anyway. Writes a line to
    `done`: the secret of a new admin key, or nothing."""
    from app.exits import explained
    from app.prepare import prepare
    from app.settings import load as load_settings

    with explained():
        secret = prepare(load_settings())
    with os.fdopen(done, "w") as told:
        told.write(f"{secret or ''}\n")


def _end_with_parent() -> None:
    """Linux kills this process when its parent dies. Nothing is lost: every promise is in the database."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _watch_parent() -> None:
    """The same for every system: waits for the end of stdin."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SECONDS_TO_END)
    os._exit(1)


if __name__ == "__main__":
    main()

"""Where the demo lives: a data directory and an admin key of its own, so that it can be repeated."""

import os
from pathlib import Path

DATA_DIR = "carillon-demo"


def choose() -> None:
    """Sets what nobody has set: the data directory, a key that stays the same, and calm logs.

    Raises `Stop` when the directory cannot be used.
    """
    _default("CARILLON_DATA_DIR", DATA_DIR)
    _default("CARILLON_LOG_LEVEL", "warning")
    if not os.environ.get("CARILLON_ADMIN_KEY"):
        os.environ["CARILLON_ADMIN_KEY"] = _kept_key(Path(os.environ["CARILLON_DATA_DIR"]))


def _default(name: str, value: str) -> None:
    if not os.environ.get(name):
        os.environ[name] = value


def _kept_key(data_dir: Path) -> str:
    from app import instance
    from app.keys.secrets import new_secret

    instance.make(data_dir)
    file = data_dir / "admin-key"
    if not file.exists():
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as kept:
            kept.write(new_secret())
    return file.read_text()

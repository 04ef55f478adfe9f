"""The clocks of an instance's workers, set while they run. `clock/sitecustomize.py` does so inside."""

from pathlib import Path

from tests.chaos.clock.sitecustomize import SECONDS


class Clocks:
    """A file for the clock of each worker. `environment` goes to the instance."""

    def __init__(self, directory: Path, workers: int) -> None:
        self._directory = directory
        self.names = [f"worker-{number}" for number in range(1, workers + 1)]
        directory.mkdir()
        for name in self.names:
            (directory / name).write_bytes(SECONDS.pack(0))
        self.environment = {
            "CHAOS_CLOCKS": str(directory),
            "PYTHONPATH": str(Path(__file__).with_name("clock")),
        }

    def set(self, name: str, seconds: int) -> None:
        """Puts the clock of this worker so many seconds ahead of the machine's (0: right)."""
        with (self._directory / name).open("r+b") as opened:
            opened.write(SECONDS.pack(seconds))

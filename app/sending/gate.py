"""Who may have a batch in hand beside others of the same process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Gate:
    """Any number pass together, or one alone; who waits to be alone keeps newcomers out."""

    def __init__(self) -> None:
        self._inside = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self._entry = asyncio.Lock()

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """Passes beside others, once nobody is alone or waits to be."""
        async with self._entry:
            self._inside += 1
            self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if self._inside == 0:
                self._empty.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Passes once all others have left, and keeps them out. Whoever is inside must not ask for it."""
        async with self._entry:
            await self._empty.wait()
            yield

"""The hooks of one process: listening and answering, from start to stop. Nothing is imported or listens unless it is set."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from bot.alerts.kills import KillRule
    from bot.hooks.asker import Asker
    from bot.hooks.server import Server
    from bot.parts import App

log = structlog.get_logger(__name__)

AGAIN_S = 30.0  # between two tries to listen
DRAIN_S = 5.0


class Hooks:
    """Starts and stops with the process."""

    def __init__(self, app: App, rule: KillRule) -> None:
        """Nothing listens before `start`. `rule` keeps what is found."""
        self._app = app
        self._rule = rule
        self._tasks: list[asyncio.Task[None]] = []
        self._server: Server | None = None
        self._asker: Asker | None = None

    @property
    def port(self) -> int:
        """The port that it listens on; 0 while it does not."""
        return self._server.port if self._server is not None else 0

    async def start(self) -> None:
        """Go on with what was asked before, and listen. An address that is taken is tried again: alerts matter more."""
        settings = self._app.settings.hooks
        if settings is None:
            return
        from bot.hooks import sources
        from bot.hooks.asker import Asker
        from bot.hooks.server import Server

        app, found = self._app, sources(settings)
        self._asker = Asker(app, found, self._rule)
        self._server = Server(found, self._asker.take, app.clock)
        self._tasks = [asyncio.create_task(self._asker.run(), name="hooks")]
        if not await self._open(settings.address):
            self._tasks.append(asyncio.create_task(self._keep_trying(settings.address), name="hooks: listen"))

    def wake(self) -> None:
        """Something is due: look at once."""
        if self._asker is not None:
            self._asker.wake()

    async def stop(self) -> None:
        """Stop listening, let what has begun come to its end."""
        if self._server is not None:
            await self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._asker is not None:
            await self._asker.drain(DRAIN_S)

    async def _open(self, address: tuple[str, int]) -> bool:
        assert self._server is not None  # noqa: S101 - for the type checker: `start` made it
        try:
            await self._server.open(address)
        except OSError as trouble:
            log.error("hooks cannot listen", host=address[0], port=address[1], why=trouble.strerror)  # noqa: TRY400 - no fault of ours
            return False
        log.info("hooks listen", host=address[0], port=self.port)
        return True

    async def _keep_trying(self, address: tuple[str, int]) -> None:
        while True:
            await asyncio.sleep(AGAIN_S)
            if await self._open(address):
                return

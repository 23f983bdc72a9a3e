"""The models of a server by name; they are loaded, reloaded and unloaded while it serves."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xclip_runtime.errors import ModelLoadError, UnknownModelError, XClipError
from xclip_runtime.serve.served_model import Opened, ServedModel

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Mapping

    from xclip_runtime.serve.metrics import Metrics

logger = logging.getLogger(__name__)

Opener = Callable[[], Opened]
"""Opens a bundle, anew at each call."""


@dataclass(frozen=True)
class ModelState:
    """State of a model by its name."""

    name: str
    ready: bool
    reason: str
    """Cause of not being ready, or of a reload that failed; otherwise empty."""


class Registry:
    """The models of a server. Constructed on any thread, used on one event loop.

    Args:
        openers: Opens the bundle of each name; the first is the default.
        serve: Makes an opened bundle a served model.
        metrics: Metrics of the server.

    Raises:
        XClipError: A bundle cannot be opened.
    """

    def __init__(
        self, openers: Mapping[str, Opener], serve: Callable[[str, Opened], ServedModel], metrics: Metrics
    ) -> None:
        self._openers = openers
        self._serve = serve
        self._metrics = metrics
        self._models = {name: serve(name, opener()) for name, opener in openers.items()}
        self._reasons = dict.fromkeys(openers, "")
        self._changing = asyncio.Lock()
        self._waiting_loads: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        for served in self._models.values():
            metrics.describe(served.name, served.model)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all models, loaded or not; the default first."""
        return tuple(self._openers)

    @property
    def default(self) -> ServedModel:
        """The default model.

        Raises:
            UnknownModelError: It has been unloaded.
        """
        return self.get()

    @property
    def providers(self) -> dict[str, str]:
        """Fields of a log entry: the execution provider, of each model if there are several."""
        several = len(self._models) > 1
        return {
            f"provider_{name}" if several else "provider": served.model.provider
            for name, served in self._models.items()
        }

    @property
    def waiting(self) -> int:
        """Number of clips that wait for a model."""
        return sum(served.batcher.waiting for served in self._models.values())

    @property
    def states(self) -> list[ModelState]:
        """States of all models."""
        return [
            ModelState(name, name in self._models and self._models[name].ready, reason)
            for name, reason in self._reasons.items()
        ]

    def get(self, name: str | None = None) -> ServedModel:
        """Return a loaded model, None for the default; use `use` to run it.

        Raises:
            UnknownModelError: There is no such model, or it is not loaded.
        """
        name = self.names[0] if name is None else name
        if name not in self._models:
            known = "is not loaded" if name in self._openers else "does not exist"
            message = f"model {name} {known}: use {', '.join(self._models) or 'none; load one first'}"
            raise UnknownModelError(message)
        return self._models[name]

    @contextmanager
    def use(self, name: str | None = None) -> Iterator[ServedModel]:
        """Hold a loaded model, None for the default: it stays open for the block, also if it is reloaded meanwhile.

        Raises:
            UnknownModelError: There is no such model, or it is not loaded.
        """
        with self.get(name).used() as served:
            yield served

    async def start(self) -> None:
        """Warm up and self-test all models.

        Raises:
            DeviceError: A self-test fails.
        """
        for served in self._models.values():
            await served.start()

    async def close(self) -> None:
        """Close all models; no request may be in flight."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for served in self._models.values():
            await served.close()

    async def load(self, name: str) -> None:
        """Load a model, or reload a loaded one, from its bundle's folder.

        The new model takes over once it is warm and has passed its self-test; the old one answers the requests that
        have begun with it and is closed after the last. If loading fails, the old one goes on.

        Raises:
            UnknownModelError: The server has no bundle of that name.
            ModelLoadError: The bundle cannot be opened, or its self-test fails.
        """
        self._check(name)
        # However many ask, one load runs and one waits to see the newest files.
        if name not in self._waiting_loads:
            self._waiting_loads[name] = self._start(self._load(name))
        await asyncio.shield(self._waiting_loads[name])

    async def _load(self, name: str) -> None:
        async with self._changing:
            del self._waiting_loads[name]
            try:
                served = self._serve(name, await asyncio.to_thread(self._openers[name]))
                await served.start()
            except XClipError as error:
                self._reasons[name] = str(error)
                message = f"model {name} cannot be loaded: {error}"
                raise ModelLoadError(message) from error
            old = self._models.get(name)
            self._models[name] = served
            self._reasons[name] = ""
            self._metrics.describe(name, served.model)
        logger.info("model loaded", extra={"fields": {"model": name, "provider": served.model.provider}})
        if old is not None:
            self._drain(old)

    async def unload(self, name: str) -> None:
        """Unload a model; it answers the requests that have begun with it and is closed after the last.

        Raises:
            UnknownModelError: The server has no bundle of that name.
        """
        self._check(name)
        async with self._changing:
            old = self._models.pop(name, None)
            self._reasons[name] = "unloaded"
            self._metrics.forget(name)
        if old is not None:
            logger.info("model unloaded", extra={"fields": {"model": name}})
            self._drain(old)

    async def reload(self) -> None:
        """Reload all loaded models, one after the other, without dropping a request: for SIGHUP.

        Await it on the event loop of the server. A model that cannot be loaded is logged as an error and goes on as
        it was; nothing is raised. Models that have been unloaded stay so. Live connections keep the model with which
        they began, kept videos are dropped.
        """
        for name in list(self._models):
            try:
                await self.load(name)
            except ModelLoadError as error:
                logger.error("reload failed", extra={"fields": {"model": name, "error": str(error)}})

    def _check(self, name: str) -> None:
        if name not in self._openers:
            message = f"no bundle {name}: use {', '.join(self._openers)}"
            raise UnknownModelError(message)

    def _drain(self, old: ServedModel) -> None:
        self._start(_drain(old))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # The clients who asked may have left, with nobody to take it.
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return task


async def _drain(old: ServedModel) -> None:
    await old.drain()
    del old
    await asyncio.to_thread(_release_memory)


def _release_memory() -> None:
    # Sessions are in reference cycles, which might otherwise stay for several reloads, and glibc keeps what they free.
    gc.collect()
    with suppress(AttributeError, OSError, TypeError):  # Other systems have no malloc_trim.
        ctypes.CDLL(None).malloc_trim(0)

"""A thread that does whatever waits for it in one go: one commit for many, and none lost.

What somebody waits for fails at once when it cannot be done. What was only queued is kept for
another try while nothing can be written, in its order, and reported by `flush` and `stop` until
then. Of what is refused for good, only the one at fault fails.
"""

import asyncio
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, NamedTuple, TypeVar

from r2reasoner.errors import DataError, LedgerError

T = TypeVar("T")

KEPT: Final = 10_000
"""Most queued operations kept for another try while nothing can be written."""


class _Waiter(NamedTuple):
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"


class _Wish(NamedTuple):
    """Something to be done, or (`is_flush`) only to be told how things stand."""

    item: Any
    waiter: _Waiter | None = None
    is_flush: bool = False


class _Answer(NamedTuple):
    waiter: _Waiter
    result: Any
    trouble: str | None = None


class Batches(Generic[T]):
    """The thread, started by the first operation. It must not be used after a fork.

    `do` does a list of operations and returns their results in order; an empty list comes every
    `idle_s` seconds without work. It raises DataError when one of them is at fault, LedgerError
    when none can be done now. `end` is called in the thread when all is done. `what` names it all
    in errors, `unit` what is queued.
    """

    def __init__(
        self,
        do: Callable[[list[T]], Sequence[Any]],
        end: Callable[[], None],
        *,
        name: str,
        what: str,
        unit: str,
        most: int,
        idle_s: float,
    ) -> None:
        self._do = do
        self._end = end
        self._name = name
        self._what = what
        self._unit = unit
        self._most = most
        self._idle_s = idle_s
        self._queue: SimpleQueue[_Wish | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._kept: list[_Wish] = []
        self._lost = 0
        self._trouble = ""
        self._trouble_at_end: str | None = None

    @property
    def waiting(self) -> int:
        """How many operations are queued, or kept for another try."""
        return self._queue.qsize() + len(self._kept)

    def put(self, item: T) -> None:
        """Queue one operation. Raises LedgerError if nobody would ever take it."""
        self._put(_Wish(item))

    async def ask(self, item: T) -> Any:
        """Queue one operation, wait until it is done, return its result. Raises LedgerError."""
        return await self._wait(item)

    async def flush(self) -> None:
        """Return when everything queued before is done. Raises LedgerError if it is not."""
        await self._wait(None, is_flush=True)

    def stop(self) -> None:
        """Do what is queued and end the thread. Raises LedgerError for what could not be done."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._closed = True
            self._queue.put(None)
        # Garbage collection may run this in the thread itself, which then ends on its own.
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join()
        if trouble := self._undone() or self._trouble_at_end:
            raise LedgerError(trouble)

    async def _wait(self, item: T | None, *, is_flush: bool = False) -> Any:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._put(_Wish(item, _Waiter(loop, future), is_flush=is_flush))
        return await future

    def _put(self, wish: _Wish) -> None:
        if os.getpid() != self._pid:
            raise LedgerError(f"{self._what} was opened before a fork; open one in the child")
        with self._lock:
            if self._closed:
                raise LedgerError(f"{self._what} is closed")
            if self._thread is None:
                # A daemon: another would keep the interpreter from ever reaching its exit hooks.
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._queue.put(wish)

    # --- in the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        last = False
        while not last:
            found = self._gather()
            last = None in found
            wishes = [wish for wish in found if wish is not None]
            kept, self._kept = self._kept, []
            answers = self._try(kept + [wish for wish in wishes if not wish.is_flush])
            _tell(answers + self._report(wishes))
        try:
            self._end()
        except LedgerError as error:
            self._trouble_at_end = str(error)

    def _gather(self) -> list[_Wish | None]:
        """Return all that waits, or nothing after `idle_s`."""
        try:
            found = [self._queue.get(timeout=self._idle_s)]
        except Empty:
            return []
        with suppress(Empty):
            while len(found) < self._most:
                found.append(self._queue.get_nowait())
        return found

    def _try(self, wishes: list[_Wish]) -> list[_Answer]:
        """Do all in one go; where something is refused, in halves, until only it fails."""
        try:
            results = self._do([wish.item for wish in wishes])
        except DataError as error:
            if len(wishes) > 1:
                half = len(wishes) // 2
                return self._try(wishes[:half]) + self._try(wishes[half:])
            return self._fail(wishes, str(error), keep=False)
        except LedgerError as error:
            return self._fail(wishes, str(error), keep=True)
        return [
            _Answer(wish.waiter, result)
            for wish, result in zip(wishes, results, strict=True)
            if wish.waiter
        ]

    def _fail(self, wishes: list[_Wish], trouble: str, *, keep: bool) -> list[_Answer]:
        queued = [wish for wish in wishes if not wish.waiter]
        room = max(KEPT - len(self._kept), 0) if keep else 0
        self._kept += queued[:room]
        self._lost += len(queued[room:])
        if queued:
            self._trouble = trouble
        return [_Answer(wish.waiter, None, trouble) for wish in wishes if wish.waiter]

    def _report(self, wishes: list[_Wish]) -> list[_Answer]:
        """Answer those who flush with what could not be done; what is lost, only once."""
        waiters = [wish.waiter for wish in wishes if wish.is_flush and wish.waiter]
        if not waiters:
            return []
        trouble = self._undone()
        self._lost = 0
        return [_Answer(waiter, None, trouble) for waiter in waiters]

    def _undone(self) -> str | None:
        missing = len(self._kept) + self._lost
        return f"{missing} {self._unit} not recorded: {self._trouble}" if missing else None


def _tell(answers: list[_Answer]) -> None:
    """Wake the tasks that wait, with one call into each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Answer]] = defaultdict(list)
    for answer in answers:
        by_loop[answer.waiter.loop].append(answer)
    for loop, its_answers in by_loop.items():
        # A loop that was closed meanwhile has nobody left to tell.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_wake, its_answers)


def _wake(answers: list[_Answer]) -> None:
    for (_, future), result, trouble in answers:
        if future.done():
            continue
        if trouble is None:
            future.set_result(result)
        else:
            future.set_exception(LedgerError(trouble))

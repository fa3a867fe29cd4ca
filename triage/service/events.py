"""Server-sent events (WHATWG HTML, 9.2): what happens to the studies, as it happens.

One task a process looks at the database and compares: so events of further workers arrive as well,
and none is lost with a process that wrote without telling. The newest events are kept; a reader
pulls them at its own pace by number, so a slow reader costs no memory, and one that was away goes
on after its Last-Event-ID. Where the events in between are gone, it is told to load the list again
(`reset`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool

log = logging.getLogger(__name__)
HEARTBEAT_S = 15.0  # proxies and browsers end a connection that says nothing
POLL_S = 0.4
KEPT = 2000  # events
READERS = 200  # open streams at once
State = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """`kind`: received, progress, flagged, updated or deleted; `number` counts up."""

    number: int
    kind: str
    data: State


def compare(before: State | None, after: State) -> str | None:
    """The kind of event that leads from one state of a study to the next; None if nothing did."""
    if after["flagged_at"] and not (before and before["flagged_at"]):
        return "flagged"
    if before is None:
        return "received" if after["status"] == "received" else "updated"
    steps = {"stage", "fraction", "instances", "series", "last_image_at"}
    changed = {name for name in after if after[name] != before.get(name)}
    if changed - steps:
        return "updated"
    return "progress" if changed else None


class Hub:
    """Looks for changes and wakes the readers.

    `look()`: the states of all studies that may have changed lately; runs in a thread and may fail
    while the database is away. A state holds at least `id`, `flagged_at`, `stage`, `fraction`.
    """

    def __init__(
        self,
        look: Callable[[], Sequence[State]],
        poll_s: float = POLL_S,
        heartbeat_s: float = HEARTBEAT_S,
        kept: int = KEPT,
    ) -> None:
        self._look, self._poll_s, self._heartbeat_s = look, poll_s, heartbeat_s
        self._boot = secrets.token_hex(4)  # numbers of another run mean nothing here
        self._number = 0
        self._events: deque[Event] = deque(maxlen=kept)
        self._states: dict[str, State] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.readers = 0
        self.closed = False

    async def start(self) -> None:
        """Take what there is as known, then watch."""
        try:
            self._states = {s["id"]: s for s in await run_in_threadpool(self._look)}
        except Exception as error:
            log.warning("events: the database cannot be read: %s", type(error).__name__)
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._watch(), name="triage-events")

    async def stop(self) -> None:
        """End the readers and the watching task."""
        self.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def close(self) -> None:
        """Let every reader end at once: a server that stops waits for its connections."""
        self.closed = True
        self._wake()

    def publish(self, kind: str, data: State) -> None:
        """One event more; called in the event loop."""
        self._number += 1
        self._events.append(Event(self._number, kind, data))
        self._wake()

    def publish_soon(self, kind: str, data: State) -> None:
        """`publish` from any thread. RuntimeError where no loop runs."""
        if self._loop is None:
            raise RuntimeError("The hub was not started")
        self._loop.call_soon_threadsafe(self.publish, kind, data)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                states = await run_in_threadpool(self._look)
            except Exception as error:  # the database may come back
                log.warning("events: the database cannot be read: %s", type(error).__name__)
                continue
            self.take(states)

    def take(self, states: Sequence[State]) -> None:
        """Compare with what was known, and publish the differences."""
        for state in states:
            kind = compare(self._states.get(state["id"]), state)
            if kind is not None:
                self._states.pop(state["id"], None)  # the newest stand at the end
                self._states[state["id"]] = state
                self.publish(kind, state)
        current = {state["id"] for state in states}
        for study in list(self._states)[: max(0, len(self._states) - KEPT)]:
            if study not in current:
                del self._states[study]

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def stream(
        self, last_event_id: str | None, seconds: float | None = None
    ) -> AsyncIterator[bytes]:
        """The wire format of all events after that one (None: from now on); without end, or about
        so many seconds."""
        end = None if seconds is None else time.monotonic() + seconds
        self.readers += 1
        try:
            at, gap = self._position(last_event_id)
            yield b"retry: 2000\n" + self._wire(at, "reset" if gap else "hello", {})
            while not self.closed and (end is None or time.monotonic() < end):
                changed = self._changed
                if self._events and at < self._events[0].number - 1:
                    at = self._number
                    yield self._wire(at, "reset", {})
                for event in [e for e in self._events if e.number > at][:100]:
                    yield self._wire(event.number, event.kind, event.data)
                    at = event.number
                if at < self._number:
                    continue
                left = self._heartbeat_s if end is None else max(0.0, end - time.monotonic())
                try:
                    await asyncio.wait_for(changed.wait(), min(self._heartbeat_s, left))
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            self.readers -= 1

    def _position(self, last_event_id: str | None) -> tuple[int, bool]:
        """Number to go on after, and whether events in between are lost."""
        if last_event_id is None:
            return self._number, False
        boot, _, number = last_event_id.partition("-")
        known = boot == self._boot and number.isdigit() and len(number) < 19
        if not known or int(number) > self._number:
            return self._number, True
        return int(number), False

    def _wire(self, number: int, kind: str, data: State) -> bytes:
        """The lines of one event; JSON in ASCII holds no line break that could end it early."""
        text = json.dumps(data, ensure_ascii=True)
        return f"id: {self._boot}-{number}\nevent: {kind}\ndata: {text}\n\n".encode("ascii")

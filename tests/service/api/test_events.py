"""Server-sent events: order, resumption, slow readers, the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from asking import finished, send
from fastapi.testclient import TestClient

from triage.service.events import Hub, compare
from triage.service.service import Service

State = dict[str, Any]


def state(number: int, **changes: Any) -> State:
    base = {
        "id": str(number),
        "status": "received",
        "flagged_at": None,
        "stage": "",
        "fraction": 0.0,
        "instances": 1,
    }
    return base | changes


class Reader:
    """Pulls single events out of a stream."""

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self.stream = stream
        self.last = ""

    async def next(self) -> tuple[str, State]:
        while True:
            text = (await asyncio.wait_for(anext(self.stream), 5)).decode()
            fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
            if "event" in fields:
                self.last = fields["id"]
                return fields["event"], json.loads(fields["data"])


def test_kinds_of_changes() -> None:
    before = state(1)
    assert compare(None, before) == "received"
    assert compare(before, before) is None
    assert compare(before, state(1, fraction=0.5)) == "progress"
    assert compare(before, state(1, status="analysed")) == "updated"
    assert compare(before, state(1, status="analysed", flagged_at="now")) == "flagged"
    assert compare(None, state(1, flagged_at="now")) == "flagged"


def test_a_reader_gets_events_in_order_and_goes_on_after_the_last_one() -> None:
    async def story() -> None:
        hub = Hub(lambda: [])
        reader = Reader(hub.stream(None))
        assert (await reader.next())[0] == "hello"
        hub.take([state(1)])
        hub.take([state(1, fraction=0.5), state(2)])
        assert [(await reader.next())[0] for _ in range(3)] == ["received", "progress", "received"]
        hub.take([state(2, flagged_at="now")])
        again = Reader(hub.stream(reader.last))
        assert (await again.next())[0] == "hello"
        kind, data = await again.next()
        assert (kind, data["id"]) == ("flagged", "2")

    asyncio.run(story())


def test_who_was_away_too_long_or_met_another_run_is_told_to_reload() -> None:
    async def story() -> None:
        hub = Hub(lambda: [], kept=10)
        reader = Reader(hub.stream(None))
        await reader.next()
        first = reader.last
        for number in range(50):
            hub.take([state(number)])
        assert (await reader.next())[0] == "reset"  # a slow reader: only ten events are kept
        assert len(hub._events) == 10
        assert [k for k, _ in [await Reader(hub.stream("other-3")).next()]] == ["reset"]
        assert [k for k, _ in [await Reader(hub.stream("x" * 64)).next()]] == ["reset"]
        late = Reader(hub.stream(first))
        assert [(await late.next())[0] for _ in range(2)] == ["hello", "reset"]

    asyncio.run(story())


def test_heartbeats_and_the_end() -> None:
    async def story() -> None:
        hub = Hub(lambda: [], heartbeat_s=0.01)
        stream = hub.stream(None)
        await anext(stream)
        assert (await anext(stream)).startswith(b":")
        hub.close()
        assert [part async for part in stream] == []
        assert hub.readers == 0

    asyncio.run(story())


def test_a_line_break_in_a_value_does_not_end_an_event() -> None:
    async def story() -> None:
        hub = Hub(lambda: [])
        reader = Reader(hub.stream(None))
        await reader.next()
        hub.take([state(1, reason="a\n\nevent: flagged\ndata: {}")])
        assert (await reader.next())[0] == "received"

    asyncio.run(story())


def test_the_service_tells_what_happens(client: TestClient, service: Service) -> None:
    """From an upload to the flag, as the hub of the running service saw it."""
    uid = send(client, "suspected")
    finished(client, uid)
    for _ in range(100):
        seen = [e.kind for e in service.hub._events if e.data.get("study_instance_uid") == uid]
        if "flagged" in seen:
            break
        asyncio.run(asyncio.sleep(0.05))
    assert seen[0] == "received" and "flagged" in seen

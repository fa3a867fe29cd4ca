"""What a person sees in the browser: rows, chips, pixels, and whether axe-core objects."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

AXE = Path(__file__).with_name("assets") / "axe.min.js"
RUN = """axe.run(document, {
  resultTypes: ['violations'],
  runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
}).then(done => done.violations.map(v => [v.impact, v.id, v.nodes.slice(0, 3).map(
  node => node.target.join(' ') + ' ' + node.failureSummary).join(' | ')]))"""
SOON_MS = 60_000  # a machine may be busy
# Nobody is logged in any more: no fault of the page.
ANSWERS = ("401",)
# Nor is a search that the next one replaces (hx-sync); a failed one says sendError beside it.
REPLACED = ("htmx:sendAbort", "htmx:afterRequest")
# What a browser and htmx say where a test ends the service under them: at which step of a
# connection that strikes is chance. Elsewhere each of these is a fault.
DOWN = (
    "ERR_CONNECTION_REFUSED",
    "ERR_CONNECTION_RESET",
    "ERR_CONNECTION_CLOSED",
    "ERR_SOCKET_NOT_CONNECTED",
    "ERR_EMPTY_RESPONSE",
    "ERR_INCOMPLETE_CHUNKED",
    "htmx:sendError",
    "503",  # not ready yet, when it comes back
)


class Faults(list[str]):
    """Errors on the console and in scripts; a blocked inline script or style is one."""

    def __init__(self, expected: tuple[str, ...]) -> None:
        super().__init__()
        self.expected = expected

    def listen(self, page: Any) -> None:
        page.on("console", lambda m: self._take(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self._take(str(error)))
        page.on("dialog", lambda dialog: (self.append("a dialog"), dialog.dismiss()))

    def _take(self, text: str) -> None:
        if not any(known in text for known in self.expected):
            self.append(text)


@contextmanager
def window(
    browser: Any,
    base: str,
    width: int = 1280,
    height: int = 800,
    goes_down: bool = False,
    **wishes: str,
) -> Iterator[Any]:
    """A page of a person of their own; fails where the page had a fault.

    `goes_down`: the test ends the service while the page is open.
    """
    context = browser.new_context(
        viewport={"width": width, "height": height},
        locale="en-GB",
        base_url=base,
        java_script_enabled=wishes.pop("scripts", "on") == "on",
    )
    context.set_default_timeout(SOON_MS)
    context.add_cookies(
        [{"name": f"triage_{k}", "value": v, "url": base} for k, v in wishes.items()]
    )
    page = context.new_page()
    faults = Faults((*ANSWERS, *REPLACED, *(DOWN if goes_down else ())))
    faults.listen(page)
    try:
        yield page
        assert not faults, list(faults)
    finally:
        context.close()


def row(page: Any, text: str) -> Any:
    """The row of the worklist that holds this text."""
    return page.locator("#rows tr.study", has_text=text)


def until(true: Callable[[], Any], seconds: float = SOON_MS / 1000) -> float:
    """Seconds until `true()`; AssertionError after that long."""
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        if true():
            return time.monotonic() - start
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s")


def pixels(element: Any) -> Any:
    """What is seen of an element: (rows, columns, 3) in [0, 255]."""
    with Image.open(io.BytesIO(element.screenshot())) as picture:
        return np.asarray(picture.convert("RGB"), dtype=np.float32)


def objections(page: Any) -> list[str]:
    """Violations that axe-core calls serious or critical."""
    # evaluated, not inserted: the page's policy allows no script but the service's
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate(RUN)
    grave = ("serious", "critical")
    return [f"{rule}: {where}" for impact, rule, where in found if impact in grave]


LOOP_S = 0.1  # of the loop below, on the quiet machine of two cores that the limits are meant for
# `scripts/test` runs two test processes, their services and a browser on the same cores, so a limit
# is stretched there; with TRIAGE_STRICT_TIMES=1, on a quiet machine, it is judged as it stands.
SHARED = 1.0 if os.environ.get("TRIAGE_STRICT_TIMES") else 3.0


def slowness() -> float:
    """What a limit of time is multiplied by, so that it judges the pages and not the neighbours."""
    start, total = time.perf_counter(), 0
    for number in range(1_000_000):
        total += number * number
    return SHARED * max(1.0, (time.perf_counter() - start) / LOOP_S)

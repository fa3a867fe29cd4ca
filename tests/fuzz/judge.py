"""What may come of a damaged input: a reason, or the volume that the good slices give."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from triage.dicom import decode, open_study
from triage.reasons import REASONS, NotAnalysed
from triage.settings import Settings
from triage.types import Stack, Study

CLOSE_MM = 1.0  # slices are 6 mm apart
TRACEBACK = re.compile(r"Traceback \(most recent|File \"/|\.py\", line \d")


class Find(AssertionError):
    """A fault. `kind`: crash, traceback or verdict."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind, self.text = kind, text


@dataclass(frozen=True)
class Control:
    """What the undamaged input gives."""

    stack: Stack

    @classmethod
    def of(cls, source: Path, settings: Settings) -> Control:
        with open_study(source, settings) as study:
            return cls(decode(study.series[0], settings))


def judged(
    source: Path,
    settings: Settings,
    control: Control,
    *,
    touched: int | None = None,
    incomplete: bool = False,
    exact: bool = True,
) -> str:
    """What the gate says of `source`: a reason code, `same`, or `fewer`. Raises Find.

    `touched`: the slice whose pixels were damaged, too; its values are nobody's to check.
    `incomplete`: it is known elsewhere that images are missing. `exact`: voxels must be the
    control's; where nothing protects them, no reader can tell, and only sound values are asked for.
    """
    try:
        with open_study(source, settings) as study:
            stacks = [decode(series, settings) for series in study.series]
    except NotAnalysed as refusal:
        return _code(refusal)
    except Exception as error:
        raise Find("crash", f"{type(error).__name__}: {error}"[:300]) from error
    for stack in stacks:
        _sound(stack)
    if not exact:
        return "read"
    return _compared(study, stacks, control, touched, incomplete)


def _code(refusal: NotAnalysed) -> str:
    if refusal.code not in REASONS or "\n" in refusal.line():
        raise Find("crash", f"no reason: {refusal.line()!r}")
    return refusal.code


def _sound(stack: Stack) -> None:
    if not np.isfinite(stack.hu).all() or not np.isfinite(stack.affine).all():
        raise Find("verdict", "values that are not finite went through")


def _compared(
    study: Study, stacks: list[Stack], control: Control, touched: int | None, incomplete: bool
) -> str:
    (stack,) = stacks if len(stacks) == 1 else (max(stacks, key=lambda s: s.hu.shape[2]),)
    said = " ".join((*study.warnings, *(note for s in stacks for note in s.notes)))
    if len(stacks) > 1 and not said:
        raise Find("verdict", f"{len(stacks)} series of one, and nothing said")
    want = control.stack
    numbers = [_number_of(stack, want, k) for k in range(stack.hu.shape[2])]
    if stack.hu.shape[2] < want.hu.shape[2] and not (said or incomplete):
        raise Find("verdict", f"{stack.hu.shape[2]} of {want.hu.shape[2]} slices, and nothing said")
    for k, number in enumerate(numbers):
        if number is None:
            raise Find("verdict", f"slice {k} lies where no slice was")
        if number != touched and not np.array_equal(stack.hu[:, :, k], want.hu[:, :, number]):
            off = int(np.abs(stack.hu[:, :, k].astype(int) - want.hu[:, :, number]).max())
            raise Find("verdict", f"slice {number} has other HU, by up to {off}")
    return "same" if len(numbers) == want.hu.shape[2] else "fewer, said"


def _number_of(stack: Stack, want: Stack, k: int) -> int | None:
    """Which slice of the control lies at the four corners of slice k of `stack`."""
    if stack.hu.shape[:2] != want.hu.shape[:2]:
        return None
    x, y, depth = want.hu.shape
    corners = np.array([[0, 0], [x - 1, 0], [0, y - 1], [x - 1, y - 1]])
    ours = _places(stack.affine, corners, k)
    for number in range(depth):
        if np.abs(_places(want.affine, corners, number) - ours).max() <= CLOSE_MM:
            return number
    return None


def _places(affine: Any, corners: Any, k: int) -> Any:
    indices = np.column_stack([corners, np.full(4, k), np.ones(4)])
    return (indices @ affine.T)[:, :3]


def answered(text: str, status: int, allowed: tuple[int, ...]) -> str:
    """An HTTP answer: an allowed status, and no traceback in it. Raises Find."""
    if TRACEBACK.search(text):
        raise Find("traceback", text[:300])
    if status not in allowed:
        raise Find("crash", f"HTTP {status}: {text[:200]}")
    return f"HTTP {status}"


class Watchtower(logging.Handler):
    """Notes faults that were caught and logged, and threads that ended by an exception."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("pynetdicom"):
            return  # says so of every PDU that it cannot read, before it ends the association
        if record.exc_info and record.exc_info[0] is not None:
            name, value, _ = record.exc_info
            self.seen.append(
                f"{record.name}: {record.getMessage()}: {name.__name__}: {value}"[:300]
            )

    def _thread(self, arguments: Any) -> None:
        name = getattr(arguments.thread, "name", "a thread")
        self.seen.append(
            f"{name} ended: {arguments.exc_type.__name__}: {arguments.exc_value}"[:300]
        )

    @contextlib.contextmanager
    def watching(self) -> Iterator[Watchtower]:
        root, before = logging.getLogger(), threading.excepthook
        root.addHandler(self)
        threading.excepthook = self._thread
        try:
            yield self
        finally:
            root.removeHandler(self)
            threading.excepthook = before

    def raise_if_any(self) -> None:
        """Raises Find for what was seen since the last time."""
        seen, self.seen = self.seen, []
        if seen:
            raise Find("crash", "; ".join(seen)[:600])

"""Runs an entrance for a number of inputs and counts: `python -m tests.fuzz.run ENTRANCE ...`."""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.fuzz.dimse_entrances import CStore, Pdus
from tests.fuzz.entrances import BundleLoading, Entrance, Header, RunDicom, RunFile, RunZip
from tests.fuzz.judge import Find
from tests.fuzz.warm import Warm
from tests.fuzz.web_entrances import Folder, Requests, Stow, Upload
from triage.dicom import child

ENTRANCES: dict[str, type[Entrance]] = {
    kind.__name__: kind
    for kind in (
        *(RunDicom, RunZip, RunFile, Header, BundleLoading),
        *(CStore, Pdus, Stow, Upload, Folder, Requests),
    )
}
# How 24,000 inputs are shared out: the dearer a way in, the fewer.
SHARES = {
    **{"RunDicom": 3000, "RunZip": 1000, "RunFile": 2000, "Header": 6000, "BundleLoading": 3000},
    **{
        "CStore": 2000,
        "Pdus": 2000,
        "Stow": 2000,
        "Upload": 1000,
        "Folder": 1000,
        "Requests": 1000,
    },
}
CHECK_EVERY = 100


@dataclass
class Tally:
    """What came of the inputs of one entrance."""

    entrance: str
    inputs: int = 0
    crashes: int = 0
    tracebacks: int = 0
    verdicts: int = 0
    seconds: float = 0.0
    peak_mb: int = 0  # resident memory of the process, at most
    answers: dict[str, int] = field(default_factory=dict)
    finds: list[dict[str, str]] = field(default_factory=list)

    def note(self, find: Find, number: int, data: bytes, keep: Path | None) -> None:
        attribute = {"crash": "crashes", "traceback": "tracebacks", "verdict": "verdicts"}[
            find.kind
        ]
        setattr(self, attribute, getattr(self, attribute) + 1)
        file = ""
        if keep is not None and len(self.finds) < 50:
            keep.mkdir(parents=True, exist_ok=True)
            path = keep / f"{self.entrance}-{number}.bin"
            path.write_bytes(data)
            file = path.name
        self.finds.append(
            {"kind": find.kind, "text": find.text, "number": str(number), "file": file}
        )

    @property
    def clean(self) -> bool:
        return not (self.crashes or self.tracebacks or self.verdicts)


@contextmanager
def warm_child() -> Iterator[None]:
    """Readers are forks of a warm process meanwhile."""
    warm, fresh = Warm(), child.run
    child.run = warm.run
    try:
        yield
    finally:
        child.run = fresh
        warm.close()


def fuzz(name: str, numbers: range, seed: int, folder: Path, keep: Path | None = None) -> Tally:
    """Send the inputs of these numbers; input k of a seed is the same however many are sent."""
    tally = Tally(name)
    began = time.monotonic()
    entrance = ENTRANCES[name](folder)
    entrance.open()
    try:
        for number in numbers:
            dice = random.Random(f"{seed} {name} {number}")  # noqa: S311 - damage, no secret
            try:
                said = entrance.send(dice)
                tally.answers[said] = tally.answers.get(said, 0) + 1
                if number % CHECK_EVERY == CHECK_EVERY - 1 or number == numbers[-1]:
                    entrance.check()
            except Find as find:
                tally.note(find, number, entrance.last, keep)
            except Exception as error:  # nothing else may come out of an entrance
                text = f"{type(error).__name__}: {error}"[:300]
                tally.note(Find("crash", text), number, entrance.last, keep)
            tally.inputs += 1
    finally:
        entrance.close()
    tally.seconds = round(time.monotonic() - began, 1)
    tally.peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("entrance", choices=ENTRANCES)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    numbers = range(chosen.first, chosen.first + chosen.count)
    with tempfile.TemporaryDirectory(prefix="triage-fuzz-") as folder, warm_child():
        tally = fuzz(chosen.entrance, numbers, chosen.seed, Path(folder), chosen.keep)
    text = json.dumps(asdict(tally), indent=1)
    if chosen.out:
        chosen.out.write_text(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()

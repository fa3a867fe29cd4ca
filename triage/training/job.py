"""One training: its options, folders and people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from triage.decision.table import CutoffTable
from triage.nets.slice_net import SIZE
from triage.training.cache import Entry
from triage.training.cases import Row
from triage.training.certify import Certified
from triage.training.distributed import ALONE, Ranks
from triage.training.folds import Split
from triage.training.layout import DataSet, Patient
from triage.training.layout_tables import CALIBRATION
from triage.training.sequence import Compared
from triage.types import Target

NETWORKS = ("localiser", "trunk", "volume")  # beside targets, what may be trained
Log = Callable[[str], None]
Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class Options:
    """What decides the result. `networks`: some of `NETWORKS`, trained beside the targets."""

    targets: tuple[Target, ...]
    networks: tuple[str, ...] = ()
    init: str = "reference"
    folds: int = 5
    epochs: int = 12
    size: int = SIZE
    unfrozen: str = "5"
    calibration: float = 0.25  # share of the persons
    add_simulated: int = 0
    seed: int = 0
    steps: Mapping[str, int] = field(default_factory=dict)  # of localiser, trunk, volume


@dataclass
class Job:
    """One training: its options, folders and people."""

    options: Options
    out: Path
    work: Path
    device: str
    log: Log
    tell: Tell
    data: DataSet
    ranks: Ranks = ALONE
    added: tuple[Patient, ...] = ()
    entries: list[Entry] = field(default_factory=list)
    split: Split = field(default_factory=lambda: Split({}, 0))
    left_out: list[str] = field(default_factory=list)

    def inside(self, *, without_fold: int | None = None) -> list[Entry]:
        """Entries that may train: never calibration, never `without_fold`."""
        places = (CALIBRATION, without_fold)
        return [e for e in self.entries if self.split.where[e.person] not in places]


@dataclass(frozen=True)
class Found:
    """Cutoffs and the scores behind them."""

    certified: Certified
    table: CutoffTable
    out_of_fold: list[Row]
    calibration: list[Row]
    refitted: tuple[Target, ...]
    compared: Mapping[Target, Compared] = field(default_factory=dict)  # sequence heads
    curves: tuple[Path, ...] = ()  # of the sequence heads

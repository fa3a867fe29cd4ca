"""Learning curves: one JSON line a record, a picture, and TensorBoard where it is installed."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Record = dict[str, float]


class Curve:
    """The learning curve of one training: `<name>.jsonl` in a folder.

    Records after `start` belong to steps that an interruption undid; they are dropped.
    """

    def __init__(self, folder: Path, name: str, start: int = 0) -> None:
        self.path = folder / f"{name}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        kept = [r for r in read(self.path) if r["step"] <= start] if start else []
        self.path.write_text("".join(json.dumps(r) + "\n" for r in kept))
        self.board: Any = None
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard.writer import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard" / name), purge_step=start + 1)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """One record: loss and its parts, learning rate, validation, at a step."""
        record = {"step": step, **{k: round(float(v), 6) for k, v in values.items()}}
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        if self.board is not None:
            for key, value in values.items():
                self.board.add_scalar(key, value, step)

    def close(self) -> None:
        """Draw the picture beside the records."""
        if self.board is not None:
            self.board.close()
        draw(read(self.path), self.path.with_suffix(".png"), self.path.stem)


def read(path: Path) -> list[Record]:
    """Records of a curve; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def draw(records: Sequence[Record], out: Path, title: str) -> bool:
    """Losses and validation over steps as PNG; False without records."""
    if not records:
        return False
    from matplotlib.figure import Figure  # no pyplot: no window system, no global state

    keys = sorted({k for r in records for k in r} - {"step", "lr", "seconds"})
    validated = [k for k in keys if k.startswith("validation")]
    losses = [k for k in keys if k not in validated]
    groups = [g for g in (losses, validated) if g]
    figure = Figure(figsize=(7, 3 * len(groups)), layout="constrained")
    for i, group in enumerate(groups):
        axes = figure.add_subplot(len(groups), 1, i + 1)
        for key in group:
            points = [(r["step"], r[key]) for r in records if key in r]
            axes.plot(*zip(*points, strict=True), label=key, marker="." if len(points) < 60 else "")
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.suptitle(title)
    figure.savefig(out, dpi=120)
    return True

"""`triage simulate`: virtual trauma patients as DICOM series in the RSNA-2023 layout."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from triage.cli.common import plain, progress_bar
from triage.types import TARGETS


def simulate(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", file_okay=False, help="Folder; made if absent.")
    ],
    patients: Annotated[int, typer.Option("--patients", min=1, help="How many.")] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same patients.")] = 0,
    background: Annotated[
        Path | None,
        typer.Option("--background", exists=True, help="A CT to put the injuries into."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", exists=True, help="Organ labels of that CT, or alone."),
    ] = None,
    injured: Annotated[
        bool | None,
        typer.Option("--injured/--uninjured", help="Only such patients [natural mixture]."),
    ] = None,
) -> None:
    """Make virtual patients: DICOM series, CSV tables and masks of the injuries."""
    from triage.simulate.study import write_dataset

    with progress_bar() as bar:

        def step(done: int, total: int) -> None:
            if bar is not None:
                bar(f"patient {done} of {total}", done / total)

        step(0, patients)
        try:
            rows = write_dataset(
                out,
                patients,
                seed,
                background=background,
                labels=labels,
                injured=injured,
                progress=step,
            )
        except (ValueError, FileExistsError) as error:  # a background or folder that cannot serve
            raise typer.BadParameter(str(error)) from error
    noun = "patient" if len(rows) == 1 else "patients"
    print(f"{len(rows)} simulated {noun} in {plain(out)}; with an injury of:")
    for target, count in injuries(rows).items():
        print(f"  {target:<14} {count}")


def injuries(rows: list[dict[str, Any]]) -> dict[str, int]:
    """How many patients have which injury, from rows with the columns of RSNA's train.csv."""
    count: Counter[str] = Counter()
    for row in rows:
        hurt = [t.value for t in TARGETS if is_injured(row, t.value)]
        count.update(hurt)
        count["none"] += not hurt
    return {name: count[name] for name in (*(t.value for t in TARGETS), "none")}


def is_injured(row: dict[str, Any], target: str) -> bool:
    """Columns are `<target>_injury` for bowel and extravasation, else `_low` and `_high`."""
    columns = [f"{target}_{suffix}" for suffix in ("injury", "low", "high")]
    present = [int(row[column]) for column in columns if column in row]
    if not present:
        raise KeyError(f"Expected one of the columns {', '.join(columns)}, got {', '.join(row)}")
    return any(present)

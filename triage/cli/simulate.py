"""`triage simulate`: virtual trauma patients as DICOM series in the RSNA-2023 layout."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from triage.cli.common import plain, progress_bar, target_shares
from triage.types import TARGETS


class PhaseChoice(StrEnum):
    """Contrast phases that can be asked for."""

    PLAIN = "plain"
    ARTERIAL = "arterial"
    PORTAL_VENOUS = "portal_venous"
    DELAYED = "delayed"


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
    label_names: Annotated[
        Path | None,
        typer.Option(
            "--label-names",
            exists=True,
            dir_okay=False,
            help='JSON of label ids, {"1": "spleen"}, where they follow no known convention.',
        ),
    ] = None,
    injured: Annotated[
        bool | None,
        typer.Option("--injured/--uninjured", help="Only such patients [natural mixture]."),
    ] = None,
    enriched: Annotated[
        float | None,
        typer.Option(
            "--enriched",
            min=0,
            max=1,
            help="Rate of each injury, drawn alone; 3 in 10 stay uninjured.",
        ),
    ] = None,
    prevalence: Annotated[
        list[str] | None,
        typer.Option(
            "--prevalence",
            metavar="TARGET=SHARE",
            help="Prevalence of a target, such as liver=0.5; repeatable [as in RSNA 2023].",
        ),
    ] = None,
    phase: Annotated[
        PhaseChoice | None,
        typer.Option("--phase", help="Contrast phase of every patient [mixture without plain]."),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", help="Draw from a frozen configuration: test, or its version."),
    ] = None,
    spacing: Annotated[
        str | None,
        typer.Option("--spacing", metavar="MM", help="Of the simulation: 2 or 1.2,1.2,2.5."),
    ] = None,
    matrix: Annotated[
        int, typer.Option("--matrix", min=32, max=1024, help="Rows and columns of the images.")
    ] = 512,
    workers: Annotated[
        int, typer.Option("--workers", min=0, max=256, help="Processes beside this one.")
    ] = 0,
) -> None:
    """Make virtual patients: DICOM series, CSV tables and masks of the injuries."""
    from triage.simulate.study import write_dataset
    from triage.types import Phase

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
                label_names=label_names,
                injured=injured,
                enriched=enriched,
                prevalence=target_shares(prevalence or []),
                phase=Phase(phase.value) if phase else None,
                protocol=protocol,
                spacing=read_spacing(spacing) if spacing else None,
                matrix=matrix,
                workers=workers,
                progress=step,
            )
        except (ValueError, FileExistsError) as error:  # a background or folder that cannot serve
            raise typer.BadParameter(str(error)) from error
    noun = "patient" if len(rows) == 1 else "patients"
    print(f"{len(rows)} simulated {noun} in {plain(out)}; with an injury of:")
    for target, count in injuries(rows).items():
        print(f"  {target:<14} {count}")


def read_spacing(text: str) -> tuple[float, float, float]:
    """`"2"` or `"1.2,1.2,2.5"` as mm along x, y, z. Raises ValueError for anything else."""
    try:
        values = [float(part) for part in text.split(",")]
        x, y, z = values * 3 if len(values) == 1 else values
    except ValueError:
        raise ValueError(f"Expected one or three spacings in mm, got {text!r}.") from None
    return x, y, z


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

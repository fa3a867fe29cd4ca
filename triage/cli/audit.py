"""`triage audit`: suspected wrong labels of an archive or a training set."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from triage.cli.common import load_settings, plain, progress_bar


def audit(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            exists=True,
            file_okay=False,
            help="Archive of DICOM, NIfTI, NRRD or MHA, or a set in the RSNA-2023 layout.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", file_okay=False, help="Folder for CSV and contact sheet.")
    ],
    phase: Annotated[
        bool, typer.Option("--phase/--no-phase", help="Judge contrast phase and organs, too.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """List suspected wrong labels: body part, orientation, phase, duplicates, contradictions.

    Goes on where it was interrupted. Nothing in FOLDER is changed.
    """
    from triage.audit.run import audit as run
    from triage.audit.run import open_eyes
    from triage.nets.bundle import BundleError

    try:
        eyes = open_eyes(load_settings(), phase=phase)
    except BundleError as error:
        raise typer.BadParameter(plain(error)) from error
    with progress_bar() as progress:
        found = run(folder, out, eyes, progress)
    kinds = Counter(s.kind for s in found.found)
    if as_json:
        counts = {"series": found.looked, "reused": found.reused, "unreadable": found.unreadable}
        typer.echo(json.dumps({**counts, "suspicions": dict(kinds)}))
        return
    typer.echo(f"{found.looked} series ({found.reused} known), {found.unreadable} unreadable")
    for kind, count in kinds.items():
        typer.echo(f"{count:>6}  {kind}")
    typer.echo(f"CSV: {plain(found.csv)}")
    typer.echo(f"Contact sheet: {plain(found.html)}")

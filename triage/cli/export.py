"""`triage export`: the networks of a bundle as MONAI bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from triage.cli.common import plain


def export(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A name or folder.")],
    out: Annotated[
        Path, typer.Option("--out", file_okay=False, help="Folder; one below it a network.")
    ],
) -> None:
    """Write each network as a MONAI bundle that plain MONAI loads, without this program."""
    from triage.nets.bundle import BundleError, find_bundle
    from triage.training.monai_export import export_bundle

    try:
        folders = export_bundle(find_bundle(bundle), out)
    except (BundleError, FileExistsError) as error:
        raise typer.BadParameter(str(error)) from error
    for folder in folders:
        print(plain(folder))

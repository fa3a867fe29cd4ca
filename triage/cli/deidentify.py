"""`triage deidentify`: studies of the service without identity, for research."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from triage.cli import people
from triage.cli.common import Exit, load_settings, plain


def deidentify(
    studies: Annotated[
        list[str], typer.Argument(metavar="STUDY...", help="StudyInstanceUIDs, or our ids.")
    ],
    out: Annotated[Path, typer.Option("--out", file_okay=False, help="Folder to write to.")],
) -> None:
    """Write studies of the service without identity (PS3.15 annex E), with their answers.

    Off unless TRIAGE_RESEARCH_EXPORT is set; noted in the audit log.
    """
    from triage.service.images.files import Files
    from triage.service.records import studies as rows
    from triage.service.research import export
    from triage.service.research.key import KeyUnfitError

    settings = load_settings()
    failed = False
    with people.records() as database:
        files = Files(settings.home)
        for key in studies:
            with database.reading() as session:
                study = rows.find(session, key)
            try:
                export.require_allowed(settings)
                if study is None:
                    raise typer.BadParameter(f"There is no study {plain(key)}.")
                done = export.export_study(settings, database, files, study.id, out, by=people.me())
            except KeyUnfitError as error:
                raise typer.BadParameter(str(error)) from error
            except export.CannotExportError as error:
                if error.code == "OFF":
                    raise typer.BadParameter(str(error)) from error
                print(f"triage: {plain(key)}: {plain(error)}", file=sys.stderr)
                failed = True
                continue
            print(f"{plain(key)}: {done.images} images as {done.patient}")
            for note in done.warnings:
                print(f"Note: {note}")
    if failed:
        raise typer.Exit(Exit.NOT_ANALYSED)

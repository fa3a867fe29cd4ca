"""`triage run`: analyse one study and write its report."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from triage.cli.common import Exit, load_settings, plain, progress_bar

if TYPE_CHECKING:
    from triage.types import Report


class Device(StrEnum):
    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def run(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SERIES", exists=True, help="Folder or zip of DICOM, or NIfTI, NRRD, MHA."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", file_okay=False, help="Folder for the report; made if absent.")
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", help="Bundle: a name below models/ or a folder [TRIAGE_MODEL]."),
    ] = None,
    device: Annotated[
        Device | None, typer.Option("--device", help="Where to compute [TRIAGE_DEVICE].")
    ] = None,
    dicom: Annotated[
        bool, typer.Option("--dicom", help="Write the results as DICOM objects, too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json to stdout.")] = False,
) -> None:
    """Analyse one CT study: report.json, overlays and saliency maps into a folder."""
    settings = load_settings()
    _prepare(out)
    chosen = _find_bundle(model or settings.model)
    report = _analyse(source, out, chosen, _find_device(str(device or settings.device)))
    if dicom:
        _write_dicom(source, out)
    if as_json:
        from triage.results.report import to_json

        typer.echo(to_json(report), nl=False)
    if report.status != "analysed":
        if reason := report.reason:
            print(plain(f"{reason.code}: {reason.message} {reason.fix}"), file=sys.stderr)
        raise typer.Exit(Exit.NOT_ANALYSED)
    if not as_json:
        from triage.cli.table import print_report

        print_report(report, out)


def _write_dicom(source: Path, out: Path) -> None:
    """`out`/dicom; where it cannot be, one line says why and the report stands."""
    from triage.reasons import NotAnalysed
    from triage.results.dicom.build import write_objects

    try:
        write_objects(out, source, load_settings())
    except NotAnalysed as refusal:
        print(plain(f"No DICOM objects were written: {refusal.line()}"), file=sys.stderr)


def _find_bundle(name: str) -> Path:
    from triage.nets.bundle import BundleError, find_bundle

    try:
        return find_bundle(name)
    except BundleError as error:
        raise typer.BadParameter(str(error), param_hint="--model") from error


def _find_device(name: str) -> str:
    if name == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise typer.BadParameter("there is no CUDA device", param_hint="--device")
    return name


def _prepare(out: Path) -> None:
    """Make `out`; an older report there must not pass for the answer of this run."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path in _earlier_files(out):
            path.unlink(missing_ok=True)
        if (out / "dicom" / "complete").is_file():  # objects of an earlier run
            shutil.rmtree(out / "dicom")
    except OSError as error:
        raise typer.BadParameter(f"cannot write there: {error}", param_hint="--out") from error


def _earlier_files(out: Path) -> list[Path]:
    """report.json of an earlier run in `out`, and the pictures and maps that it names."""
    report = out / "report.json"
    try:
        targets = json.loads(report.read_bytes())["targets"].values()
        names = {name for t in targets for name in (*t["overlays"], t["saliency"]) if name}
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return [report]
    files = [out / name for name in names if ".." not in Path(name).parts]
    return [report, *(path for path in files if path.is_file() and path.is_relative_to(out))]


def _analyse(source: Path, out: Path, model: Path, device: str) -> Report:
    """The analysis; when it breaks, the folder says so before the error goes on."""
    from triage.pipeline import analyse

    try:
        with progress_bar() as progress:
            return analyse(source, out, model=model, device=device, progress=progress)
    except BaseException as error:
        code = "CANCELLED" if isinstance(error, KeyboardInterrupt) else "WORKER_FAILED"
        with suppress(OSError):
            _write_refusal(code, out)
        raise


def _write_refusal(code: str, out: Path) -> None:
    from triage.results.report import refused, write_report

    write_report(refused(code), out)

"""`triage train`: retrain targets, or the networks that they share, on data of one's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from triage.cli.common import load_settings, plain, progress_bar
from triage.types import TARGETS, Target

NETWORKS = ("volume", "localiser", "trunk")
UNFROZEN = ("4", "5", "8", "16", "all")
SIZES = ("224", "320", "384")


def train(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA", exists=True, file_okay=False, help="Folder in the RSNA 2023 layout."
        ),
    ],
    target: Annotated[
        list[str],
        typer.Option("--target", help="Target, volume, localiser or trunk; several: repeat it."),
    ],
    out: Annotated[Path, typer.Option("--out", file_okay=False, help="Folder for the bundle.")],
    init: Annotated[
        str,
        typer.Option("--init", help="Bundle to start from, imagenet, file of weights, or none."),
    ] = "reference",
    add_simulated: Annotated[
        int, typer.Option("--add-simulated", min=0, help="Simulated patients that train too.")
    ] = 0,
    folds: Annotated[int, typer.Option("--folds", min=2, help="One member a fold.")] = 5,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="At most; stops early.")] = 12,
    size: Annotated[int, typer.Option("--size", help="Pixels: 224, 320 or 384.")] = 224,
    unfrozen: Annotated[
        str, typer.Option("--unfrozen", help="Layers that learn: 4, 5, 8, 16 or all.")
    ] = "5",
    calibration: Annotated[
        float,
        typer.Option("--calibration", min=0.05, max=0.9, help="Share of patients for cutoffs."),
    ] = 0.25,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same bundle.")] = 0,
    device: Annotated[
        str | None, typer.Option("--device", help="auto, cpu or cuda [TRIAGE_DEVICE].")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Labelled patients without images are an error.")
    ] = False,
    work: Annotated[
        Path | None, typer.Option("--work", file_okay=False, help="Work folder [OUT.work].")
    ] = None,
) -> None:
    """Train on labelled patients: folds, early stopping, cutoffs; interrupted, it goes on."""
    targets, networks = chosen(target)
    if str(size) not in SIZES:
        raise typer.BadParameter(f"--size: expected one of {', '.join(SIZES)}, got {size}")
    if unfrozen not in UNFROZEN:
        raise typer.BadParameter(
            f"--unfrozen: expected one of {', '.join(UNFROZEN)}, got {plain(unfrozen)}"
        )
    from triage.nets.bundle import BundleError
    from triage.training.job import Options
    from triage.training.retrain import train as run

    options = Options(
        targets=targets,
        networks=networks,
        init=init,
        folds=folds,
        epochs=epochs,
        size=size,
        unfrozen=unfrozen,
        calibration=calibration,
        add_simulated=add_simulated,
        seed=seed,
    )
    where = device or load_settings().device
    with progress_bar() as bar, threads():
        try:
            run(
                data,
                out,
                options,
                work=work,
                device=where,
                strict=strict,
                log=say,
                tell=bar or Steps(),
            )
        except (ValueError, BundleError) as error:  # data or options that do not fit
            raise typer.BadParameter(plain(error)) from error


def chosen(names: list[str]) -> tuple[tuple[Target, ...], tuple[str, ...]]:
    """Targets and shared networks among the names given, commas allowed."""
    given = {part.strip().lower() for name in names for part in name.split(",")}
    known = {t.value for t in TARGETS} | set(NETWORKS)
    if not given or given - known:
        raise typer.BadParameter(
            f"--target: expected some of {', '.join([*TARGETS, *NETWORKS])},"
            f" got {plain(', '.join(sorted(given - known)))}"
        )
    targets = tuple(t for t in TARGETS if t.value in given)
    return targets, tuple(n for n in NETWORKS if n in given)


def say(text: str) -> None:
    """Lines of the training, at once: somebody may be watching a file."""
    print(plain(text), flush=True)


class Steps:
    """Progress without a terminal: a line at every tenth of a stage."""

    def __init__(self) -> None:
        self.stage, self.told = "", -1

    def __call__(self, name: str, share: float) -> None:
        stage, tenth = "".join(c for c in name if not c.isdigit()), int(share * 10)
        if stage != self.stage:
            self.stage, self.told = stage, -1
        if tenth > self.told:
            self.told = tenth
            print(plain(name), file=sys.stderr, flush=True)


@contextmanager
def threads() -> Iterator[None]:
    """TRIAGE_THREADS for torch, as everywhere."""
    import torch

    wanted = load_settings().threads
    if wanted:
        torch.set_num_threads(wanted)
    yield

"""What the commands share: exit codes, settings, safe text, a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING

import typer

from triage.types import TARGETS, Target

if TYPE_CHECKING:
    from triage.settings import Settings

Progress = Callable[[str, float], None]


class Exit(IntEnum):
    """Exit codes of every command."""

    OK = 0  # analysed, or the command did what it should
    FAULT = 1  # our own fault
    USAGE = 2  # wrong use
    NOT_ANALYSED = 3  # the input was refused, with a reason code
    STOPPED = 130  # Ctrl-C, as shells report it


def load_settings() -> Settings:
    """The settings; a TRIAGE_* value that makes no sense is wrong use, not a fault of ours."""
    from pydantic import ValidationError

    from triage.settings import settings

    try:
        return settings()
    except ValidationError as error:
        faults = (
            f"TRIAGE_{'_'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}"
            for fault in error.errors()
        )
        raise typer.BadParameter("; ".join(faults)) from error


def plain(text: object) -> str:
    """`text` without control characters: header values must not steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in str(text))


def target_shares(parts: Iterable[str]) -> dict[Target, float]:
    """`["liver=0.5"]` as shares by target, each from 0 to 1. ValueError for anything else."""
    out: dict[Target, float] = {}
    for part in parts:
        name, _, share = part.partition("=")
        try:
            target, number = Target(name.strip()), float(share)
        except ValueError:
            raise ValueError(
                f"Expected TARGET=SHARE such as liver=0.5 with one of {', '.join(TARGETS)}, got "
                f"{part.strip()!r}."
            ) from None
        if target in out or not 0 <= number <= 1:
            raise ValueError(f"Expected one share from 0 to 1 a target, got {part.strip()!r}.")
        out[target] = number
    return out


@contextmanager
def progress_bar() -> Iterator[Progress | None]:
    """A bar on stderr that names the stage, on a terminal; None (quiet) in a pipe."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=1.0)

        def step(stage: str, fraction: float) -> None:
            bar.update(task, description=plain(stage), completed=fraction)

        yield step

"""`triage doctor`: tries for real what an analysis needs, and says how to mend what is broken."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from triage.cli.common import Exit, load_settings, plain

if TYPE_CHECKING:
    from triage.settings import Settings

GIB = 1 << 30


class Level(StrEnum):
    OK = "OK"
    WARN = "WARN"  # works, with a limit that the text names
    FAIL = "FAIL"  # an analysis would not end well


class Check(NamedTuple):
    """What was tried, how it went, and what to do if it did not."""

    name: str
    level: Level
    text: str
    fix: str = ""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Check bundle, codecs, torch, memory, disk and port; exit code 1 if one of them fails."""
    results = list(examine(load_settings()))
    if as_json:
        print(json.dumps([check._asdict() for check in results], indent=2))
    else:
        for check in results:
            fix = f" -> {check.fix}" if check.fix else ""
            print(plain(f"{check.level:<4}  {check.name}: {check.text}{fix}"))
    if any(check.level is Level.FAIL for check in results):
        raise typer.Exit(Exit.FAULT)


def examine(settings: Settings) -> Iterator[Check]:
    """Every check; one that breaks is a failure of its own and stops no other."""
    for name, check in CHECKS.items():
        try:
            yield from check(settings)
        except Exception as error:
            yield Check(name, Level.FAIL, f"{type(error).__name__}: {error}", "Install anew.")


def check_bundle(settings: Settings) -> Iterator[Check]:
    """Every file of the bundle against its sha256."""
    from triage.nets.bundle import BundleError, find_bundle, verify

    try:
        folder = find_bundle(settings.model)
        manifest = verify(folder)
    except BundleError as error:
        yield Check("bundle", Level.FAIL, f"expected {error.expected}, got {error.came}", error.fix)
        return
    text = f"{manifest.name} {manifest.version}, {len(manifest.files)} files as they should be"
    if manifest.calibrated_on == "simulated":
        fix = "Retrain on real patients."
        yield Check("bundle", Level.WARN, f"{text}; it learned from simulated patients", fix)
    else:
        yield Check("bundle", Level.OK, text)


def check_codecs(settings: Settings) -> Iterator[Check]:
    """A small image decoded in each transfer syntax, in the reader's own limited process."""
    from triage.dicom.child import run
    from triage.dicom.syntax import SYNTAXES

    answer, _ = run(
        "triage.cli.codec_samples:decode_all",
        {},
        timeout_s=settings.decode_timeout_s,
        memory_bytes=settings.decode_memory_bytes,
    )
    for uid, syntax in SYNTAXES.items():
        if syntax.codec is not None:
            fault = answer["faults"].get(uid)
            level = Level.FAIL if fault else Level.OK
            fix = "Install imagecodecs anew." if fault else ""
            yield Check(f"codec {syntax.name}", level, fault or "decodes", fix)


def check_torch(settings: Settings) -> Iterator[Check]:
    """torch computes, and on CUDA if that is asked for."""
    import torch

    total = float(torch.ones(8, 8).matmul(torch.ones(8, 8)).sum())
    level = Level.OK if total == 512 else Level.FAIL
    threads = settings.threads or os.cpu_count()
    yield Check("torch", level, f"{torch.__version__}, {threads} CPU threads")
    if torch.cuda.is_available():
        yield Check("cuda", Level.OK, torch.cuda.get_device_name(0))
    elif settings.device == "cuda":
        fix = "Install a CUDA build of torch, or set TRIAGE_DEVICE=auto."
        yield Check("cuda", Level.FAIL, "TRIAGE_DEVICE is cuda, and there is none", fix)
    else:
        yield Check("cuda", Level.OK, "none: the CPU computes")


def check_home(settings: Settings) -> Iterator[Check]:
    """The service's folder, or the nearest one above it, takes a file."""
    home = settings.home.expanduser()
    folder = _existing(home)
    try:
        with tempfile.TemporaryFile(dir=folder):
            yield Check("home", Level.OK, f"{home} is writable")
    except OSError as error:
        text = f"cannot write {folder}: {error.strerror}"
        yield Check("home", Level.FAIL, text, "Set TRIAGE_HOME to a folder of yours.")


def check_disk(settings: Settings) -> Iterator[Check]:
    """Room for uploads and reports, and for what is unpacked on the way."""
    for name, folder in (
        ("disk for data", _existing(settings.home.expanduser())),
        ("disk for temporary files", Path(tempfile.gettempdir())),
    ):
        free = shutil.disk_usage(folder).free / GIB
        text = f"{free:.1f} GiB free in {folder}"
        if free < 0.5:
            yield Check(name, Level.FAIL, text, "Free 5 GiB.")
        elif free < 5:
            yield Check(name, Level.WARN, text, "Free 5 GiB.")
        else:
            yield Check(name, Level.OK, text)


def check_memory(settings: Settings) -> Iterator[Check]:
    """4 GiB are enough for one study of 1,000 slices."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    limit = Path("/sys/fs/cgroup/memory.max")  # what a container may use (cgroup v2)
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text) / GIB)
    if total < 3.5:
        yield Check("memory", Level.WARN, f"{total:.1f} GiB", "Large studies may need 4 GiB.")
    else:
        yield Check("memory", Level.OK, f"{total:.1f} GiB")


def check_port(settings: Settings) -> Iterator[Check]:
    """`triage serve` could bind to its addresses."""
    for name, host, port, setting in (
        ("port", settings.http_host, settings.http_port, "TRIAGE_HTTP_PORT"),
        ("DICOM port", settings.dicom_host, settings.dicom_port, "TRIAGE_DICOM_PORT"),
    ):
        where = f"{host}:{port}"
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
            yield Check(name, Level.OK, f"{where} is free")
        except OSError as error:
            text = f"{where}: {error.strerror or error}"
            fix = f"Stop what uses it (perhaps `triage serve` runs already), or set {setting}."
            yield Check(name, Level.WARN, text, fix)


def _existing(folder: Path) -> Path:
    """`folder`, or the nearest one above it that exists."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


CHECKS: dict[str, Callable[[Settings], Iterator[Check]]] = {
    "bundle": check_bundle,
    "codecs": check_codecs,
    "torch": check_torch,
    "home": check_home,
    "disk": check_disk,
    "memory": check_memory,
    "port": check_port,
}

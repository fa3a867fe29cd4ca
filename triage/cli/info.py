"""`triage info`: what is installed and which bundle answers; imports no torch."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from triage import __version__
from triage.cli.common import load_settings, plain

PACKAGES = ("monai", "torch", "nibabel", "SimpleITK", "pydicom", "fastapi", "captum")


def info(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show versions, bundle and settings."""
    facts = collect()
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        if not isinstance(value, dict):
            print(f"{name}: {plain(value)}")
            continue
        print(f"{name}:")
        for key, inner in value.items():
            text = ", ".join(map(str, inner)) if isinstance(inner, list) else inner
            print(f"  {key}: {plain(text)}")


def collect() -> dict[str, Any]:
    """Everything `triage info` shows, as plain JSON values."""
    from triage.settings import without_secrets

    settings = load_settings()
    return {
        "name": "trauma-ct-triage",
        "version": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: installed(name) for name in PACKAGES},
        "bundle": bundle_facts(settings.model),
        "settings": without_secrets(settings),
    }


def installed(distribution: str) -> str | None:
    """Installed version, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def bundle_facts(name: str) -> dict[str, Any]:
    """What bundle.json says of itself; `error` instead where there is none to read."""
    from triage.nets.bundle import BundleError, find_bundle, read_manifest, reference

    try:
        folder = find_bundle(name)
        manifest, ref = read_manifest(folder), reference(folder)
    except BundleError as error:
        return {"name": name, "error": str(error)}
    return {
        "name": ref.name,
        "version": ref.version,
        "sha256": ref.sha256,
        "calibrated_on": ref.calibrated_on,
        "targets": [target.value for target in manifest.prevalence],
        "folder": str(folder),
    }

"""What the warm child does with a study: the pipeline, with networks that are loaded once."""

from __future__ import annotations

import logging
from pathlib import Path

from triage.service.workflow.child import Analyse, Progress
from triage.settings import Settings

log = logging.getLogger(__name__)


def load(settings: Settings) -> Analyse:
    """Load the bundle's networks; the function that analyses one study with them."""
    from triage.inference.networks import Networks, load_networks
    from triage.nets.bundle import BundleError, find_bundle
    from triage.pipeline import analyse

    def networks() -> Networks | None:
        try:
            return load_networks(find_bundle(settings.model), settings.device)
        except (BundleError, RuntimeError) as error:  # RuntimeError: no such device
            log.error("the bundle cannot be used: %s", error)
            return None

    loaded = networks()
    if loaded is not None and settings.prewarm:
        loaded.programs.warm_up()

    def run(source: Path, out: Path, progress: Progress) -> None:
        nonlocal loaded
        loaded = loaded or networks()  # None once more: `analyse` then raises what is wrong
        analyse(
            source,
            out,
            model=settings.model,
            device=settings.device,
            progress=progress,
            settings=settings,
            networks=loaded,
        )

    return run

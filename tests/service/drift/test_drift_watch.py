"""What comes in changes: a warning begins, is told everywhere, and ends."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import BASE, finished, send
from fastapi.testclient import TestClient
from quick_pipeline import LOAD

from triage.nets.bundle import MANIFEST, REPOSITORY_MODELS, manifest_sha256
from triage.results.figures import NUMBERS, SHARES, Figures, Many
from triage.service.access import audit
from triage.service.app import create_app
from triage.service.drift.assess import FEWEST, FIRST_FEWEST, assess
from triage.service.drift.watch import DriftWatch
from triage.service.records import Database, analyses, studies
from triage.service.records import drift as rows
from triage.service.records.drift_models import DriftFigures
from triage.service.records.models import Study, new_id, now
from triage.service.service import Service
from triage.service.web.drift import sentence
from triage.service.web.words import LANGUAGES, Words
from triage.settings import Settings
from triage.training.inputs import add_inputs
from triage.types import Status

DAY = timedelta(days=1)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """What the watch reads of a bundle; without a reference, as older ones are."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    shutil.copy(REPOSITORY_MODELS / "reference" / MANIFEST, folder)
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["files"].pop("evaluation/inputs.json", None)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def told() -> list[tuple[str, dict[str, Any]]]:
    return []


@pytest.fixture
def watch(tmp_path: Path, records: Database, model: Path, told: list[Any]) -> DriftWatch:
    settings = Settings(home=tmp_path / "home", model=str(model))
    return DriftWatch(settings, records, lambda kind, data: told.append((kind, data)))


def put(
    records: Database,
    model: Path,
    number: int,
    first: datetime,
    last: datetime,
    noise: float = 12.0,
    seed: int = 0,
    phase: str = "portal_venous",
) -> None:
    """`number` studies, evenly from `first` to `last`."""
    rng = np.random.default_rng([seed, number])
    with records.session() as session:
        for k in range(number):
            figures = {"noise_hu": float(rng.normal(noise, 1.5)), "score.liver": rng.random()}
            session.add(
                DriftFigures(
                    study_id=new_id(),
                    analysis_id=new_id(),
                    at=first + (last - first) * k / number,
                    bundle_sha256=manifest_sha256(model),
                    numbers=figures,
                    terms={"phase": phase, "outcome": "analysed"},
                )
            )


def actions(records: Database) -> list[str]:
    with records.reading() as session:
        return [r["action"] for r in audit.rows(session) if r["action"].startswith("drift.")]


def test_a_warning_begins_is_told_once_and_ends(
    records: Database, model: Path, watch: DriftWatch, told: list[tuple[str, dict[str, Any]]]
) -> None:
    at = now()
    put(records, model, 200, at - 120 * DAY, at - 92 * DAY)
    put(records, model, 60, at - 7 * DAY, at, noise=19.0, seed=1)
    found = watch.look(at)
    own = {c.against: c for c in found.comparisons}["first_weeks"]
    assert own.state == "ok" and [m.figure for m in own.figures if m.warn] == ["noise_hu"]
    watch.look(at)
    assert actions(records) == ["drift.began"]
    assert [(kind, data["figure"], data["began"]) for kind, data in told] == [
        ("drift", "noise_hu", True)
    ]
    put(records, model, 60, at + 8 * DAY, at + 14 * DAY, seed=2)  # the scanner was mended
    watch.look(at + 14 * DAY)
    assert actions(records) == ["drift.began", "drift.ended"] and not told[-1][1]["began"]
    with records.reading() as session:
        assert not rows.open_warnings(session)
        (ended,) = rows.ended_warnings(session, 9)
        assert ended.figure == "noise_hu" and ended.ended_at is not None


def test_nothing_changed_and_nothing_is_said(
    records: Database, model: Path, watch: DriftWatch
) -> None:
    at = now()
    put(records, model, 200, at - 120 * DAY, at - 92 * DAY)
    put(records, model, 60, at - 7 * DAY, at, seed=1)
    watch.look(at)
    assert actions(records) == []


def test_a_bundle_without_a_reference_and_a_young_service_say_so(
    records: Database, model: Path, watch: DriftWatch
) -> None:
    at = now()
    put(records, model, FIRST_FEWEST - 1, at - 20 * DAY, at)
    states = {c.against: c.state for c in watch.look(at).comparisons}
    assert states == {"bundle": "no_reference", "first_weeks": "learning"}
    (model / MANIFEST).write_text("{}")
    assert watch.look(at).comparisons[0].state == "unreadable"


def test_too_few_studies_are_not_judged(records: Database, model: Path, watch: DriftWatch) -> None:
    at = now()
    put(records, model, 150, at - 120 * DAY, at - 92 * DAY)
    put(records, model, FEWEST - 1, at - 6 * DAY, at, noise=30.0, seed=1)
    states = {c.against: c.state for c in watch.look(at).comparisons}
    assert states["first_weeks"] == "too_few" and actions(records) == []
    states = {c.against: c.state for c in watch.look(at + 60 * DAY).comparisons}
    assert states["first_weeks"] == "too_few"  # nothing came for weeks
    put(records, model, 1, at - 20 * DAY, at, noise=30.0, seed=1)  # four weeks have enough
    assert watch.look(at).comparisons[1].state == "ok" and actions(records) == ["drift.began"]


def test_the_bundles_own_patients_are_compared_with(
    records: Database, model: Path, watch: DriftWatch
) -> None:
    rng = np.random.default_rng(5)
    calibration = [
        Figures(
            {"noise_hu": float(rng.normal(12, 1.5)), "score.liver": rng.random()},
            {"phase": "portal_venous", "outcome": "analysed"},
        )
        for _ in range(150)
    ]
    add_inputs(model, Many.of(calibration))
    at = now()
    put(records, model, 40, at - 7 * DAY, at, phase="plain")
    found = watch.look(at).comparisons[0]
    assert found.state == "ok" and found.studies == 150
    assert [m.figure for m in found.figures if m.warn] == ["phase"]
    (phase,) = [m for m in found.figures if m.warn]
    assert "Contrast phase (portal venous phase): was 100.0 %, is now 0.0 %" in sentence(
        "phase", "bundle", phase.to_dict(), Words("en")
    )


def test_another_bundle_is_on_record(
    tmp_path: Path, records: Database, model: Path, watch: DriftWatch
) -> None:
    """Swapped as a whole, so that every sha256 fits: nothing turns red, but somebody can see it."""
    first = manifest_sha256(model)
    watch.look()
    watch.look()
    add_inputs(model, Many.of([Figures({"noise_hu": 1.0})] * 9))
    second = manifest_sha256(model)
    watch.look()
    again = DriftWatch(watch.settings, records, lambda *_: None)  # another start
    again.look()
    with records.reading() as session:
        found = [r["details"] for r in audit.rows(session) if r["action"] == "bundle.changed"]
    assert found == [
        {"before": "", "sha256": first},
        {"before": first, "sha256": second},
    ]


def test_studies_before_a_day_can_be_left_out(
    tmp_path: Path, records: Database, model: Path, watch: DriftWatch
) -> None:
    """After a scanner was exchanged for good."""
    at = now()
    put(records, model, 200, at - 200 * DAY, at - 172 * DAY)
    put(records, model, 200, at - 100 * DAY, at - 72 * DAY, noise=19.0)
    put(records, model, 60, at - 7 * DAY, at, noise=19.0, seed=1)
    with records.reading() as session:
        before = assess(session, watch._bundle, at)
        after = assess(session, watch._bundle, at, (at - 110 * DAY).date())
    assert [m.warn for c in before.comparisons for m in c.figures if m.figure == "noise_hu"] == [
        True
    ]
    assert not any(m.warn for c in after.comparisons for m in c.figures)


# ---- where figures come from


def a_study(records: Database, background: bool = False) -> str:
    with records.session() as session:
        study = Study(id=new_id(), study_instance_uid=f"1.2.{new_id()}", background=background)
        session.add(study)
        session.flush()
        analyses.refuse(session, study.id, 1, {"status": "not_analysed", "reason": {"code": "GAP"}})
        return study.id


def test_figures_follow_the_current_analysis_and_outlive_the_study(records: Database) -> None:
    live = a_study(records)
    a_study(records, background=True)
    with records.session() as session:
        assert rows.collect(session) == 1 and rows.collect(session) == 0
        analyses.refuse(
            session, live, 1, {"status": "not_applicable", "reason": {"code": "NOT_ABDOMEN"}}
        )
        assert rows.collect(session) == 1
        (row,) = rows.oldest(session, 9)
        assert row.figures.terms == {"outcome": "NOT_ABDOMEN"}
        assert studies.delete(session, live)
        assert len(rows.oldest(session, 9)) == 1


# ---- the service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("drift") / "home"
    service = Service(Settings(home=home, dicom_port=0, series_quiet_s=0.3), load=LOAD)
    service.start()
    yield service
    service.stop()


def test_api_metrics_and_pages_tell_of_it(service: Service) -> None:
    """From an analysed study to the warning on the page, in each language."""
    at = now()
    sha = service.drift._bundle.read()[0]
    with TestClient(create_app(service.settings, service), base_url=BASE) as client:
        finished(client, send(client))
        with service.records.session() as session:
            for k in range(200):
                age = 120 * DAY - k * DAY / 10 if k < 150 else DAY
                noise = 12.0 + k % 7 + (30 if k >= 150 else 0)
                session.add(
                    DriftFigures(
                        study_id=new_id(),
                        analysis_id=new_id(),
                        at=at - age,
                        bundle_sha256=sha,
                        numbers={"noise_hu": noise},
                        terms={"outcome": "analysed"},
                    )
                )
        service.drift.look()
        answer = client.get("/api/v1/drift").json()
        assert [(w["figure"], w["ended_at"]) for w in answer["warnings"]] == [("noise_hu", None)]
        assert answer["studies"] == 51  # the one that was sent is among them
        assert sum(w["studies"] for w in answer["weeks"]) >= 51
        text = client.get("/metrics").text
        assert 'triage_drift{against="first_weeks",figure="noise_hu"} 1.0' in text
        for language, word in (("en", "Noise: was 15.0 HU, is now 45.0 HU"), ("ja", "ノイズ")):
            page = client.get("/admin", headers={"accept-language": language}).text
            assert word in page
            assert Words(language)("drift.what_to_do") in page


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_figure_and_state_has_its_words(language: str) -> None:
    words = Words(language)
    details = {"then": 1.0, "now": 2.0, "studies": 30, "psi": 0.3}
    for figure in NUMBERS:
        assert sentence(figure, "bundle", details, words)
    for figure in SHARES:
        assert sentence(figure, "first_weeks", details | {"term": "suspected"}, words)
    assert Status.ANALYSED  # its word is that of the list

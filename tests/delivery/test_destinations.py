"""Nothing goes anywhere until it is configured, and what is configured wrongly is said at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from triage.delivery.destinations import destinations, objects
from triage.service.service import CannotStartError, Service
from triage.settings import Settings

WRONG: list[dict[str, Any]] = [
    {"deliver_dicom": "PACS"},
    {"deliver_dicom": "PACS@host:99999"},
    {"deliver_stow": "ftp://pacs"},
    {"deliver_fhir": "https://me:secret@fhir"},
    {"deliver_hl7": "host"},
    {"deliver_hl7_folder": Path("/nowhere/at/all")},
    {"deliver_webhook": "https://x.example", "deliver_webhook_secret": "short"},
    {"deliver_objects": "sr,xx"},
    {"deliver_objects": "sc"},
    {"hl7_port": 0, "hl7_host": "0.0.0.0"},  # noqa: S104 - what must be refused
]


def test_off_until_configured() -> None:
    assert destinations(Settings()) == []


@pytest.mark.parametrize("wrong", WRONG, ids=lambda w: next(iter(w)))
def test_the_service_says_what_is_wrong(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CannotStartError) as caught:
        Service(Settings(home=tmp_path, **wrong))
    assert "TRIAGE_" in str(caught.value) and "\n" not in str(caught.value)
    assert "secret@" not in str(caught.value)


def test_several_of_a_kind_and_no_secret_in_the_name() -> None:
    settings = Settings(
        deliver_dicom="A@one:104, B@two:104",
        deliver_stow="https://p/web/",
        deliver_stow_token="t0p",  # noqa: S106 - of this test
    )
    found = destinations(settings)
    assert [d.name for d in found] == ["dicom A@one:104", "dicom B@two:104", "stow https://p/web"]
    assert "t0p" not in repr(found)
    assert objects(Settings(deliver_objects="SR, seg")) == {"sr", "seg"}

"""C-STORE from strangers, with DCMTK as the stranger."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from house import House, until
from instances import ct, study_uid

STORESCU = Path("/usr/bin/storescu")
NUMBER = 4711


@pytest.fixture
def send(tmp_path: Path) -> Callable[..., int]:
    """Sends one image; the exit code of storescu."""
    if not STORESCU.is_file():
        pytest.skip("no DCMTK: install dcmtk")
    image = tmp_path / "image.dcm"
    image.write_bytes(ct(NUMBER))

    def storescu(place: House, title: str, *options: object) -> int:
        port = str(place.service.intake.receiver.port)
        command = [STORESCU, "-aet", title, "-aec", "TRIAGE", *options, "localhost", port, image]
        done = subprocess.run(
            [str(part) for part in command],
            env={**os.environ, "TCP_NODELAY": "1"},
            capture_output=True,
            timeout=60,
            check=False,
        )
        return done.returncode

    return storescu


def stored(place: House) -> bool:
    return place.client("viewer").get(f"/api/v1/studies/{study_uid(NUMBER)}").status_code == 200


def refused(place: House) -> list[tuple[str, Any, Any]]:
    rows = place.audit("sender.refused")
    return [(row["actor"], row["details"]["what"], row["details"]["address"]) for row in rows]


def test_c_store_from_an_unknown_ae_is_refused_and_on_record(
    open_house: Callable[..., House], send: Callable[..., int]
) -> None:
    place = open_house(senders="CT1, CT2@10.0.0.1", embedded_worker=False)
    for title in ("STRANGER", "CT2", "ct1", "STRANGER"):
        assert send(place, title) != 0
    assert not stored(place)
    assert refused(place) == [
        (title, "AE title", "127.0.0.1") for title in ("STRANGER", "CT2", "ct1")
    ]
    assert send(place, "CT1") == 0
    assert stored(place)
    until(lambda: place.audit("image.received"))
    assert place.audit("image.received")[0]["actor"] == "CT1"


def test_c_store_without_a_client_certificate_is_refused_and_on_record(
    open_house: Callable[..., House], send: Callable[..., int], certificates: Path
) -> None:
    place = open_house(
        dicom_tls_cert=certificates / "server.pem",
        dicom_tls_key=certificates / "server.key",
        dicom_tls_client_ca=certificates / "client.pem",
        dicom_timeout_s=5,
        embedded_worker=False,
    )
    trust = ("+cf", certificates / "server.pem")

    def own(name: str) -> tuple[object, ...]:
        return ("+tls", certificates / f"{name}.key", certificates / f"{name}.pem")

    assert send(place, "CT1") != 0  # no TLS at all
    assert send(place, "CT1", "+tla", *trust) != 0  # TLS, and no certificate
    assert send(place, "CT1", *own("stranger"), *trust) != 0
    assert not stored(place)
    until(lambda: refused(place) == [("127.0.0.1", "TLS", "127.0.0.1")])  # once in a while
    assert send(place, "CT1", *own("client"), *trust) == 0
    assert stored(place)

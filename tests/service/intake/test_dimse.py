"""The DICOM receiver with real peers: DCMTK, and sockets that do not keep to the protocol."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from instances import CT, ct, sop_uid
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from ward import Ward, until

from triage.dicom.syntax import SYNTAXES
from triage.service.intake.dimse import Sender, allowed_senders
from triage.service.records import quarantine

Send = Callable[..., subprocess.CompletedProcess[str]]


def files(folder: Path, count: int, study: int = 1, side: int = 16) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, count + 1):
        (folder / f"{number}.dcm").write_bytes(ct(study, 1, number, side))
    return folder


def stored(ward: Ward) -> set[str]:
    return {row.sop_instance_uid for row in ward.instances()}


def test_storescu_is_answered_after_the_commit(ward: Ward, storescu: Send, tmp_path: Path) -> None:
    sent = storescu(ward.port, "-aet", "SCANNER", "+sd", "--", files(tmp_path / "s", 20))
    assert sent.returncode == 0, sent.stdout
    assert sent.stdout.count("Received Store Response (Success)") == 20
    assert stored(ward) == {sop_uid(1, 1, n) for n in range(1, 21)}
    rows = ward.instances()
    assert {(row.route, row.sender) for row in rows} == {("dimse", "SCANNER")}
    whole = (tmp_path / "s" / "1.dcm").read_bytes()
    data_set = whole[
        whole.index(b"\x08\x00\x05\x00CS")
        if b"\x08\x00\x05\x00CS" in whole
        else whole.index(b"\x08\x00\x08\x00CS") :
    ]
    one = next(row for row in rows if row.sop_instance_uid == sop_uid(1, 1, 1))
    assert ward.files.path(one).read_bytes().endswith(data_set)
    until(lambda: [s.interrupted for s in ward.studies()] == [False])


def test_echoscu(ward: Ward) -> None:
    program = Path("/usr/bin/echoscu")
    if not program.is_file():
        pytest.skip("no DCMTK: install dcmtk")
    subprocess.run([program, "127.0.0.1", str(ward.port)], check=True, timeout=30)


def test_many_senders_at_once_are_all_served(ward: Ward, storescu: Send, tmp_path: Path) -> None:
    """None refused, none lost: more senders than pynetdicom's default of ten."""
    folders = [files(tmp_path / str(s), 3, study=s) for s in range(1, 25)]
    processes = [
        subprocess.Popen(
            ["/usr/bin/storescu", "+sd", "127.0.0.1", str(ward.port), str(folder)],
            env={**os.environ, "TCP_NODELAY": "1"},
        )
        for folder in folders
    ]
    assert [p.wait(timeout=120) for p in processes] == [0] * len(processes)
    assert len(stored(ward)) == 3 * len(folders)
    assert {s.instance_count for s in ward.studies()} == {3}


def test_sent_again_is_the_same_and_other_bytes_are_refused(
    ward: Ward, storescu: Send, tmp_path: Path
) -> None:
    folder = files(tmp_path / "s", 3)
    assert storescu(ward.port, "+sd", "--", folder).returncode == 0
    assert storescu(ward.port, "+sd", "--", folder).returncode == 0
    (folder / "2.dcm").write_bytes(ct(1, 1, 2, PatientComments="changed"))
    sent = storescu(ward.port, "-nh", "+sd", "--", folder)
    assert "Unknown Status: 0x111" in sent.stdout  # Duplicate SOP Instance (PS3.7 annex C)
    assert len(stored(ward)) == 3
    with ward.database.reading() as session:
        assert quarantine.count_by_reason(session)["OTHER_BYTES"] == 1


def status_of(ward: Ward, data: Dataset, syntax: str = ExplicitVRLittleEndian) -> int:
    entity = AE()
    entity.add_requested_context(data.SOPClassUID, syntax)
    association = entity.associate("127.0.0.1", ward.port)
    assert association.is_established
    try:
        return int(association.send_c_store(data).Status)
    finally:
        association.release()


def dataset(**changes: object) -> Dataset:
    import io

    from pydicom import dcmread

    data = dcmread(io.BytesIO(ct()))
    for keyword, value in changes.items():
        setattr(data, keyword, value)
    return data


def test_what_cannot_be_stored_is_said(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    assert status_of(ward, dataset()) == 0x0000
    assert status_of(ward, dataset(PatientComments="other")) == 0x0111
    wrong = dataset()
    wrong.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    assert status_of(ward, dataset(SOPInstanceUID="1.2.9")) == 0x0000
    twice = dataset(SOPInstanceUID="1.2.4")
    monkeypatch.setattr("triage.service.intake.accept.read_header", lambda data: 1 / 0)
    assert status_of(ward, twice) == 0xC000
    assert len(stored(ward)) == 2


def test_every_syntax_that_the_gate_reads_is_accepted(ward: Ward) -> None:
    entity = AE()
    for syntax in SYNTAXES:
        entity.add_requested_context(CT, syntax)
    association = entity.associate("127.0.0.1", ward.port)
    assert {c.transfer_syntax[0] for c in association.accepted_contexts} == set(SYNTAXES)
    association.release()


def test_an_association_that_breaks_off_leaves_its_study_incomplete(
    open_ward: Callable[..., Ward],
) -> None:
    ward = open_ward(series_quiet_s=0.1)
    for times, break_off in ((1, True), (2, False)):
        entity = AE()
        entity.add_requested_context(CT, ExplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", ward.port)
        assert association.send_c_store(dataset()).Status == 0x0000
        if break_off:
            association.abort()
        else:
            association.release()
        until(lambda: ward.intake.receiver.associations == 0)
        assert [s.interrupted for s in ward.studies()] == [break_off]
        # Analysed as incomplete, then whole without a new image: it is analysed anew.
        until(lambda times=times: len(ward.ready) == times)  # type: ignore[misc]
    assert [version for _, version in ward.ready] == [1, 2]


def test_a_release_is_answered_after_its_end_is_on_record(ward: Ward) -> None:
    """Else a kill between the two leaves a study incomplete that its sender believes whole."""
    receiver, on_record = ward.intake.receiver, threading.Event()
    note = receiver.on_ended

    def slowly(sender: Sender) -> None:
        on_record.wait(20)
        note(sender)

    receiver.on_ended = slowly
    entity = AE()
    entity.add_requested_context(CT, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", ward.port)
    assert association.send_c_store(dataset()).Status == 0x0000
    release = threading.Thread(target=association.release)
    release.start()
    release.join(0.3)
    assert release.is_alive()
    assert [s.interrupted for s in ward.studies()] == [True]
    on_record.set()
    release.join(20)
    assert association.is_released
    assert [s.interrupted for s in ward.studies()] == [False]


def test_a_study_waits_for_its_sender_to_end(open_ward: Callable[..., Ward]) -> None:
    """Complete by its number of images, but the association is open: more may come."""
    ward = open_ward()
    entity = AE()
    entity.add_requested_context(CT, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", ward.port)
    assert association.send_c_store(dataset(NumberOfStudyRelatedInstances=1)).Status == 0x0000
    assert [s.interrupted for s in ward.studies()] == [True]
    until(lambda: bool(ward.intake.completeness._held))
    assert ward.ready == []
    association.release()
    until(lambda: bool(ward.ready))
    assert [s.interrupted for s in ward.studies()] == [False]


def test_only_known_senders_may_send(
    open_ward: Callable[..., Ward], storescu: Send, tmp_path: Path
) -> None:
    ward = open_ward(senders="CT1, CT2@127.0.0.1, CT3@10.0.0.1", ae_title_required=True)
    folder = files(tmp_path / "s", 1)
    ends = {
        caller: storescu(ward.port, "-aet", caller, "+sd", "--", folder).returncode
        for caller in ("CT1", "CT2", "CT3", "STRANGER")
    }
    assert [ends[c] == 0 for c in ends] == [True, True, False, False]
    other = AE(ae_title="CT1")
    other.add_requested_context(CT)
    assert not other.associate("127.0.0.1", ward.port, ae_title="SOMEBODY").is_established


def test_the_list_of_senders() -> None:
    assert allowed_senders("") == frozenset()
    assert allowed_senders("A, B@10.0.0.1,") == {("A", ""), ("B", "10.0.0.1")}


# ---- peers that do not keep to the protocol


def connected(ward: Ward) -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", ward.port), timeout=20)
    peer.settimeout(20)
    return peer


def closed(peer: socket.socket) -> bool:
    try:
        while peer.recv(4096):
            pass
    except ConnectionError:
        pass
    return True


def test_a_pdu_that_claims_four_gigabytes_ends_the_connection(ward: Ward) -> None:
    for kind in (1, 4):
        with connected(ward) as peer:
            peer.sendall(struct.pack(">BBI", kind, 0, 0xFFFFFFF0) + bytes(1000))
            assert closed(peer)
    until(lambda: ward.intake.receiver.associations == 0)


def test_whoever_sends_slowly_or_nothing_is_cut_off(open_ward: Callable[..., Ward]) -> None:
    ward = open_ward(dicom_timeout_s=0.5)
    began = time.monotonic()
    peers = [connected(ward) for _ in range(3)]
    peers[1].sendall(b"\x01\x00\x00\x00")  # a part of a header
    peers[2].sendall(struct.pack(">BBI", 1, 0, 200) + b"x")  # a part of a PDU
    assert all(map(closed, peers))
    assert time.monotonic() - began < 10
    assert ward.intake.checks()["receiver"] == "ok"


NOISE = (b"GET / HTTP/1.1\r\n\r\n", bytes(64), b"\x01\x00\x00\x00\x00\x04abcd", b"\xff" * 100)


def test_noise_does_no_harm(ward: Ward) -> None:
    for noise in NOISE:
        with connected(ward) as peer:
            peer.sendall(noise)
            peer.shutdown(socket.SHUT_WR)
            assert closed(peer)
    assert status_of(ward, dataset()) == 0x0000


def test_a_message_without_end_goes_to_the_disk_and_has_one(
    open_ward: Callable[..., Ward], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triage.service.intake.transport._IN_MEMORY", 10_000)
    ward = open_ward(max_instance_bytes=200_000)
    large = dataset(SOPInstanceUID="1.2.5", PixelData=bytes(150_000))
    assert status_of(ward, large) == 0x0000
    too_large = dataset(SOPInstanceUID="1.2.6", PixelData=bytes(300_000))
    assert status_of(ward, too_large) == 0xA700
    assert stored(ward) == {"1.2.5"}
    assert len(ward.on_disk()) == 1


def test_more_associations_than_allowed_are_rejected_in_the_protocol(
    open_ward: Callable[..., Ward],
) -> None:
    ward = open_ward(dicom_max_associations=2)
    entity = AE()
    entity.add_requested_context("1.2.840.10008.1.1", ImplicitVRLittleEndian)
    held = [entity.associate("127.0.0.1", ward.port) for _ in range(2)]
    assert all(a.is_established for a in held)
    assert entity.associate("127.0.0.1", ward.port).is_rejected
    for association in held:
        association.release()
    until(lambda: ward.intake.receiver.associations == 0)
    again = entity.associate("127.0.0.1", ward.port)
    assert again.is_established
    again.release()


# ---- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    for name in ("server", "client", "stranger"):
        command = (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
            f"-subj /CN=localhost -keyout {name}.key -out {name}.pem"
        )
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder


def tls_status(ward: Ward, folder: Path, client: str | None) -> int | None:
    context = ssl.create_default_context(cafile=str(folder / "server.pem"))
    context.check_hostname = False
    if client:
        context.load_cert_chain(folder / f"{client}.pem", folder / f"{client}.key")
    entity = AE()
    entity.acse_timeout = entity.connection_timeout = 10
    entity.add_requested_context("1.2.840.10008.1.1")
    association = entity.associate("127.0.0.1", ward.port, tls_args=(context, "localhost"))
    if not association.is_established:
        return None
    try:
        return int(association.send_c_echo().get("Status", -1))
    finally:
        association.release()


def test_tls_with_client_certificates(open_ward: Callable[..., Ward], certificates: Path) -> None:
    ward = open_ward(
        dicom_tls_cert=certificates / "server.pem",
        dicom_tls_key=certificates / "server.key",
        dicom_tls_client_ca=certificates / "client.pem",
        dicom_timeout_s=5,
    )
    assert tls_status(ward, certificates, "client") == 0x0000
    assert tls_status(ward, certificates, None) is None
    assert tls_status(ward, certificates, "stranger") is None
    plain = AE()
    plain.add_requested_context("1.2.840.10008.1.1")
    assert not plain.associate("127.0.0.1", ward.port).is_established

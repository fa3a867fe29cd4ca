"""What was acknowledged is there, whatever happened; what was not leaves nothing behind."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from instances import CT, ct, sop_uid
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE

from triage.dicom import dataset
from triage.service.images.files import Files
from triage.service.images.retention import delete_expired, delete_study
from triage.service.intake.accept import Acceptor, NotStoredError, Source, State
from triage.service.intake.service import Intake
from triage.service.records import Database, studies
from triage.service.records.models import now
from triage.settings import Settings
from triage.types import Status

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = Path(__file__).with_name("killed_process.py")


class Sender(threading.Thread):
    """Sends slices of one study until the connection breaks; remembers what was acknowledged."""

    def __init__(self, port: int, study: int) -> None:
        super().__init__()
        self.port, self.study = port, study
        self.acknowledged: set[str] = set()
        self.sent = threading.Event()

    def run(self) -> None:
        import io

        entity = AE()
        entity.dimse_timeout = entity.network_timeout = 3
        entity.add_requested_context(CT, ExplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", self.port)
        for number in range(1, 400):
            if not association.is_established:
                return
            data = dcmread(io.BytesIO(ct(self.study, 1, number, side=64)))
            try:
                status = association.send_c_store(data)
            except RuntimeError:  # it ended in this moment
                return
            if status.get("Status") == 0x0000:
                self.acknowledged.add(sop_uid(self.study, 1, number))
            self.sent.set()


def killed_after(home: Path, studies_sent: range, images: int) -> set[str]:
    """Run the intake, kill -9 it after about so many images of each sender: the acknowledged."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, PROGRAM, home], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        senders = [Sender(port, study) for study in studies_sent]
        for sender in senders:
            sender.start()
        for sender in senders:
            assert sender.sent.wait(60)
        while sum(len(s.acknowledged) for s in senders) < images and any(
            s.is_alive() for s in senders
        ):
            threading.Event().wait(0.002)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    for sender in senders:
        sender.join(60)
    return set().union(*(s.acknowledged for s in senders))


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.long)])
def test_after_kill_9_every_acknowledged_image_is_there(tmp_path: Path, rounds: int) -> None:
    """One home is killed again and again, in the midst of what it wrote before."""
    home = tmp_path / "home"
    moments = random.Random(9)  # noqa: S311 - no secret
    acknowledged: set[str] = set()
    for round_number in range(rounds):
        base = 1 + 10 * round_number
        images = moments.randint(5, 30)
        acknowledged |= killed_after(home, range(base, base + 3), images)
    assert len(acknowledged) > 3
    database, files = Database.at_home(home), Files(home)
    files.open()
    swept = files.sweep(database)
    assert swept.missing == []
    with database.reading() as session:
        rows = [i for s in studies.newest(session) for i in studies.instances(session, s.id)]
        counts = {s.id: s.instance_count for s in studies.newest(session)}
    assert acknowledged <= {row.sop_instance_uid for row in rows}
    assert sum(counts.values()) == len(rows) == len(list(files.studies.rglob("*.dcm")))
    for row in rows:
        with files.path(row).open("rb") as file:
            assert dataset.is_dicom(file.read(132))
        assert dcmread(files.path(row)).SOPInstanceUID == row.sop_instance_uid
    files.close()
    database.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("a tmpfs cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("database_too", [False, True])
def test_a_full_disk_refuses_leaves_nothing_and_recovers(
    small_disk: Path, tmp_path: Path, database_too: bool
) -> None:
    home = small_disk / "home"
    database = Database.at_home(home if database_too else tmp_path / "elsewhere")
    database.upgrade()
    files = Files(home)
    files.open()
    acceptor = Acceptor(database, files)
    acceptor.start()
    here = Source("dimse", "SCANNER")
    stored = 0
    with pytest.raises(NotStoredError) as refusal:
        for number in range(1, 60):
            acceptor.accept(ct(1, 1, number, side=256), here)
            stored += 1
    assert refusal.value.full
    assert stored > 3
    assert list(files.incoming.iterdir()) == []
    assert len(list(files.studies.rglob("*.dcm"))) == stored
    with database.reading() as session:
        (study,) = studies.newest(session)
        assert study.instance_count == stored
    for path in list(files.studies.rglob("*.dcm"))[:2]:  # somebody makes room
        path.unlink()
    assert acceptor.accept(ct(1, 1, 99, side=256), here).state is State.STORED
    acceptor.stop()
    files.close()
    database.close()


def test_a_full_disk_is_out_of_resources_for_a_sender(small_disk: Path, tmp_path: Path) -> None:
    import io

    home = small_disk / "home"
    database = Database.at_home(tmp_path / "elsewhere")
    database.upgrade()
    files = Files(home)
    files.open()
    intake = Intake(Settings(home=home, dicom_port=0), database, files, lambda *what: None)
    intake.start()
    entity = AE()
    entity.add_requested_context(CT, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", intake.receiver.port)
    statuses = [
        association.send_c_store(dcmread(io.BytesIO(ct(1, 1, number, side=512)))).Status
        for number in range(1, 8)
    ]
    association.release()
    intake.stop()
    assert set(statuses) == {0x0000, 0xA700}
    assert statuses == sorted(statuses)
    with database.reading() as session:
        (study,) = studies.newest(session)
        assert study.instance_count == statuses.count(0x0000)
        assert study.interrupted
    files.close()
    database.close()


def test_deleting_and_retention(tmp_path: Path) -> None:
    home = tmp_path / "home"
    database, files = Database.at_home(home), Files(home)
    database.upgrade()
    files.open()
    acceptor = Acceptor(database, files)
    acceptor.start()
    here = Source("upload")
    keys = []
    for study in (1, 2, 3):
        keys.append(acceptor.accept(ct(study), here).study_id)
        acceptor.accept(ct(study, PatientComments="other"), here)
    one, two, three = (str(key) for key in keys)
    assert delete_study(database, files, one)
    assert not files.study_folder(one).exists()
    with database.session() as session:
        for key, status in ((two, Status.ANALYSED), (three, Status.RECEIVED)):
            study = studies.get(session, key)
            assert study is not None
            study.last_instance_at, study.status = now().replace(year=2020), status
    assert delete_expired(database, files, 0) == []
    assert delete_expired(database, files, 30) == [two]  # an unfinished one stays
    assert sorted(p.name for p in files.studies.iterdir()) == [three]
    assert len(list(files.quarantine.iterdir())) == 1
    acceptor.stop()
    assert files.sweep(database).missing == []
    files.close()
    database.close()
    shutil.rmtree(home)

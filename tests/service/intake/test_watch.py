"""The watched folder: what settled is taken and moved, what is half written stays."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from instances import ct
from ward import Ward, until

from triage.service.intake import watch
from triage.service.intake.accept import NotStoredError


@pytest.fixture
def inbox(open_ward: Callable[..., Ward], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the scans of the test alone look at."""
    monkeypatch.setattr(watch, "SETTLE_S", 0.0)
    folder = tmp_path / "inbox"
    (folder / "done").mkdir(parents=True)
    (folder / "refused").mkdir()
    return folder


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_what_was_taken_and_what_was_refused(ward: Ward, inbox: Path, tmp_path: Path) -> None:
    (inbox / "CT").mkdir()
    (inbox / "CT" / "1.dcm").write_bytes(ct(1, 1, 1))
    (inbox / "bad.dcm").write_bytes(b"no image" * 40)
    (inbox / "coming.dcm.part").write_bytes(ct(1, 1, 2))
    (inbox / ".hidden").write_bytes(b"x")
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (inbox / "link.dcm").symlink_to(secret)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("1", ct(2, 1, 1))
    (inbox / "study.zip").write_bytes(buffer.getvalue())
    watcher = watch.Watcher(ward.intake, inbox)
    watcher.scan()
    assert names(inbox) == [
        ".hidden",
        "coming.dcm.part",
        "done/CT/1.dcm",
        "done/study.zip",
        "link.dcm",
        "refused/bad.dcm",
    ]
    assert len(ward.instances()) == 2
    assert secret.read_bytes() == b"secret"
    (inbox / "CT" / "1.dcm").write_bytes(ct(1, 1, 1))  # the same name again
    watcher.scan()
    assert len([n for n in names(inbox) if n.startswith("done/CT/1.")]) == 2


def test_a_file_that_still_grows_is_waited_for(
    ward: Ward, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SETTLE_S", 5.0)
    clock = [100.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: clock[0])
    watcher = watch.Watcher(ward.intake, inbox)
    path = inbox / "1.dcm"
    data = ct()
    for size, seconds in ((100, 0), (300, 4), (len(data), 4), (len(data), 4)):
        path.write_bytes(data[:size])
        os.utime(path, ns=(size, size))
        clock[0] += seconds
        assert watcher.scan() == 0
    clock[0] += 2
    assert watcher.scan() == 1
    assert names(inbox) == ["done/1.dcm"]


def test_a_full_disk_leaves_files_where_they_are(
    ward: Ward, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> None:
        raise NotStoredError("no space", full=True)

    (inbox / "1.dcm").write_bytes(ct())
    watcher = watch.Watcher(ward.intake, inbox)
    with monkeypatch.context() as patch, pytest.raises(NotStoredError):
        patch.setattr(ward.intake.acceptor, "accept", full)
        watcher.scan()
    assert names(inbox) == ["1.dcm"]
    watcher.scan()
    assert names(inbox) == ["done/1.dcm"]


def test_the_thread_sees_new_files(
    open_ward: Callable[..., Ward], inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SETTLE_S", 0.1)
    ward = open_ward(watch_folder=inbox)
    (inbox / "1.dcm").write_bytes(ct())
    until(lambda: names(inbox) == ["done/1.dcm"])
    assert ward.intake.checks()["watched folder"] == "ok"

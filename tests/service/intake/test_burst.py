"""How fast images are taken: `pytest -m long tests/service/intake/test_burst.py -s` on a machine
that does nothing else."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from instances import ct
from ward import Ward

SIDE = 514  # 0.53 MB an image


@pytest.mark.long
@pytest.mark.parametrize("senders", [4, 8])
def test_150_images_a_second_into_the_durable_store(
    ward: Ward, tmp_path: Path, senders: int
) -> None:
    images = 560 // senders
    for sender in range(senders):
        folder = tmp_path / str(sender)
        folder.mkdir()
        for number in range(images):
            (folder / f"{number}.dcm").write_bytes(ct(sender, 1, number, SIDE))
    began, used = time.monotonic(), time.process_time()
    processes = [
        subprocess.Popen(
            ["/usr/bin/storescu", "+sd", "127.0.0.1", str(ward.port), str(tmp_path / str(sender))],
            env={**os.environ, "TCP_NODELAY": "1"},
        )
        for sender in range(senders)
    ]
    assert [process.wait(timeout=280) for process in processes] == [0] * senders
    seconds = time.monotonic() - began
    rate, each = senders * images / seconds, (time.process_time() - used) / (senders * images)
    print(f"{senders} senders: {rate:.0f} images/s, {1000 * each:.1f} ms of processor time each")
    assert sum(s.instance_count for s in ward.studies()) == senders * images
    assert rate >= 150

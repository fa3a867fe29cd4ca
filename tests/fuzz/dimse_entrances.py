"""The DICOM receiver: damaged data sets in whole messages, and damaged PDUs."""

from __future__ import annotations

import errno
import time
from typing import Any

from tests.fuzz import associations
from tests.fuzz.entrances import Dice, one_damaged
from tests.fuzz.judge import Find
from tests.fuzz.mutate import damaged, damaged_dicom
from tests.fuzz.of_the_service import OfTheService
from tests.fuzz.seeds import Seed

STORED = frozenset((0x0000, 0x0111, 0xA700, 0xA900, 0xC000))


class CStore(OfTheService):
    """C-STORE: a damaged data set in a message that is whole."""

    name = "C-STORE: data sets"
    FEW = 25  # messages of one association

    def open(self) -> None:
        super().open()
        self.peer: associations.Peer | None = None
        self.sent = 0

    def close(self) -> None:
        self._hang_up()
        super().close()

    def _hang_up(self) -> None:
        if self.peer is not None:
            self.peer.close()
        self.peer, self.sent = None, 0

    def check(self) -> None:
        self._hang_up()
        super().check()

    def _one(self, dice: Dice) -> str:
        seed = self.seeds.series("explicit").copy(dice)
        which = dice.randrange(len(seed.slices))
        good = seed.slices[which]
        self.last = damaged_dicom(dice, good, seed.slices)
        return self._stored(
            associations.data_set_of(good[:132] + self.last[132:]), seed.sop_uids[which]
        )

    def _stored(self, data_set: bytes, sop_uid: str) -> str:
        if self.peer is None or self.sent >= self.FEW:
            self._hang_up()
            self.peer = associations.Peer(self.intake.receiver.port)
            if not self.peer.associate():
                raise Find("crash", "an association was not accepted")
        self.sent += 1
        self.peer.socket.sendall(associations.store(data_set, sop_uid, self.sent))
        status = self.peer.status()
        if status not in STORED:
            self._hang_up()
            raise Find("crash", f"status {status}")
        return f"status {status:04X}"

    def _store(self, slices: list[bytes], seed: Seed, which: int) -> None:
        self._hang_up()
        for number, data in enumerate(slices):
            whole = seed.slices[number][:132] + data[132:]
            self._stored(associations.data_set_of(whole), seed.sop_uids[number])
        self._hang_up()
        _until_quiet(self.intake.receiver)

    def _whole(self, dice: Dice) -> str:
        seed = self.seeds.series("explicit").copy(dice)
        slices, which, touched = one_damaged(dice, seed)
        self.last = slices[which]
        self._store(slices, seed, which)
        return self._of_the_study("explicit", seed, which if touched else None, slices[which])


def _until_quiet(receiver: Any) -> None:
    end = time.monotonic() + 20
    while receiver.associations and time.monotonic() < end:
        time.sleep(0.005)


class Pdus(OfTheService):
    """The receiver's port: a whole association, damaged anywhere, at once."""

    name = "C-STORE: PDUs"

    def send(self, dice: Dice) -> str:
        seed = self.seeds.series("explicit").copy(dice)
        message = associations.store(associations.data_set_of(seed.slices[0]), seed.sop_uids[0], 1)
        rest = message + associations.RELEASE
        request, later = associations.request(), b""
        if dice.random() < 0.3:
            self.last = request = damaged(dice, request + rest)
        else:
            self.last = later = damaged(dice, rest)
        answer = self._exchanged(request, later)
        self.tower.raise_if_any()
        return f"answer {answer[0]:02d}" if answer else "closed"

    def _exchanged(self, request: bytes, later: bytes) -> bytes:
        """What is answered; `later` is sent once the association is accepted."""
        peer = associations.Peer(self.intake.receiver.port)
        try:
            peer.socket.sendall(request)
            if later and peer.pdu()[0] != 2:
                raise Find("crash", "an association was not accepted")
            peer.socket.sendall(later)
            peer.socket.shutdown(1)
            return peer.drained()
        except OSError as error:
            if isinstance(error, ConnectionError) or error.errno == errno.ENOTCONN:
                return b""  # the receiver has closed it already
            raise
        finally:
            peer.socket.close()

    def check(self) -> None:
        _until_quiet(self.intake.receiver)
        peer = associations.Peer(self.intake.receiver.port)
        if not peer.associate():
            raise Find("crash", "no association after damaged ones")
        peer.close()
        _until_quiet(self.intake.receiver)
        super().check()

"""What the entrances of the service share. A real service takes what is sent; only the analysis is
left out, and the gate asked instead."""

from __future__ import annotations

from fastapi.testclient import TestClient

from tests.fuzz.entrances import Dice, Entrance, one_damaged
from tests.fuzz.judge import Control, Find, Watchtower, answered, judged
from tests.fuzz.seeds import Seed
from triage.service.app import create_app
from triage.service.records import studies
from triage.service.service import Service
from triage.settings import Settings
from triage.types import Status

WHOLE = 0.04  # share of the inputs that are a whole study with one damaged slice


class OfTheService(Entrance):
    """A service of its own, which takes and analyses nothing."""

    def open(self) -> None:
        settings = Settings(
            home=self.folder / "home",
            dicom_port=0,
            embedded_worker=False,
            dicom_timeout_s=5.0,
            max_bytes=4_000_000,
            series_quiet_s=600.0,
            watch_folder=None,
        )
        self.service = Service(settings)
        self.service.start()
        self.intake = self.service.intake
        self.tower = Watchtower()
        self._watching = self.tower.watching()
        self._watching.__enter__()
        app = create_app(settings, self.service)
        self.client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
        self.controls: dict[str, Control] = {}

    def close(self) -> None:
        self._watching.__exit__(None, None, None)
        self.client.close()
        self.service.stop()

    def send(self, dice: Dice) -> str:
        said = self._whole(dice) if dice.random() < WHOLE else self._one(dice)
        self.tower.raise_if_any()
        return said

    def _one(self, dice: Dice) -> str:
        """One damaged input."""
        raise NotImplementedError

    def _store(self, slices: list[bytes], seed: Seed, which: int) -> None:
        """Send a whole study, of which slice `which` is damaged."""
        raise NotImplementedError

    def check(self) -> None:
        checks = self.intake.checks()
        if set(checks.values()) != {"ok"}:
            raise Find("crash", str(checks))
        answer = self.client.get("/healthz")
        answered(answer.text, answer.status_code, (200,))
        self._one_home()

    def _one_home(self) -> None:
        """Nothing half done is left, and every row has its file."""
        left = [*self.service.files.incoming.iterdir(), *self.service.files.work.iterdir()]
        if left:
            raise Find("crash", f"{len(left)} files are left behind")
        with self.service.records.reading() as session:
            for study in studies.newest(session, studies.Query(background=None, limit=50)):
                for row in studies.instances(session, study.id):
                    if not self.service.files.path(row).is_file():
                        raise Find("crash", "a row without its file")

    # ---- a whole study with one damaged slice

    def _whole(self, dice: Dice) -> str:
        syntax = dice.choice(("explicit", "explicit", "implicit", "rle", "jpeg_2000"))
        seed = self.seeds.series(syntax).copy(dice)
        slices, which, touched = one_damaged(dice, seed)
        self.last = slices[which]
        self._store(slices, seed, which)
        return self._of_the_study(syntax, seed, which if touched else None, slices[which])

    def _of_the_study(self, syntax: str, seed: Seed, touched: int | None, bad: bytes) -> str:
        """The gate on what was stored: a reason, or all good slices; fewer only where it shows."""
        with self.service.records.reading() as session:
            study = studies.by_uid(session, seed.study_uid)
        if study is None:
            raise Find("crash", "the good slices of a study are gone")
        if study.status not in (Status.RECEIVED, Status.NOT_ANALYSED):
            raise Find("verdict", f"status {study.status}")
        elsewhere = seed.study_uid.encode() not in bad  # it is a study of its own: visible
        folder = self.service.files.study_folder(study.id)
        control = self._control(syntax)
        said = judged(
            folder,
            self.service.settings,
            control,
            touched=touched,
            incomplete=study.interrupted or elsewhere,
        )
        return f"study: {said}"

    def _control(self, syntax: str) -> Control:
        if syntax not in self.controls:
            self.seeds.series(syntax)
            self.controls[syntax] = Control.of(self.seeds.folder / syntax, self.settings)
        return self.controls[syntax]

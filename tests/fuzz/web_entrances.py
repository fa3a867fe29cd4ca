"""STOW-RS, uploads, the watched folder, every other request, and orders."""

from __future__ import annotations

import json
import shutil
from urllib.parse import quote

from tests.fuzz import seeds
from tests.fuzz.entrances import Dice
from tests.fuzz.judge import Find, answered
from tests.fuzz.mutate import WORDS, damaged, damaged_dicom
from tests.fuzz.of_the_service import OfTheService
from tests.fuzz.seeds import Seed
from triage.service.intake import watch
from triage.service.orders import taker

UPLOADED = (202, 400, 413)
STOWED = (200, 202, 400, 409, 413, 415)
REFUSED = (400, 401, 403, 404, 405, 409, 411, 413, 415, 422)
BOUNDARY = b"cut-here"
FORM = b'--%s\r\nContent-Disposition: form-data; name="f"; filename="s.zip"\r\n\r\n%s\r\n--%s--\r\n'


class Stow(OfTheService):
    """STOW-RS: damaged parts, a damaged body, or damaged headers."""

    name = "STOW-RS"

    def _one(self, dice: Dice) -> str:
        seed = self.seeds.series(dice.choice(seeds.PLAIN)).copy(dice)
        some = dice.sample(range(len(seed.slices)), dice.choice((1, 1, 2)))
        parts = [damaged_dicom(dice, seed.slices[k], seed.slices) for k in some]
        body, kind = (
            multipart(parts),
            f"multipart/related; type=application/dicom; boundary={BOUNDARY.decode()}",
        )
        where = dice.random()
        if where < 0.3:
            body = damaged(dice, multipart([seed.slices[k] for k in some]))
        elif where < 0.4:
            kind = _header(damaged(dice, kind.encode()))
        self.last = body
        path = "/dicom-web/studies" + ("" if dice.random() < 0.8 else f"/{seed.study_uid}")
        answer = self.client.post(path, content=body, headers={"content-type": kind})
        return answered(answer.text, answer.status_code, STOWED)

    def _store(self, slices: list[bytes], seed: Seed, which: int) -> None:
        kind = f"multipart/related; type=application/dicom; boundary={BOUNDARY.decode()}"
        body = multipart(slices)
        answer = self.client.post(
            "/dicom-web/studies", content=body, headers={"content-type": kind}
        )
        answered(answer.text, answer.status_code, STOWED)


def multipart(parts: list[bytes]) -> bytes:
    head = b"--" + BOUNDARY + b"\r\nContent-Type: application/dicom\r\n\r\n"
    return b"\r\n".join(head + part for part in parts) + b"\r\n--" + BOUNDARY + b"--\r\n"


def _header(value: bytes) -> str:
    """What a client library lets through as the value of a header."""
    return "".join(chr(c) for c in value if 32 <= c < 127).strip() or "x"


class Upload(OfTheService):
    """Uploads: a damaged zip, a zip of damaged images, a damaged form."""

    name = "HTTP upload"

    def _one(self, dice: Dice) -> str:
        seed = self.seeds.series(dice.choice(seeds.PLAIN)).copy(dice)
        some = [seed.slices[k] for k in dice.sample(range(len(seed.slices)), dice.choice((1, 2)))]
        where = dice.random()
        if where < 0.4:
            body = seeds.zipped([damaged_dicom(dice, data, seed.slices) for data in some])
        else:
            body = damaged(dice, seeds.zipped(some, dice.random() < 0.5))
        kind = "application/zip"
        if where > 0.8:
            kind = f"multipart/form-data; boundary={BOUNDARY.decode()}"
            body = damaged(dice, FORM % (BOUNDARY, body, BOUNDARY))
        self.last = body
        return self._posted(body, kind)

    def _posted(self, body: bytes, kind: str = "application/zip") -> str:
        answer = self.client.post("/api/v1/studies", content=body, headers={"content-type": kind})
        said = answered(answer.text, answer.status_code, UPLOADED)
        if answer.status_code == 202:
            for study in answer.json()["studies"]:
                if study["status"] not in ("received", "not_analysed"):
                    raise Find("verdict", f"status {study['status']}")
        return said

    def _store(self, slices: list[bytes], seed: Seed, which: int) -> None:
        self._posted(seeds.zipped(slices))


class Folder(OfTheService):
    """The watched folder: files and zips."""

    name = "watched folder"

    def open(self) -> None:
        super().open()
        watch.SETTLE_S = 0.0
        self.inbox = self.folder / "inbox"
        self.watcher = watch.Watcher(self.intake, self.inbox)
        for name in ("done", "refused"):
            (self.inbox / name).mkdir(parents=True, exist_ok=True)

    def _one(self, dice: Dice) -> str:
        seed = self.seeds.series(dice.choice(seeds.PLAIN)).copy(dice)
        good = dice.choice(seed.slices)
        name, self.last = "one.dcm", damaged_dicom(dice, good, seed.slices)
        if dice.random() < 0.3:
            name, self.last = "one.zip", damaged(dice, seeds.zipped([good]))
        return self._taken({name: self.last})

    def _taken(self, files: dict[str, bytes]) -> str:
        for name, data in files.items():
            (self.inbox / name).write_bytes(data)
        self.watcher.scan()
        left = [name for name in files if (self.inbox / name).exists()]
        if left:
            raise Find("crash", f"{left} was left in the folder")
        refused = len(list((self.inbox / "refused").iterdir()))
        for where in ("done", "refused"):
            shutil.rmtree(self.inbox / where)
            (self.inbox / where).mkdir()
        return "refused" if refused else "taken"

    def _store(self, slices: list[bytes], seed: Seed, which: int) -> None:
        self._taken({f"{number:03d}.dcm": data for number, data in enumerate(slices)})


class Requests(OfTheService):
    """Every other route: damaged paths, queries, headers and JSON; and HL7 orders."""

    name = "other requests, orders"
    SEEDS = (
        ("POST", "/api/v1/session", {"name": "a", "password": "b" * 12}),
        ("PUT", "/api/v1/session", {"mask": True}),
        ("GET", "/api/v1/studies?limit=10&order=urgency&search=DOE&status=received", None),
        ("GET", "/api/v1/studies/1.2.3", None),
        ("GET", "/api/v1/studies/1.2.3/overlays/liver_1.png", None),
        ("GET", "/api/v1/studies/1.2.3/meshes/1_liver.mz3", None),
        ("GET", "/api/v1/studies/1.2.3/volumes/1.2.3.4?resolution=preview", None),
        ("POST", "/api/v1/studies/1.2.3/acknowledge", {"by": "x"}),
        ("POST", "/api/v1/studies/1.2.3/cancel", None),
        ("POST", "/api/v1/studies/1.2.3/findings/liver/review", {"agrees": True, "comment": "x"}),
        ("GET", "/api/v1/quarantine?limit=5", None),
        ("GET", "/api/v1/deliveries?state=dead", None),
        ("POST", "/api/v1/deliveries/1/resend", None),
        ("DELETE", "/api/v1/studies/1.2.3", None),
        ("GET", "/?tab=list&search=a", None),
        ("GET", "/studies/1.2.3", None),
        (
            "POST",
            "/api/v1/orders",
            {
                "resourceType": "ServiceRequest",
                "status": "active",
                "intent": "order",
                "priority": "stat",
                "identifier": [{"value": "A1"}],
                "subject": {"identifier": {"value": "P1"}},
                "code": {"text": "CT abdomen"},
                "authoredOn": "2026-11-21T10:00:00Z",
            },
        ),
    )
    HL7 = (
        b"MSH|^~\\&|RIS|H|TRIAGE|H|20261121||ORM^O01|1|P|2.5\rPID|1||P1||DOE^JANE\r"
        b"ORC|NW|A1\rOBR|1|A1||CT^CT abdomen|||20261121|||||||||||||||||||^^^^^S\r"
    )

    def _whole(self, dice: Dice) -> str:
        return self._one(dice)

    def _one(self, dice: Dice) -> str:
        if dice.random() < 0.25:
            return self._order(dice)
        method, path, body = dice.choice(self.SEEDS)
        content = b"" if body is None else json.dumps(body).encode()
        if content and dice.random() < 0.7:
            content = damaged(dice, content)
        else:
            path = self._path(dice, path)
        self.last = f"{method} {path}\n".encode() + content
        answer = self.client.request(
            method, path, content=content, headers={"content-type": "application/json"}
        )
        return answered(answer.text, answer.status_code, (200, 201, 202, 204, 303, 307, *REFUSED))

    def _path(self, dice: Dice, path: str) -> str:
        head, _, query = path.partition("?")
        parts = head.split("/")
        if query and dice.random() < 0.5:
            word = dice.choice(WORDS).decode("latin-1")
            return f"{head}?{query}{quote(word)}&limit={quote(word)}"
        at = dice.randrange(1, len(parts))
        parts[at] = quote(damaged(dice, parts[at].encode() or b"x"))
        return "/".join(parts) or "/"

    def _order(self, dice: Dice) -> str:
        self.last = damaged(dice, self.HL7)
        said = taker.answer(self.service.records, self.last, "127.0.0.1")
        if "MSA|" not in said:
            raise Find("crash", f"no acknowledgement: {said[:100]!r}")
        return f"order {said.partition('MSA|')[2][:2]}"

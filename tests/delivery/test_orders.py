"""Orders come by HL7 and FHIR, put their study first, and are held against the images."""

from __future__ import annotations

from pathlib import Path

import pytest
from fhir.resources.R4B.servicerequest import ServiceRequest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message
from hypothesis import given
from hypothesis import strategies as st

from tests.delivery.conftest import Ward
from tests.dicom import write
from tests.results.dicom.folders import WHO
from triage.delivery import mllp
from triage.delivery.errors import DeliveryError
from triage.results.hl7 import segment
from triage.service.api.orders import REQUEST
from triage.service.orders.compare import regions, side_of
from triage.service.orders.messages import OrderError, acknowledgement, ordered

OMI = (
    "MSH|^~\\&|RIS|H|TRIAGE|H|20261121140000||OMI^O23^OMI_O23|M1|P|2.5.1\r"
    "PID|1||P-1^^^H^MR||DOE^JANE||19700203|F\r"
    "ORC|NW|PL-9|F-9\r"
    "TQ1|1||||||||S^Stat^HL70485\r"
    "OBR|1|PL-9|F-9|CTABD^CT abdomen and kidneys left^L\r"
    "IPC|ACC-OMI|RP1|1.2.3|SPS1|CT\r"
)
OBR = {
    1: "1",
    2: "PL-8",
    3: "F-8",
    4: "CTHEAD^CT head^L",
    15: "^^^HEAD",
    18: "ACC-ORM",
    27: "^^^^^R",
}
ORM = (
    "MSH|^~\\&|RIS|H|TRIAGE|H|20261121140000||ORM^O01|M2|P|2.3\r"
    f"PID|1||P-1\rORC|NW|PL-8|F-8\r{segment('OBR', OBR)}\r"
)


def test_the_values_stand_where_they_stand() -> None:
    (one,) = ordered(OMI)
    assert (one.accession_number, one.priority, one.side) == ("ACC-OMI", "stat", "left")
    assert (one.patient_id, one.placer_order_number) == ("P-1", "PL-9")
    (other,) = ordered(ORM)
    assert (other.accession_number, other.priority, other.body_part) == (
        "ACC-ORM",
        "routine",
        "HEAD",
    )
    assert ordered(ORM.replace("ORC|NW", "ORC|CA"))[0].cancelled
    ServiceRequest.model_validate(REQUEST | {"subject": {"identifier": {"value": "P-77"}}})


@pytest.mark.parametrize("text", ["", "hello", ORM.replace("ORM^O01", "ADT^A01"), "MSH|^~\\&|a\r"])
def test_what_is_no_order_is_refused(text: str) -> None:
    with pytest.raises(OrderError):
        ordered(text)


def test_acknowledgements_are_valid() -> None:
    for text, code in ((OMI, "AA"), (ORM, "AE")):
        answer = acknowledgement(text, code)
        assert parse_message(answer, validation_level=VALIDATION_LEVEL.STRICT).validate()


@given(st.text(max_size=300))
def test_nothing_breaks_the_reader(text: str) -> None:
    for message in (text, f"MSH|^~\\&|{text}\rPID|{text}\rORC|{text}\rOBR|{text}"):
        try:
            ordered(message)
        except OrderError as error:
            assert acknowledgement(message, error.code)


def test_a_stat_order_comes_before_its_images(ward: Ward, tmp_path: Path) -> None:
    assert ward.service.orders is not None
    address = f"127.0.0.1:{ward.service.orders.port}"
    mllp.send(address, OMI, timeout_s=10)
    mllp.send(address, OMI, timeout_s=10)  # twice is once
    with pytest.raises(DeliveryError, match="AR"):
        mllp.send(address, OMI.replace("OMI^O23^OMI_O23", "ADT^A01"), timeout_s=10)
    folder = tmp_path / "series"
    who = {**WHO, "AccessionNumber": "ACC-OMI", "PatientID": "P-2"}
    write.write_series(folder, write.turned(write.phantom(), "LPS"), **who)
    study = ward.send(folder)
    with ward.service.records.reading() as session:
        from triage.service.records import studies

        row = studies.by_uid(session, study)
        assert row is not None and row.order_priority == "stat"
    rows = ward.settled(study, 1)
    assert {r["state"] for r in rows} == {"done"}
    mine = [
        o
        for o in ward.client.get("/api/v1/orders").json()["orders"]
        if o["accession_number"] == "ACC-OMI"
    ]
    (order,) = mine
    assert order["study_instance_uid"] == study
    assert [w.split(":")[0] for w in order["warnings"]] == ["MISMATCH_PATIENT"]
    (message,) = [m for m in ward.hl7.messages if study in m]
    assert "MISMATCH_PATIENT" in message and "PL-9" in message


def test_a_fhir_order_may_come_after_them(ward: Ward, series: Path) -> None:
    study = ward.send(series)
    asked = {**REQUEST, "identifier": [{"value": "ACC-7"}], "bodySite": [{"text": "Skull"}]}
    answer = ward.client.post("/api/v1/orders", json=asked)
    assert answer.status_code == 201, answer.text
    ward.settled(study, 1)
    orders = ward.client.get("/api/v1/orders").json()["orders"]
    (order,) = [o for o in orders if o["accession_number"] == "ACC-7"]
    assert order["priority"] == "stat"
    codes = {w.split(":")[0] for w in order["warnings"]}
    assert codes == {"MISMATCH_PATIENT", "MISMATCH_BODY_PART"}
    assert ward.client.post("/api/v1/orders", json={"resourceType": "Patient"}).status_code == 400


@pytest.mark.parametrize(
    ("text", "region"),
    [("CT Abdomen/Pelvis", "abdomen"), ("LIVER", "abdomen"), ("CT Kopf nativ", "head"), ("", "")],
)
def test_regions_in_words(text: str, region: str) -> None:
    assert regions(text) == ({region} if region else set())


@pytest.mark.parametrize(
    ("text", "side"),
    [("kidney, left", "left"), ("Niere rechts", "right"), ("both kidneys", "both"), ("liver", "")],
)
def test_sides_in_words(text: str, side: str) -> None:
    assert side_of(text) == side

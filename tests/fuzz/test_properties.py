"""What must hold for any bytes at all at the parsers that run in the service's own process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz.associations import data_set_of
from triage.nets import bundle
from triage.reasons import NotAnalysed
from triage.service.intake.header import read_header
from triage.service.intake.multipart import boundary_of
from triage.service.orders import messages

PREFIX = bytes(128) + b"DICM"


@settings(max_examples=60)
@given(data=st.binary(max_size=400), prefixed=st.booleans())
@example(data=b"", prefixed=True)
@example(data=b"\xfe\xff\x00\xe0\xff\xff\xff\xff" * 30, prefixed=True)
def test_a_header_is_read_or_refused(data: bytes, prefixed: bool) -> None:
    try:
        header = read_header(PREFIX + data if prefixed else data)
    except NotAnalysed as refusal:
        assert refusal.code == "UNREADABLE"
        return
    texts = (header.patient_name, header.study_instance_uid, header.sop_instance_uid)
    assert all(c >= " " for text in texts for c in text)


@settings(max_examples=40)
@given(content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
@example(content=b"[" * 100_000)
@example(content=b'{"schema_version": 1e999}')
def test_a_manifest_is_valid_or_refused(content: bytes) -> None:
    with pytest.raises(bundle.BundleError):
        bundle.parse_manifest(content, Path("x"))


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)


@settings(max_examples=40)
@given(value=json_values)
def test_any_json_is_no_manifest(value: object) -> None:
    with pytest.raises(bundle.BundleError):
        bundle.parse_manifest(json.dumps(value).encode(), Path("x"))


@settings(max_examples=60)
@given(text=st.text(st.characters(max_codepoint=255), max_size=120))  # of a header: latin-1
def test_a_content_type_has_a_boundary_or_none(text: str) -> None:
    found = boundary_of(f"multipart/related; {text}")
    assert found is None or 0 < len(found) <= 70


@settings(max_examples=60)
@given(text=st.text(max_size=200))
def test_an_order_is_read_or_refused(text: str) -> None:
    for message in (text, f"MSH|^~\\&|{text}"):
        try:
            messages.ordered(message)
        except messages.OrderError as error:
            assert error.code in ("AE", "AR")
        assert "MSA|" in messages.acknowledgement(message, "AE", text)


@given(data=st.binary(max_size=200))
def test_the_data_set_follows_the_meta_information(data: bytes) -> None:
    assert data.endswith(data_set_of(data))

"""The pages as they leave the service: complete, escaped, in order, without inline scripts."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from instances import ct
from pydicom import dcmread
from quick_pipeline import report
from running import put, put_in
from sqlalchemy import delete

from triage.results.report import refused, to_dict
from triage.service.records import Database, lists, studies
from triage.service.records.models import Study, now
from triage.service.service import Service
from triage.service.web import assets
from triage.service.web.machine import markdown
from triage.service.web.words import LANGUAGES, Words
from triage.types import DISCLAIMER, Priority, Status, Verdict

ROOT = Path(__file__).resolve().parents[3]
HOSTILE = "<script>alert(1)</script>^<img src=x onerror=alert(2)>\n\"'&" + "X" * 300
PAGES = ("/", "/admin", "/login", "/?tab=not_applicable", "/worklist/rows")


def sound(verdict: Verdict = Verdict.SUSPECTED, number: int = 1) -> dict[str, object]:
    return to_dict(report(dcmread(io.BytesIO(ct(number))), 3, verdict))


def wish(name: str, value: str) -> dict[str, str]:
    """A preference, as the browser sends it."""
    return {"cookie": f"triage_{name}={value}"}


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Database:
    database = Database.at_home(tmp_path_factory.mktemp("empty"))
    database.upgrade()
    return database


@pytest.fixture(scope="module")
def study(service: Service) -> str:
    return put(service.records, sound(number=900), patient_name=HOSTILE, accession_number="A<1>")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("path", [*PAGES, "/studies/{study}"])
def test_no_page_holds_inline_code_or_markup_of_a_patient(
    client: TestClient, study: str, path: str, language: str
) -> None:
    answer = client.get(path.format(study=study), headers=wish("lang", language))
    assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store"
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy and "script-src 'self'" in policy
    page = answer.text
    assert not re.search(r"<script(?! src=\"/static/)", page)
    assert not re.search(r"\s(style|on\w+)=\"", page) and "<style" not in page
    assert "<img src=x" not in page and "javascript:" not in page
    assert not re.search(r"(src|href)=\"(https?:)?//", page)  # nothing from elsewhere
    if path != "/worklist/rows":
        assert DISCLAIMER in page and f'lang="{language}"' in page
        assert Words(language)("app.research") in page


def test_the_first_finding_is_open_before_any_script_has_run(
    client: TestClient, study: str
) -> None:
    findings = re.findall(r'<article class="(finding[^"]*)"', client.get(f"/studies/{study}").text)
    assert ["open" in names.split() for names in findings] == [True, *[False] * 4]


def test_a_hostile_name_is_text_and_short(client: TestClient, study: str) -> None:
    page = client.get("/").text
    row = re.search(rf'<tr[^>]*id="s-{study}".*?</tr>', page, re.S)
    assert row is not None
    assert "&lt;script&gt;" in row[0] and "X" * 100 not in row[0]
    assert "\n&#34;" not in row[0]


def test_hidden_patients_are_not_sent_at_all(client: TestClient, study: str) -> None:
    for path in ("/", f"/studies/{study}", "/worklist/rows"):
        page = client.get(path, headers=wish("mask", "1")).text
        assert "script&gt;" not in page and "XXXX" not in page and "A&lt;1&gt;" not in page
        assert "•••" in page
    page = client.get("/?sort=patient", headers=wish("mask", "1")).text
    assert "A<1>".lower().encode().hex() not in page.lower()  # nor its place in the alphabet
    assert (
        'value="patient"' not in page
        and 'value="patient" selected' in client.get("/?sort=patient").text
    )


def test_each_state_says_what_it_is_and_what_to_do(client: TestClient, service: Service) -> None:
    refusal = to_dict(refused("TOO_FEW_SLICES", "3 slices"))
    refused_id = put(service.records, refusal | {"study_instance_uid": "1.2.3"})
    arriving = put(service.records, expected_instances=240, instance_count=112)
    page = client.get("/").text
    row = re.search(rf'<tr[^>]*id="s-{refused_id}".*?</tr>', page, re.S)
    assert row is not None and "(3 slices)" in row[0] and "Send the whole axial series" in row[0]
    assert "no finding" not in row[0]
    row = re.search(rf'<tr[^>]*id="s-{arriving}".*?</tr>', page, re.S)
    assert row is not None and "112 of 240 images" in row[0] and "chip" not in row[0]
    page = client.get("/", headers=wish("lang", "ja")).text
    assert "スライスが少なすぎます。 (3 slices)" in page


def test_what_is_not_applicable_has_its_own_tab(client: TestClient, service: Service) -> None:
    key = put(service.records, status=Status.NOT_APPLICABLE, priority="routine")
    assert f"s-{key}" not in client.get("/").text
    assert f"s-{key}" in client.get("/?tab=not_applicable").text
    assert f"s-{key}" not in client.get(f"/worklist/rows?ids={key}").text


def test_filters_search_and_nonsense(client: TestClient, service: Service) -> None:
    key = put(service.records, patient_name="FINDME^A", accession_number="ACC77")
    for query in ("search=findme", "search=ACC77", "status=received", "seen=no", "sort=oldest"):
        assert f"s-{key}" in client.get(f"/?{query}").text
    for query in ("search=nobody", "status=analysed", "seen=yes", "priority=stat"):
        assert f"s-{key}" not in client.get(f"/?{query}").text
    assert "No study matches" in client.get("/?search=nobody").text
    for query in ("tab=x&status=y&sort=z&offset=-4&priority=q", "offset=nan", "search=%00%ff"):
        assert client.get(f"/?{query}").status_code == 200
    assert client.get("/studies/nothing").status_code == 404


urgency = st.tuples(
    st.sampled_from(list(Status)),
    st.sampled_from([None, *Priority]),
    st.integers(0, 5),
    st.sampled_from(["", "a", "B", "ä"]),
)


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(st.lists(urgency, min_size=2, max_size=8))
def test_new_rows_are_put_where_the_list_has_them(
    empty: Database, found: list[tuple[str, str, int, str]]
) -> None:
    began = now()
    with empty.session() as session:
        session.execute(delete(Study))
        for status, priority, age, name in found:
            at = began - timedelta(seconds=age)
            put_in(session, status=status, priority=priority, received_at=at, patient_name=name)
        for order in lists.ORDERS:
            rows = lists.ordered(session, studies.Query(), order)
            places = [lists.place(s, order) for s in rows]
            assert places == sorted(places) and len(set(places)) == len(rows)
        by_urgency = lists.ordered(session, studies.Query(), "urgency")
        assert by_urgency == lists.by_urgency(session, studies.Query())
        _nothing_unanalysed_sinks(by_urgency)


def _nothing_unanalysed_sinks(rows: list[Study]) -> None:
    calm = [
        i
        for i, s in enumerate(rows)
        if s.status == Status.ANALYSED and s.priority == Priority.ROUTINE
    ]
    unanalysed = [
        i for i, s in enumerate(rows) if s.status not in (Status.ANALYSED, Status.NOT_APPLICABLE)
    ]
    if calm and unanalysed:
        assert max(unanalysed) < min(calm)


def test_a_study_page_says_what_the_verdict_is_worth(client: TestClient, study: str) -> None:
    page = client.get(f"/studies/{study}").text
    for text in ("suspected", "0.90", "Rule-in", "virtual patients only", "rules nothing out"):
        assert text in page
    assert page.index('id="f-liver"') < page.index('id="f-bowel"')  # the suspected one first
    assert "not_applicable" not in page and "Version 1" in page
    assert client.get(f"/studies/{study}?version=77").status_code == 200


def test_readings_are_kept_audited_and_exported(client: TestClient, study: str) -> None:
    where = f"/api/v1/studies/{study}/findings/liver/review"
    for agree, comment in ((True, "clear"), (False, "=HYPERLINK(1) <b>motion</b>")):
        answer = client.post(where, json={"agree": agree, "comment": comment})
        assert answer.status_code == 200, answer.text
        assert answer.json()["label"] == int(agree)
    assert len(client.get(f"/api/v1/studies/{study}/reviews").json()["reviews"]) == 2
    page = client.get(f"/studies/{study}").text
    assert "&lt;b&gt;motion" in page
    text = client.get("/api/v1/reviews.csv").text
    (row,) = [r for r in csv.DictReader(io.StringIO(text)) if r["target"] == "liver"]
    assert (row["agree"], row["label"], row["verdict"]) == ("0", "0", "suspected")
    assert row["comment"].startswith("'=")  # no formula
    assert "finding.reviewed" in client.get("/admin").text
    answer = client.post(where.replace("liver", "spleen") + "?version=9", json={"agree": True})
    assert answer.status_code == 409
    assert client.post(where, json={"agree": True, "comment": "x" * 2001}).status_code == 422


def test_preferences_are_cookies_and_lead_back(client: TestClient) -> None:
    answer = client.get("/preferences?lang=ja&theme=light&next=/admin", follow_redirects=False)
    assert answer.status_code == 303 and answer.headers["location"] == "/admin"
    cookies = answer.headers.get_list("set-cookie")
    assert len(cookies) == 2 and all("HttpOnly" in c and "SameSite=strict" in c for c in cookies)
    answer = client.get("/preferences?lang=xx&next=//evil.example", follow_redirects=False)
    assert answer.headers["location"] == "/" and "set-cookie" not in answer.headers
    client.cookies.clear()


def test_static_files_may_be_kept_and_nothing_else_is_served(client: TestClient) -> None:
    answer = client.get(assets.address("css/base.css"))
    assert answer.status_code == 200 and "immutable" in answer.headers["cache-control"]
    assert "no-cache" in client.get("/static/old/css/base.css").headers["cache-control"]
    for name in ("../__init__.py", "..%2f..%2fsettings.py", "css/none.css", "/etc/passwd", ""):
        assert client.get(f"/static/{assets.version()}/{name}").status_code == 404


def test_pinned_libraries_are_what_the_manifest_says() -> None:
    check = [sys.executable, str(ROOT / "scripts/fetch-web-assets"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    entries = json.loads((assets.FOLDER / "vendor/manifest.json").read_text())["files"]
    licences = (assets.FOLDER / "vendor/LICENSES.txt").read_text()
    for entry in entries:
        if "vendor" in entry["file"]:
            assert f"{entry['package']} {entry['version']}" in licences


def test_a_model_card_brings_no_markup() -> None:
    text = "# A\n<script>x</script> [y](javascript:1) ![z](http://e/x.png)\n\n|a|b|\n|-|-|\n|1|2|\n"
    page = markdown(text)
    assert "<table>" in page and "<h1>A</h1>" in page
    assert "<script" not in page and "<a " not in page and "<img" not in page


def test_a_volume_that_is_not_written_is_not_fetched_ahead(client: TestClient, study: str) -> None:
    """It would have to be made from the images, for a reader who may not want it."""
    found = re.search(r'data-scenes="([^"]*)"', client.get(f"/studies/{study}").text)
    assert found is not None
    (scene,) = json.loads(html.unescape(found.group(1)))
    assert scene["ready"] is False and scene["small"].endswith("resolution=preview")

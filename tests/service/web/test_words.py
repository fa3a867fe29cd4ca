"""Both languages say the same things; what a page makes of names, ages and numbers."""

from __future__ import annotations

import re
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.reasons import REASONS
from triage.service.records.models import Study
from triage.service.web import people, reading, wishes
from triage.service.web.beside import moment
from triage.service.web.listing import SIGNS, span
from triage.service.web.render import _templates
from triage.service.web.words import LANGUAGES, Words, preferred, table
from triage.types import TARGETS, Organ, Phase, Priority, Status, Verdict

ENGLISH = Words("en")


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("language", [code for code in LANGUAGES if code != "en"])
def test_every_language_has_the_same_keys_and_the_same_fields(language: str) -> None:
    mine, english = table(language), table("en")
    assert set(mine) == set(english)
    assert {k: fields(v) for k, v in mine.items()} == {k: fields(v) for k, v in english.items()}
    assert all(text.strip() for text in mine.values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_whatever_a_report_says_has_its_words(language: str) -> None:
    known = table(language)
    wanted = [f"target.{t}" for t in TARGETS] + [f"long.{t}" for t in TARGETS]
    wanted += [f"verdict.{v}" for v in Verdict] + [f"meaning.{v}" for v in Verdict]
    wanted += [f"status.{s}" for s in Status] + [f"priority.{p}" for p in Priority]
    wanted += [f"organ.{o}" for o in Organ] + [f"phase.{p}" for p in Phase]
    wanted += [f"reason.{code}.{part}" for code in REASONS for part in ("message", "fix")]
    assert [key for key in wanted if key not in known] == []
    assert set(SIGNS) == {v.value for v in Verdict}


def test_templates_and_scripts_use_only_keys_that_exist() -> None:
    from triage.service.web.assets import FOLDER

    environment = _templates()
    for name in environment.list_templates():
        source = environment.loader.get_source(environment, name)[0]  # type: ignore[union-attr]
        for key in re.findall(r"""\bt\("([a-z_.]+)"[,)]""", source):
            assert key in table("en"), f"{name}: {key}"
    for script in (FOLDER / "js").iterdir():
        for key in re.findall(r"""\bsay\("(\w+)\"""", script.read_text()):
            assert f"js.{key}" in table("en"), f"{script.name}: {key}"


@pytest.mark.parametrize(
    ("accept", "language"),
    [
        ("", "en"),
        ("ja", "ja"),
        ("de, ja;q=0.5, en;q=0.4", "ja"),
        ("en-GB,en;q=0.9,ja;q=0.8", "en"),
        ("ja-JP;q=x, en", "en"),
        ("*" * 5000, "en"),
    ],
)
def test_the_browsers_language_is_taken(accept: str, language: str) -> None:
    assert preferred(accept) == language


@given(st.text(max_size=400))
def test_a_name_becomes_one_short_visible_line(name: str) -> None:
    for language in LANGUAGES:
        shown = people.shown_name(name, language)
        assert len(shown) <= people.LONGEST
        assert not re.search(r"[\x00-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", shown)


@pytest.mark.parametrize(
    ("name", "english", "japanese"),
    [
        ("DOE^JANE", "DOE, JANE", "DOE, JANE"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada, Tarou", "山田 太郎"),
        ("DOE", "DOE", "DOE"),
        ("^^^", "", ""),
        ("DOE^JANE^M^Dr", "DOE, JANE M", "DOE, JANE M"),
        ("D\nO\x00E^<b>", "D O E, <b>", "D O E, <b>"),
    ],
)
def test_names_for_people(name: str, english: str, japanese: str) -> None:
    assert people.shown_name(name, "en") == english
    assert people.shown_name(name, "ja") == japanese


@pytest.mark.parametrize(
    ("age", "born", "seen", "shown"),
    [
        ("045Y", "", "", "45 y"),
        ("", "19800229", "20260228", "45 y"),
        ("45", "19800229", "20260301", "46 y"),
        ("", "20300101", "20260101", ""),
        ("006M", "", "", "6 mo"),
        ("", "nonsense", "20260101", ""),
    ],
)
def test_ages(age: str, born: str, seen: str, shown: str) -> None:
    study = Study(patient_age=age, patient_birth_date=born, study_date=seen)
    assert people.age(study, ENGLISH) == shown


@given(st.text(max_size=60))
def test_nobody_is_led_to_another_site(text: str) -> None:
    path = wishes.own_path(text)
    assert path.startswith("/") and not path.startswith(("//", "/\\"))


@pytest.mark.parametrize("text", ["//evil", "https://evil", "/\\evil", "/\tx", "javascript:1", ""])
def test_what_is_no_path_of_ours_leads_to_the_worklist(text: str) -> None:
    assert wishes.own_path(text) == "/"


def finding(verdict: str, n: int | None, bound: float | None) -> dict[str, Any]:
    rule_out = {"cutoff": 0.02, "positives": n, "sensitivity_lower_bound": bound}
    return {"verdict": verdict, "rule_out": rule_out, "rule_in": {"specificity": 0.95}}


def test_the_certificate_is_true_to_what_was_calibrated_on() -> None:
    said = reading.certificate(finding("no_finding", 59, 0.9505), True, ENGLISH)
    assert "virtual patients only" in said and "rules nothing out" in said and "95 %" in said
    said = reading.certificate(finding("no_finding", 64, 0.9543), False, ENGLISH)
    assert said.startswith("Missed none of 64 injured patients") and "at least 95 %" in said
    assert "too little" not in said
    said = reading.certificate(finding("uncertified", 14, 0.8074), False, ENGLISH)
    assert "at least 80 %" in said and "too little" in said
    assert "rule nothing out" in reading.certificate(finding("uncertified", 0, 0.0), False, ENGLISH)
    assert reading.certificate(finding("not_assessed", 64, 0.95), False, ENGLISH) == ""


@given(st.floats(0, 1))
def test_a_bound_is_never_rounded_up(share: float) -> None:
    assert int(reading.percent(share)) <= share * 100 + 1e-6


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_scale_keeps_the_order(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert 0 <= reading._place(low) <= reading._place(high) <= 100


def test_spans_of_time() -> None:
    assert [span(s, ENGLISH) for s in (-3, 59.6, 150, 7300, 200000)] == [
        "0 s",
        "60 s",
        "2 min",
        "2 h",
        "2 d",
    ]


def test_the_timeline_speaks_the_readers_language() -> None:
    def said(detail: str, language: str) -> str:
        told = {"at": "2026-01-01T00:00:00Z", "what": "finished", "detail": detail}
        return moment(told, Words(language))["detail"]

    assert said("97 images", "ja") == "97 画像"
    assert said("version 2, 3 tries: not_analysed", "ja") == "第 2 版, 3 回試行, 解析不可"
    assert said("version 1: analysed", "en") == "Version 1, Analysed"
    assert said("ada", "ja") == "ada"

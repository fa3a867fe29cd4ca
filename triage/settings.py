"""All settings, one place. Each field is read from the environment as TRIAGE_<NAME>."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """TRIAGE_* environment variables with their defaults."""

    model_config = SettingsConfigDict(env_prefix="TRIAGE_", frozen=True)

    home: Path = Field(Path("~/.triage"), description="Folder of the service's data.")
    model: str = Field("reference", description="Bundle to use: a name below models/ or a folder.")
    device: str = Field("auto", description="auto, cpu or cuda.")
    engine: Literal["auto", "torch", "openvino"] = Field(
        "auto", description="What runs the networks: auto is OpenVINO on a CPU, torch on CUDA."
    )
    threads: int = Field(0, ge=0, description="CPU threads; 0 means one for each core.")
    min_slices: int = Field(12, ge=1, description="Fewer slices are refused (TOO_FEW_SLICES).")
    max_slices: int = Field(4000, ge=1, description="More slices are refused (TOO_LARGE).")
    max_bytes: int = Field(
        4 << 30, ge=1, description="A larger input, after inflating, is refused (TOO_LARGE)."
    )
    decode_timeout_s: float = Field(
        120.0, gt=0, description="Seconds the decoding child may take for one series."
    )
    decode_memory_bytes: int = Field(
        2 << 30, ge=0, description="Address space the decoding child may add; 0 means no limit."
    )
    min_sensitivity_bound: float = Field(
        0.90, ge=0, le=1, description="Below this lower bound a verdict is uncertified."
    )
    quality_refuse: str = Field(
        "NOT_ABDOMEN,MISMATCH_ORIENTATION",
        description="Quality findings that refuse a series, comma-separated; the others warn.",
    )
    quality_sure: float = Field(
        0.95, ge=0, le=1, description="A quality finding refuses from this confidence on."
    )
    analysis_timeout_s: float = Field(
        1800.0, gt=0, description="Seconds one study may take in the service; then TIMED_OUT."
    )
    worker_id: str = Field(
        "", description="Name of this worker among all; by default made once for each machine."
    )
    worker_concurrency: int = Field(
        1, ge=1, le=64, description="Studies that a worker analyses at a time; the same on all."
    )
    embedded_worker: bool = Field(
        True, description="Whether `triage serve` analyses; else `triage worker` has to run."
    )
    prewarm: bool = Field(True, description="Load the networks at start, not at the first study.")
    analysis_memory_bytes: int = Field(
        0, ge=0, description="Memory of the analysing process before it is ended; 0 means no limit."
    )
    stop_grace_s: float = Field(
        5.0, ge=0, description="Seconds a study under way may take after SIGTERM; else it resumes."
    )
    imagenet: Path | None = Field(
        None, description="ImageNet weights of MobileNetV2 for `triage train --init imagenet`."
    )
    debug: bool = Field(False, description="Show the traceback of an error.")
    http_port: int = Field(8765, ge=0, le=65535, description="Port of `triage serve`.")
    http_host: str = Field("127.0.0.1", description="Address that `triage serve` binds to.")
    http_names: str = Field(
        "", description="Host names of the service, comma-separated; empty: all, with a login."
    )
    tls_cert: Path | None = Field(None, description="Certificate chain (PEM): HTTP over TLS.")
    tls_key: Path | None = Field(None, description="Private key (PEM) of that certificate.")
    behind_proxy: bool = Field(
        False, description="A proxy before us does TLS and sets X-Forwarded-For; needs a login."
    )
    login_required: bool = Field(
        False, description="A login on the loopback address, too; it is once a user exists."
    )
    session_idle_s: float = Field(
        3600.0, gt=0, description="Seconds without a request after which a login ends."
    )
    session_s: float = Field(43200.0, gt=0, description="Seconds after which every login ends.")
    mask_patients: bool = Field(False, description="Hide patient fields in every answer.")
    audit_syslog: str = Field(
        "", description="Log server for the audit log, host:port: RFC 5424 over TLS."
    )
    audit_syslog_ca: Path | None = Field(
        None, description="CA (PEM) of the log server; by default those of this machine."
    )
    audit_syslog_cert: Path | None = Field(
        None, description="Our certificate and key (PEM, one file), where the log server asks."
    )
    log_format: Literal["json", "text"] = Field(
        "json", description="Log lines of `triage serve` and `triage worker`."
    )
    database_url: str | None = Field(
        None, description="postgresql://... where several machines work; else SQLite in the home."
    )
    dicom_port: int = Field(11112, ge=0, le=65535, description="Port of the DICOM receiver.")
    dicom_host: str = Field("127.0.0.1", description="Address that the DICOM receiver binds to.")
    ae_title: str = Field(
        "TRIAGE", min_length=1, max_length=16, description="Our application entity title."
    )
    ae_title_required: bool = Field(
        False, description="Refuse associations that call another AE title than ours."
    )
    senders: str = Field(
        "", description="Calling AE titles that may send, as AE or AE@address; empty means all."
    )
    dicom_max_associations: int = Field(128, ge=1, description="Associations at the same time.")
    dicom_timeout_s: float = Field(
        30.0, gt=0, description="Seconds without a sign of life after which a sender is cut off."
    )
    dicom_tls_cert: Path | None = Field(None, description="Certificate (PEM): DICOM over TLS.")
    dicom_tls_key: Path | None = Field(None, description="Private key (PEM) of that certificate.")
    dicom_tls_client_ca: Path | None = Field(
        None, description="CA (PEM): only senders with a certificate of it may connect."
    )
    max_instance_bytes: int = Field(
        1 << 30, ge=1, description="A larger single DICOM file is refused by the service."
    )
    series_quiet_s: float = Field(
        30.0, gt=0, description="Seconds without a new image after which a study is complete."
    )
    study_deadline_s: float = Field(
        3600.0, gt=0, description="Seconds from the first image to a result; then TIMED_OUT."
    )
    watch_folder: Path | None = Field(None, description="Folder whose DICOM files are taken.")
    pacs: str = Field("", description="PACS to pull from by C-FIND and C-MOVE: AE@host:port.")
    pacs_web: str = Field("", description="PACS to pull from by DICOMweb: its address.")
    deliver_dicom: str = Field(
        "", description="PACS that get the results by C-STORE: AE@host:port, comma-separated."
    )
    deliver_stow: str = Field("", description="PACS that get the results by STOW-RS: addresses.")
    deliver_stow_token: str = Field("", repr=False, description="Bearer token for them.")
    deliver_objects: str = Field(
        "sr,sc,seg,pm,ko", description="DICOM objects that are sent; sr always."
    )
    deliver_fhir: str = Field("", description="FHIR R4 servers that get the results: addresses.")
    deliver_fhir_token: str = Field("", repr=False, description="Bearer token for them.")
    deliver_hl7: str = Field("", description="Receivers of HL7 ORU^R01 over MLLP: host:port.")
    deliver_hl7_folder: Path | None = Field(None, description="Folder for HL7 ORU^R01 as files.")
    deliver_webhook: str = Field("", description="Addresses that are told of results by webhook.")
    deliver_webhook_secret: str = Field(
        "", repr=False, description="Secret that signs webhooks: 24 bytes or more."
    )
    deliver_timeout_s: float = Field(
        30.0, gt=0, description="Seconds without an answer after which a delivery failed."
    )
    deliver_attempts: int = Field(
        120, ge=1, description="Tries before a delivery is given up; about 20 hours."
    )
    hl7_port: int | None = Field(
        None, ge=0, le=65535, description="Port for HL7 orders over MLLP; off without."
    )
    hl7_host: str = Field("127.0.0.1", description="Address that this port is bound to.")
    hl7_senders: str = Field(
        "", description="Addresses that may send HL7, comma-separated; empty means all."
    )
    drift_since: date | None = Field(
        None, description="Studies before that day are no reference for what comes in now."
    )
    research_export: bool = Field(
        False, description="An administrator may take out de-identified studies, for research."
    )
    research_dates: Literal["removed", "shifted"] = Field(
        "removed", description="Dates in them: removed, or shifted by days of each patient's own."
    )
    research_key: Path | None = Field(
        None, description="Key of their pseudonyms; by default research.key in the home."
    )
    retention_days: int = Field(
        0, ge=0, description="Days after which a study and its images are deleted; 0 means never."
    )


_CREDENTIALS = re.compile(r"://[^@/\s]*@")
_SECRET = re.compile(r"_(secret|password|token)$")


def without_secrets(settings: Settings) -> dict[str, Any]:
    """Every setting as JSON, for people and logs: secrets only say that they are set."""
    return {
        name: ("(set)" if value else value)
        if _SECRET.search(name)
        else _CREDENTIALS.sub("://***@", value)
        if isinstance(value, str)
        else value
        for name, value in settings.model_dump(mode="json").items()
    }


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()

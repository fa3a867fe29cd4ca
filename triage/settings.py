"""All settings, one place. Each field is read from the environment as TRIAGE_<NAME>."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """TRIAGE_* environment variables with their defaults."""

    model_config = SettingsConfigDict(env_prefix="TRIAGE_", frozen=True)

    home: Path = Field(Path("~/.triage"), description="Folder of the service's data.")
    model: str = Field("reference", description="Bundle to use: a name below models/ or a folder.")
    device: str = Field("auto", description="auto, cpu or cuda.")
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
    analysis_timeout_s: float = Field(
        1800.0, gt=0, description="Seconds one study may take in the service; then TIMED_OUT."
    )
    imagenet: Path | None = Field(
        None, description="ImageNet weights of MobileNetV2 for `triage train --init imagenet`."
    )
    debug: bool = Field(False, description="Show the traceback of an error.")
    http_port: int = Field(8765, ge=0, le=65535, description="Port of `triage serve`.")
    http_host: str = Field("127.0.0.1", description="Address that `triage serve` binds to.")


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()

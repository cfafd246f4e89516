"""Settings: `millicent.toml`, then the environment (`MILLICENT_…`), then flags; the last one that speaks wins."""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from pydantic import Field
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)  # fmt: skip

FILE: Final = "millicent.toml"


class BadSettingsError(ValueError):
    """Settings that cannot be run with; the message names the value, the rule and the remedy."""


def default_data() -> Path:
    """Where data lives unless told otherwise: `$XDG_DATA_HOME/millicent`, else `~/.local/share/millicent`."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "millicent"


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(env_prefix="MILLICENT_", toml_file=FILE, extra="forbid")

    data: Path = Field(default_factory=default_data, description="directory of the store, the spool and the keys")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8050, ge=0, le=65535, description="port of the dashboard and the API")
    otlp_port: int = Field(4318, ge=0, le=65535, description="port that takes OTLP over HTTP and calls in JSON")
    grpc_port: int = Field(4317, ge=0, le=65535, description="port that takes OTLP over gRPC")
    insecure_local: bool = Field(False, description="no keys and no login; on a loopback address only")
    behind_proxy: bool = Field(False, description="a trusted proxy terminates TLS in front of a public address")
    memory_limit: str = Field("1GB", description="memory that the store may use, as DuckDB writes it")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


@dataclass(frozen=True, slots=True)
class Told:
    """One setting, its value, and who said so."""

    name: str
    value: str
    source: str


def load(**flags: Any) -> Settings:
    """Settings with `flags` on top; a flag that is None was not given.

    Raises:
        BadSettingsError: a public address without a trusted proxy, or no authentication beyond loopback.
        ValidationError: a value of the wrong type, or a name that is no setting.
    """
    settings = Settings(**{name: value for name, value in flags.items() if value is not None})
    if not _is_loopback(settings.host):
        if settings.insecure_local:
            raise BadSettingsError(
                f"insecure_local serves everybody who connects, so host {settings.host!r} is refused: "
                "use 127.0.0.1, or leave insecure_local off"
            )
        if not settings.behind_proxy:
            raise BadSettingsError(
                f"host {settings.host!r} is reachable from outside and keys would travel in clear text: put a proxy "
                "with TLS in front and set behind_proxy, or listen on 127.0.0.1"
            )
    return settings


def told(**flags: Any) -> list[Told]:
    """Each setting with its value and the source that decided it, for `doctor`."""
    settings = load(**flags)
    sources = (
        ("flag", InitSettingsSource(Settings, {k: v for k, v in flags.items() if v is not None})()),
        ("environment", EnvSettingsSource(Settings)()),
        (FILE, TomlConfigSettingsSource(Settings)()),
    )
    return [
        Told(name, str(getattr(settings, name)), next((who for who, said in sources if name in said), "default"))
        for name in Settings.model_fields
    ]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

"""Settings: `millicent.toml`, then the environment (`MILLICENT_…`), then flags; the last one that speaks wins."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import unquote, urlsplit

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)  # fmt: skip

from millicent.warehouse.reach import Network, Reach, networks

FILE: Final = "millicent.toml"


class BadSettingsError(ValueError):
    """Settings that cannot be run with; the message names the value, the rule and the remedy."""


def default_data() -> Path:
    """Where data lives unless told otherwise: `$XDG_DATA_HOME/millicent`, else `~/.local/share/millicent`."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "millicent"


def _headers(told: object) -> object:
    """`name=value,name=value` with percent escapes, as OpenTelemetry writes headers; a table as it is."""
    if not isinstance(told, str):
        return told
    pairs = (pair.partition("=") for pair in told.split(",") if pair.strip())
    return {name.strip(): unquote(value.strip()) for name, _, value in pairs}


def _networks(told: object) -> object:
    """Networks in a list, or with commas between them."""
    texts = told.split(",") if isinstance(told, str) else told
    if not isinstance(texts, list | tuple):
        raise ValueError("webhook_allow is a list of networks: write 10.1.0.0/16, 192.168.7.9")  # noqa: TRY004 - pydantic
    return networks([str(one) for one in texts if str(one).strip()])


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
    public_url: str | None = Field(
        None, description="address of the pages as people open it, https://costs.example.com, for links in alerts"
    )
    memory_limit: str = Field("1GB", description="memory that the store may use, as DuckDB writes it")
    catalog: Path | None = Field(
        None, description="TOML that adds to the catalog of accelerators, regions, PUE and engines, or corrects it"
    )
    forward_endpoint: str | None = Field(
        None, description="URL of an OTLP/HTTP receiver that every span is sent on to, calls with what they cost"
    )
    forward_headers: Annotated[dict[str, SecretStr], NoDecode, BeforeValidator(_headers)] = Field(
        {}, description="headers of those requests: a table, or `name=value,name=value` with percent escapes"
    )
    webhook_allow: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_networks)] = Field(
        (), description="networks beyond the public internet that endpoints of alerts may be in, such as 10.1.0.0/16"
    )
    webhook_allow_http: bool = Field(False, description="alerts may be sent in clear text, over http:// and plain SMTP")
    budgets: list[dict[str, Any]] | None = Field(None, description="budgets that are declared, a table each")
    rules: list[dict[str, Any]] | None = Field(None, description="rules of alerts that are declared, a table each")
    endpoints: list[dict[str, Any]] | None = Field(
        None, description="endpoints that alerts go to and that are declared, a table each; secrets by name or by file"
    )

    @property
    def reach(self) -> Reach:
        """What endpoints of alerts may reach."""
        return Reach(self.webhook_allow, self.webhook_allow_http)

    @property
    def address(self) -> str:
        """Of the pages, for links in alerts; empty where they are reached from elsewhere and nobody told how."""
        if self.public_url is not None:
            return self.public_url.rstrip("/")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}" if _is_loopback(self.host) else ""

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
    if settings.public_url is not None and not _PAGES.fullmatch(settings.public_url):
        raise BadSettingsError(
            f"public_url {settings.public_url!r} is no address of pages: write it as https://costs.example.com"
        )
    _check_forwarding(settings)
    return settings


def _check_forwarding(settings: Settings) -> None:
    """Refuse what could not be posted to, and a circle."""
    if settings.forward_endpoint is None:
        return
    parts = urlsplit(settings.forward_endpoint)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == -1 or parts.query or parts.fragment:
        raise BadSettingsError(
            f"forward_endpoint {settings.forward_endpoint!r} is no URL of an OTLP/HTTP receiver: write it as "
            "https://collector.example.com:4318, with a path where the back end has one"
        )
    if port in {settings.otlp_port, settings.port} and (
        _is_loopback(parts.hostname) or parts.hostname == settings.host
    ):
        raise BadSettingsError(
            f"forward_endpoint {settings.forward_endpoint!r} is this installation itself, and spans would go round in "
            "a circle: name the back end that is to get them"
        )
    for name, value in settings.forward_headers.items():
        if not _HEADER.fullmatch(name) or not _HEADER_VALUE.fullmatch(value.get_secret_value()):
            raise BadSettingsError(
                f"forward_headers has {name!r}, which is no header, or its value holds control characters or letters "
                'that a header cannot hold: write it as authorization = "Bearer ..."'
            )


def told(**flags: Any) -> list[Told]:
    """Each setting with its value and the source that decided it, for `doctor`."""
    settings = load(**flags)
    sources = (
        ("flag", InitSettingsSource(Settings, {k: v for k, v in flags.items() if v is not None})()),
        ("environment", EnvSettingsSource(Settings)()),
        (FILE, TomlConfigSettingsSource(Settings)()),
    )
    return [
        Told(name, _shown(getattr(settings, name)), next((who for who, said in sources if name in said), "default"))
        for name in Settings.model_fields
    ]


def _shown(value: object) -> str:
    """A value in words; of tables their names alone, for there may be secrets in them."""
    if isinstance(value, list) and all(isinstance(one, dict) for one in value):
        return ", ".join(str(one.get("name", "without a name")) for one in value) or "none"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)


_PAGES: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(?:/[A-Za-z0-9._~/-]*)?", re.ASCII)
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e]*", re.ASCII)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

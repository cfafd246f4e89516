"""The rows of the catalog: every column of its tables, and where each value was read.

A blank cell is a fact nobody has published; it stays None and is never filled in here. A row that a user's extension
changes keeps the row that it was in `base`, and the columns that the extension gave in `own`, so that each value goes
on naming its own source.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from typing import Any, ClassVar, NamedTuple, get_type_hints


class Provenance(NamedTuple):
    """Where a value was read, as of when, and how far it can be trusted: high, medium or low."""

    source: str
    date: str
    confidence: str

    def __str__(self) -> str:
        told = [f"as of {self.date}" if self.date else "", f"{self.confidence} confidence" if self.confidence else ""]
        return f"{self.source} ({', '.join(filter(None, told))})" if any(told) else self.source


_OF_CAPEX = ("capex", "chip_price")
_SOURCES: Mapping[str, tuple[str, ...]] = {
    "memory_gb": ("memory", "spec"),
    "memory_bw_gbps": ("memory", "spec"),
    "tflops_fp16_dense": ("tflops_fp16", "spec"),
    "tflops_fp8_dense": ("tflops_fp8", "spec"),
    "tflops_fp4_dense": ("tflops_fp4", "spec"),
    "tops_int8_dense": ("tops_int8", "spec"),
    "tdp_w": ("tdp", "spec"),
    "system_power_w_per_accelerator": ("system_power", "spec"),
    "idle_w": ("idle", "system_power"),
    "chip_price_usd": ("chip_price", "capex"),
    "capex_usd_low": ("capex_low", *_OF_CAPEX),
    "capex_usd_typical": ("capex_typical", *_OF_CAPEX),
    "capex_usd_high": ("capex_high", *_OF_CAPEX),
    "cloud_usd_per_hour": ("cloud",),
    "hyperscaler_usd_per_hour": ("hyperscaler",),
    "ix_v1_utility_kw": ("ix_v1",),
    "ix_v2_it_kw": ("ix_v2",),
    **{
        f"ix_{version}_{tier}_usd_hr": (f"ix_{version}_{tier}", f"ix_{version}")
        for version in ("v1", "v2")
        for tier in ("hyperscaler", "neocloud", "rental3y")
    },
}
"""For each number of an accelerator, the names under which `sources` may tell where it was read, first one first."""

SOURCE_NAMES = tuple(dict.fromkeys(["spec", "status", *(name for names in _SOURCES.values() for name in names)]))
"""Every name that an accelerator's `sources` may have before the `=`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One accelerator model. Prices and powers are per accelerator.

    `ix_v1_*` and `ix_v2_*` are the hourly costs of the InferenceX surveys of 2025 and July 2026, electricity
    included; `ix_v1_utility_kw` is power at the utility meter (cooling included), `ix_v2_it_kw` the power of
    the IT equipment. `tflops_*` are dense peak rates. `sources` and `capex_scope` are `field=value` texts;
    `recalled_fields` were not read again where they are published.
    """

    TABLE: ClassVar[str] = "accelerators.csv"

    id: str
    vendor: str
    name: str
    family: str | None = None
    form: str | None = None
    release: str | None = None
    status: str | None = None
    memory_gb: Decimal | None = None
    memory_type: str | None = None
    memory_bw_gbps: Decimal | None = None
    tflops_fp16_dense: Decimal | None = None
    tflops_fp8_dense: Decimal | None = None
    tflops_fp4_dense: Decimal | None = None
    tops_int8_dense: Decimal | None = None
    tdp_w: Decimal | None = None
    system_power_w_per_accelerator: Decimal | None = None
    system_power_basis: str | None = None
    idle_w: Decimal | None = None
    chip_price_usd: Decimal | None = None
    capex_usd_low: Decimal | None = None
    capex_usd_typical: Decimal | None = None
    capex_usd_high: Decimal | None = None
    capex_scope: tuple[str, ...] = ()
    cloud_usd_per_hour: Decimal | None = None
    cloud_provider: str | None = None
    hyperscaler_usd_per_hour: Decimal | None = None
    hyperscaler_provider: str | None = None
    ix_v1_hyperscaler_usd_hr: Decimal | None = None
    ix_v1_neocloud_usd_hr: Decimal | None = None
    ix_v1_rental3y_usd_hr: Decimal | None = None
    ix_v1_utility_kw: Decimal | None = None
    ix_v2_hyperscaler_usd_hr: Decimal | None = None
    ix_v2_neocloud_usd_hr: Decimal | None = None
    ix_v2_rental3y_usd_hr: Decimal | None = None
    ix_v2_it_kw: Decimal | None = None
    cooling: str | None = None
    llm_serving: str | None = None
    match: tuple[str, ...] = ()
    sources: tuple[str, ...]
    recalled_fields: tuple[str, ...] = ()
    as_of: str
    confidence: str
    notes: str | None = None
    base: "Accelerator | None" = field(default=None, repr=False)
    own: frozenset[str] = field(default=frozenset(), repr=False)

    def source_of(self, name: str) -> str:
        """Where a group of fields ("capex_typical", "system_power", "ix_v2", …) was read."""
        named = self._sources()
        if name not in named and self.base is not None:
            return self.base.source_of(name)
        return named.get(name) or named.get("spec") or "catalog"

    def provenance(self, column: str) -> Provenance | None:
        """Where, when and how surely the value of a column was read; None where it is blank or nothing is told."""
        if getattr(self, column) is None:
            return None
        if self.base is not None and column not in self.own:
            return self.base.provenance(column)
        named = self._sources()
        source = next((named[name] for name in self.source_names(column) if name in named), None)
        if column in self.recalled_fields:
            return Provenance(f"recalled, not read again; {source}" if source else "recalled", self.as_of, "low")
        return None if source is None else Provenance(source, self.as_of, self.confidence)

    @staticmethod
    def source_names(column: str) -> tuple[str, ...]:
        """The names under which `sources` may tell where a column was read, first one first."""
        return _SOURCES.get(column, ("spec",))

    def _sources(self) -> dict[str, str]:
        pairs = (source.partition("=") for source in self.sources)
        return {name.strip(): where.strip() for name, _, where in pairs}


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Electricity of a country, state or cloud region: an average industrial price, and its carbon."""

    TABLE: ClassVar[str] = "electricity.csv"

    region_id: str
    kind: str
    name: str
    country: str | None = None
    price_usd_per_kwh: Decimal | None = None
    price_basis: str | None = None
    price_year: int | None = None
    price_source: str | None = None
    price_confidence: str | None = None
    gco2e_per_kwh: Decimal | None = None
    carbon_basis: str | None = None
    carbon_year: int | None = None
    carbon_source: str | None = None
    aliases: tuple[str, ...] = ()
    notes: str | None = None

    @property
    def id(self) -> str:
        """`region_id`, such as "de", "us-va" or "aws/us-east-1"."""
        return self.region_id

    def provenance(self, column: str) -> Provenance | None:
        """Where, when and how surely the price or the carbon was read; None where it is blank."""
        if getattr(self, column) is None:
            return None
        source, basis, year, confidence = self.price_source, self.price_basis, self.price_year, self.price_confidence
        if column == "gco2e_per_kwh":
            source, basis, year, confidence = self.carbon_source, self.carbon_basis, self.carbon_year, None
        return Provenance(f"{basis}: {source}" if basis else str(source), str(year or ""), confidence or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pue:
    """Facility power ÷ IT power, of a cloud region or typical for a kind of cooling ("default/…")."""

    TABLE: ClassVar[str] = "pue.csv"

    scope: str
    kind: str
    provider: str | None = None
    region: str | None = None
    pue: Decimal
    pue_low: Decimal | None = None
    pue_high: Decimal | None = None
    wue_l_per_kwh: Decimal | None = None
    cooling: str | None = None
    year: int | None = None
    source: str
    confidence: str
    notes: str | None = None

    @property
    def id(self) -> str:
        """`scope`, such as "aws/us-east-1" or "default/ai-air"."""
        return self.scope

    def provenance(self, column: str) -> Provenance | None:
        """Where, when and how surely the value was read; None where it is blank."""
        if getattr(self, column) is None:
            return None
        return Provenance(self.source, str(self.year or ""), self.confidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An inference engine, and how its token counts can be read.

    `*_metric` are names as `/metrics` has them; a `prompt_metric_type` of "histogram sum" is a histogram's `_sum`.
    Where `prompt_includes_cached` begins with "yes", prefix-cache hits are in the prompt counter, too; with "no" they
    are only in the cached one.
    """

    TABLE: ClassVar[str] = "engines.csv"

    id: str
    name: str
    kind: str
    metrics_available: str
    default_port: int | None = None
    metrics_path: str | None = None
    enable_with: str | None = None
    metric_prefix: str | None = None
    prompt_tokens_metric: str | None = None
    prompt_metric_type: str | None = None
    prompt_includes_cached: str | None = None
    generation_tokens_metric: str | None = None
    cached_tokens_metric: str | None = None
    kv_usage_metric: str | None = None
    requests_running_metric: str | None = None
    requests_waiting_metric: str | None = None
    preemptions_metric: str | None = None
    prefill_time_metric: str | None = None
    decode_time_metric: str | None = None
    ttft_metric: str | None = None
    model_label: str | None = None
    other_labels: str | None = None
    otlp_tracing: str | None = None
    otlp_enable: str | None = None
    response_usage_fallback: str | None = None
    detect_by: str | None = None
    sources: tuple[str, ...] = ()
    verified: str
    notes: str | None = None
    base: "Engine | None" = field(default=None, repr=False)
    own: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def cached_in_prompt(self) -> bool | None:
        """Whether prefix-cache hits are in the prompt counter, too; None where nobody tells."""
        told = (self.prompt_includes_cached or "").partition(" ")[0]
        return {"yes": True, "no": False}.get(told)

    def provenance(self, column: str) -> Provenance | None:
        """Where a column was read and how it was verified; None where it is blank."""
        if getattr(self, column) is None:
            return None
        if self.base is not None and column not in self.own:
            return self.base.provenance(column)
        return Provenance(" | ".join(self.sources) or "catalog", "", self.verified)


Row = Accelerator | Region | Pue | Engine

_READERS: Mapping[Any, Callable[[str], object]] = {
    str: str,
    int: int,
    Decimal: Decimal,
    str | None: lambda text: text or None,
    int | None: lambda text: int(text) if text else None,
    Decimal | None: lambda text: Decimal(text) if text else None,
}
_SEPARATORS = {"recalled_fields": ","}
_BESIDE_COLUMNS = ("base", "own")


def columns(row_type: type[Row]) -> Mapping[str, Any]:
    """The columns of a table and their types, in order."""
    if row_type not in _COLUMNS:
        hints = get_type_hints(row_type)
        _COLUMNS[row_type] = {one.name: hints[one.name] for one in fields(row_type) if one.name not in _BESIDE_COLUMNS}
    return _COLUMNS[row_type]


_COLUMNS: dict[type[Row], Mapping[str, Any]] = {}


def from_texts(row_type: type[Row], texts: Mapping[str, str]) -> Any:
    """A row out of the cells of its table."""
    cells: dict[str, Any] = {name: _read(name, kind, texts[name]) for name, kind in columns(row_type).items()}
    return row_type(**cells)


def _read(name: str, kind: Any, text: str) -> object:
    if kind == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(_SEPARATORS.get(name, "|")) if part.strip())
    return _READERS[kind](text)

"""What is publicly known about accelerators, electricity, cooling overhead and engines, each row sourced.

The tables are the CSV files beside this module: fix a number by editing one row and its source. They are
read on first use. A blank cell is a fact nobody has published; it stays None and is never filled in here.
"""

import csv
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any, ClassVar, Protocol, TypeVar, get_type_hints


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One accelerator model. Prices and powers are per accelerator.

    `ix_v1_*` and `ix_v2_*` are the hourly costs of the InferenceX surveys of 2025 and July 2026, electricity
    included; `ix_v1_utility_kw` is power at the utility meter (cooling included), `ix_v2_it_kw` the power of
    the IT equipment. `sources` and `capex_scope` are `field=value` texts.
    """

    TABLE: ClassVar[str] = "accelerators.csv"

    id: str
    vendor: str
    name: str
    form: str | None
    memory_gb: Decimal | None
    tdp_w: Decimal | None
    system_power_w_per_accelerator: Decimal | None
    system_power_basis: str | None
    idle_w: Decimal | None
    capex_usd_low: Decimal | None
    capex_usd_typical: Decimal | None
    capex_usd_high: Decimal | None
    capex_scope: tuple[str, ...]
    cloud_usd_per_hour: Decimal | None
    cloud_provider: str | None
    hyperscaler_usd_per_hour: Decimal | None
    hyperscaler_provider: str | None
    ix_v1_hyperscaler_usd_hr: Decimal | None
    ix_v1_neocloud_usd_hr: Decimal | None
    ix_v1_rental3y_usd_hr: Decimal | None
    ix_v1_utility_kw: Decimal | None
    ix_v2_hyperscaler_usd_hr: Decimal | None
    ix_v2_neocloud_usd_hr: Decimal | None
    ix_v2_rental3y_usd_hr: Decimal | None
    ix_v2_it_kw: Decimal | None
    cooling: str | None
    match: tuple[str, ...]
    sources: tuple[str, ...]
    recalled_fields: tuple[str, ...]
    as_of: str
    confidence: str
    notes: str | None

    def source_of(self, field: str) -> str:
        """Where a group of fields ("capex_typical", "system_power", "ix_v2", …) was read."""
        named = dict(source.partition("=")[::2] for source in self.sources)
        return named.get(field) or named.get("spec") or "catalog"


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Electricity of a country, state or cloud region: an average industrial price, and its carbon."""

    TABLE: ClassVar[str] = "electricity.csv"

    region_id: str
    kind: str
    name: str
    country: str | None
    price_usd_per_kwh: Decimal | None
    price_basis: str | None
    price_year: int | None
    price_source: str | None
    price_confidence: str | None
    gco2e_per_kwh: Decimal | None
    carbon_basis: str | None
    carbon_year: int | None
    carbon_source: str | None
    aliases: tuple[str, ...]
    notes: str | None

    @property
    def id(self) -> str:
        """`region_id`, such as "de", "us-va" or "aws/us-east-1"."""
        return self.region_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Pue:
    """Facility power ÷ IT power, of a cloud region or typical for a kind of cooling ("default/…")."""

    TABLE: ClassVar[str] = "pue.csv"

    scope: str
    kind: str
    pue: Decimal
    cooling: str | None
    year: int | None
    source: str
    confidence: str
    notes: str | None

    @property
    def id(self) -> str:
        """`scope`, such as "aws/us-east-1" or "default/ai-air"."""
        return self.scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An inference engine, and how its token counts can be read."""

    TABLE: ClassVar[str] = "engines.csv"

    id: str
    name: str
    kind: str
    metrics_available: str
    default_port: int | None
    metrics_path: str | None
    metric_prefix: str | None
    prompt_includes_cached: str | None
    detect_by: str | None
    sources: tuple[str, ...]
    verified: str
    notes: str | None


class _Row(Protocol):
    TABLE: ClassVar[str]


_RowT = TypeVar("_RowT", bound=_Row)

_READERS: Mapping[Any, Callable[[str], object]] = {
    str: str,
    int: int,
    Decimal: Decimal,
    str | None: lambda text: text or None,
    int | None: lambda text: int(text) if text else None,
    Decimal | None: lambda text: Decimal(text) if text else None,
    tuple[str, ...]: lambda text: tuple(part.strip() for part in text.split("|") if part.strip()),
}


def accelerators() -> tuple[Accelerator, ...]:
    """All accelerators, in the order of the table."""
    return _table(Accelerator)


def regions() -> tuple[Region, ...]:
    """All regions with electricity data, in the order of the table."""
    return _table(Region)


def pues() -> tuple[Pue, ...]:
    """All PUE rows, in the order of the table."""
    return _table(Pue)


def engines() -> tuple[Engine, ...]:
    """All engines, in the order of the table."""
    return _table(Engine)


def accelerator(name: str) -> Accelerator:
    """The accelerator that a name means, as people, drivers and clouds write it; case does not matter.

    An id or name of the catalog matches itself. Else the longest pattern of the `match` column that occurs
    in the name decides ("NVIDIA H100 80GB HBM3", "p5.48xlarge"); else the words of the name, if they occur
    in one row only ("TPU v7").

    Raises:
        LookupError: No row matches, or several do; the message lists the nearest.
    """
    rows = accelerators()
    wanted = _words(name)
    for row in rows:
        if wanted in (_words(row.id), _words(row.name)):
            return row
    patterns = [(row, words) for row in rows for pattern in row.match if (words := _words(pattern))]
    contained = [(row, words) for row, words in patterns if f" {words} " in f" {wanted} "]
    if contained:
        return max(contained, key=lambda hit: len(hit[1]))[0]
    described = [row for row in rows if set(wanted.split()) <= set(_words(f"{row.vendor} {row.name}").split())]
    if wanted and len(described) == 1:
        return described[0]
    if wanted and described:
        choices = ", ".join(repr(row.name) for row in described)
        raise LookupError(f"{name!r} can be any of {choices}: write which accelerator it is")
    raise _unknown("accelerator", name, [row.name for row in rows])


def region(name: str) -> Region:
    """The region that an id ("de", "us-va", "aws/us-east-1"), a name or a cloud's own code means.

    Raises:
        LookupError: No row matches, or several clouds have a region of that code.
    """
    wanted = name.strip().lower()
    rows = regions()
    for row in rows:
        if wanted in (row.id, row.name.lower()):
            return row
    coded = [row for row in rows if wanted == row.id.rpartition("/")[2]]
    if len(coded) == 1:
        return coded[0]
    if coded:
        raise LookupError(f"{name!r} is a region of several clouds: write {' or '.join(r.id for r in coded)}")
    for row in rows:
        if row.kind == "country" and wanted in {alias.lower() for alias in row.aliases}:
            return row
    raise _unknown("region", name, [text for row in rows for text in (row.id, row.name)])


def pue(scope: str) -> Pue | None:
    """The PUE of a cloud region ("aws/us-east-1") or a typical one ("default/ai-air"); None if unknown."""
    return next((row for row in pues() if row.scope == scope), None)


def engine(name: str) -> Engine:
    """The engine of an id or name ("vllm", "vLLM"); case does not matter.

    Raises:
        LookupError: No such engine.
    """
    wanted = _words(name)
    for row in engines():
        if wanted in (_words(row.id), _words(row.name), _words(row.name.partition("(")[0])):
            return row
    raise _unknown("engine", name, [row.name for row in engines()])


@cache
def _table(row_type: type[_RowT]) -> tuple[_RowT, ...]:
    hints = get_type_hints(row_type)
    readers = {field.name: _READERS[hints[field.name]] for field in fields(row_type)}  # type: ignore[arg-type]  # a Protocol cannot ask for a dataclass
    text = (files(__package__) / row_type.TABLE).read_text(encoding="utf-8")
    return tuple(
        row_type(**{name: read(row[name]) for name, read in readers.items()})
        for row in csv.DictReader(text.splitlines())
    )


def _words(text: str) -> str:
    """Lower case, with everything but letters and digits as single spaces."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def _unknown(what: str, name: str, known: Iterable[str]) -> LookupError:
    names = {text.lower(): text for text in known}
    close = [names[match] for match in get_close_matches(name.lower(), names, n=3, cutoff=0.4)]
    nearest = f"nearest: {', '.join(map(repr, close))}" if close else "nothing comes near"
    return LookupError(f"{what} {name!r} is not in the catalog ({nearest}): correct the name")

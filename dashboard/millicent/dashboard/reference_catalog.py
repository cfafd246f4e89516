"""The catalog as a reference page: what is publicly known of accelerators, engines, electricity and cooling."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

from millicent.dashboard.markdown import code, page, table
from millicent.pricing.catalog import Accelerator, Engine, Pue, Region, bundled

_SURVEYS: Final = tuple(
    f"ix_{version}_{tier}_usd_hr" for version in ("v1", "v2") for tier in ("hyperscaler", "neocloud", "rental3y")
)
_COUNTERS: Final = (
    "prompt_tokens_metric", "cached_tokens_metric", "generation_tokens_metric", "prefill_time_metric",
    "decode_time_metric", "requests_running_metric",
)  # fmt: skip


def catalog() -> str:
    """Every row of the bundled catalog, with where it was read."""
    known = bundled()
    return page(
        "Catalog",
        "What Millicent knows of hardware before you say anything. A blank is a number that nobody has published: it "
        "stays blank, and a deployment that needs it is asked for it. `GET /api/v1/catalog/…` tells source, date and "
        "confidence of each single value. [Extend the catalog](../howto/extend-the-catalog.md) with rows of your own.",
        "## Accelerators",
        "Per accelerator. System power is that of its share of the server. Surveyed costs are USD per hour, with "
        "electricity: ix-2025 and ix-2026-07, each as hyperscaler / neocloud / 3-year rental.",
        table(
            ("id", "name", "memory GB", "chip W", "system W", "purchase USD", "on demand USD/h", "ix-2025",
             "ix-2026-07", "as of", "confidence"),
            map(_accelerator, known.accelerators),
        ),
        "### Where they were read",
        table(("id", "sources", "recalled, not read again"), map(_sources, known.accelerators)),
        "## Engines",
        "Counters as `/metrics` has them. “Cached in prompt”: whether prefix-cache hits are in the prompt counter.",
        table(
            ("id", "name", "address", "prompt", "cached in prompt", "cached", "generated", "prefill time",
             "decode time", "running", "verified"),
            map(_engine, known.engines),
        ),
        "## Electricity and carbon",
        "Average industrial prices; a contract of your own can be 30 % away. Factors of carbon have different bases: "
        "compare regions of one basis alone.",
        table(("id", "name", "USD/kWh", "basis, year", "confidence", "gCO2e/kWh", "basis, year"),
              map(_region, known.regions)),
        "## PUE",
        "Facility power ÷ IT power, by cloud region, or typical for a kind of cooling.",
        table(("scope", "PUE", "low to high", "cooling", "year", "source", "confidence"), map(_pue, known.pues)),
    )  # fmt: skip


def _accelerator(one: Accelerator) -> Sequence[object]:
    surveyed = [_digits(getattr(one, column)) for column in _SURVEYS]
    return (
        code(one.id), one.name, _digits(one.memory_gb), _digits(one.tdp_w), _digits(one.system_power_w_per_accelerator),
        _digits(one.capex_usd_typical), _digits(one.cloud_usd_per_hour), _tiers(surveyed[:3]), _tiers(surveyed[3:]),
        one.as_of, one.confidence,
    )  # fmt: skip


def _tiers(found: Sequence[str]) -> str:
    return " / ".join(value or "–" for value in found) if any(found) else ""


def _sources(one: Accelerator) -> Sequence[object]:
    return code(one.id), _lines(one.sources), ", ".join(one.recalled_fields)


def _engine(one: Engine) -> Sequence[object]:
    address = f"`:{one.default_port or ''}{one.metrics_path}`" if one.metrics_path else ""
    counters = [code(name) if name and " " not in name else name for name in (getattr(one, c) for c in _COUNTERS)]
    included = {True: "yes", False: "no", None: ""}[one.cached_in_prompt]
    return (
        code(one.id), one.name, address, counters[0], included, counters[1], counters[2], *counters[3:], one.verified,
    )  # fmt: skip


def _region(one: Region) -> Sequence[object]:
    return (
        code(one.id), one.name, _digits(one.price_usd_per_kwh), _dated(one.price_basis, one.price_year),
        one.price_confidence, _digits(one.gco2e_per_kwh), _dated(one.carbon_basis, one.carbon_year),
    )  # fmt: skip


def _pue(one: Pue) -> Sequence[object]:
    between = f"{_digits(one.pue_low)} to {_digits(one.pue_high)}" if one.pue_low and one.pue_high else ""
    return code(one.scope), _digits(one.pue), between, one.cooling, one.year, one.source, one.confidence


def _dated(basis: str | None, year: int | None) -> str:
    return ", ".join(str(told) for told in (basis, year) if told)


def _lines(told: Iterable[str]) -> str:
    return "<br>".join(told)


def _digits(value: Decimal | None) -> str:
    return "" if value is None else f"{value:f}"

"""Our own gate for FOCUS files: rules as data, each of which says which rows of a file break it.

Validators that can be installed do not know the versions that we write, or miss what matters here (see
docs/concepts/focus.md). A rule is one line of this table: what it is called, what has to hold, and the rows in which it
does not. `check` takes a part of a file; sums over the file are compared where it is made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

import polars as pl

from millicent.dashboard.focus_columns import (
    BY_NAME,
    IN_PRICING_CURRENCY,
    MONEY,
    SPLIT_SINCE,
    TYPES,
    Column,
    Version,
    columns,
    schema,
)  # fmt: skip

Broken = Callable[[pl.DataFrame], int]
"""How many rows break a rule; 1 where it is of the file as a whole."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`words` say what has to hold; `broken` counts the rows in which it does not; `since` a version of FOCUS."""

    name: str
    words: str
    broken: Broken
    since: Version = "1.2"


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that so many rows of a file break."""

    rule: str
    words: str
    rows: int

    def added(self, other: Finding) -> Finding:
        """Both parts of a file together."""
        return replace(self, rows=self.rows + other.rows)


_C: Final = pl.col
_USAGE: Final = _C("ChargeCategory") == "Usage"
_BOUGHT: Final = _C("ChargeCategory").is_in(["Usage", "Purchase"])
_RESTATED: Final = _C("ChargeClass").eq_missing(pl.lit("Correction"))
_CURRENCY: Final = r"^[A-Z]{3}$"
_UNIT: Final = r"^(?:[1-9]\d* )?[A-Z][A-Za-z]*(?:-[A-Z][a-z]+)*s(?:/[A-Z][a-z]+)?$"
_SPLIT: Final = ["ChargePeriodStart", "ResourceId"]
_RATIO: Final = "$.Elements[0].AllocatedRatio"


def _where(condition: pl.Expr) -> Broken:
    """Rows that meet a condition; unknown is no."""
    return lambda frame: int(frame.select(condition.fill_null(value=False).sum()).item())


def _empty(name: str, *, when: pl.Expr) -> Broken:
    return _where(_C(name).is_null() & when)


def _filled(name: str, *, when: pl.Expr) -> Broken:
    return _where(_C(name).is_not_null() & when)


def _product(cost: str, price: str) -> Broken:
    """Quantity × unit price is not the cost at 12 decimals."""
    return _where((_C("PricingQuantity") * _C(price) != _C(cost)) & ~_RESTATED)


def _together(*names: str) -> Broken:
    """Some of them stand and others do not."""
    told = pl.sum_horizontal(_C(name).is_not_null().cast(pl.Int8) for name in names)
    return _where((told > 0) & (told < len(names)))


def _any(names: Iterable[str], broken: Callable[[str], pl.Expr]) -> Broken:
    """Rows in which a condition holds for any of the columns."""
    return _where(pl.any_horizontal(broken(name).fill_null(value=False) for name in names))


def _not_flat(frame: pl.DataFrame) -> int:
    """Tags and SKU details that are no JSON object of plain values; each text is read once."""
    bad = 0
    for name in ("Tags", "SkuPriceDetails", "AllocatedTags"):
        if name in frame.columns:
            counts = frame[name].drop_nulls().value_counts()
            bad += sum(times for text, times in counts.iter_rows() if not _flat(text))
    return bad


def _flat(text: str) -> bool:
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and bool(found) and not any(isinstance(v, (dict, list)) for v in found.values())


def _ratios(frame: pl.DataFrame) -> int:
    """Days of resources whose shares do not add up to 1."""
    ratio = _C("AllocatedMethodDetails").str.json_path_match(_RATIO).cast(MONEY, strict=False)
    shares = frame.filter(_C("AllocatedMethodId").is_not_null()).group_by(_SPLIT).agg(
        whole=ratio.sum(), known=ratio.is_not_null().all()
    )  # fmt: skip
    return shares.filter((_C("whole") != 1) | ~_C("known")).height


def _several_parents(frame: pl.DataFrame) -> int:
    """SKU prices of more than one SKU."""
    parents = frame.filter(_C("SkuPriceId").is_not_null()).group_by("SkuPriceId").agg(_C("SkuId").n_unique())
    return parents.filter(_C("SkuId") != 1).height


def _several_categories(frame: pl.DataFrame) -> int:
    """Services in more than one category."""
    return frame.group_by("ServiceName").agg(_C("ServiceCategory").n_unique()).filter(
        _C("ServiceCategory") != 1).height  # fmt: skip


def _misplaced(frame: pl.DataFrame) -> int:
    versions: tuple[Version, ...] = ("1.2", "1.3")
    return 0 if any(frame.columns == [one.name for one in columns(version)] for version in versions) else 1


def _mistyped(frame: pl.DataFrame) -> int:
    return sum(
        1 for name, kind in frame.schema.items() if name not in BY_NAME or kind != TYPES[BY_NAME[name].kind]
    )  # fmt: skip


def _needed(column: Column) -> Rule:
    return Rule(f"{column.name}-is-told", f"{column.name} is never empty", _where(_C(column.name).is_null()),
                column.since)  # fmt: skip


def _allowed(column: Column) -> Rule:
    values = ", ".join(column.allowed)
    known = _where(~_C(column.name).is_in(list(column.allowed)))
    return Rule(f"{column.name}-is-of-its-list", f"{column.name} is one of {values}", known, column.since)


_FIRST: Final = (
    Rule("columns-in-order", "all columns of the version, FOCUS by name and then ours, and no other", _misplaced),
    Rule("columns-typed", "every column has its type; amounts are Decimal(38,12)", _mistyped),
)
"""Rules of the table's shape; others are asked only where these hold."""

_FRESH: Final = _BOUGHT & ~_RESTATED
_RULES: Final = (
    Rule("list-cost", "PricingQuantity × ListUnitPrice is ListCost", _product("ListCost", "ListUnitPrice")),
    Rule("contracted-cost", "PricingQuantity × ContractedUnitPrice is ContractedCost",
         _product("ContractedCost", "ContractedUnitPrice")),
    Rule("prices-not-negative", "unit prices are not negative",
         _where((_C("ListUnitPrice") < 0) | (_C("ContractedUnitPrice") < 0))),
    Rule("quantity-for-usage", "usage and purchases have a quantity", _empty("PricingQuantity", when=_FRESH)),
    Rule("no-quantity-for-tax", "taxes have neither quantity nor price",
         _where((_C("ChargeCategory") == "Tax")
                & (_C("PricingQuantity").is_not_null() | _C("ListUnitPrice").is_not_null()))),
    Rule("unit-with-quantity", "PricingQuantity and PricingUnit stand together",
         _together("PricingQuantity", "PricingUnit")),
    Rule("consumed-with-unit", "ConsumedQuantity and ConsumedUnit stand together",
         _together("ConsumedQuantity", "ConsumedUnit")),
    Rule("consumed-for-usage", "usage tells what was consumed",
         _empty("ConsumedQuantity", when=_FRESH & _USAGE)),
    Rule("consumed-positive", "what was consumed is more than nothing",
         _where((_C("ConsumedQuantity") <= 0) & ~_RESTATED)),
    Rule("consumed-only-for-usage", "nothing but usage is consumed", _filled("ConsumedQuantity", when=~_USAGE)),
    Rule("sku-for-usage", "usage and purchases have a SKU", _empty("SkuId", when=_FRESH)),
    Rule("sku-price-for-usage", "usage and purchases have a SKU price", _empty("SkuPriceId", when=_FRESH)),
    Rule("sku-price-has-one-sku", "a SKU price belongs to one SKU", _several_parents),
    Rule("sku-price-without-time", "no SKU price names a date or a version",
         _where(_C("SkuPriceId").str.contains(r" @\d{4}| term \d|override \d"))),
    Rule("sku-details-with-price", "only a SKU price has details",
         _filled("SkuPriceDetails", when=_C("SkuPriceId").is_null())),
    Rule("unit-prices-for-usage", "usage and purchases have unit prices",
         _where(_FRESH & (_C("ListUnitPrice").is_null() | _C("ContractedUnitPrice").is_null()))),
    Rule("category-for-usage", "usage and purchases have a pricing category",
         _empty("PricingCategory", when=_FRESH)),
    Rule("list-is-billed-elsewhere", "charges without a list price have the billed cost as list cost",
         _where(_C("ListUnitPrice").is_null() & (_C("ListCost") != _C("BilledCost")))),
    Rule("credits-contracted", "the contracted cost of a credit is what is billed",
         _where((_C("ChargeCategory") == "Credit") & (_C("ContractedCost") != _C("BilledCost")))),
    Rule("credits-effective", "the effective cost of credits and adjustments is what is billed",
         _where(_C("ChargeCategory").is_in(["Credit", "Adjustment"]) & (_C("EffectiveCost") != _C("BilledCost")))),
    Rule("purchases-not-by-usage", "purchases do not come with usage",
         _where((_C("ChargeCategory") == "Purchase") & (_C("ChargeFrequency") == "Usage-Based"))),
    Rule("corrections-of-the-past", "only adjustments restate a closed month",
         _where(_RESTATED & (_C("ChargeCategory") != "Adjustment"))),
    Rule("currency-iso", "BillingCurrency is an ISO 4217 code", _where(~_C("BillingCurrency").str.contains(_CURRENCY))),
    Rule("one-currency", "a file has one currency", lambda frame: max(frame["BillingCurrency"].n_unique() - 1, 0)),
    Rule("pricing-currency", "amounts in the currency of prices are those of the bill where both are one",
         _where((_C("PricingCurrency") == _C("BillingCurrency"))
                & pl.any_horizontal(
                    _C(f"PricingCurrency{name}").ne_missing(_C(name)) for name in IN_PRICING_CURRENCY))),
    Rule("day-in-month", "a charge is in its billing period",
         _where((_C("ChargePeriodStart") < _C("BillingPeriodStart"))
                | (_C("ChargePeriodEnd") > _C("BillingPeriodEnd")))),
    Rule("days-whole", "a charge period is a UTC day",
         _where((_C("ChargePeriodStart").dt.truncate("1d") != _C("ChargePeriodStart"))
                | (_C("ChargePeriodStart").dt.offset_by("1d") != _C("ChargePeriodEnd")))),
    Rule("months-whole", "a billing period is a UTC month",
         _where((_C("BillingPeriodStart").dt.truncate("1mo") != _C("BillingPeriodStart"))
                | (_C("BillingPeriodStart").dt.offset_by("1mo") != _C("BillingPeriodEnd")))),
    Rule("units-named", "units are plural and capital: 1000000 Tokens, Accelerator-Hours",
         _any(("PricingUnit", "ConsumedUnit"), lambda name: ~_C(name).str.contains(_UNIT))),
    Rule("json-flat", "tags and SKU details are JSON objects of plain values", _not_flat),
    Rule("sub-account-whole", "SubAccountId, name and type stand together",
         _together("SubAccountId", "SubAccountName", "SubAccountType")),
    Rule("region-whole", "RegionId and RegionName stand together", _together("RegionId", "RegionName")),
    Rule("resource-whole", "ResourceId, name and type stand together",
         _together("ResourceId", "ResourceName", "ResourceType")),
    Rule("reservation-whole", "a reservation has a status",
         _together("CapacityReservationId", "CapacityReservationStatus")),
    Rule("service-has-one-category", "a service is in one category", _several_categories),
    Rule("unpriced-is-marked", "usage of unknown price costs nothing and says so",
         _where((_C("x_PriceStatus") == "Unpriced")
                & ((_C("EffectiveCost") != 0) | (_C("x_CostBasis") != "Unknown")))),
    Rule("unmarked-is-known", "no row of unknown cost says that it is priced",
         _where((_C("x_CostBasis") == "Unknown") & (_C("x_PriceStatus") != "Unpriced"))),
    Rule("tokens-by-kind", "tokens have a kind, and nothing else has",
         _where(_USAGE & ((_C("ConsumedUnit") == "Tokens") != _C("x_TokenKind").is_not_null()))),
    Rule("requests-whole", "calls are whole and not negative",
         _where((_C("x_RequestCount") < 0) | (_C("x_RequestCount") != _C("x_RequestCount").round(0)))),
    Rule("shares-make-one", "shares of an origin charge and day add up to 1", _ratios, SPLIT_SINCE),
    Rule("split-has-a-method", "what is allocated names its method",
         _filled("AllocatedResourceId", when=_C("AllocatedMethodId").is_null()), SPLIT_SINCE),
    Rule("split-tells-how", "a method comes with its details",
         _together("AllocatedMethodId", "AllocatedMethodDetails"), SPLIT_SINCE),
    Rule("split-keeps-its-unit", "split charges keep the unit of their origin",
         _where(_C("AllocatedMethodId").is_not_null() & (_C("PricingUnit") != "Accelerator-Hours")), SPLIT_SINCE),
    Rule("split-is-nobodys", "split charges keep the dimensions of their origin, which has no team",
         _filled("SubAccountId", when=_C("AllocatedMethodId").is_not_null()), SPLIT_SINCE),
)  # fmt: skip


def _no_blank(version: Version) -> Rule:
    texts = [column.name for column in columns(version) if column.kind in {"text", "json"}]
    blank = _any(texts, lambda name: _C(name).str.strip_chars() == "")
    return Rule("no-blank-text", "what is not known is empty, not blank text", blank)


def rules(version: Version) -> tuple[Rule, ...]:
    """All rules of a version, in the order in which they are asked."""
    mine = columns(version)
    of_columns = (
        *(_needed(column) for column in mine if column.needed),
        *(_allowed(column) for column in mine if column.allowed),
    )
    return (*_FIRST, *of_columns, _no_blank(version), *(rule for rule in _RULES if rule.since <= version))


def check(frame: pl.DataFrame, version: Version) -> list[Finding]:
    """The rules that rows of a file break; those of its shape alone where they are broken."""
    expected = list(schema(version))
    shape = [finding for rule in _FIRST for finding in _found(rule, frame)]
    if shape or frame.columns != expected:
        return shape or [Finding(_FIRST[0].name, _FIRST[0].words, 1)]
    return [finding for rule in rules(version)[len(_FIRST) :] for finding in _found(rule, frame)]


def _found(rule: Rule, frame: pl.DataFrame) -> Iterable[Finding]:
    rows = rule.broken(frame)
    return [Finding(rule.name, rule.words, rows)] if rows else []

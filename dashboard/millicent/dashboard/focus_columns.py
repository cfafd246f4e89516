"""The columns of a FOCUS Cost and Usage file, as data: name, type, whether it may be unknown, since which version.

Rows, the gate and the documentation all read this table. FOCUS is a specification of the FinOps Foundation; columns
that begin with `x_` are our own and stand last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

import polars as pl

Version = Literal["1.2", "1.3"]
Profile = Literal["token-service", "split-allocation"]
Kind = Literal["text", "decimal", "instant", "json"]

VERSIONS: Final[tuple[Version, ...]] = get_args(Version)
PROFILES: Final[tuple[Profile, ...]] = get_args(Profile)
SPLIT_SINCE: Final[Version] = "1.3"
MONEY: Final = pl.Decimal(38, 12)
OWN_KEY: Final = "x_"
"""What the keys of token properties begin with until a version of FOCUS defines them."""

TYPES: Final[dict[Kind, pl.DataType]] = {
    "text": pl.String(), "json": pl.String(), "decimal": MONEY, "instant": pl.Datetime("us", "UTC"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `needed` where no row may leave it empty; `since` the version that brought it; `allowed` its values.

    `meaning` says what we put into it.
    """

    name: str
    kind: Kind
    meaning: str
    needed: bool = False
    since: Version = "1.2"
    allowed: tuple[str, ...] = ()


COLUMNS: Final = (
    Column("AllocatedMethodDetails", "json", "share of the origin charge, and the weighted tokens it follows",
           since="1.3"),
    Column("AllocatedMethodId", "text", "the rule by which own hardware is split", since="1.3"),
    Column("AllocatedResourceId", "text", "whose calls carry the share; empty for what no call used", since="1.3"),
    Column("AllocatedResourceName", "text", "the same, to read", since="1.3"),
    Column("AllocatedTags", "json", "attribution of those calls", since="1.3"),
    Column("AvailabilityZone", "text", "not known"),
    Column("BilledCost", "decimal", "what the charge adds to the statement", needed=True),
    Column("BillingAccountId", "text", "the workspace", needed=True),
    Column("BillingAccountName", "text", "the same, to read"),
    Column("BillingAccountType", "text", "Workspace"),
    Column("BillingCurrency", "text", "USD, in which everything is priced and stored", needed=True),
    Column("BillingPeriodEnd", "instant", "first instant of the next UTC month", needed=True),
    Column("BillingPeriodStart", "instant", "first instant of the UTC month", needed=True),
    Column("CapacityReservationId", "text", "the reservation that pays for the accelerators"),
    Column("CapacityReservationStatus", "text", "Unused for what of a reservation no deployment took",
           allowed=("Used", "Unused")),
    Column("ChargeCategory", "text", "what kind of charge", needed=True,
           allowed=("Usage", "Purchase", "Tax", "Credit", "Adjustment")),
    Column("ChargeClass", "text", "Correction where a closed month is restated", allowed=("Correction",)),
    Column("ChargeDescription", "text", "what it is, to read"),
    Column("ChargeFrequency", "text", "how often it comes", allowed=("One-Time", "Recurring", "Usage-Based")),
    Column("ChargePeriodEnd", "instant", "end of the UTC day", needed=True),
    Column("ChargePeriodStart", "instant", "begin of the UTC day", needed=True),
    Column("CommitmentDiscountCategory", "text", "not used: discounts are in contracted prices or charges",
           allowed=("Spend", "Usage")),
    Column("CommitmentDiscountId", "text", "not used"),
    Column("CommitmentDiscountName", "text", "not used"),
    Column("CommitmentDiscountQuantity", "decimal", "not used"),
    Column("CommitmentDiscountStatus", "text", "not used", allowed=("Used", "Unused")),
    Column("CommitmentDiscountType", "text", "not used"),
    Column("CommitmentDiscountUnit", "text", "not used"),
    Column("ConsumedQuantity", "decimal", "tokens, requests or accelerator-hours that were used"),
    Column("ConsumedUnit", "text", "Tokens, Requests or Accelerator-Hours"),
    Column("ContractApplied", "json", "not used", since="1.3"),
    Column("ContractedCost", "decimal", "PricingQuantity × ContractedUnitPrice", needed=True),
    Column("ContractedUnitPrice", "decimal", "price after discounts that hold per call"),
    Column("EffectiveCost", "decimal", "what the page shows, fully loaded", needed=True),
    Column("HostProviderName", "text", "whose machines it ran on, as far as known", needed=True, since="1.3"),
    Column("InvoiceId", "text", "not known before invoices are reconciled"),
    Column("InvoiceIssuerName", "text", "who bills it", needed=True),
    Column("ListCost", "decimal", "PricingQuantity × ListUnitPrice", needed=True),
    Column("ListUnitPrice", "decimal", "price of the public list at the time"),
    Column("PricingCategory", "text", "Standard", allowed=("Standard", "Dynamic", "Committed", "Other")),
    Column("PricingCurrency", "text", "USD: prices and the bill are in one currency", needed=True),
    Column("PricingCurrencyContractedUnitPrice", "decimal", "the same as ContractedUnitPrice"),
    Column("PricingCurrencyEffectiveCost", "decimal", "the same as EffectiveCost", needed=True),
    Column("PricingCurrencyListUnitPrice", "decimal", "the same as ListUnitPrice"),
    Column("PricingQuantity", "decimal", "millions of tokens, requests or accelerator-hours"),
    Column("PricingUnit", "text", "1000000 Tokens, Requests, Accelerator-Hours or Units"),
    Column("ProviderName", "text", "who sells it", needed=True),
    Column("PublisherName", "text", "who makes it", needed=True),
    Column("RegionId", "text", "where it ran"),
    Column("RegionName", "text", "the same, to read"),
    Column("ResourceId", "text", "the deployment"),
    Column("ResourceName", "text", "the same, to read"),
    Column("ResourceType", "text", "Model Deployment or Capacity Reservation"),
    Column("ServiceCategory", "text", "AI and Machine Learning", needed=True,
           allowed=("AI and Machine Learning", "Compute", "Other")),
    Column("ServiceName", "text", "the service of the provider", needed=True),
    Column("ServiceProviderName", "text", "who sells it", needed=True, since="1.3"),
    Column("ServiceSubcategory", "text", "Generative AI"),
    Column("SkuId", "text", "provider, model and meter"),
    Column("SkuMeter", "text", "what is metered: Input Tokens, Output Tokens, …"),
    Column("SkuPriceDetails", "json", "properties of the SKU price"),
    Column("SkuPriceId", "text", "the SKU with what its price depends on; no amount, date or contract"),
    Column("SubAccountId", "text", "the team; empty where nobody carries it"),
    Column("SubAccountName", "text", "the same, to read"),
    Column("SubAccountType", "text", "Team"),
    Column("Tags", "json", "attribution: project, feature, customer, environment, service"),
    Column("x_Accelerator", "text", "catalog id of the accelerator"),
    Column("x_CapacityState", "text", "of own hardware that no call used: Idle, Unavailable or Untracked",
           allowed=("Idle", "Unavailable", "Untracked")),
    Column("x_CostBasis", "text", "Estimated from prices, Metered on own hardware, Charged, or Unknown",
           allowed=("Estimated", "Metered", "Charged", "Unknown")),
    Column("x_Engine", "text", "what serves the model"),
    Column("x_MarketListCost", "decimal", "what tokens on own hardware would cost at API list prices"),
    Column("x_Model", "text", "the model"),
    Column("x_Precision", "text", "of the weights"),
    Column("x_PriceEntry", "text", "the dated price entry that was applied"),
    Column("x_PriceStatus", "text", "Priced, Partial (known parts only) or Unpriced (the amounts are 0, not free)",
           allowed=("Priced", "Partial", "Unpriced")),
    Column("x_RequestCount", "decimal", "calls, each on one row only"),
    Column("x_TokenKind", "text", "Input, Cached Input, Cache Write or Output",
           allowed=("Input", "Cached Input", "Cache Write", "Output")),
)  # fmt: skip
BY_NAME: Final = {column.name: column for column in COLUMNS}
IN_PRICING_CURRENCY: Final = ("ContractedUnitPrice", "EffectiveCost", "ListUnitPrice")
"""Amounts that a file tells in the currency of prices, too."""
COSTS: Final = ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost")


def columns(version: Version) -> tuple[Column, ...]:
    """Those of a version, in the order of the file: FOCUS by name, then ours."""
    return tuple(column for column in COLUMNS if column.since <= version)


def schema(version: Version) -> dict[str, pl.DataType]:
    """Names and types of a file."""
    return {column.name: TYPES[column.kind] for column in columns(version)}

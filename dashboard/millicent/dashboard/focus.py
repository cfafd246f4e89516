"""FOCUS exports: a UTC month of everything, as rows that other tools can read, and the sums that they must come to.

One month is asked of the query layer in one go, by day where it is too large, and becomes rows a part at a time, so
that memory stays bounded. Amounts are USD: everything is priced and stored in it. Nothing is left out but what rounds
to less than 12 decimals, which `Export.totals` accounts for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import polars as pl

from millicent.dashboard import focus_gate, focus_rows
from millicent.dashboard.focus_columns import COSTS, IN_PRICING_CURRENCY, MONEY, SPLIT_SINCE, Profile, Version, schema
from millicent.dashboard.focus_rows import HOURS, KEYS, MEASURES, OWN, OWN_SERVICE, PROVIDERS, TOKENS, WHO
from millicent.warehouse import runs
from millicent.warehouse.query import MAX_ROWS, BadQuery, Filter, Period, Query
from millicent.warehouse.record import CHARGE, COST_TYPE, IDLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from millicent.dashboard.focus_gate import Finding
    from millicent.dashboard.months import Month
    from millicent.warehouse.store import Warehouse

DAY: Final = timedelta(days=1)
CENT: Final = Decimal("0.01")
_BESIDE: Final = (IDLE, CHARGE)
_KINDS: Final = {
    "fee": ("Purchase", "Recurring"), "commitment": ("Purchase", "Recurring"), "volume": ("Credit", "Usage-Based"),
    "credit": ("Credit", "One-Time"), "adjustment": ("Adjustment", "One-Time"),
}  # fmt: skip
"""Category and frequency of charges, by type."""
_AMOUNTS: Final = ("billed_usd", "hardware_usd", "idle_usd")


@dataclass(frozen=True, slots=True)
class Edition:
    """Which file: `version` of FOCUS, and how own hardware stands in it.

    `token-service` has it as tokens of a service of our own, `split-allocation` as accelerator-hours that are split.
    Both hold the whole bill, so they are never to be added up.

    Raises:
        ValueError: the version does not know split allocation.
    """

    version: Version = "1.2"
    profile: Profile = "token-service"

    def __post_init__(self) -> None:
        if self.profile == "split-allocation" and self.version < SPLIT_SINCE:
            raise ValueError(
                f"version {self.version} of FOCUS has no split allocation: ask for version {SPLIT_SINCE}, or for the "
                "profile token-service"
            )


@dataclass(frozen=True, slots=True)
class Control:
    """A sum of the file beside the same sum as pages show it; `residue` is what rounding made of it."""

    name: str
    file: Decimal
    page: Decimal

    @property
    def residue(self) -> Decimal:
        return self.page - self.file

    @property
    def holds(self) -> bool:
        """Whether they are equal to the cent."""
        return abs(self.residue) < CENT / 2


@dataclass(slots=True)
class Export:
    """A month as FOCUS rows. `rows` is to be read to its end; the rest is known from then on.

    Attributes:
        until: midnight before which days are read; None for all of the month.
        moved: whether anything changed in those days while they were read, so that sums may differ.
        totals: sums of the cost columns, calls and tokens.
        findings: rules of the gate that rows break.
        controls: sums of the file beside those of pages.
        height: how many rows there are.
    """

    warehouse: Warehouse
    tenant: str
    month: Month
    edition: Edition
    totals: dict[str, Decimal] = field(default_factory=dict)
    findings: dict[str, Finding] = field(default_factory=dict)
    controls: tuple[Control, ...] = ()
    height: int = 0
    until: datetime | None = None
    moved: bool = False

    @property
    def period(self) -> Period:
        """What is read of the month."""
        whole = self.month.period()
        return whole if self.until is None else Period(whole.start, self.until)

    @property
    def passed(self) -> bool:
        """Whether no rule is broken and all sums are those of pages."""
        return not self.findings and all(control.holds for control in self.controls)

    def rows(self) -> Iterator[pl.DataFrame]:
        """The rows, a part at a time.

        Raises:
            BadQuery: a single day has too many groups; the message names the remedy.
        """
        sums: dict[str, Decimal] = {}
        period, before = self.period, self._stamp()
        self.findings, self.height = {}, 0
        for groups in _asked(self.warehouse, self.tenant, period):
            yield self._taken(_assembled(self, groups), sums)
        yield self._taken(_charges(self, period), sums)
        self.totals = {name: sums.get(name, Decimal(0)) for name in (*COSTS, "x_RequestCount", TOKENS)}
        self.controls = _controls(self, sums)
        self.moved = before is None or before != self._stamp()

    def _stamp(self) -> int | None:
        return self.warehouse.engine.revisions.stamp(self.period.start, self.period.end)

    def day(self, day: datetime) -> pl.DataFrame:
        """The rows of one UTC day by themselves, of which nothing is added to sums."""
        period = Period(day, day + DAY)
        parts = [_assembled(self, groups) for groups in _asked(self.warehouse, self.tenant, period)]
        return pl.concat([*parts, _charges(self, period)])

    def _taken(self, part: pl.DataFrame, sums: dict[str, Decimal]) -> pl.DataFrame:
        """`part`, once it is checked and added to the sums."""
        self.height += part.height
        for found in focus_gate.check(part, self.edition.version):
            known = self.findings.get(found.rule)
            self.findings[found.rule] = found if known is None else known.added(found)
        for name, amount in _sums(part).items():
            sums[name] = sums.get(name, Decimal(0)) + amount
        return part


def _asked(warehouse: Warehouse, tenant: str, period: Period) -> Iterator[pl.DataFrame]:
    """Groups of alike calls by UTC day; days apart where all are too many for one answer."""
    beside = Filter(COST_TYPE, ("charge", "adjustment"), negated=True)
    asked = Query(measures=MEASURES, dimensions=KEYS, period=period, filters=(beside,), grain="day", order=("time",))
    try:
        yield warehouse.ask(tenant, asked).frame
    except BadQuery as error:
        days = (period.end - period.start) // DAY
        if days <= 1:
            raise BadQuery(
                f"{period.start:%Y-%m-%d} has more than {MAX_ROWS:,} groups of project, feature, customer and the "
                f"like: export the calls themselves, or tag less finely ({error})"
            ) from error
        middle = period.start + days // 2 * DAY
        for half in (Period(period.start, middle), Period(middle, period.end)):
            yield from _asked(warehouse, tenant, half)


def _assembled(export: Export, groups: pl.DataFrame) -> pl.DataFrame:
    """Usage of a stretch of days, in the columns of the version."""
    if groups.is_empty():
        return pl.DataFrame(schema=schema(export.edition.version))
    first, last = groups["time"].min(), groups["time"].max()
    assert isinstance(first, datetime)  # noqa: S101 - a column of instants
    assert isinstance(last, datetime)  # noqa: S101 - likewise
    period = Period(first, last + DAY)
    prices = _hour_prices(export, period)
    if export.edition.profile == "split-allocation":
        nothing = pl.col("spend_usd").is_null() | (pl.col("spend_usd").cast(MONEY) <= 0)
        called = groups.filter((pl.col(COST_TYPE) == "api") | ((pl.col(COST_TYPE) == "hardware") & nothing))
        parts = [focus_rows.usage(called), focus_rows.allocated(groups, prices)]
    else:
        parts = [focus_rows.usage(groups), focus_rows.capacity(groups, prices)]
    rows = pl.concat([part for part in parts if not part.is_empty()] or parts[:1], how="diagonal")
    return _finished(export, _reserved(export, period, _attributed(rows)))


def _hour_prices(export: Export, period: Period) -> pl.DataFrame:
    """By day and deployment: what an accelerator-hour cost, and how many were paid for."""
    asked = Query(measures=("accelerator_hour_usd", "accelerator_hours"), dimensions=("deployment",), period=period,
                  grain="day")  # fmt: skip
    return export.warehouse.ask(export.tenant, asked).frame.filter(pl.col("accelerator_hours") > 0)


def _attributed(rows: pl.DataFrame) -> pl.DataFrame:
    """Whose it is, who sells it, and where it ran."""
    beside = pl.col("team").is_in(_BESIDE)
    team = pl.when(~beside).then(pl.col("team"))
    tags = {name: pl.when(~pl.col(name).is_in(_BESIDE)).then(pl.col(name)) for name in WHO if name != "team"}
    own = pl.col("own")
    seller = _named(rows, 0)
    return rows.with_columns(
        SubAccountId=team, SubAccountName=team, SubAccountType=pl.when(team.is_not_null()).then(pl.lit("Team")),
        Tags=focus_rows.flat_json(tags), ProviderName=seller, PublisherName=seller, InvoiceIssuerName=seller,
        ServiceProviderName=seller, HostProviderName=seller, ServiceName=_named(rows, 1),
        ServiceCategory=pl.lit("AI and Machine Learning"), ServiceSubcategory=pl.lit("Generative AI"),
        RegionId=pl.col("region"), RegionName=pl.col("region"), ResourceId=pl.when(own).then(pl.col("deployment")),
        ResourceName=pl.when(own).then(pl.col("deployment")),
        ResourceType=pl.when(own & pl.col("deployment").is_not_null()).then(pl.lit("Model Deployment")),
        x_Model=pl.col("model"), x_Accelerator=pl.col("accelerator"), x_Engine=pl.col("engine"),
        x_Precision=pl.col("precision"),
    )  # fmt: skip


def _named(rows: pl.DataFrame, at: int) -> pl.Expr:
    """The provider's name (0) or its service's (1)."""
    names = {}
    for one in rows["provider"].unique().to_list():
        who, what = PROVIDERS.get(one or "", (one or "Unknown provider", f"{one or 'Unknown'} API"))
        names[one] = (who, what)[at]
    found = pl.col("provider").replace_strict(names, default=None, return_dtype=pl.String)
    return pl.when("own").then(pl.lit((OWN, OWN_SERVICE)[at])).otherwise(found)


def _reserved(export: Export, period: Period, rows: pl.DataFrame) -> pl.DataFrame:
    """Which reservation pays for a deployment, and what of it no deployment took."""
    hours = export.warehouse.hours(export.tenant, period, columns=("deployment", "contract", "model"))
    held = hours.filter(pl.col("contract").is_not_null()).unique(["deployment", "contract"]).group_by("deployment")
    contracts = held.agg(contract=pl.col("contract").sort().str.join(", "), unused=pl.col("model").is_null().all())
    rows = rows.join(contracts, left_on="ResourceId", right_on="deployment", how="left")
    paid, unused = pl.col("contract"), pl.col("unused").fill_null(value=False)
    status = pl.when(unused).then(pl.lit("Unused")).when(paid.is_not_null()).then(pl.lit("Used"))
    reservation = pl.when(unused).then(pl.lit("Capacity Reservation")).otherwise(pl.col("ResourceType"))
    return rows.with_columns(CapacityReservationId=paid, CapacityReservationStatus=status, ResourceType=reservation)


def _finished(export: Export, rows: pl.DataFrame) -> pl.DataFrame:
    """All columns of the version, in their order and type; what is not told is empty."""
    period = export.month.period()
    instants = {
        "BillingPeriodStart": pl.lit(period.start), "BillingPeriodEnd": pl.lit(period.end),
        "ChargePeriodStart": pl.col("time"), "ChargePeriodEnd": pl.col("time").dt.offset_by("1d"),
    }  # fmt: skip
    account = pl.lit(export.tenant)
    rows = rows.with_columns(
        **instants, BillingAccountId=account, BillingAccountName=account, BillingAccountType=pl.lit("Workspace"),
        BillingCurrency=pl.lit("USD"), PricingCurrency=pl.lit("USD"),
        **{f"PricingCurrency{name}": pl.col(name) for name in IN_PRICING_CURRENCY},
    )  # fmt: skip
    wanted = schema(export.edition.version)
    return rows.select(
        (pl.col(name) if name in rows.columns else pl.lit(None)).cast(kind).alias(name) for name, kind in wanted.items()
    )


# ---- charges


def _charges(export: Export, period: Period) -> pl.DataFrame:
    """What belongs to no call: fees and commitments, discounts and credits, adjustments."""
    found = [row for day in _days(period) for row in runs.charged(export.warehouse.engine, export.tenant, day)]
    if not found:
        return pl.DataFrame(schema=schema(export.edition.version))
    frame = pl.DataFrame(found, infer_schema_length=None)
    texts = ("provider", "model", "region", *WHO, "name", "why", "type", "deployment")
    frame = frame.with_columns(
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(pl.String).replace(CHARGE, None).alias(name)
        for name in texts
    )
    amount = pl.sum_horizontal(pl.col(name).cast(pl.Decimal(38, 24)).fill_null(0) for name in _AMOUNTS).cast(MONEY)
    month = export.month.period()
    restated = (pl.col("type") == "adjustment") & (pl.col("period_start") < month.start)
    kinds = {kind: told[0] for kind, told in _KINDS.items()}
    often = {kind: told[1] for kind, told in _KINDS.items()}
    rows = frame.with_columns(EffectiveCost=amount).filter(pl.col("EffectiveCost") != 0)
    bought = pl.col("ChargeCategory") == "Purchase"
    rows = rows.with_columns(
        time=pl.col("charged_at").dt.truncate("1d"),
        ChargeCategory=pl.col("type").replace_strict(kinds, default="Adjustment", return_dtype=pl.String),
        ChargeFrequency=pl.col("type").replace_strict(often, default="One-Time", return_dtype=pl.String),
        ChargeClass=pl.when(restated).then(pl.lit("Correction")),
        own=pl.col("deployment").is_not_null(), accelerator=pl.lit(None, pl.String), engine=pl.lit(None, pl.String),
        precision=pl.lit(None, pl.String),
    )  # fmt: skip
    sku = pl.concat_str(pl.lit("charge/"), pl.col("type"), pl.lit("/"), pl.col("name").fill_null("unnamed"))
    one = pl.when(bought).then(pl.lit(Decimal(1), MONEY))
    cost = pl.col("EffectiveCost")
    rows = rows.with_columns(
        BilledCost=cost, ListCost=cost, ContractedCost=cost, PricingQuantity=one,
        ListUnitPrice=pl.when(bought).then(cost), ContractedUnitPrice=pl.when(bought).then(cost),
        PricingUnit=pl.when(bought).then(pl.lit("Units")), SkuId=pl.when(bought).then(sku),
        SkuPriceId=pl.when(bought).then(sku), SkuMeter=pl.when(bought).then(pl.col("type").str.to_titlecase()),
        PricingCategory=pl.when(bought).then(pl.lit("Standard")), x_CostBasis=pl.lit("Charged"),
        x_PriceStatus=pl.lit("Priced"), x_RequestCount=pl.lit(Decimal(0), MONEY),
        ChargeDescription=pl.concat_str("name", "why", separator=": ", ignore_nulls=True),
    )  # fmt: skip
    return _finished(export, _attributed(rows))


def _days(period: Period) -> Iterator[Period]:
    start = period.start
    while start < period.end:
        yield Period(start, start + DAY)
        start += DAY


# ---- sums


def _sums(part: pl.DataFrame) -> dict[str, Decimal]:
    """What controls compare: by cost column, and the effective cost of API, own hardware and charges apart."""
    usage = pl.col("ChargeCategory") == "Usage"
    own = pl.col("ServiceName") == OWN_SERVICE
    cost = pl.col("EffectiveCost")
    row = part.select(
        *(pl.col(name).sum() for name in (*COSTS, "x_RequestCount")),
        api=cost.filter(usage & ~own).sum(),
        own=cost.filter(usage & own).sum(),
        charges=cost.filter(pl.col("x_CostBasis") == "Charged").sum(),
        listed=pl.col("ListCost").filter(usage & ~own & (pl.col("x_PriceStatus") != "Unpriced")).sum(),
        hours=pl.col("ConsumedQuantity").filter(pl.col("ConsumedUnit") == HOURS).sum(),
        **{TOKENS: pl.col("ConsumedQuantity").filter(pl.col("ConsumedUnit") == TOKENS).sum()},
    ).row(0, named=True)
    return {name: value or Decimal(0) for name, value in row.items()}


def _controls(export: Export, sums: dict[str, Decimal]) -> tuple[Control, ...]:
    """The sums of the file beside those that pages show for the same month."""

    def page(measure: str, *filters: Filter) -> Decimal:
        asked = Query(measures=(measure,), period=export.period, filters=filters)
        value = export.warehouse.ask(export.tenant, asked).frame[measure].item()
        return Decimal(value or 0)

    api = Filter(COST_TYPE, ("api",))
    compared = [
        ("Spend, fully loaded", "EffectiveCost", page("spend_usd")),
        ("API calls, as billed", "api", page("billed_cost_usd", api)),
        ("Own hardware, with idle", "own", page("capacity_cost_usd")),
        ("Charges and credits", "charges", page("charges_usd")),
        ("List cost of API calls", "listed", page("list_cost_usd", api)),
        ("Calls", "x_RequestCount", page("calls")),
    ]
    if export.edition.profile == "token-service":
        compared.append(("Tokens", TOKENS, page("total_tokens")))
    return tuple(Control(name, sums.get(key, Decimal(0)), amount) for name, key, amount in compared)


def readings(export: Export) -> Iterator[None]:
    """Once, and again where calls came in between and sums differ; at last without the day that is not over.

    Whoever goes through them reads all rows of `export` in each.
    """
    for last in (False, False, True):
        if last:
            whole, today = export.month.period(), datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            export.until = today if whole.start < today < whole.end else None
        yield
        if export.passed or not export.moved:
            return


def is_over(month: Month, now: datetime) -> bool:
    """Whether every day of a month has ended."""
    return month.period().end <= now.astimezone(UTC)

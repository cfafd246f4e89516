"""Rows of a FOCUS file, from answers of the query layer; whole days at once, in polars.

A group of alike calls of a UTC day (who, model, deployment, price entry) becomes one row per token kind: uncached
input, cached input, cache writes, output, and one of requests for what is priced otherwise. What a provider bills for
the group goes to its kinds in proportion to their list prices, the remainder to the largest. Own hardware is split by
the weights that the query layer splits it by. Amounts have 12 decimals; unit prices are cost ÷ quantity at 12, and
list and contracted costs are quantity × unit price at 12 again.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from millicent.dashboard import format as fmt
from millicent.dashboard.focus_columns import MONEY, OWN_KEY
from millicent.warehouse.record import IDLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WHO: Final = ("team", "project", "feature", "customer", "environment", "service")
WHERE: Final = ("deployment", "engine", "precision", "accelerator", "region")
KEYS: Final = ("provider", "model", "billing", *WHERE, *WHO, "price_status", "price_entry", "price_context",
               "cost_type")  # fmt: skip
"""What makes calls of a day alike."""
MEASURES: Final = (
    "spend_usd", "calls", "unpriced_calls", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens",
    "list_cost_usd", "list_input_usd", "list_cache_read_usd", "list_cache_write_usd", "list_output_usd",
    "list_units_usd", "billed_cost_usd", "hardware_input_usd", "hardware_cached_usd", "hardware_output_usd",
)  # fmt: skip
STATES: Final = ("idle", "unavailable", "untracked")
OWN: Final = "Own hardware"
OWN_SERVICE: Final = "Self-hosted inference"
HOURS: Final = "Accelerator-Hours"
TOKENS: Final = "Tokens"
MILLION: Final = "1000000 Tokens"
METHOD: Final = "weighted-tokens-1"
WEIGHED: Final = "Weighted Tokens"

PROVIDERS: Final = {
    "anthropic": ("Anthropic", "Claude API"), "openai": ("OpenAI", "OpenAI API"),
    "aws.bedrock": ("Amazon Web Services", "Amazon Bedrock"), "azure.ai.openai": ("Microsoft", "Azure OpenAI"),
    "azure.ai.inference": ("Microsoft", "Azure AI Inference"), "gcp.gemini": ("Google", "Gemini API"),
    "gcp.vertex_ai": ("Google", "Vertex AI"), "mistral_ai": ("Mistral AI", "Mistral API"),
    "cohere": ("Cohere", "Cohere API"), "deepseek": ("DeepSeek", "DeepSeek API"), "groq": ("Groq", "Groq API"),
    "perplexity": ("Perplexity", "Perplexity API"), "x_ai": ("xAI", "xAI API"),
    "ibm.watsonx.ai": ("IBM", "watsonx.ai"),
}  # fmt: skip
"""Names of providers and of what they sell, by OpenTelemetry's ids; others are called by their id."""

_ZERO: Final = pl.lit(Decimal(0), MONEY)
_SCALE: Final = pl.lit(Decimal(1_000_000), MONEY)
_NULL: Final = pl.lit(None, pl.String)


@dataclass(frozen=True, slots=True)
class _Kind:
    """What tokens did: the kind's name and meter, and the columns of its tokens, list cost and own-hardware cost."""

    name: str
    slug: str
    tokens: str
    listed: str
    own: str | None
    direction: str
    cache: str | None = None

    @property
    def meter(self) -> str:
        return f"{self.name} Tokens" if self.slug != "cache-write" else "Cache Write Tokens"


_KINDS: Final = (
    _Kind("Input", "input", "uncached_tokens", "list_input_usd", "hardware_input_usd", "Input"),
    _Kind("Cached Input", "cached-input", "cache_read_tokens", "list_cache_read_usd", "hardware_cached_usd", "Input",
          "Read"),
    _Kind("Cache Write", "cache-write", "written_tokens", "list_cache_write_usd", None, "Input", "Write"),
    _Kind("Output", "output", "output_tokens", "list_output_usd", "hardware_output_usd", "Output"),
)  # fmt: skip


def usage(groups: pl.DataFrame) -> pl.DataFrame:
    """One row per token kind of each group of calls; `groups` has `time`, `KEYS` and `MEASURES`."""
    calls = _prepared(groups.filter(pl.col("cost_type").is_in(["api", "hardware"])))
    parts = [_of_kind(calls, at, kind) for at, kind in enumerate(_KINDS)]
    parts.append(_of_requests(calls))
    rows = pl.concat(parts).sort("_group", "_order")
    first = pl.int_range(pl.len()).over("_group") == 0
    return _described(rows.with_columns(x_RequestCount=pl.when(first).then(pl.col("calls").cast(MONEY)).otherwise(0)))


def _prepared(calls: pl.DataFrame) -> pl.DataFrame:
    """Known amounts at 12 decimals, tokens by kind, and what each kind takes of the bill."""
    own = pl.col("billing") == "self_hosted"
    told = [name for name in MEASURES if name.endswith("_usd")]
    read, written = (pl.col(f"cache_{what}_tokens").fill_null(0) for what in ("read", "write"))
    calls = calls.with_row_index("_group").with_columns(
        listed=pl.col("list_cost_usd").is_not_null(), known=pl.col("spend_usd").is_not_null(), own=own
    )
    calls = calls.with_columns(pl.col(name).fill_null(0).cast(MONEY) for name in told)
    calls = calls.with_columns(pl.col("output_tokens").fill_null(0), pl.col("calls").fill_null(0), read.alias(
        "cache_read_tokens"), written_tokens=pl.when(own).then(0).otherwise(written))  # fmt: skip
    left = pl.col("input_tokens").fill_null(0) - pl.col("cache_read_tokens") - pl.col("written_tokens")
    calls = calls.with_columns(uncached_tokens=pl.max_horizontal(left, 0))
    # What is listed for a kind without tokens (units told otherwise) is priced by request.
    moved = pl.sum_horizontal(
        pl.when(pl.col(kind.tokens) == 0).then(pl.col(kind.listed)).otherwise(_ZERO) for kind in _KINDS
    )
    calls = calls.with_columns(list_units_usd=pl.col("list_units_usd") + moved)
    calls = calls.with_columns(
        pl.when(pl.col(kind.tokens) == 0).then(_ZERO).otherwise(pl.col(kind.listed)).alias(kind.listed)
        for kind in _KINDS
    )
    return _billed(calls)


def _billed(calls: pl.DataFrame) -> pl.DataFrame:
    """Add `bill_0`, `bill_1` …: the parts of `billed_cost_usd` by kind, requests last; together all of it."""
    listed = [*(kind.listed for kind in _KINDS), "list_units_usd"]
    tokens = [*(pl.col(kind.tokens).cast(MONEY) for kind in _KINDS), pl.lit(Decimal(1), MONEY)]
    any_tokens = pl.sum_horizontal(tokens[:-1]) > 0
    tokens[-1] = pl.when(any_tokens).then(_ZERO).otherwise(tokens[-1])
    by_price = pl.sum_horizontal(listed) > 0
    weights = [
        pl.when(by_price).then(pl.max_horizontal(pl.col(price), _ZERO)).otherwise(count).alias(f"weight_{at}")
        for at, (price, count) in enumerate(zip(listed, tokens, strict=True))
    ]
    calls = calls.with_columns(weights)
    names = [f"weight_{at}" for at in range(len(weights))]
    whole = pl.sum_horizontal(names).cast(pl.Decimal(38, 18))
    bill = pl.col("billed_cost_usd")
    calls = calls.with_columns(
        (pl.col(name).cast(pl.Decimal(38, 18)) / whole * bill).cast(MONEY).alias(f"bill_{at}")
        for at, name in enumerate(names)
    )
    rest = bill - pl.sum_horizontal(f"bill_{at}" for at in range(len(names)))
    most = pl.max_horizontal(names)
    earlier: pl.Expr = pl.lit(value=False)
    mended = []
    for at, name in enumerate(names):
        largest = (pl.col(name) == most) & ~earlier
        earlier = earlier | (pl.col(name) == most)
        mended.append((pl.col(f"bill_{at}") + pl.when(largest).then(rest).otherwise(_ZERO)).alias(f"bill_{at}"))
    return calls.with_columns(mended)


def _of_kind(calls: pl.DataFrame, at: int, kind: _Kind) -> pl.DataFrame:
    rows = calls.filter(pl.col(kind.tokens) > 0)
    quantity = pl.col(kind.tokens).cast(MONEY)
    hardware = pl.col(kind.own) if kind.own else _ZERO
    return _amounts(
        rows,
        quantity=quantity / _SCALE,
        consumed=quantity,
        cost=pl.when("own").then(hardware).otherwise(pl.col(f"bill_{at}")),
        listed=pl.col(kind.listed),
    ).with_columns(
        _order=pl.lit(at, pl.Int32), PricingUnit=pl.lit(MILLION), ConsumedUnit=pl.lit(TOKENS),
        SkuMeter=pl.lit(kind.meter), x_TokenKind=pl.lit(kind.name), slug=pl.lit(kind.slug),
        direction=pl.lit(kind.direction), cache=pl.lit(kind.cache, pl.String),
    )  # fmt: skip


def _of_requests(calls: pl.DataFrame) -> pl.DataFrame:
    """What is priced by request or other units; and calls that have no tokens at all, so that each is on a row."""
    last = len(_KINDS)
    tokens = pl.sum_horizontal(kind.tokens for kind in _KINDS)
    priced = (pl.col("list_units_usd") != 0) | (pl.col(f"bill_{last}") != 0)
    rows = calls.filter((priced | (tokens == 0)) & (pl.col("calls") > 0))
    number = pl.col("calls").cast(MONEY)
    return _amounts(
        rows,
        quantity=number,
        consumed=number,
        cost=pl.when("own").then(_ZERO).otherwise(pl.col(f"bill_{last}")),
        listed=pl.col("list_units_usd"),
    ).with_columns(
        _order=pl.lit(last, pl.Int32), PricingUnit=pl.lit("Requests"), ConsumedUnit=pl.lit("Requests"),
        SkuMeter=pl.lit("Requests"), x_TokenKind=_NULL, slug=pl.lit("requests"), direction=_NULL, cache=_NULL,
    )  # fmt: skip


def _amounts(
    rows: pl.DataFrame, *, quantity: pl.Expr, consumed: pl.Expr, cost: pl.Expr, listed: pl.Expr
) -> pl.DataFrame:
    """Quantities, unit prices and costs; the list price of own hardware is what it costs."""
    rows = rows.with_columns(PricingQuantity=quantity, ConsumedQuantity=consumed, EffectiveCost=cost)
    public = pl.when(~pl.col("own") & pl.col("listed")).then(listed).otherwise(pl.col("EffectiveCost"))
    unit = pl.max_horizontal(public / pl.col("PricingQuantity"), _ZERO)
    agreed = pl.max_horizontal(pl.col("EffectiveCost") / pl.col("PricingQuantity"), _ZERO)
    rows = rows.with_columns(
        BilledCost=pl.col("EffectiveCost"),
        ListUnitPrice=unit,
        ContractedUnitPrice=agreed,
        x_MarketListCost=pl.when(pl.col("own") & pl.col("listed")).then(listed),
    )
    return rows.with_columns(
        ListCost=pl.col("PricingQuantity") * pl.col("ListUnitPrice"),
        ContractedCost=pl.col("PricingQuantity") * pl.col("ContractedUnitPrice"),
    )


def _described(rows: pl.DataFrame) -> pl.DataFrame:
    """SKU, words and states of usage rows."""
    on = pl.format(" on {}", _name_of_accelerator(rows))
    seller = pl.when("own").then(pl.lit("own")).otherwise(pl.col("provider").fill_null("unknown"))
    model = pl.col("model").fill_null("unknown")
    sku = pl.concat_str(seller, model, "slug", separator="/")
    tier = pl.col("price_entry").str.extract(r" >(\d+)")
    context = pl.col("price_context").str.replace_all(",", ";")
    narrowed = pl.concat_str(
        *(pl.when("own").then(pl.concat_str(pl.lit("/"), pl.col(name))) for name in ("accelerator", "engine",
                                                                                   "precision")),
        pl.when(~pl.col("own")).then(pl.concat_str(pl.lit("/above-"), tier)),
        pl.when(~pl.col("own")).then(pl.concat_str(pl.lit("/"), context)),
        ignore_nulls=True,
    )  # fmt: skip
    unpriced = pl.when(~pl.col("known")).then(pl.lit("Unpriced"))
    status = unpriced.when(pl.col("unpriced_calls") > 0).then(pl.lit("Partial")).otherwise(pl.lit("Priced"))
    said = pl.concat_str(model, pl.lit(" "), pl.col("SkuMeter"), pl.when("own").then(on), ignore_nulls=True)
    unknown = pl.when(~pl.col("known")).then(pl.lit(", price unknown: amounts are 0"))
    basis = pl.when(~pl.col("known")).then(pl.lit("Unknown")).when("own").then(pl.lit("Metered"))
    return rows.with_columns(
        SkuId=sku, SkuPriceId=pl.concat_str(sku, narrowed), x_PriceStatus=status,
        ChargeDescription=pl.concat_str(said, unknown, ignore_nulls=True),
        x_CostBasis=basis.otherwise(pl.lit("Estimated")), x_CapacityState=_NULL, ChargeCategory=pl.lit("Usage"),
        ChargeFrequency=pl.lit("Usage-Based"), PricingCategory=pl.lit("Standard"), ChargeClass=_NULL,
        x_PriceEntry=pl.when(~pl.col("own")).then(pl.col("price_entry")),
        SkuPriceDetails=flat_json({
            "ModelId": model, "TokenDirection": pl.col("direction"), "TokenCacheAction": pl.col("cache"),
            "RequestTokensAbove": pl.when(~pl.col("own")).then(tier),
            "PriceContext": pl.when(~pl.col("own")).then(pl.col("price_context")),
            **{key: pl.when("own").then(pl.col(key.lower())) for key in ("Accelerator", "Engine", "Precision")},
        }, OWN_KEY),
    )  # fmt: skip


# ---- own hardware that no call used


def capacity(groups: pl.DataFrame, prices: pl.DataFrame) -> pl.DataFrame:
    """A row for each group of idle, unavailable or untracked cost, in accelerator-hours.

    `prices` has `time`, `deployment` and `accelerator_hour_usd`, of which the hours are what the cost pays for. What
    rounds to nothing is left out.
    """
    rows = groups.filter(pl.col("cost_type").is_in(STATES), pl.col("spend_usd").is_not_null())
    rows = rows.with_columns(EffectiveCost=pl.col("spend_usd").cast(MONEY)).filter(pl.col("EffectiveCost") > 0)
    rows = rows.join(prices, on=["time", "deployment"], how="left", nulls_equal=True)
    price = pl.col("accelerator_hour_usd").cast(MONEY)
    rows = rows.with_columns(_price=pl.when(price > 0).then(price).otherwise(pl.col("EffectiveCost")))
    rows = rows.with_columns(PricingQuantity=pl.col("EffectiveCost") / pl.col("_price"))
    rows = _by_the_hour(rows, pl.col("_price"))
    state = pl.col("cost_type").str.to_titlecase()
    meter = pl.concat_str(state, pl.lit(" Capacity"))
    what = pl.concat_str(meter, pl.lit(", "), pl.coalesce(_name_of_accelerator(rows), pl.col("deployment")))
    return _of_capacity(rows, state, meter, pl.concat_str(what, pl.when(pl.col("team") != IDLE).then(
        pl.lit(", carried by policy")), ignore_nulls=True))  # fmt: skip


def _by_the_hour(rows: pl.DataFrame, price: pl.Expr) -> pl.DataFrame:
    cost = pl.col("PricingQuantity") * price
    return rows.with_columns(
        BilledCost=pl.col("EffectiveCost"), ListUnitPrice=price, ContractedUnitPrice=price, ListCost=cost,
        ContractedCost=cost, ConsumedQuantity=pl.col("PricingQuantity"),
    )  # fmt: skip


def _of_capacity(rows: pl.DataFrame, state: pl.Expr, meter: pl.Expr, words: pl.Expr) -> pl.DataFrame:
    chip = pl.coalesce("accelerator", pl.lit("unknown"))
    sku = pl.concat_str(pl.lit("own/accelerator-hours/"), chip)
    return rows.with_columns(
        own=pl.lit(value=True), SkuId=sku, SkuPriceId=pl.concat_str(sku, pl.lit("/"), pl.col("deployment")),
        SkuMeter=meter, PricingUnit=pl.lit(HOURS), ConsumedUnit=pl.lit(HOURS), ChargeDescription=words,
        x_CapacityState=state, x_CostBasis=pl.lit("Metered"), x_PriceStatus=pl.lit("Priced"), x_TokenKind=_NULL,
        ChargeCategory=pl.lit("Usage"), ChargeFrequency=pl.lit("Usage-Based"), PricingCategory=pl.lit("Standard"),
        ChargeClass=_NULL, x_PriceEntry=_NULL, x_RequestCount=_ZERO, x_MarketListCost=pl.lit(None, MONEY),
        SkuPriceDetails=flat_json({"Accelerator": pl.col("accelerator")}, OWN_KEY),
    )  # fmt: skip


# ---- own hardware as a charge that is split


def allocated(groups: pl.DataFrame, prices: pl.DataFrame) -> pl.DataFrame:
    """The accelerator-hours of each deployment and day, split: by weighted tokens to callers, and what is unallocated.

    The shares of an origin charge add up to 1, its hours to the hours paid for. `prices` has `time`, `deployment`,
    `accelerator_hour_usd` and `accelerator_hours`.
    """
    kinds = pl.col("cost_type").is_in(["hardware", *STATES])
    rows = groups.filter(kinds, pl.col("spend_usd").is_not_null())
    rows = rows.with_columns(EffectiveCost=pl.col("spend_usd").cast(MONEY)).filter(pl.col("EffectiveCost") > 0)
    by: Sequence[Any] = (*WHO, "time", *WHERE, "model", "cost_type", "provider", "billing")
    rows = rows.group_by(by, maintain_order=True).agg(
        pl.col("EffectiveCost", "calls").sum(),
        list_cost_usd=pl.when(pl.col("list_cost_usd").is_not_null().any()).then(pl.col("list_cost_usd").sum()),
    )
    origin = ["time", "deployment"]
    rows = rows.join(prices, on=origin, how="left", nulls_equal=True)
    whole = pl.col("EffectiveCost").sum().over(origin)
    rows = rows.with_columns(_ratio=pl.col("EffectiveCost") / whole, _hours=pl.col("accelerator_hours").cast(MONEY))
    largest = pl.int_range(pl.len()).over(origin) == pl.col("EffectiveCost").arg_max().over(origin)
    rest = pl.lit(Decimal(1), MONEY) - pl.col("_ratio").sum().over(origin)
    rows = rows.with_columns(_ratio=pl.col("_ratio") + pl.when(largest).then(rest).otherwise(_ZERO))
    rows = rows.with_columns(PricingQuantity=pl.col("_ratio") * pl.col("_hours"))
    rest = pl.col("_hours") - pl.col("PricingQuantity").sum().over(origin)
    rows = rows.with_columns(PricingQuantity=pl.col("PricingQuantity") + pl.when(largest).then(rest).otherwise(_ZERO))
    rows = _by_the_hour(rows, pl.col("accelerator_hour_usd").cast(MONEY))
    used = pl.col("cost_type") == "hardware"
    state = pl.when(~used).then(pl.col("cost_type").str.to_titlecase())
    words = pl.format("{} hours, {}", pl.coalesce(_name_of_accelerator(rows), "deployment"), pl.col("cost_type"))
    carried = pl.when(pl.col("team") != IDLE).then(pl.col("team")).when(used).then(pl.lit("unattributed"))
    who = pl.concat_str(*(pl.col(name) for name in WHO), separator="/", ignore_nulls=True)
    rows = rows.with_columns(
        AllocatedResourceId=pl.when(used).then(pl.when(who == "").then(pl.lit("unattributed")).otherwise(who))
        .otherwise(carried),
        AllocatedResourceName=carried,
        AllocatedTags=flat_json({name: pl.col(name) for name in WHO}),
        AllocatedMethodId=pl.lit(METHOD),
        AllocatedMethodDetails=pl.concat_str(
            pl.lit('{"Elements":[{"AllocatedRatio":'), pl.col("_ratio").cast(pl.String),
            pl.lit(f',"UsageUnit":"{WEIGHED}"}}]}}'),
        ),
        x_Calls=pl.col("calls").fill_null(0).cast(MONEY), _listed=pl.col("list_cost_usd").cast(MONEY),
    )  # fmt: skip
    rows = _of_capacity(rows, state, pl.lit("Accelerator Hours"), words)
    return rows.with_columns(
        x_RequestCount=pl.col("x_Calls"), x_MarketListCost=pl.when(used).then(pl.col("_listed")),
        **dict.fromkeys(WHO, _NULL),
    )  # fmt: skip


# ---- words and JSON


def flat_json(values: Mapping[str, pl.Expr], prefix: str = "") -> pl.Expr:
    """A flat JSON object of what is known of `values`, as text; null where nothing is."""
    fields = [value.alias(f"{prefix}{key}") for key, value in values.items()]
    whole = pl.struct(fields).struct.json_encode()
    keys = "|".join(f"{prefix}{key}" for key in values)
    known = whole.str.replace_all(rf'"(?:{keys})":null,?', "").str.replace(r",\}$", "}")
    return pl.when(known != "{}").then(known)


def _name_of_accelerator(rows: pl.DataFrame) -> pl.Expr:
    names = {one: fmt.accelerator(one) for one in rows["accelerator"].unique().to_list() if one}
    return pl.col("accelerator").replace_strict(names, default=None, return_dtype=pl.String)

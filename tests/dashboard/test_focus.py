"""FOCUS exports: what stands in their rows, that they add up to what pages show, and that the gate notices anything."""

import io
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millicent.dashboard import focus, focus_files, focus_gate, focus_rows
from millicent.dashboard.focus import Edition, Export
from millicent.dashboard.focus_columns import COSTS, MONEY, VERSIONS, columns, schema
from millicent.dashboard.months import Month
from millicent.warehouse import capacity
from millicent.warehouse.control import DEFAULT_TENANT, Deployment
from millicent.warehouse.policies import Policy
from millicent.warehouse.query import BadQuery, Query

MONTH = Month(2026, 10)
FIRST = datetime(2026, 10, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
HOSTILE = '=cmd|"\\,}'
TOKENS = Edition()
SPLIT = Edition("1.3", "split-allocation")
EDITIONS = (TOKENS, Edition("1.3"), SPLIT)


def api(span: int, **told) -> dict:
    """A call of 1,000 uncached, 4,000 cached and 500 written tokens in, 2,000 out, with 10 % off its list price."""
    return {
        "span_id": span, "started_at": FIRST + 3 * HOUR, "provider": "anthropic", "model": "claude", "team": "search",
        "feature": "answers", "environment": "production", "input_tokens": 5500, "cache_read_tokens": 4000,
        "cache_write_tokens": 500, "output_tokens": 2000, "list_cost_usd": Decimal("0.036075"),
        "list_input_usd": Decimal("0.003"), "list_cache_read_usd": Decimal("0.0012"),
        "list_cache_write_usd": Decimal("0.001875"), "list_output_usd": Decimal("0.03"), "list_units_usd": Decimal(0),
        "billed_cost_usd": Decimal("0.0324675"), "price_entry": "anthropic/claude @2026-01-01 >200000 term 4", **told,
    }  # fmt: skip


def own(span: int, **told) -> dict:
    return {
        "span_id": span, "started_at": FIRST + 2 * HOUR, "provider": "openai", "model": "qwen",
        "billing": "self_hosted", "deployment": "rack",
        "accelerator": "nvidia-h100-sxm", "engine": "vllm", "precision": "fp8", "team": "ads",
        "region": "us-va", "input_tokens": 900_000, "cache_read_tokens": 300_000, "output_tokens": 70_001,
        "price_status": "not_billed", "duration_ms": 600_000, "list_cost_usd": Decimal("0.5"),
        "list_input_usd": Decimal("0.3"), "list_cache_read_usd": Decimal("0.05"), "list_output_usd": Decimal("0.15"),
        **told,
    }  # fmt: skip


def charge(kind: str, amount: str, **told) -> dict:
    return {"tenant": DEFAULT_TENANT, "charged_at": FIRST + 5 * HOUR, "type": kind, "name": kind,
            "period_start": FIRST, "period_end": FIRST + 31 * DAY, "list_usd": Decimal(0),
            "billed_usd": Decimal(amount), "provisional": False, "why": "so agreed",
            "computed_at": FIRST + 40 * DAY} | told  # fmt: skip


CALLS = (
    api(1), api(2, team=None, started_at=FIRST + 31 * HOUR), api(3, team=HOSTILE, model=HOSTILE, price_entry=None),
    api(4, team="ads", price_status="unpriced", price_entry=None,
        **{name: None for name in api(0) if name.endswith("_usd")}),
    api(5, input_tokens=None, output_tokens=None, cache_read_tokens=None, cache_write_tokens=None, status="error",
        price_status="not_billed", **{name: Decimal(0) for name in api(0) if name.endswith("_usd")}),
    api(6, team="vision", provider="openai", model="images", input_tokens=100, cache_read_tokens=None,
        cache_write_tokens=None, output_tokens=0, list_input_usd=Decimal("0.0001"), list_cache_read_usd=Decimal(0),
        list_cache_write_usd=Decimal(0), list_output_usd=Decimal(0), list_units_usd=Decimal("0.04"),
        list_cost_usd=Decimal("0.0401"), billed_cost_usd=Decimal("0.0401"), price_entry="openai/images",
        price_context="processing=batch"),
    own(10), own(11, team="search", started_at=FIRST + 26 * HOUR), own(12, team=None, output_tokens=3),
    own(13, deployment="nobody-declared", team="search"),
)  # fmt: skip
CHARGES = (
    charge("fee", "500"), charge("credit", "-20.000000000001", provider="anthropic"), charge("volume", "-3"),
    charge("adjustment", "1.25", team="ads", hardware_usd=Decimal("0.5"), period_start=FIRST - 9 * DAY),
    charge("adjustment", "-0.25", team="ads", provider="anthropic", model="claude"),
)  # fmt: skip


@pytest.fixture(scope="module")
def warehouse(warehouse_of):
    made = warehouse_of(*CALLS)
    made.control.declare(
        Deployment(name="rack", model="qwen", accelerator="nvidia-h100-sxm", accelerator_count=2, engine="vllm",
                   precision="fp8", region="us-va", effective_from=FIRST, effective_to=FIRST + 2 * DAY,
                   profile={"kind": "rented", "usd_per_hour": "2.017"})
    )  # fmt: skip
    capacity.refresh(made.engine, made.control, FIRST + 3 * DAY)
    with made.engine.write() as transaction:
        transaction.insert("charges", pl.DataFrame(CHARGES, infer_schema_length=None).to_arrow())
    return made


def exported(warehouse, edition: Edition = TOKENS) -> tuple[Export, pl.DataFrame]:
    export = Export(warehouse, DEFAULT_TENANT, MONTH, edition)
    return export, pl.concat(list(export.rows()))


@pytest.fixture(scope="module")
def tokens(warehouse) -> pl.DataFrame:
    return exported(warehouse)[1]


@pytest.fixture(scope="module")
def split(warehouse) -> pl.DataFrame:
    return exported(warehouse, SPLIT)[1]


# ---- sums


@pytest.mark.parametrize("edition", EDITIONS, ids=str)
def test_every_file_passes_the_gate_and_adds_up_to_what_pages_show(warehouse, edition):
    export, rows = exported(warehouse, edition)
    assert export.findings == {}
    assert [control.name for control in export.controls if not control.holds] == []
    asked = Query(measures=("spend_usd",), period=MONTH.period())
    spend = warehouse.ask(DEFAULT_TENANT, asked).frame["spend_usd"].item()
    assert abs(rows["EffectiveCost"].sum() - spend) < Decimal("0.000000001")
    assert rows["x_RequestCount"].sum() == len(CALLS)
    assert export.passed
    assert export.height == rows.height


def test_a_sum_that_is_not_that_of_pages_is_noticed_and_no_file_is_handed_out(warehouse, monkeypatch, tmp_path):
    monkeypatch.setattr(focus, "_charges", lambda export, _: pl.DataFrame(schema=schema(export.edition.version)))
    export = Export(warehouse, DEFAULT_TENANT, MONTH, TOKENS)
    with pytest.raises(focus_files.RefusedError, match=r"Charges and credits: 0 in the file, 478\.49"):
        focus_files.write(export, tmp_path / "file.csv", "csv")
    assert not export.passed


def moving(monkeypatch, warehouse, times: int) -> list[int]:
    """Have something change between rows and sums so many times."""
    controls, seen = focus._controls, []

    def moved(export, sums):
        seen.append(1)
        if len(seen) <= times:
            with warehouse.engine.revisions.changing({export.period.start.date()}):
                return (focus.Control("Calls", Decimal(1), Decimal(2)),)
        return controls(export, sums)

    monkeypatch.setattr(focus, "_controls", moved)
    return seen


def test_a_month_that_changes_while_it_is_read_is_read_again(warehouse, monkeypatch, tmp_path):
    seen = moving(monkeypatch, warehouse, 1)
    focus_files.write(Export(warehouse, DEFAULT_TENANT, MONTH, TOKENS), tmp_path / "file.csv", "csv")
    assert len(seen) == 2
    rows = exported(warehouse)[1]
    assert (tmp_path / "file.csv").read_text().count("\n") == rows.height + 1


def test_where_calls_keep_coming_the_day_that_is_not_over_is_left_out_and_the_notes_say_so(
    warehouse_of, monkeypatch, tmp_path
):
    now = datetime.now(UTC)
    warehouse = warehouse_of(api(1, started_at=now))
    moving(monkeypatch, warehouse, 2)
    export = Export(warehouse, DEFAULT_TENANT, Month.of(now), TOKENS)
    told = focus_files.write(export, tmp_path / "file.csv", "csv")
    if now.day > 1:  # else there is no day that is over
        assert export.until == now.replace(hour=0, minute=0, second=0, microsecond=0)
        assert "calls kept coming" in dict(told.notes)["Billing period"]
        assert export.height == 0


def test_too_many_groups_for_one_answer_are_asked_by_day(warehouse, monkeypatch):
    whole = exported(warehouse)[1]
    asked = []
    answer = warehouse.ask

    def narrow(tenant, question):
        if len(question.dimensions) > 5:
            asked.append(question.period)
            if question.period.end - question.period.start > 4 * DAY:
                raise BadQuery("more than 100,000 rows")
        return answer(tenant, question)

    monkeypatch.setattr(warehouse, "ask", narrow)
    export, rows = exported(warehouse)
    assert export.passed
    assert len(asked) > 8
    assert rows.sort(rows.columns).equals(whole.sort(rows.columns))


# ---- rows


def of(rows: pl.DataFrame, **told) -> list[dict]:
    return rows.filter(
        pl.all_horizontal(pl.col(name).eq_missing(pl.lit(value)) for name, value in told.items())
    ).to_dicts()


def test_token_kinds_are_rows_of_their_own_at_list_and_contracted_price(tokens):
    rows = {row["x_TokenKind"]: row for row in of(tokens, SubAccountId="search", ProviderName="Anthropic")}
    rows.pop(None)  # the call that failed without usage
    assert {kind: (row["ConsumedQuantity"], row["ListUnitPrice"], row["ContractedUnitPrice"]) for kind, row in
            rows.items()} == {
        "Input": (1000, 3, Decimal("2.7")), "Cached Input": (4000, Decimal("0.3"), Decimal("0.27")),
        "Cache Write": (500, Decimal("3.75"), Decimal("3.375")), "Output": (2000, 15, Decimal("13.5")),
    }  # fmt: skip
    assert sum(row["BilledCost"] for row in rows.values()) == Decimal("0.0324675")
    row = rows["Input"]
    assert row["SkuId"] == "anthropic/claude/input"
    assert row["SkuPriceId"] == "anthropic/claude/input/above-200000"
    assert (row["PricingQuantity"], row["PricingUnit"]) == (Decimal("0.001"), "1000000 Tokens")
    assert (row["ChargePeriodStart"], row["BillingPeriodEnd"]) == (FIRST, datetime(2026, 11, 1, tzinfo=UTC))
    assert json.loads(row["Tags"]) == {"feature": "answers", "environment": "production"}
    assert json.loads(row["SkuPriceDetails"]) == {
        "x_ModelId": "claude", "x_TokenDirection": "Input", "x_RequestTokensAbove": "200000",
    }  # fmt: skip


def test_what_is_priced_by_request_or_has_no_usage_is_a_row_of_requests(tokens):
    (row,) = of(tokens, SubAccountId="vision", PricingUnit="Requests")
    assert (row["ListCost"], row["EffectiveCost"]) == (Decimal("0.04"), Decimal("0.04"))
    assert row["SkuPriceId"] == "openai/images/requests/processing=batch"
    (failed,) = of(tokens, SubAccountId="search", PricingUnit="Requests")
    assert (failed["x_RequestCount"], failed["EffectiveCost"]) == (1, 0)


def test_own_hardware_is_tokens_with_its_share_of_the_hours_by_weight(tokens, warehouse):
    rows = {row["x_TokenKind"]: row for row in of(tokens, SubAccountId="ads", ServiceName="Self-hosted inference")
            if row["x_TokenKind"]}  # fmt: skip
    assert set(rows) == {"Input", "Cached Input", "Output"}
    asked = Query(measures=("hardware_input_usd", "hardware_output_usd", "hardware_cost_usd"),
                  dimensions=("team",), period=MONTH.period())  # fmt: skip
    (page,) = warehouse.ask(DEFAULT_TENANT, asked).frame.filter(pl.col("team") == "ads").to_dicts()
    assert rows["Input"]["EffectiveCost"] == round(page["hardware_input_usd"], 12)
    assert abs(sum(row["EffectiveCost"] for row in rows.values()) - page["hardware_cost_usd"]) < Decimal("1e-11")
    assert rows["Output"]["x_MarketListCost"] == Decimal("0.15")
    assert rows["Output"]["SkuPriceId"] == "own/qwen/output/nvidia-h100-sxm/vllm/fp8"
    assert {row["ResourceId"] for row in rows.values()} == {"rack"}


def test_what_nobody_used_is_accelerator_hours_of_nobody(tokens):
    idle = of(tokens, x_CapacityState="Idle")
    assert {(row["SubAccountId"], row["PricingUnit"], row["ListUnitPrice"]) for row in idle} == {
        (None, "Accelerator-Hours", Decimal("2.017"))
    }
    assert sum(row["PricingQuantity"] for row in idle) > 80


def test_idle_that_a_policy_gives_to_teams_is_theirs(warehouse_of):
    made = warehouse_of(own(1), own(2, team="search"))
    made.control.set_policy(Policy(idle="spread by use", effective_from=FIRST), DEFAULT_TENANT, "test")
    made.control.declare(
        Deployment(name="rack", model="qwen", accelerator="nvidia-h100-sxm", accelerator_count=2, effective_from=FIRST,
                   effective_to=FIRST + DAY, profile={"kind": "rented", "usd_per_hour": "2"})
    )  # fmt: skip
    capacity.refresh(made.engine, made.control, FIRST + 3 * DAY)
    export, rows = exported(made)
    assert export.passed
    assert {row["SubAccountId"] for row in of(rows, x_CapacityState="Idle")} >= {"ads", "search"}
    export, rows = exported(made, SPLIT)
    assert export.passed
    assert {row["AllocatedResourceId"] for row in of(rows, x_CapacityState="Idle")} >= {"ads", "search"}


def test_usage_of_unknown_price_is_there_with_nothing_and_says_so(tokens):
    rows = [row for row in tokens.to_dicts() if row["x_PriceStatus"] == "Unpriced"]
    assert {(row["SubAccountId"], row["x_Model"]) for row in rows} == {("ads", "claude"), ("search", "qwen")}
    assert {row["EffectiveCost"] for row in rows} == {0}
    assert {row["x_CostBasis"] for row in rows} == {"Unknown"}
    assert all("price unknown" in row["ChargeDescription"] for row in rows)
    assert sum(row["ConsumedQuantity"] for row in rows) == 7500 + 970_001


def test_charges_are_purchases_credits_and_adjustments_and_only_past_months_are_corrected(tokens):
    rows = {(row["ChargeCategory"], row["EffectiveCost"]): row for row in of(tokens, x_CostBasis="Charged")}
    assert {key: row["ChargeClass"] for key, row in rows.items()} == {
        ("Purchase", 500): None, ("Credit", Decimal("-20.000000000001")): None, ("Credit", -3): None,
        ("Adjustment", Decimal("1.75")): "Correction", ("Adjustment", Decimal("-0.25")): None,
    }  # fmt: skip
    fee = rows["Purchase", 500]
    assert (fee["SkuId"], fee["PricingQuantity"], fee["ChargeFrequency"]) == ("charge/fee/fee", 1, "Recurring")
    assert fee["ChargeDescription"] == "fee: so agreed"
    assert rows["Adjustment", Decimal("1.75")]["SubAccountId"] == "ads"


def test_accelerator_hours_are_split_so_that_shares_make_one_and_hours_those_paid_for(split):
    shares = split.filter(pl.col("AllocatedMethodId").is_not_null())
    assert shares["PricingQuantity"].sum() == 96
    ratio = shares["AllocatedMethodDetails"].str.json_path_match("$.Elements[0].AllocatedRatio").cast(MONEY)
    by_day = shares.with_columns(ratio=ratio).group_by("ChargePeriodStart").agg(pl.col("ratio").sum())
    assert by_day["ratio"].to_list() == [1, 1]
    unallocated = shares.filter(pl.col("AllocatedResourceId").is_null())
    assert set(unallocated["x_CapacityState"]) == {"Idle"}
    assert {"ads", "search", "unattributed"} == set(shares["AllocatedResourceId"].drop_nulls())
    assert shares["SubAccountId"].null_count() == shares.height


def test_only_a_version_that_knows_it_splits():
    with pytest.raises(ValueError, match=r"version 1\.2 of FOCUS has no split allocation: ask for version 1\.3"):
        Edition("1.2", "split-allocation")


def test_sku_prices_stay_the_same_whatever_date_term_or_override_priced_the_call(warehouse_of):
    entries = ["anthropic/claude", "anthropic/claude @2026-10-01", "anthropic/claude term 6",
               "override 3 claude @2026-10-01 like anthropic/claude"]  # fmt: skip
    made = warehouse_of(*(api(at, price_entry=entry) for at, entry in enumerate(entries, 1)))
    assert set(exported(made)[1]["SkuPriceId"]) == {
        f"anthropic/claude/{meter}" for meter in ("input", "cached-input", "cache-write", "output")
    }


def test_a_month_without_anything_is_an_empty_file(warehouse, tmp_path):
    export = Export(warehouse, DEFAULT_TENANT, Month(2024, 2), TOKENS)
    focus_files.write(export, tmp_path / "file.csv", "csv")
    assert export.passed
    assert (tmp_path / "file.csv").read_text().count("\n") == 1


# ---- whatever calls there are

_few = st.integers(0, 3)
_many = st.none() | st.integers(0, 10**9) | _few
_money = st.none() | st.decimals(0, 10**4, places=12, allow_nan=False, allow_infinity=False) | _few.map(Decimal)


@st.composite
def groups(draw) -> pl.DataFrame:
    rows = []
    for _ in range(draw(st.integers(1, 6))):
        hosted = draw(st.booleans())
        known = {name: draw(_money) for name in focus_rows.MEASURES if name.endswith("_usd")}
        parts = ("input", "cache_read", "cache_write", "output", "units")
        if draw(st.booleans()):
            known["list_cost_usd"] = sum((known[f"list_{one}_usd"] or Decimal(0) for one in parts), Decimal(0))
        bill = sum((known[f"hardware_{one}_usd"] or Decimal(0) for one in ("input", "cached", "output")), Decimal(0))
        known["spend_usd"] = bill if hosted else known["billed_cost_usd"]
        counts = {name: draw(_many) for name in focus_rows.MEASURES if name not in known}
        keys = dict.fromkeys(focus_rows.KEYS) | {
            "billing": "self_hosted" if hosted else "api", "cost_type": "hardware" if hosted else "api",
            "provider": draw(st.sampled_from(["openai", None, HOSTILE])), "model": draw(st.sampled_from(["m", None])),
        }  # fmt: skip
        rows.append({"time": FIRST, **keys, **counts, "calls": draw(st.integers(1, 5)), **known})
    text = dict.fromkeys(focus_rows.KEYS, pl.String)
    amounts = {name: pl.Decimal(38, 24) if name.endswith("_usd") else pl.Int64 for name in focus_rows.MEASURES}
    return pl.DataFrame(rows, schema={"time": pl.Datetime("us", "UTC"), **text, **amounts})


@settings(max_examples=60, deadline=None)
@given(groups())
def test_whatever_was_called_the_bill_is_on_the_rows_to_the_last_digit(found):
    rows = focus_rows.usage(found)
    billed = found.filter(pl.col("billing") == "api")["billed_cost_usd"].sum()
    assert rows.filter(~pl.col("own"))["EffectiveCost"].sum() == billed
    assert rows["x_RequestCount"].sum() == found["calls"].sum()
    for name in ("List", "Contracted"):
        for quantity, price, cost in rows.select("PricingQuantity", f"{name}UnitPrice", f"{name}Cost").iter_rows():
            assert abs(quantity * price - cost) <= Decimal("1e-12")
            assert price >= 0
    bad = rows.filter((pl.col("EffectiveCost") - pl.col("ContractedCost")).abs() > pl.col("PricingQuantity") + 1)
    assert bad.is_empty()
    text = rows["SkuPriceDetails"].drop_nulls().to_list()
    assert all(isinstance(json.loads(one), dict) for one in text)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.decimals("0.01", 10**4, places=12), min_size=1, max_size=7))
def test_whatever_carries_an_hour_its_shares_make_one_and_its_hours_all_of_them(costs):
    keys = dict.fromkeys(focus_rows.KEYS) | {"billing": "self_hosted", "cost_type": "hardware", "deployment": "rack"}
    rows = [{"time": FIRST, **keys, "team": f"t{at}", "calls": 1, "spend_usd": cost} for at, cost in enumerate(costs)]
    text = dict.fromkeys(focus_rows.KEYS, pl.String)
    amounts = {name: pl.Decimal(38, 24) if name.endswith("_usd") else pl.Int64 for name in focus_rows.MEASURES}
    time = {"time": pl.Datetime("us", "UTC")}
    prices = pl.DataFrame(
        [
            {
                "time": FIRST,
                "deployment": "rack",
                "accelerator_hour_usd": Decimal("1.7"),
                "accelerator_hours": Decimal(7),
            }
        ],
        schema={**time, "deployment": pl.String, "accelerator_hour_usd": MONEY, "accelerator_hours": MONEY},
    )
    found = focus_rows.allocated(pl.DataFrame([{**dict.fromkeys(amounts), **row} for row in rows],
                                              schema={**time, **text, **amounts}), prices)  # fmt: skip
    shares = found["AllocatedMethodDetails"].str.json_path_match("$.Elements[0].AllocatedRatio").cast(MONEY)
    assert shares.sum() == 1
    assert found["PricingQuantity"].sum() == 7
    assert found["EffectiveCost"].sum() == sum(costs)


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.none() | st.text(max_size=12), min_size=1))
def test_flat_json_is_what_is_known_and_nothing_else(told):
    frame = pl.DataFrame({name: [value] for name, value in told.items()}, schema=dict.fromkeys(told, pl.String))
    text = frame.select(focus_rows.flat_json({name: pl.col(name) for name in told}, "x_").alias("json")).item()
    known = {f"x_{name}": value for name, value in told.items() if value is not None}
    assert (json.loads(text) if text is not None else {}) == known


# ---- the gate

NOTHING = pl.lit(None)
FIRST_ROW = pl.int_range(pl.len()) == 0


def put(value: object, *names: str, where: pl.Expr = FIRST_ROW):
    """Write a value into columns of the rows that meet a condition."""

    def mutate(frame: pl.DataFrame) -> pl.DataFrame:
        told = value if isinstance(value, pl.Expr) else pl.lit(value)
        changed = [pl.when(where).then(told).otherwise(pl.col(name)).cast(frame.schema[name]).alias(name) for name in
                   names]  # fmt: skip
        return frame.with_columns(changed)

    return mutate


USAGE, TOKEN_ROW = pl.col("ChargeCategory") == "Usage", pl.col("ConsumedUnit") == "Tokens"
BOUGHT, CREDIT = pl.col("ChargeCategory") == "Purchase", pl.col("ChargeCategory") == "Credit"
SHARE = pl.col("AllocatedMethodId").is_not_null()
MUTATIONS = {
    "columns-in-order": lambda frame: frame.select(reversed(frame.columns)),
    "columns-typed": lambda frame: frame.with_columns(pl.col("BilledCost").cast(pl.Float64)),
    "no-blank-text": put(" ", "ChargeDescription"),
    "list-cost": put(pl.col("ListCost") + Decimal("1e-12"), "ListCost", where=TOKEN_ROW),
    "contracted-cost": put(pl.col("ContractedCost") + Decimal("1e-12"), "ContractedCost", where=TOKEN_ROW),
    "prices-not-negative": put(Decimal(-1), "ListUnitPrice"),
    "quantity-for-usage": put(NOTHING, "PricingQuantity", where=USAGE),
    "no-quantity-for-tax": put("Tax", "ChargeCategory", where=USAGE),
    "unit-with-quantity": put(NOTHING, "PricingUnit"),
    "consumed-with-unit": put(NOTHING, "ConsumedUnit"),
    "consumed-for-usage": put(NOTHING, "ConsumedQuantity", where=USAGE),
    "consumed-positive": put(Decimal(0), "ConsumedQuantity", where=TOKEN_ROW),
    "consumed-only-for-usage": put(Decimal(1), "ConsumedQuantity", where=CREDIT),
    "sku-for-usage": put(NOTHING, "SkuId", where=USAGE),
    "sku-price-for-usage": put(NOTHING, "SkuPriceId", where=BOUGHT),
    "sku-price-has-one-sku": put("same", "SkuPriceId", where=TOKEN_ROW),
    "sku-price-without-time": put("claude @2026-10-01", "SkuPriceId"),
    "sku-details-with-price": put(NOTHING, "SkuPriceId", where=TOKEN_ROW),
    "unit-prices-for-usage": put(NOTHING, "ContractedUnitPrice", where=USAGE),
    "category-for-usage": put(NOTHING, "PricingCategory", where=USAGE),
    "list-is-billed-elsewhere": put(Decimal(7), "ListCost", where=CREDIT),
    "credits-contracted": put(Decimal(7), "ContractedCost", where=CREDIT),
    "credits-effective": put(Decimal(7), "EffectiveCost", where=CREDIT),
    "purchases-not-by-usage": put("Usage-Based", "ChargeFrequency", where=BOUGHT),
    "corrections-of-the-past": put("Correction", "ChargeClass", where=USAGE),
    "currency-iso": put("Credits", "BillingCurrency"),
    "one-currency": put("EUR", "BillingCurrency"),
    "pricing-currency": put(Decimal(1), "PricingCurrencyListUnitPrice"),
    "day-in-month": put(FIRST + 32 * DAY, "ChargePeriodEnd"),
    "days-whole": put(FIRST + HOUR, "ChargePeriodStart"),
    "months-whole": put(FIRST + DAY, "BillingPeriodStart"),
    "units-named": put("million tokens", "PricingUnit"),
    "json-flat": put('{"a":{"b":1}}', "Tags"),
    "sub-account-whole": put(NOTHING, "SubAccountName", where=pl.col("SubAccountId").is_not_null()),
    "region-whole": put(NOTHING, "RegionName", where=pl.col("RegionId").is_not_null()),
    "resource-whole": put(NOTHING, "ResourceType", where=pl.col("ResourceId").is_not_null()),
    "reservation-whole": put("deal", "CapacityReservationId"),
    "service-has-one-category": put("Compute", "ServiceCategory"),
    "unpriced-is-marked": put("Unpriced", "x_PriceStatus", where=pl.col("EffectiveCost") > 0),
    "unmarked-is-known": put("Unknown", "x_CostBasis", where=pl.col("EffectiveCost") > 0),
    "tokens-by-kind": put(NOTHING, "x_TokenKind", where=TOKEN_ROW),
    "requests-whole": put(Decimal("0.5"), "x_RequestCount"),
    "shares-make-one": put('{"Elements":[{"AllocatedRatio":0.4}]}', "AllocatedMethodDetails", where=SHARE),
    "split-has-a-method": put(NOTHING, "AllocatedMethodId", "AllocatedMethodDetails", where=SHARE),
    "split-tells-how": put(NOTHING, "AllocatedMethodDetails", where=SHARE),
    "split-keeps-its-unit": put("Tokens", "PricingUnit", where=SHARE),
    "split-is-nobodys": put("ads", "SubAccountId", "SubAccountName", where=SHARE),
}  # fmt: skip
for _column in columns("1.3"):
    if _column.needed:
        MUTATIONS[f"{_column.name}-is-told"] = put(NOTHING, _column.name)
    if _column.allowed:
        MUTATIONS[f"{_column.name}-is-of-its-list"] = put("Nonsense", _column.name)


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_rule_of_the_gate_bites(tokens, split, name):
    for version, frame in (("1.2", tokens), ("1.3", split)):
        if any(rule.name == name for rule in focus_gate.rules(version)):
            assert focus_gate.check(frame, version) == []
            found = {finding.rule: finding for finding in focus_gate.check(MUTATIONS[name](frame), version)}
            assert name in found, f"{name} did not notice its mutation in {version}"
            assert found[name].rows > 0


def test_every_rule_has_a_mutation():
    assert {rule.name for version in VERSIONS for rule in focus_gate.rules(version)} == set(MUTATIONS)


def test_a_file_that_breaks_a_rule_is_refused_by_its_name(warehouse, monkeypatch, tmp_path):
    broken = focus_gate.Rule("never", "nothing is exported", lambda frame: frame.height)
    known = focus_gate.rules
    monkeypatch.setattr(focus_gate, "rules", lambda version: (*known(version), broken))
    with pytest.raises(focus_files.RefusedError, match=r"never \(nothing is exported\): \d+ rows"):
        focus_files.write(Export(warehouse, DEFAULT_TENANT, MONTH, TOKENS), tmp_path / "file", "parquet")


# ---- files


@pytest.mark.parametrize("edition", [TOKENS, SPLIT], ids=str)
def test_files_hold_the_same_rows_in_plain_digits_and_exact_decimals(warehouse, tmp_path, edition):
    export, rows = exported(warehouse, edition)
    for form in ("csv", "parquet"):
        focus_files.write(Export(warehouse, DEFAULT_TENANT, MONTH, edition), tmp_path / form, form)
    stored = pq.read_table(tmp_path / "parquet")
    assert pl.DataFrame(stored).equals(rows)
    kept = pq.ParquetFile(tmp_path / "parquet").metadata.metadata
    assert json.loads(kept[b"millicent.totals"])["EffectiveCost"] == f"{export.totals['EffectiveCost']:f}".rstrip("0")
    assert json.loads(kept[b"millicent.notes"])["profile"] == edition.profile
    text = pl.read_csv(io.BytesIO((tmp_path / "csv").read_bytes()), infer_schema=False)
    assert text.columns == [column.name for column in columns(edition.version)]
    for name in COSTS:
        assert text[name].str.contains(r"^-?\d+(\.\d+)?$").all()
        assert text[name].cast(MONEY).sum() == rows[name].sum()
    assert text["ChargePeriodStart"].str.contains(r"^\d{4}-\d\d-\d\dT00:00:00Z$").all()
    assert not any(str(value).startswith("=") for value in text["SubAccountName"].drop_nulls())


def test_a_spreadsheet_has_the_rows_and_says_what_they_come_to(warehouse, tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    told = focus_files.write(Export(warehouse, DEFAULT_TENANT, MONTH, TOKENS), tmp_path / "file.xlsx", "xlsx")
    book = openpyxl.load_workbook(tmp_path / "file.xlsx")
    notes = {row[0].value: row[1].value for row in book["Notes"].iter_rows()}
    assert notes["Specification"] == "FOCUS 1.2, Cost and Usage"
    assert notes["Checks"].endswith("none broken")
    assert "in the file" in notes["Sum: Spend, fully loaded"]
    assert notes["Total of EffectiveCost, in full"] == f"{told.totals['EffectiveCost']:f}".rstrip("0")


# ---- the API and the command


def get(client, **asked):
    return client.get("/api/v1/exports/focus", params={"month": "2026-10", **asked})


def test_the_api_answers_a_file_with_its_totals_or_what_would_be_in_it(client):
    reader = client("read")
    file = get(reader)
    assert file.headers["content-type"] == "text/csv; charset=utf-8"
    assert 'filename="focus-1.2-token-service-2026-10.csv"' in file.headers["content-disposition"]
    told = get(reader, format="json", limit=3).json()
    assert json.loads(file.headers["x-millicent-totals"]) == told["totals"]
    assert told["passed"]
    assert len(told["rows"]) == 3
    assert told["row_count"] == file.text.count("\n") - 1
    stored = pq.read_table(io.BytesIO(get(reader, format="parquet", version="1.3", profile="split-allocation").content))
    assert "AllocatedMethodId" in stored.column_names


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"month": "2026-13"}, "is not a month"),
        ({"profile": "split-allocation"}, "no split allocation: ask for version 1.3"),
        ({"version": "0.5"}, "version: "),
    ],
)
def test_what_cannot_be_exported_is_refused_with_the_remedy(client, asked, why):
    answer = get(client("read"), **asked)
    assert answer.status_code == 400
    assert why in answer.json()["detail"]


def test_the_api_hands_out_no_file_that_breaks_a_rule_and_leaves_none_behind(client, monkeypatch, tmp_path):
    monkeypatch.setattr(focus, "_charges", lambda export, _: pl.DataFrame(schema=schema(export.edition.version)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    answer = get(client("read"))
    assert answer.status_code == 409
    assert "Charges and credits" in answer.json()["detail"]
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_a_file_or_prints_its_sums(run, tmp_path):
    path = tmp_path / "focus.csv"
    assert run("export", "focus", "--month", "2026-10", "--to", str(path)).exit_code == 0
    assert path.read_text().startswith("AvailabilityZone,BilledCost,")
    shown = run("export", "focus", "--month", "2026-10", "--check")
    assert "Spend, fully loaded" in shown.stdout
    assert json.loads(run("export", "focus", "--month", "2026-10", "--check", "--json").stdout)["passed"]
    assert run("export", "focus", "--json").exit_code == 1
    path = tmp_path / "answer.parquet"
    asked = (
        "spend_usd",
        "calls",
        "--by",
        "team",
        "--start",
        "2026-10-01",
        "--end",
        "2026-11-01",
        "--format",
        "parquet",
    )
    assert run("export", "query", *asked, "--to", str(path)).exit_code == 0
    assert pl.read_parquet(path)["calls"].sum() == len(CALLS)

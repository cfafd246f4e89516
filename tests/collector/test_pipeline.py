"""The life of a span after the spool: what is kept, what leaves and why, and that nothing is lost on the way."""

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millicent.collector import pipeline, reading
from millicent.collector.decode import decode
from millicent.collector.dialects import ATTRIBUTION
from millicent.warehouse import ledger, record
from millicent.warehouse.control import Deployment
from millicent.warehouse.embedded import Embedded

HOUR = timedelta(hours=1)
TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")


@pytest.fixture(scope="module")
def one(otlp):
    """The row of one call, or None when it left."""

    def row(attributes=(), *, scope="millicent.sdk", resource=(), deployments=(), **fields):
        body = otlp.request(otlp.span(attributes, **fields), scope=scope, resource=resource)
        return next(otlp.run(body, deployments=deployments).spans.iter_rows(named=True), None)

    return row


# ---- rows of the record


def test_a_call_becomes_a_row_of_the_record(otlp):
    sent = otlp.span(
        {
            "gen_ai.response.id": "chatcmpl-1",
            "gen_ai.request.stream": True,
            "gen_ai.response.time_to_first_chunk": 0.25,
            "server.address": "api.openai.com",
            "server.port": 443,
            "openai.response.service_tier": "default",
            "gen_ai.usage.cache_read.input_tokens": 400,
            "gen_ai.usage.reasoning.output_tokens": 60,
            "millicent.usage_source": "reported",
            "millicent.team": "search",
            "user.id": "u-1",
            "millicent.label.experiment": "b",
        },
        parent_span_id=bytes(7) + b"\x05",
    )
    batch = otlp.run(otlp.request(sent, resource={"service.name": "ranker", "deployment.environment.name": "prod"}))
    (row,) = batch.spans.to_dicts()
    assert batch.spans.columns == [column.name for column in record.CALLS]
    assert row.pop("response_id") is not None
    assert {name: value for name, value in row.items() if value is not None} == {
        "tenant": "acme",
        "trace_id": sent.trace_id,
        "span_id": int.from_bytes(sent.span_id, "big"),
        "parent_span_id": 5,
        "key_id": "key-1",
        "received_at": otlp.NOW,
        "started_at": otlp.NOW,
        "duration_ms": 500,
        "ttft_ms": 250,
        "operation": "chat",
        "provider": "openai",
        "request_model": "gpt-4o",
        "response_model": "gpt-4o-2024-08-06",
        "model": "gpt-4o-2024-08-06",
        "billing": "api",
        "streaming": True,
        "service_tier": "default",
        "status": "ok",
        "endpoint_host": "api.openai.com",
        "dialect": "millicent",
        "scope": "millicent.sdk",
        "scope_version": "1.2",
        "environment": "prod",
        "service": "ranker",
        "team": "search",
        "user_id": "u-1",
        "labels": [{"key": "experiment", "value": "b"}],
        "identity_source": "span",
        "input_tokens": 1000,
        "output_tokens": 100,
        "cache_read_tokens": 400,
        "reasoning_tokens": 60,
        "usage_source": "reported",
        "usage_rule": "millicent/1",
        "usage_raw": '{"gen_ai.usage.cache_read.input_tokens":400,"gen_ai.usage.input_tokens":1000,'
        '"gen_ai.usage.output_tokens":100,"gen_ai.usage.reasoning.output_tokens":60}',
        "usage_flags": [],
        "counted": True,
        # 600 × 2.50 + 400 × 1.25 + 100 × 10.00 USD per million
        "list_cost_usd": Decimal("0.003"),
        "list_input_usd": Decimal("0.0015"),
        "list_cache_read_usd": Decimal("0.0005"),
        "list_cache_write_usd": Decimal(0),
        "list_output_usd": Decimal("0.001"),
        "list_units_usd": Decimal(0),
        "billed_cost_usd": Decimal("0.003"),
        "cache_saving_usd": Decimal("0.0005"),
        "price_status": "priced",
        "price_entry": row["price_entry"],
        "price_version": row["price_version"],
        "signal": "span",
        "call_count": 1,
        "tag_sources": "environment:resource",
    }


def test_nothing_in_gives_nothing_out_in_the_columns_of_the_record(otlp):
    for batch in (otlp.run(), otlp.run(b""), otlp.run(b"\xff"), otlp.run(otlp.request())):
        assert batch.spans.height == 0
        assert batch.spans.columns == [column.name for column in record.CALLS]
        assert batch.left == ()


def test_rows_have_the_same_types_whatever_is_in_the_batch(otlp):
    full = otlp.run(otlp.request(otlp.span({"millicent.label.a": "b", "millicent.team": "t"}, error=True)))
    assert otlp.run().spans.schema == otlp.run(otlp.request(otlp.span())).spans.schema == full.spans.schema


# ---- spans in = spans stored + spans that left

odd_values = st.sampled_from([-1, 0, 5, 10**9, 10**9 + 1, 2**63 - 1, -(2**63), "12", "+7", "NaN", "", 1.0, 1.5,
                              float("nan"),
                              float("inf"), True, "\0", "x" * 3000, None])  # fmt: skip
odd_attributes = st.dictionaries(
    st.sampled_from(
        [
            "gen_ai.operation.name",
            "gen_ai.provider.name",
            "gen_ai.system",
            "gen_ai.request.model",
            "gen_ai.response.model",
            "gen_ai.usage.input_tokens",
            "gen_ai.usage.output_tokens",
            "gen_ai.usage.cache_read.input_tokens",
            "gen_ai.usage.cache_write.input_tokens",
            "gen_ai.usage.reasoning.output_tokens",
            "gen_ai.response.time_to_first_chunk",
            "gen_ai.request.stream",
            "server.address",
            "server.port",
            "millicent.usage_source",
            "millicent.status",
            "millicent.team",
            "millicent.deployment",
            "millicent.accelerator",
            "millicent.accelerator_count",
            "millicent.label.x",
            "error.type",
        ]
    ),
    odd_values,
    max_size=6,
)
instants = st.sampled_from([0, 1, 10**18, 1_763_640_000 * 10**9, 2**63, 2**64 - 1])


@st.composite
def odd_requests(draw, otlp):
    def odd_span():
        return otlp.span(
            draw(odd_attributes),
            span_id=draw(st.sampled_from([b"", b"short", bytes(8), b"12345678", None, b"x" * 100])),
            trace_id=draw(st.sampled_from([b"", bytes(16), b"0123456789abcdef", b"y" * 100])),
            parent_span_id=draw(st.sampled_from([b"", b"short", b"12345678"])),
            started_ns=draw(st.sampled_from([otlp.NOW_NS, otlp.NOW_NS, 0, 1, 2**64 - 1])),
            end_time_unix_nano=draw(st.sampled_from([0, otlp.NOW_NS, 2**64 - 1])),
            error=draw(st.booleans()),
        )

    scope = draw(st.sampled_from(["millicent.sdk", "opentelemetry.instrumentation.genai.openai", "other", ""]))
    return otlp.request(
        *(odd_span() for _ in range(draw(st.integers(0, 4)))), scope=scope, resource=draw(odd_attributes)
    )


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_span_is_stored_or_leaves_for_a_reason_whatever_it_says(otlp, data):
    bodies = data.draw(st.lists(odd_requests(otlp), max_size=3))
    batch = otlp.run(*bodies)
    spans = decode(bodies, {}).spans.height
    assert spans == batch.spans.height + sum(frame.height for frame in batch.left)
    assert batch.quarantined.height == sum(outcome == "quarantined" for outcome, _ in otlp.left(batch))
    for outcome, reason in otlp.left(batch):
        assert outcome in ledger.OUTCOMES
        assert reason
    for row in batch.spans.iter_rows(named=True):
        assert len(row["trace_id"]) == 16
        assert row["span_id"]
        for name in record.TOKENS:
            assert row[name] is None or 0 <= row[name] <= 3 * reading.MOST_TOKENS
        assert (row["cache_read_tokens"] or 0) + (row["cache_write_tokens"] or 0) <= (row["input_tokens"] or 0)
        assert (row["list_cost_usd"] is None) <= (row["price_status"] in ("unpriced", "partial", "not_billed"))


# ---- one bad span leaves alone

BAD = [
    ("negative_tokens", {"gen_ai.usage.input_tokens": -1}, {}),
    ("negative_tokens", {"gen_ai.usage.cache_read.input_tokens": -(2**63)}, {}),
    ("negative_tokens", {"gen_ai.usage.reasoning.output_tokens": "-5"}, {}),
    ("absurd_tokens", {"gen_ai.usage.output_tokens": 10**9 + 1}, {}),
    ("absurd_tokens", {"gen_ai.usage.input_tokens": 2**63 - 1}, {}),
    ("absurd_tokens", {"gen_ai.usage.input_tokens": 5e12}, {}),
    ("in_the_future", {}, {"after": timedelta(hours=24, seconds=1)}),
    ("in_the_future", {}, {"started_ns": 2**64 - 1, "lasted_ms": 0}),
    ("too_long_ago", {}, {"started_ns": 0}),
    ("too_long_ago", {}, {"started_ns": 1}),
    ("too_long_ago", {}, {"started_ns": int(datetime(2019, 12, 31, 23, tzinfo=UTC).timestamp()) * 10**9}),
    ("bad_ids", {}, {"span_id": b""}),
    ("bad_ids", {}, {"span_id": bytes(8)}),
    ("bad_ids", {}, {"span_id": b"1234567"}),
    ("bad_ids", {}, {"span_id": b"x" * 1_000_000}),
    ("bad_ids", {}, {"trace_id": b""}),
    ("bad_ids", {}, {"trace_id": bytes(16)}),
    ("bad_ids", {}, {"trace_id": b"123456789abcdef"}),
]


@pytest.mark.parametrize(("reason", "attributes", "fields"), BAD)
def test_what_cannot_be_true_is_set_aside_with_its_reason_and_the_rest_is_kept(otlp, reason, attributes, fields):
    after = fields.get("after")
    fields = {"started_ns": otlp.NOW_NS + after // timedelta(microseconds=1) * 1000} if after else fields
    batch = otlp.run(otlp.request(otlp.span(), otlp.span(attributes, **fields), otlp.span()))
    assert batch.spans.height == 2
    assert otlp.left(batch) == [("quarantined", reason)]
    (row,) = batch.quarantined.to_dicts()
    assert (row["tenant"], row["reason"], row["scope"]) == ("acme", reason, "millicent.sdk")
    assert row["detail"]
    assert len(row["span_id"]) <= 64


def test_a_clock_a_day_ahead_is_still_believed(otlp, one):
    assert one(started_ns=otlp.NOW_NS + 24 * 3600 * 10**9)["started_at"] == otlp.NOW + timedelta(days=1)
    assert one({"gen_ai.usage.input_tokens": 10**9})["input_tokens"] == 10**9


@pytest.mark.parametrize("value", ["NaN", "many", "1.5", "", 1.5, float("nan"), float("inf"), True, "9" * 30, "٣"])
def test_a_count_that_is_not_a_whole_number_is_unknown(one, value):
    row = one({"gen_ai.usage.input_tokens": value, "gen_ai.usage.cache_read.input_tokens": value})
    assert row["input_tokens"] is row["cache_read_tokens"] is None
    assert row["output_tokens"] == 100
    assert row["price_status"] == "partial"


@pytest.mark.parametrize("value", ["1000", "+1000", "0001000", 1000.0])
def test_a_whole_number_is_read_however_it_is_written(one, value):
    assert one({"gen_ai.usage.input_tokens": value})["input_tokens"] == 1000


@pytest.mark.parametrize(
    ("end", "flags"),
    [(0, []), (1, ["ended_before_start"]), (2**64 - 1, ["lasted_over_a_day"])],
    ids=["unset", "1970", "year 2554"],
)
def test_an_end_that_cannot_be_true_costs_the_duration_alone(one, end, flags):
    row = one(end_time_unix_nano=end)
    assert row["duration_ms"] is None
    assert row["usage_flags"] == flags
    assert row["input_tokens"] == 1000


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), 1e300])
def test_a_time_to_first_token_that_cannot_be_true_is_unknown(one, seconds):
    assert one({"gen_ai.response.time_to_first_chunk": seconds})["ttft_ms"] is None


def test_megabytes_and_nul_characters_are_cut_and_stored(otlp, tmp_path):
    long, nul = "m" * 1_000_000, "a\0b"
    texts = ("gen_ai.request.model", "gen_ai.response.model", "gen_ai.provider.name", "error.type", "millicent.team",
             "user.id", "server.address", "gen_ai.response.id", "millicent.label.x",
             "millicent.accelerator")  # fmt: skip
    spans = [otlp.span(dict.fromkeys(texts, text), error=True) for text in (long, nul, "é🎈")]
    batch = otlp.run(otlp.request(*spans, resource={"service.name": long}))
    assert batch.spans.height == 3
    engine = Embedded(tmp_path)
    with engine.write() as transaction:
        ledger.store(transaction, ledger.Batch(batch.spans, outcomes_of(batch), batch.quarantined), 1)
    stored = engine.read(ledger.select(ledger.calls)).to_pylist()
    engine.close()
    assert {len(row["team"]) for row in stored} == {1024, 3, 2}
    assert max(len(it) for row in stored for it in row.values() if isinstance(it, str)) == 1024
    assert {dict(row["labels"])["x"] for row in stored} == {long[:1024], nul, "é🎈"}


def outcomes_of(batch):
    hour = pl.col("received_at").dt.truncate("1h")
    return batch.spans.group_by("tenant", hour=hour).agg(
        outcome=pl.lit("stored"), reason=pl.lit("call"), spans=pl.len().cast(pl.Int64)
    )


# ---- tokens keep their promises


def test_an_input_smaller_than_its_cached_part_left_that_part_out(one):
    row = one({"gen_ai.usage.cache_read.input_tokens": 900, "gen_ai.usage.cache_write.input_tokens": 200})
    assert row["input_tokens"] == 1000 + 900 + 200
    assert row["usage_flags"] == ["input_excluded_cache"]
    assert row["list_input_usd"] == Decimal("0.003")  # written tokens have no price of their own here


def test_an_output_smaller_than_its_reasoning_left_that_part_out(one):
    row = one({"gen_ai.usage.reasoning.output_tokens": 150})
    assert (row["output_tokens"], row["usage_flags"]) == (250, ["output_excluded_reasoning"])


def test_cached_tokens_of_an_unknown_input_are_unknown(one):
    row = one({"gen_ai.usage.input_tokens": None, "gen_ai.usage.cache_read.input_tokens": 900})
    assert row["input_tokens"] is row["cache_read_tokens"] is None
    assert row["usage_flags"] == ["cache_without_input"]
    assert '"gen_ai.usage.cache_read.input_tokens":900' in row["usage_raw"]


def test_cache_writes_told_by_time_alone_have_a_total(one):
    split = {"millicent.usage.cache_write.5m.input_tokens": 30, "millicent.usage.cache_write.1h.input_tokens": 12}
    assert one(split)["cache_write_tokens"] == 42
    assert one(split | {"gen_ai.usage.cache_write.input_tokens": 50})["cache_write_tokens"] == 50


def test_an_embedding_has_no_output(one):
    row = one({"gen_ai.operation.name": "embeddings", "gen_ai.request.model": "text-embedding-3-small",
               "gen_ai.response.model": None, "gen_ai.usage.output_tokens": None})  # fmt: skip
    assert (row["output_tokens"], row["price_status"]) == (0, "priced")


def test_a_part_that_is_not_told_is_unknown_unless_the_dialect_leaves_zeros_out(one):
    ours = one()
    official = one(scope="opentelemetry.instrumentation.genai.openai")
    assert ours["cache_read_tokens"] is ours["reasoning_tokens"] is None
    assert official["cache_read_tokens"] == official["reasoning_tokens"] == 0
    assert official["cache_write_5m_tokens"] is None


def test_a_failed_call_without_usage_used_nothing_and_costs_nothing_where_the_price_is_known(one):
    without = {"gen_ai.usage.input_tokens": None, "gen_ai.usage.output_tokens": None}
    for model, cost in (("gpt-4o", 0), ("nobody-knows", None), (None, None)):
        row = one(without | {"gen_ai.request.model": model, "gen_ai.response.model": None}, error=True)
        assert {row[name] for name in record.TOKENS} == {0}
        assert {row[name] for name in record.MONEY} == {cost}
        assert (row["status"], row["price_status"], row["usage_source"]) == ("error", "not_billed", "reported")
        assert row["usage_flags"] == ["failed_without_usage"]


def test_a_failed_call_with_usage_is_priced(one):
    row = one({"error.type": "TimeoutError"}, error=True)
    assert (row["status"], row["error_type"], row["price_status"]) == ("error", "TimeoutError", "priced")
    assert row["billed_cost_usd"] == Decimal("0.0035")


def test_a_cancelled_call_without_usage_is_unknown_and_not_free(one):
    without = {"gen_ai.usage.input_tokens": None, "gen_ai.usage.output_tokens": None, "millicent.status": "cancelled"}
    for error in (False, True):
        row = one(without, error=error)
        assert (row["status"], row["usage_source"], row["input_tokens"]) == ("cancelled", "missing", None)
        assert row["price_status"] == "partial"


@pytest.mark.parametrize(
    ("told", "stored"),
    [("estimated", "estimated"), ("reported", "reported"), ("made up", "reported"), (None, "reported")],
)
def test_where_usage_comes_from_is_one_of_three_words(one, told, stored):
    assert one({"millicent.usage_source": told})["usage_source"] == stored


# ---- what is no call


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"gen_ai.operation.name": "invoke_agent"}, "operation:invoke_agent"),
        ({"gen_ai.operation.name": "execute_tool"}, "operation:execute_tool"),
        ({"gen_ai.operation.name": "Tell me a \n secret" * 9}, "operation:tell?me?a???secrettell?me?a???secrettell"),
        (
            dict.fromkeys(("gen_ai.operation.name", "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")),
            "no_dialect",
        ),
    ],
)
def test_spans_that_are_not_one_call_leave_and_say_what_they_were(otlp, attributes, reason):
    batch = otlp.run(otlp.request(otlp.span(attributes), otlp.span(), scope="any"))
    assert otlp.left(batch) == [("not_a_call", reason)]
    assert batch.spans.height == 1


@pytest.mark.parametrize(
    ("told", "stored"),
    [("chat", "chat"), ("CHAT", "chat"), ("completion", "text_completion"), ("embedding", "embeddings"),
     ("generate_content", "generate_content")],
)  # fmt: skip
def test_every_spelling_of_an_operation_is_one_of_four(one, told, stored):
    assert one({"gen_ai.operation.name": told})["operation"] == stored


# ---- counted once


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), groups=st.integers(1, 6))
def test_order_and_batching_change_nothing(otlp, stored_rows, seed, groups):
    chance = random.Random(seed)
    spans = [otlp.span({"gen_ai.usage.input_tokens": chance.randrange(-5, 2000)}) for _ in range(12)]
    spans += [otlp.span({"gen_ai.operation.name": "invoke_agent"}), *spans[:3]]
    whole = otlp.run(otlp.request(*spans))
    chance.shuffle(spans)
    parts = [part for part in (spans[at::groups] for at in range(groups)) if part]
    seen, rows, gone = set(), [], []
    for part in parts:
        batch = otlp.run(otlp.request(*part), seen=seen)
        seen |= set(batch.spans["span_id"])
        rows.append(batch.spans)
        gone += otlp.left(batch)
    assert stored_rows(pl.concat(rows)) == stored_rows(whole.spans)
    assert sorted(gone) == otlp.left(whole)


def test_a_span_that_cannot_be_true_does_not_stand_in_the_way_of_its_namesake(otlp):
    good = otlp.span(span_id=b"same id.", trace_id=b"same trace  id..")
    bad = otlp.span({"gen_ai.usage.input_tokens": -1}, span_id=b"same id.", trace_id=b"same trace  id..")
    for spans in ((good, bad), (bad, good)):
        batch = otlp.run(otlp.request(*spans))
        assert batch.spans["input_tokens"].to_list() == [1000]
        assert otlp.left(batch) == [("quarantined", "negative_tokens")]


def test_the_same_ids_at_another_instant_or_tenant_are_another_call(otlp):
    ids = {"span_id": b"same id.", "trace_id": b"same trace  id.."}
    later = otlp.span(started_ns=otlp.NOW_NS + 1000, **ids)
    assert otlp.run(otlp.request(otlp.span(**ids), later)).spans.height == 2


def test_a_retried_request_stores_nothing_new(otlp):
    body = otlp.request(*(otlp.span() for _ in range(3)))
    first = otlp.run(body, body)
    again = otlp.run(body, seen=set(first.spans["span_id"]))
    assert first.spans.height == 3
    assert otlp.left(first) == [("duplicate", "same_span")] * 3
    assert again.spans.height == 0
    assert otlp.left(again) == [("duplicate", "same_span")] * 3


# ---- who


def test_a_tag_on_the_span_wins_over_one_on_the_resource(one):
    row = one({"millicent.team": "search"}, resource={"millicent.team": "ads", "millicent.project": "p"})
    assert (row["team"], row["identity_source"], row["project"]) == ("search", "span", "p")


def test_a_tag_on_the_resource_is_for_all_of_its_spans(one):
    row = one(resource={"millicent.team": "ads"})
    assert (row["team"], row["identity_source"]) == ("ads", "resource")
    assert one(resource={"team": "ops"})["team"] == "ops"


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
def test_a_blank_tag_is_unknown(one, blank):
    row = one({"millicent.team": blank, "gen_ai.response.model": blank}, resource={"service.name": blank})
    assert row["team"] is row["identity_source"] is row["service"] is None
    assert row["model"] == "gpt-4o"
    row = one({"millicent.team": blank}, resource={"millicent.team": " ads "})
    assert (row["team"], row["identity_source"]) == ("ads", "resource")


@pytest.mark.parametrize("name", sorted(ATTRIBUTION))
def test_every_place_of_a_tag_is_read_nearest_first(one, name):
    keys = ATTRIBUTION[name]
    told = {key: 11 + at if name == "accelerator_count" else f"tag {at}" for at, key in enumerate(keys)}
    for at, nearest in enumerate(keys):
        left = {key: told[key] for key in keys[at:]}
        span = {key: tag for key, tag in left.items() if not key.startswith("resource:")}
        resource = {key.removeprefix("resource:"): tag for key, tag in left.items() if key.startswith("resource:")}
        assert one(span, resource=resource)[name] == told[nearest]


# ---- where


def deployment(name="chat-h100", since=0, until=None, **fields):
    start = datetime(2026, 11, 20, tzinfo=UTC)
    fields.setdefault("accelerator", "nvidia-h100-sxm")
    return Deployment(
        name=name,
        model="qwen3",
        accelerator_count=8,
        engine="vllm",
        effective_from=start + since * HOUR,
        effective_to=None if until is None else start + until * HOUR,
        profile={"kind": "owned"},
        **fields,
    )


@pytest.mark.parametrize(
    ("declared", "attributes", "found"),
    [
        ({}, {"millicent.deployment": "chat-h100"}, "chat-h100"),
        ({"endpoints": ("llm.internal",)}, {"server.address": "llm.internal"}, "chat-h100"),
        ({"endpoints": ("llm.internal",)}, {"server.address": "LLM.internal", "server.port": 8000}, "chat-h100"),
        ({"endpoints": ("LLM.internal:8000",)}, {"server.address": "llm.internal", "server.port": 8000}, "chat-h100"),
        ({"endpoints": ("a", "llm.internal")}, {"server.address": "llm.internal"}, "chat-h100"),
        ({"endpoints": ("llm.internal:8000",)}, {"server.address": "llm.internal", "server.port": 80}, None),
        ({"endpoints": ("llm.internal:8000",)}, {"server.address": "llm.internal"}, None),
        ({"endpoints": ("llm.internal",)}, {"server.address": "api.openai.com"}, None),
        ({"endpoints": ("llm.internal",), "until": 12}, {"server.address": "llm.internal"}, None),
        ({"endpoints": ("llm.internal",), "since": 12}, {"server.address": "llm.internal"}, "chat-h100"),
        ({"endpoints": ("llm.internal",), "since": 13}, {"server.address": "llm.internal"}, None),
    ],
)
def test_a_deployment_is_found_by_name_or_by_host_within_its_period(one, declared, attributes, found):
    row = one(attributes, deployments=[deployment(**declared)])  # the call starts at 12:00
    assert row["deployment"] == found
    assert row["billing"] == ("self_hosted" if found else "api")
    assert row["accelerator"] == ("nvidia-h100-sxm" if found else None)
    assert (row["engine"], row["accelerator_count"]) == (("vllm", 8) if found else (None, None))


def test_the_name_on_the_call_wins_over_its_host_and_a_port_over_none(one):
    ours = [
        deployment("a", endpoints=("llm.internal",)),
        deployment("b", endpoints=("llm.internal:8000",)),
        deployment("c"),
    ]
    at = {"server.address": "llm.internal"}
    for order in (ours, ours[::-1]):
        assert one(at, deployments=order)["deployment"] == "a"
        assert one(at | {"server.port": 8000}, deployments=order)["deployment"] == "b"
        assert one(at | {"millicent.deployment": "c"}, deployments=order)["deployment"] == "c"


def test_of_two_periods_the_one_that_holds_at_the_instant_is_taken(one):
    ours = [deployment(until=12), deployment(since=12, accelerator="nvidia-b200")]
    row = one({"millicent.deployment": "chat-h100"}, deployments=ours)
    assert row["accelerator"] == "nvidia-b200"


def test_a_deployment_of_another_tenant_is_not_ours(otlp):
    body = otlp.request(otlp.span({"server.address": "llm.internal"}))
    batch = otlp.run(body, deployments=[deployment(endpoints=("llm.internal",))], tenant="other")
    assert batch.spans["deployment"].to_list() == [None]


@pytest.mark.parametrize(
    ("told", "stored"),
    [("NVIDIA H100 80GB HBM3", "nvidia-h100-sxm"), ("TPU v7", "google-tpu-v7"), ("abacus", "abacus"), ("?", "?")],
)
def test_an_accelerator_is_stored_by_its_catalog_id_where_there_is_one(one, told, stored):
    row = one({"millicent.accelerator": told})
    assert (row["accelerator"], row["billing"]) == (stored, "self_hosted")


def test_own_hardware_keeps_its_list_price_and_is_billed_nothing(one):
    row = one({"millicent.deployment": "undeclared"})
    assert (row["list_cost_usd"], row["billed_cost_usd"]) == (Decimal("0.0035"), 0)
    assert row["price_status"] == "not_billed"


@pytest.mark.parametrize("model", ["nobody-knows", "", None, "x" * 5000])
def test_a_model_without_a_price_is_unpriced_and_never_free(one, model):
    row = one({"gen_ai.request.model": model, "gen_ai.response.model": model})
    assert row["price_status"] == "unpriced"
    assert [row[name] for name in record.MONEY] == [None] * len(record.MONEY)
    assert row["input_tokens"] == 1000


# ---- no text of a prompt


def test_no_text_of_a_prompt_or_an_answer_reaches_the_database(otlp, tmp_path):
    canary = "canary-b1a5f00d"
    said = {
        key: f"{canary} {key}"
        for key in ("gen_ai.prompt", "gen_ai.prompt.0.content", "gen_ai.completion.0.content", "gen_ai.input.messages",
                    "gen_ai.output.messages", "gen_ai.system_instructions", "gen_ai.tool.call.arguments", "input.value",
                    "output.value", "exception.message")
    }  # fmt: skip
    event = otlp.span().Event(name=canary)
    event.attributes.add(key="gen_ai.event.content").value.string_value = canary
    kept = otlp.span(said, name=f"chat {canary}", events=[event])
    odd = otlp.span(said | {"gen_ai.usage.input_tokens": -1}, events=[event])
    batch = otlp.run(otlp.request(kept, odd, resource={"process.command_line": canary}))
    engine = Embedded(tmp_path)
    with engine.write() as transaction:
        ledger.store(transaction, ledger.Batch(batch.spans, outcomes_of(batch), batch.quarantined), 1)
    engine.checkpoint()
    (stored,) = engine.read(ledger.select(ledger.calls)).to_pylist()
    engine.close()
    assert UUID(stored["trace_id"]) == UUID(bytes=kept.trace_id)
    data = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"gpt-4o" in data
    assert canary.encode() not in data


def test_the_steps_are_the_life_of_a_span_in_order():
    assert [step.__name__ for step in pipeline.STEPS] == [
        "pick_calls", "read_dialect", "normalise_tokens", "attribute", "count_once", "follow_rules",
        "match_deployment", "price", "quarantine", "settle",
    ]  # fmt: skip

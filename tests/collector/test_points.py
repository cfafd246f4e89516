"""Token metrics become rows: every token once, whatever the order, the splitting and the repetition of requests."""

import json
import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from random import Random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as otlp
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from millicent.collector.decode import RESOURCE
from millicent.collector.limits import Limits, measure
from millicent.collector.metering import OPERATION, STATE, since_last
from millicent.collector.metrics import CACHE_READ, CACHE_WRITE, FAMILIES, INPUT, OUTPUT, REASONING
from millicent.collector.points import decode_points

FIXTURES = Path(__file__).parent.parent / "fixtures"
TRUTH = json.loads((FIXTURES / "metrics_truth.json").read_text())
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
NOW_NS = int(NOW.timestamp()) * 10**9
SECOND = 10**9
MINUTE = 60 * SECOND
DELTA, CUMULATIVE = 1, 2
TOKENS = "gen_ai.client.token.usage"
COUNTERS = "gen_ai.client.inference.usage"
DRAFT = "gen_ai.client.inference.tokens"
WANTED = {
    OPERATION: "text",
    "gen_ai.request.model": "text",
    "user.id": "text",
    RESOURCE + "service.name": "text",
    INPUT: "int",
    CACHE_READ: "int",
}

# ---- building requests


def pairs(attributes):
    def value(it):
        if isinstance(it, list):
            return AnyValue(array_value=ArrayValue(values=[value(one) for one in it]))
        kinds = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value"}
        return AnyValue(**{kinds[type(it)]: it})

    return [KeyValue(key=key, value=value(it)) for key, it in attributes.items()]


def point(name, value, count=None, *, at=NOW_NS, start=NOW_NS - MINUTE, temporality=CUMULATIVE, kind=None, **fields):
    """One metric with one point: a histogram when it has a count, else a counter. `of` are its attributes."""
    attributes = pairs({OPERATION: "chat", "gen_ai.request.model": "gpt-5.1"} | fields.pop("of", {}))
    times = {"start_time_unix_nano": start, "time_unix_nano": at, "attributes": attributes}
    if kind == "summary":
        data = otlp.Summary(data_points=[otlp.SummaryDataPoint(**times, count=1, sum=value)])
    elif kind == "exponential_histogram":
        one = otlp.ExponentialHistogramDataPoint(**times, count=count, sum=value)
        data = otlp.ExponentialHistogram(data_points=[one], aggregation_temporality=temporality)
    elif count is not None:
        data = otlp.Histogram(
            data_points=[otlp.HistogramDataPoint(**times, count=count, sum=value)], aggregation_temporality=temporality
        )
        kind = "histogram"
    else:
        told = {} if value is None else {"as_double" if isinstance(value, float) else "as_int": value}
        one = otlp.NumberDataPoint(**times, **told)
        if kind == "gauge":
            data = otlp.Gauge(data_points=[one])
        else:
            rises = fields.pop("rises", True)
            data = otlp.Sum(data_points=[one], aggregation_temporality=temporality, is_monotonic=rises)
            kind = "sum"
    return otlp.Metric(name=name, **{kind: data}, **fields)


def usage(token_type, value, count=1, *, of=(), **fields):
    """A point of the histogram that most instrumentations write."""
    return point(TOKENS, value, count, of=dict(of) | {"gen_ai.token.type": token_type}, **fields)


def request(*metrics, resource=(), scope="my.instrumentation", scope_attributes=()):
    named = InstrumentationScope(name=scope, version="1.2", attributes=pairs(dict(scope_attributes)))
    group = otlp.ResourceMetrics(
        resource=Resource(attributes=pairs({"service.name": "bot"} | dict(resource))),
        scope_metrics=[otlp.ScopeMetrics(scope=named, metrics=metrics)],
    )
    return ExportMetricsServiceRequest(resource_metrics=[group]).SerializeToString()


class Meter:
    """Reads batches of requests one after the other and remembers what the ledger would."""

    def __init__(self):
        self.state = {}
        self.added = []

    def series(self, asked):
        known = [(*key, *self.state[key]) for key in asked.select("tenant", "series").iter_rows() if key in self.state]
        return pl.DataFrame(known, schema=STATE, orient="row")

    def read(self, *bodies, tenant="acme", received_at=NOW):
        decoded = decode_points(bodies, WANTED)
        envelope = {"tenant": pl.lit(tenant), "received_at": pl.lit(received_at).dt.cast_time_unit("us")}
        added = since_last(decoded.points.with_columns(**envelope), self.series)
        came = sum(measure(body, Limits(), "metrics") for at, body in enumerate(bodies) if at not in decoded.broken)
        assert came == added.rows.height + added.left.height + decoded.unread.height
        assert added.quarantined.height == (added.left["outcome"] == "quarantined").sum()
        assert added.series.select("tenant", "series").is_unique().all()
        self.state |= {row[:2]: row[2:5] for row in added.series.select(*STATE).iter_rows()}
        self.added.append(added)
        return added

    def total(self, column):
        """Over everything that was read; None when no row tells."""
        told = [value for added in self.added if column in added.rows for value in added.rows[column].drop_nulls()]
        return sum(told) if told else None


def left(added):
    return Counter(added.left.select("outcome", "reason").iter_rows())


def reasons(body):
    return decode_points([body], WANTED).unread["reason"].to_list()


def read(*bodies, **fields):
    return Meter().read(*bodies, **fields)


# ---- captures

INPUTS = (INPUT, "input_tokens", "cache_read_tokens", "cache_creation_tokens")
"""What adds up to all input: one inclusive counter, or disjoint ones."""
LATER = datetime(2026, 12, 1, tzinfo=UTC)
TELLS_LESS = {
    "otelv2-chat-stream.metrics.pb": "writes no token metric for streams",
    "otelv2-vllm-stream.metrics.pb": "writes no token metric for streams",
    "otelv2old-chat-stream.metrics.pb": "writes no token metric for streams",
    "traceloopold-anthropic-stream.metrics.pb": "writes no token metric for streams",
    "traceloop-langchain-anthropic-cache.metrics.pb": "its input leaves cached tokens out, and no metric tells them",
    "traceloopgemini-generate-stream.metrics.pb": "its output leaves thoughts out, and no metric tells them",
}


def capture(name):
    return (FIXTURES / "otlp" / name).read_bytes()


def totals(meter):
    return [sum(meter.total(key) or 0 for key in keys) for keys in (INPUTS, (OUTPUT, "output_tokens"))]


@pytest.mark.parametrize("name", TRUTH)
def test_a_capture_gives_the_tokens_that_its_points_tell(name):
    meter, truth = Meter(), TRUTH[name]
    meter.read(capture(name), received_at=LATER)
    assert totals(meter) == truth["told"]
    assert (meter.total("call_count") or 0) == (truth["calls"] or 0)
    assert (truth["told"] != truth["billed"]) == (name in TELLS_LESS)


@pytest.mark.parametrize("name", TRUTH)
def test_a_capture_sent_again_adds_nothing(name):
    meter = Meter()
    first, again = (meter.read(*[capture(name)] * times, received_at=LATER) for times in (2, 1))
    assert totals(meter) == TRUTH[name]["told"]
    assert again.rows.is_empty()
    assert (first.left["reason"] == "same_point").sum() == again.left.height
    assert set(again.left["reason"]) <= {"same_point"}


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("group", ["pydanticai-agent-gemini", "pydanticai-agent-stream"])
def test_three_flushes_of_one_reading_add_it_once_in_any_order(group, at_once):
    names = [f"{group}.metrics{number}.pb" for number in ("", ".2", ".3")]
    for order in permutations(names):
        meter = Meter()
        for batch in [order] if at_once else [[name] for name in order]:
            meter.read(*map(capture, batch), received_at=LATER)
        assert totals(meter) == TRUTH[names[0]]["told"]
        assert meter.total("call_count") == TRUTH[names[0]]["calls"]


def test_counters_of_the_new_conventions_tell_parts_of_the_totals():
    (row,) = read(capture("semconv-new-counters.metrics.pb"), received_at=LATER).rows.to_dicts()
    assert {key: row[key] for key in (INPUT, OUTPUT, CACHE_READ, CACHE_WRITE, REASONING)} == {
        INPUT: 2311, OUTPUT: 907, CACHE_READ: 1792, CACHE_WRITE: 0, REASONING: 641,
    }  # fmt: skip
    assert row["call_count"] is None


def test_claude_code_tells_disjoint_counters_by_their_bare_names():
    (row,) = read(capture("claudecode-token-usage.metrics.pb"), received_at=LATER).rows.to_dicts()
    told = ("input_tokens", "cache_read_tokens", "cache_creation_tokens", "output_tokens")
    assert [row[key] for key in told] == [3, 84562, 7096, 1207]
    assert (row["name"], row["user.id"]) == ("claude_code.token.usage", "u-42")
    assert (row[OPERATION], row["point_flags"]) == ("chat", [])


# ---- any order, any splitting, any repetition

FAMILY_POINTS = {
    TOKENS: (("gen_ai.token.type", "input", TOKENS, INPUT), ("gen_ai.token.type", "output", TOKENS, OUTPUT)),
    COUNTERS: tuple(
        (None, None, f"{COUNTERS}.{name}", key)
        for name, key in (("input_tokens", INPUT), ("output_tokens", OUTPUT), ("cache_read.input_tokens", CACHE_READ))
    ),
    "claude_code.token.usage": tuple(
        ("type", of, "claude_code.token.usage", key)
        for of, key in (("input", "input_tokens"), ("output", "output_tokens"), ("cacheRead", "cache_read_tokens"))
    ),
}


@st.composite
def histories(draw):
    """Requests of a few processes over a few flushes, one point each, and what they add up to."""
    bodies, expected = [], Counter()
    for process in range(draw(st.integers(1, 2))):
        family = draw(st.sampled_from(sorted(FAMILY_POINTS)))
        temporality = draw(st.sampled_from([DELTA, CUMULATIVE]))
        every = draw(st.sampled_from([2 * 10**6, MINUTE]))
        flushes = draw(st.integers(1, 4))
        restart = draw(st.integers(0, 4))
        for user in range(draw(st.integers(1, 2))):
            for at, (by, of, metric, key) in enumerate(FAMILY_POINTS[family]):
                born = start = NOW_NS - 10 * MINUTE + at * 20_000
                value = calls = 0
                for flush in range(1, flushes + 1):
                    end = born + flush * every
                    if flush == restart and temporality == CUMULATIVE:
                        start, value, calls = end - every // 2, 0, 0
                    elif temporality == DELTA:
                        start, value, calls = end - every, 0, 0
                    more, tokens = draw(st.integers(0, 2)), draw(st.integers(0, 40))
                    value, calls = value + more * tokens, calls + more
                    expected[key] += more * tokens
                    expected["call_count"] += more * (family == TOKENS and key == INPUT)
                    metered = point(
                        metric, value, calls if family == TOKENS else None, at=end, start=start,
                        temporality=temporality, of={"user.id": str(user)} | ({by: of} if by else {}),
                    )  # fmt: skip
                    bodies.append((process, metered))
    return bodies, expected


@settings(max_examples=30)
@given(histories(), st.randoms(use_true_random=False))
def test_totals_do_not_depend_on_order_splitting_or_repetition(history, random: Random):
    points, expected = history
    sent = points * 3
    random.shuffle(sent)
    meter = Meter()
    while sent:
        batch = []
        for _ in range(random.randint(1, 4)):
            size = random.randint(1, 6)
            some, sent = sent[:size], sent[size:]
            for process in {process for process, _ in some}:
                metrics = [metric for of, metric in some if of == process]
                batch.append(request(*metrics, resource={"service.instance.id": str(process)}))
        meter.read(*batch)
    told = {key: meter.total(key) or 0 for key in expected}
    assert told == dict(expected)
    ids = [row for added in meter.added for row in added.rows.select("trace_id", "span_id").iter_rows()]
    assert len(ids) == len(set(ids))


# ---- one odometer


def test_a_later_reading_adds_the_difference_since_the_one_before():
    meter = Meter()
    meter.read(request(usage("input", 100, 1)))
    (row,) = meter.read(request(usage("input", 150, 3, at=NOW_NS + MINUTE))).rows.to_dicts()
    assert (row[INPUT], row["call_count"], row["point_flags"]) == (50, 2, [])
    assert (row["start_ns"], row["end_ns"]) == (NOW_NS, NOW_NS + MINUTE)


def test_readings_that_come_together_are_told_apart():
    flushes = [request(usage("input", value, at=NOW_NS + at * MINUTE)) for at, value in ((2, 90), (0, 40), (1, 40))]
    added = read(*flushes)
    rows = added.rows.sort("end_ns").select(INPUT, "start_ns").rows()
    assert rows == [(40, NOW_NS - MINUTE), (50, NOW_NS + MINUTE)]
    assert left(added) == {("duplicate", "same_point"): 1}


def test_an_older_reading_adds_nothing():
    meter = Meter()
    meter.read(request(usage("input", 150)))
    assert left(meter.read(request(usage("input", 100, at=NOW_NS - SECOND)))) == {("duplicate", "older_point"): 1}


def test_a_new_start_is_a_new_odometer():
    meter = Meter()
    meter.read(request(usage("input", 100)))
    (row,) = meter.read(request(usage("input", 100, at=NOW_NS + MINUTE, start=NOW_NS + SECOND))).rows.to_dicts()
    assert (row[INPUT], row["point_flags"]) == (100, [])


@pytest.mark.parametrize("at_once", [True, False])
def test_an_odometer_that_falls_began_anew(at_once):
    readings = [request(usage("input", value, at=NOW_NS + at * MINUTE)) for at, value in enumerate((100, 30, 45))]
    meter = Meter()
    for batch in [readings] if at_once else [[body] for body in readings]:
        meter.read(*batch)
    rows = pl.concat([added.rows for added in meter.added]).sort("end_ns")
    assert rows.select(INPUT, "point_flags").rows() == [(100, []), (30, ["counter_reset"]), (15, [])]


def test_of_two_readings_of_one_instant_the_higher_stands():
    for order in permutations((10, 15)):
        meter = Meter()
        for value in order:
            meter.read(request(usage("input", value)))
        meter.read(request(usage("input", 18, at=NOW_NS + MINUTE)))
        assert meter.total(INPUT) == 18


def test_an_idle_flush_moves_the_beginning_of_what_comes_next():
    meter = Meter()
    for at, value in ((0, 100), (1, 100), (2, 120)):
        added = meter.read(request(usage("input", value, at=NOW_NS + at * MINUTE)))
    assert added.rows["start_ns"].to_list() == [NOW_NS + MINUTE]


@pytest.mark.parametrize("at_once", [True, False])
def test_an_odometer_that_was_not_in_the_flush_before_began_since(at_once):
    born = NOW_NS - 60 * MINUTE
    flushes = [
        request(*(usage("input", 100, of={"user.id": user}, start=born, at=NOW_NS + at * MINUTE) for user in here))
        for at, here in enumerate(("a", "a", "ab"))
    ]
    meter = Meter()
    for batch in [flushes] if at_once else [[flush] for flush in flushes]:
        meter.read(*batch)
    rows = pl.concat([added.rows for added in meter.added], how="diagonal").sort("end_ns")
    assert rows.select("user.id", INPUT, "start_ns").rows() == [("a", 100, born), ("b", 100, NOW_NS + MINUTE)]


def test_odometers_of_one_flush_did_not_begin_one_after_the_other():
    users = [usage("input", 100, of={"user.id": user}, at=NOW_NS + at * 10**6) for at, user in enumerate("ab")]
    assert read(request(*users)).rows["start_ns"].to_list() == [NOW_NS - MINUTE] * 2


def test_a_delta_says_itself_since_when():
    meter = Meter()
    meter.read(request(usage("input", 1, at=NOW_NS - SECOND, temporality=DELTA, of={"user.id": "a"})))
    added = meter.read(request(usage("input", 1, at=NOW_NS + SECOND, temporality=DELTA, of={"user.id": "b"})))
    assert added.rows["start_ns"].to_list() == [NOW_NS - MINUTE]


def test_a_counter_that_never_moved_tells_nothing():
    added = read(request(point(f"{COUNTERS}.input_tokens", 0)))
    assert left(added) == {("not_a_call", "nothing_added"): 1}


def test_calls_that_used_no_tokens_are_calls():
    (row,) = read(request(usage("input", 0, count=2))).rows.to_dicts()
    assert (row[INPUT], row["call_count"]) == (0, 2)


def test_an_odometer_without_a_start_begins_when_it_is_first_read():
    (row,) = read(request(usage("input", 5, start=0))).rows.to_dicts()
    assert row["start_ns"] == NOW_NS


def test_delta_points_without_a_start_are_not_taken_for_one_odometer():
    meter = Meter()
    for at in range(3):
        meter.read(request(usage("input", 10, at=NOW_NS + at * MINUTE, start=0, temporality=DELTA)))
    assert meter.total(INPUT) == 30


@pytest.mark.parametrize(
    ("resource", "of", "scope"),
    [
        ({"service.instance.id": "b"}, {}, {}),
        ({"host": ["a", "b"]}, {}, {}),
        ({}, {"custom": "1"}, {}),
        ({}, {"custom": 1}, {}),
        ({}, {"custom": 1.5}, {}),
        ({}, {"custom": True}, {}),
        ({}, {"custom": ["x", "y"]}, {}),
        ({}, {"custom": ["y", "x"]}, {}),
        ({}, {"custom": "1", "other": "1"}, {}),
        ({}, {}, {"library": "x"}),
    ],
)
def test_whatever_attribute_differs_makes_another_odometer(resource, of, scope):
    meter = Meter()
    for plain in ({}, {"custom": "2"}):
        meter.read(request(usage("input", 100, of=plain)))
    meter.read(request(usage("input", 100, of=of), resource=resource, scope_attributes=scope))
    assert meter.total(INPUT) == 300


def test_the_order_of_attributes_says_nothing():
    meter = Meter()
    for of in ({"a": "1", "b": "2"}, {"b": "2", "a": "1"}):
        meter.read(request(usage("input", 100, of=of), resource=of))
    assert meter.total(INPUT) == 100


def test_tenants_do_not_share_odometers():
    meter = Meter()
    for tenant in ("acme", "umbrella"):
        assert meter.read(request(usage("input", 100)), tenant=tenant).rows["tenant"].to_list() == [tenant]
    assert meter.total(INPUT) == 200


def test_ids_are_the_same_for_as_long_as_rows_live():
    (row,) = read(request(usage("input", 100, of={"list": ["a", 2, True, 0.5]}))).rows.to_dicts()
    assert (row["trace_id"].hex(), row["span_id"].hex()) == ("2c53d8e15c26614f2e0428ddc30fc609", "2056cdd25fa36321")


# ---- one row per collection


def test_points_that_differ_in_token_type_alone_are_one_row():
    of = {"user.id": "u-1", "millicent.label.tier": "gold"}
    added = read(request(usage("input", 100, of=of), usage("output", 20, start=NOW_NS - MINUTE + 777_000, of=of)))
    (row,) = added.rows.to_dicts()
    told = (INPUT, OUTPUT, "call_count", "signal", "name", "scope", "scope_version", RESOURCE + "service.name")
    assert [row[key] for key in told] == [100, 20, 1, "metric", TOKENS, "my.instrumentation", "1.2", "bot"]
    assert (row["user.id"], row["gen_ai.request.model"]) == ("u-1", "gpt-5.1")
    assert row["labels"] == [{"key": "tier", "value": "gold"}]
    assert row["start_ns"] == NOW_NS - MINUTE
    assert row.get(CACHE_READ) is None
    assert left(added) == {("not_a_call", "folded"): 1}


def test_metrics_stamped_one_after_the_other_are_one_collection():
    metrics = [
        point(f"{COUNTERS}.{name}", value, at=NOW_NS + at * 10**6)
        for at, (name, value) in enumerate(
            {"input_tokens": 9, "output_tokens": 4, "cache_read.input_tokens": 3}.items()
        )
    ]
    (row,) = read(request(*metrics)).rows.to_dicts()
    assert [row[key] for key in (INPUT, OUTPUT, CACHE_READ, CACHE_WRITE)] == [9, 4, 3, 0]


def test_a_counter_that_did_not_move_is_a_known_zero_beside_those_that_did():
    meter = Meter()
    for at, value in ((0, 10), (1, 15)):
        cached = point(f"{COUNTERS}.cache_read.input_tokens", 4, at=NOW_NS + at * MINUTE)
        added = meter.read(request(point(f"{COUNTERS}.input_tokens", value, at=NOW_NS + at * MINUTE), cached))
    (row,) = added.rows.to_dicts()
    assert (row[INPUT], row[CACHE_READ]) == (5, 0)


def test_calls_are_counted_once_where_a_collection_is_split():
    meter = Meter()
    meter.read(request(usage("output", 20, 4)))
    meter.read(request(usage("input", 100, 4)))
    assert (meter.total(INPUT), meter.total(OUTPUT), meter.total("call_count")) == (100, 20, 4)


def test_modalities_are_parts_of_one_total():
    points = [
        point(f"{COUNTERS}.input_tokens", value, of={"gen_ai.token.modality": modality})
        for modality, value in {"text": 50, "audio": 30, "image": 7, "unknown": 1}.items()
    ]
    heard = point(f"{COUNTERS}.output_tokens", 12, of={"gen_ai.token.modality": "audio"})
    (row,) = read(request(*points, heard)).rows.to_dicts()
    told = ("audio.input_tokens", "image.input_tokens", "audio.output_tokens")
    assert [row[INPUT], row[OUTPUT], *(row[f"gen_ai.usage.{key}"] for key in told)] == [88, 12, 30, 7, 12]


def test_an_attribute_spelled_like_a_counter_is_not_one():
    (row,) = read(request(usage("output", 5, of={INPUT: 10**6}))).rows.to_dicts()
    assert row.get(INPUT) is None


def test_an_operation_that_no_point_names_is_assumed_and_flagged():
    metric = usage("input", 5)
    del metric.histogram.data_points[0].attributes[0]
    (row,) = read(request(metric)).rows.to_dicts()
    assert (row[OPERATION], row["point_flags"]) == ("chat", ["operation_assumed"])


@pytest.mark.parametrize("kind", ["histogram", "exponential_histogram"])
def test_both_kinds_of_histogram_tell_calls(kind):
    (row,) = read(request(usage("input", 100.0, 3, kind=kind))).rows.to_dicts()
    assert (row[INPUT], row["call_count"]) == (100, 3)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.id)
def test_every_metric_of_every_family_feeds_its_attribute(family):
    for key, attribute in family.feeds.items():
        name, _, token_type = key.partition("#")
        meter = Meter()
        meter.read(request(point(name, 7, of={family.by: token_type} if family.by else {})))
        assert meter.total(attribute) == 7


# ---- families that tell the same tokens


def counters(value, **fields):
    return point(f"{COUNTERS}.input_tokens", value, **fields)


def draft(value, **fields):
    return point(DRAFT, value, of={"gen_ai.token.type": "input"}, **fields)


def gemini(value, **fields):
    return point("gemini_cli.token.usage", value, of={"type": "input"}, **fields)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (counters(100), usage("input", 100)),
        (counters(100), draft(100)),
        (usage("input", 100), draft(100)),
        (usage("input", 100), gemini(100)),
        (counters(100), gemini(100)),
    ],
)
def test_tokens_told_by_two_metrics_are_added_once(better, worse):
    added = read(request(worse, better))
    assert added.rows[INPUT].to_list() == [100]
    assert left(added) == {("duplicate", "better_metric"): 1}


def test_a_better_metric_is_remembered():
    meter = Meter()
    meter.read(request(counters(100), draft(100)))
    later = meter.read(request(draft(160, at=NOW_NS + MINUTE)))
    meter.read(request(counters(160, at=NOW_NS + MINUTE)))
    assert left(later) == {("duplicate", "better_metric"): 1}
    assert meter.total(INPUT) == 160


def test_a_metric_counts_again_when_the_better_one_has_stopped():
    meter = Meter()
    meter.read(request(counters(100), draft(100)))
    for at in (1, 2):
        meter.read(request(draft(100 + 10 * at, at=NOW_NS + at * MINUTE)))
    assert meter.total(INPUT) == 110


@pytest.mark.parametrize("elsewhere", [{"scope": "another"}, {"resource": {"service.instance.id": "b"}}])
def test_a_better_metric_of_another_scope_or_process_takes_nothing_away(elsewhere):
    added = read(request(counters(100)), request(draft(40), **elsewhere))
    assert sorted(added.rows[INPUT]) == [40, 100]


# ---- what is not read


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        (point("claude_code.cost.usage", 1.5), "metric:claude_code.cost.usage"),
        (point("http.server.Duration µs/" + "x" * 50, 2.0, 1), "metric:http.server.duration??s?" + "x" * 16),
        (point(TOKENS, 5, kind="gauge"), "metric_kind:gauge"),
        (point(TOKENS, 5, kind="summary"), "metric_kind:summary"),
        (point("claude_code.token.usage", 5, rises=False), "metric_kind:not_monotonic"),
        (usage("input", 5, temporality=0), "metric_kind:no_temporality"),
        (usage("Cached Stuff", 5), "token_type:cached?stuff"),
        (point(TOKENS, 5, 1), "token_type:none"),
        (point(f"{COUNTERS}.input_tokens", None), "no_value"),
    ],
)
def test_a_point_that_is_not_read_says_why(metric, reason):
    body = request(metric, usage("input", 7))
    assert reasons(body) == [reason]
    assert read(body).rows[INPUT].to_list() == [7]


def test_every_point_of_an_unread_metric_is_accounted_for():
    metric = point("queue.size", 5, kind="gauge")
    metric.gauge.data_points.extend(metric.gauge.data_points[:1] * 4)
    assert reasons(request(metric)) == ["metric:queue.size"] * 5


@pytest.mark.parametrize(
    ("value", "count", "at", "reason"),
    [
        (-5.0, 1, NOW_NS, "negative_tokens"),
        (math.nan, 1, NOW_NS, "absurd_tokens"),
        (math.inf, 1, NOW_NS, "absurd_tokens"),
        (1e300, 1, NOW_NS, "absurd_tokens"),
        (5.0, 2**64 - 1, NOW_NS, "absurd_tokens"),
        (5.0, 1, NOW_NS + 25 * 60 * MINUTE, "in_the_future"),
        (5.0, 1, 2**64 - 1, "in_the_future"),
        (5.0, 1, 0, "too_long_ago"),
    ],
)
def test_what_cannot_be_true_is_set_aside_and_forgotten(value, count, at, reason):
    meter = Meter()
    added = meter.read(request(usage("input", value, count, at=at)))
    assert left(added) == {("quarantined", reason): 1}
    (aside,) = added.quarantined.to_dicts()
    assert (aside["reason"], aside["scope"], aside["service"]) == (reason, "my.instrumentation", "bot")
    assert float(json.loads(aside["usage_raw"])[INPUT]) == pytest.approx(value, nan_ok=True)
    meter.read(request(usage("input", 100, 2)))
    assert (meter.total(INPUT), meter.total("call_count")) == (100, 2)


def test_fractions_are_cut_from_the_odometer_and_not_from_each_difference():
    meter = Meter()
    for at in range(1, 5):
        added = meter.read(request(point(f"{COUNTERS}.input_tokens", 0.75 * at, at=NOW_NS + at * MINUTE)))
    assert meter.total(INPUT) == 3
    assert [added.rows["point_flags"].to_list() for added in meter.added[1:3]] == [[["fraction_cut"]]] * 2
    assert added.rows["point_flags"].to_list() == [[]]


# ---- decoding


def test_nothing_gives_nothing():
    added = read()
    assert (added.rows.height, added.left.height, added.series.height) == (0, 0, 0)


def test_a_damaged_request_is_told_apart_and_the_others_are_read():
    body = request(usage("input", 7))
    decoded = decode_points([body, body[:-3], body], WANTED)
    assert decoded.broken == (1,)
    assert decoded.points["record"].to_list() == [0, 2]


def test_a_request_without_resource_and_scope_is_read():
    group = otlp.ResourceMetrics(scope_metrics=[otlp.ScopeMetrics(metrics=[usage("input", 7)])])
    (row,) = read(ExportMetricsServiceRequest(resource_metrics=[group]).SerializeToString()).rows.to_dicts()
    assert (row[INPUT], row["scope"], row.get(RESOURCE + "service.name")) == (7, None, None)


def test_what_is_remembered_is_in_the_columns_of_the_ledger():
    series = read(request(usage("input", 100, 2), usage("output", 9, 2))).series
    assert set(series.columns) == {*STATE, "seen_at"}
    assert all(len(key) == 16 for key in series["series"])
    assert series["seen_at"].to_list() == [NOW] * series.height
    assert series["last_at"].max() - NOW < timedelta(seconds=1)

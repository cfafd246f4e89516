"""Energy that is sent to us: every board's counted once, by hour and deployment, and every point accounted for."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import count

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as otlp_metrics
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from sqlalchemy import select

from millicent.collector import pipeline
from millicent.collector.batch import Context, Incoming
from millicent.pricing.book import PriceBook
from millicent.warehouse import ledger, metered
from millicent.warehouse.deployments import Deployment
from millicent.warehouse.embedded import Embedded
from millicent.warehouse.rules import Condition, Rule
from millicent.warehouse.tables import dirty_hours, meter_hours

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECOND = 10**9
BOARD = "GPU-000000b1-5f0e-4c61-9d2a-00000015633f"
OTHER = "GPU-000000b2-5f0e-4c61-9d2a-00000015822e"
NO_CALLS = pl.DataFrame(schema={"tenant": pl.String, "hour": pl.Datetime("us", "UTC"), "outcome": pl.String,
                                "reason": pl.String, "spans": pl.Int64})  # fmt: skip
_tenants = (f"energy-{number}" for number in count())
_positions = count(1)


def pairs(attributes):
    return [KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in attributes.items()]


def ns(seconds):
    """So many seconds after noon."""
    return int(NOON.timestamp()) * SECOND + round(seconds * SECOND)


def reading(seconds, joules, board=BOARD, *, name="hw.energy", start=None, temporality=2, rises=True, kind="sum", **of):
    """One point of one board's counter; `start` in seconds after noon, or not told."""
    about = {"hw.id": board, "hw.type": "gpu"} if name == "hw.energy" else {}
    about |= {key.replace("__", "."): value for key, value in of.items()}
    about = {key: value for key, value in about.items() if value is not None}
    told = {} if joules is None else {"as_double" if isinstance(joules, float) else "as_int": joules}
    point = otlp_metrics.NumberDataPoint(
        start_time_unix_nano=0 if start is None else ns(start), time_unix_nano=ns(seconds), attributes=pairs(about),
        **told,
    )  # fmt: skip
    if kind == "gauge":
        return otlp_metrics.Metric(name=name, unit="J", gauge=otlp_metrics.Gauge(data_points=[point]))
    data = otlp_metrics.Sum(data_points=[point], aggregation_temporality=temporality, is_monotonic=rises)
    return otlp_metrics.Metric(name=name, unit="J", sum=data)


def request(*metrics, deployment="oss-b200", **resource):
    about = {"service.name": "shop", "millicent.deployment": deployment}
    about |= {key.replace("__", "."): value for key, value in resource.items()}
    group = otlp_metrics.ResourceMetrics(
        resource=Resource(attributes=pairs({key: value for key, value in about.items() if value is not None})),
        scope_metrics=[otlp_metrics.ScopeMetrics(scope=InstrumentationScope(name="millicent.sdk"), metrics=metrics)],
    )
    return ExportMetricsServiceRequest(resource_metrics=[group]).SerializeToString()


def deployment(name="oss-b200", accelerators=1, **fields):
    return Deployment(
        name=name, model="gpt-oss-120b", accelerator="nvidia-b200", accelerator_count=accelerators,
        profile={"kind": "rented", "usd_per_hour": "2.60"}, effective_from=NOON - timedelta(days=1), **fields,
    )  # fmt: skip


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    engine = Embedded(tmp_path_factory.mktemp("energy"), threads=2, memory_limit="256MB")
    yield engine
    engine.close()


BOOK = PriceBook.bundled()


class Collector:
    """Takes batches of requests through the pipeline into the ledger, as the loader does."""

    def __init__(self, engine, *deployments, rules=()):
        self.engine, self.tenant, self.left = engine, next(_tenants), Counter()
        self.deployments = [(self.tenant, one) for one in deployments]
        self.rules = [(self.tenant, one) for one in rules]

    def prepared(self, bodies, received_at=None):
        context = Context(
            BOOK, self.deployments, lambda keys: ledger.seen(self.engine, keys), rules=self.rules,
            series=lambda asked: ledger.remembered(self.engine, asked), meters=lambda: metered.series(self.engine),
        )  # fmt: skip
        arrived = [
            Incoming(body, self.tenant, "key-1", received_at or NOON + timedelta(hours=3), "metrics") for body in bodies
        ]
        return pipeline.run(arrived, context)

    def take(self, *bodies, received_at=None, lost=False):
        done = self.prepared(bodies, received_at)
        if lost:  # the commit fails; the same records come again
            return self
        came = sum(
            len(metric.sum.data_points) + len(metric.gauge.data_points)
            for body in bodies
            for group in ExportMetricsServiceRequest.FromString(body).resource_metrics
            for scope in group.scope_metrics
            for metric in scope.metrics
        )
        left = Counter(row for frame in done.left for row in frame.select("outcome", "reason").iter_rows())
        assert came == left.total() + done.spans.height
        self.left += left
        batch = ledger.Batch(
            done.spans, NO_CALLS, done.quarantined, meter_hours=done.meter_hours, meter_series=done.meter_series
        )
        ledger.commit(self.engine, batch, "otlp", (0, next(_positions)))
        return self

    def hours(self):
        """(deployment, hour of the day) → what its rows add up to."""
        rows = self.engine.read(select(meter_hours).where(meter_hours.c.tenant == self.tenant)).to_pylist()
        assert {(row["source"], row["role"]) for row in rows} <= {("nvml", None)}
        told = {}
        for row in rows:
            key = row["deployment"], row["hour"].hour
            told.setdefault(key, Counter()).update(
                {name: row[name] for name in ("millijoules", "counted_ms", "gap_ms", "resets")}
            )
        return told

    def joules(self):
        return sum(row["millijoules"] for row in self.hours().values()) / 1000


# ---- what a counter tells


def test_the_first_reading_counts_nothing_and_the_rises_after_it_are_counted_by_hour(engine):
    it = Collector(engine, deployment())
    it.take(request(reading(0, 918_273_645.1)))
    assert it.hours() == {}
    it.take(request(reading(15, 918_273_645.1 + 1000)), request(reading(3590, 918_273_645.1 + 250_000)))
    it.take(request(reading(3610, 918_273_645.1 + 252_000)))
    hours = it.hours()
    assert {key: row["millijoules"] for key, row in hours.items()} == {
        ("oss-b200", 12): 251_000_000,
        ("oss-b200", 13): 1_000_000,
    }
    assert [row["counted_ms"] for row in hours.values()] == [3_600_000, 10_000]
    assert it.left == {("not_a_call", "energy"): 4}
    dirty = engine.read(select(dirty_hours).where(dirty_hours.c.tenant == it.tenant)).to_pylist()
    assert {(row["deployment"], row["hour"].hour) for row in dirty} == {("oss-b200", 12), ("oss-b200", 13)}
    assert all(row["change"] > 0 for row in dirty)


def test_repeats_and_readings_that_come_late_leave_as_duplicates(engine):
    it = Collector(engine, deployment())
    first, second, third = (request(reading(at, 100 + at)) for at in (0, 15, 30))
    it.take(first, first, third).take(second).take(third)
    assert it.joules() == 30
    assert it.left == {
        ("not_a_call", "energy"): 2,
        ("duplicate", "same_point"): 2,
        ("duplicate", "older_point"): 1,
    }


@given(
    st.lists(st.tuples(st.integers(1, 400), st.integers(0, 3000)), min_size=1, max_size=8),
    st.lists(st.booleans(), min_size=8, max_size=8),
    st.randoms(use_true_random=False),
)
@settings(max_examples=15)
def test_the_sum_is_what_the_counter_rose_by_however_its_readings_are_sent(engine, steps, cuts, random):
    at, shown, readings = 0, 5_000_000, [request(reading(0, 5_000_000))]
    for seconds, watts in steps:
        at, shown = at + seconds, shown + seconds * watts
        readings.append(request(reading(at, shown)))
    it, batch = Collector(engine, deployment()), [readings[0]]
    for body, cut in zip(readings[1:], cuts, strict=False):
        if cut:
            it.take(*batch)
            batch = []
        batch.insert(random.randint(0, len(batch)), body)
    it.take(*batch, *random.sample(readings, min(3, len(readings))))
    assert it.joules() == shown - 5_000_000
    assert sum(row["counted_ms"] for row in it.hours().values()) in range(at * 1000 - 20, at * 1000 + 1)


def test_a_driver_that_is_loaded_again_begins_at_nothing(engine):
    it = Collector(engine, deployment())
    it.take(request(reading(0, 1_000_000.0))).take(request(reading(15, 1_010_000.0)))
    it.take(request(reading(60, 2_000.0))).take(request(reading(75, 12_000.0)))
    assert it.joules() == 10_000 + 2_000 + 10_000
    assert sum(row["resets"] for row in it.hours().values()) == 1


def test_what_a_counter_rose_by_while_nobody_read_is_counted_and_the_time_is_a_gap(engine):
    it = Collector(engine, deployment())
    it.take(request(reading(0, 0.0))).take(request(reading(1800, 90_000.0)))
    assert it.hours() == {
        ("oss-b200", 12): {"millijoules": 90_000_000, "counted_ms": 1_800_000, "gap_ms": 1_800_000, "resets": 0}
    }


# ---- boards once


def test_processes_that_read_one_board_read_one_counter(engine):
    it = Collector(engine, deployment())
    of_a = [request(reading(at, 700_000 + at * 500), service__name="a") for at in (0, 15, 30, 45)]
    of_b = [request(reading(at, 700_000 + at * 500), service__name="b") for at in (7, 22, 37)]
    it.take(of_a[0], of_b[0]).take(of_b[1], of_a[1]).take(of_a[2]).take(of_b[2], of_a[3])
    assert it.joules() == 45 * 500
    assert it.hours()["oss-b200", 12]["counted_ms"] == 45_000


def test_two_that_read_at_once_and_disagree_by_little_are_no_reset(engine):
    it = Collector(engine, deployment())
    it.take(request(reading(0, 918_273_645.100)))
    it.take(request(reading(15, 918_283_645.100)), request(reading(15.0004, 918_283_645.060)))
    it.take(request(reading(15.0008, 918_283_645.020)))
    it.take(request(reading(30, 918_293_645.100)))
    assert it.joules() == 20_000
    assert it.hours()["oss-b200", 12]["resets"] == 0


def test_a_board_that_is_read_in_two_ways_counts_once(engine):
    it = Collector(engine, deployment())
    for at in range(0, 300, 15):
        ours = request(reading(at, 700_000 + at * 500))
        dcgm = request(
            reading(at + 5, float((at + 5) * 500), name="gpu.dcgm.energy_consumption", start=0), gpu__uuid=BOARD
        )
        it.take(ours) if at % 2 else it.take(ours, dcgm)
    assert it.joules() == pytest.approx(285 * 500, rel=0.02)
    assert it.hours()["oss-b200", 12]["counted_ms"] in range(284_000, 290_001)


def test_boards_of_a_deployment_add_up_and_their_time_is_of_all_that_it_has(engine):
    it = Collector(engine, deployment(accelerators=4))
    for at, joules in ((0, 0), (100, 70_000)):
        it.take(request(reading(at, joules), reading(at, joules, OTHER)))
    assert it.hours() == {
        ("oss-b200", 12): {"millijoules": 140_000_000, "counted_ms": 50_000, "gap_ms": 0, "resets": 0}
    }


def test_a_pool_is_metered_together_whichever_of_its_deployments_tells(engine):
    it = Collector(engine, deployment("chat", pool="shared"), deployment("draft", pool="shared"), deployment("alone"))
    it.take(request(reading(0, 0), deployment="draft")).take(request(reading(10, 5000), deployment="chat"))
    it.take(request(reading(20, 10_000), deployment="draft")).take(request(reading(20, 1, OTHER), deployment="alone"))
    assert it.hours() == {("chat", 12): {"millijoules": 10_000_000, "counted_ms": 20_000, "gap_ms": 0, "resets": 0}}


def test_deployments_that_share_a_board_by_mig_share_its_energy_and_none_is_told_whole(engine):
    it = Collector(engine, deployment("chat"), deployment("draft"))
    for at in range(0, 120, 10):
        it.take(request(reading(at, at * 400), deployment="chat" if at % 20 else "draft"))
    hours = it.hours()
    assert it.joules() == 110 * 400
    assert {key: row["counted_ms"] for key, row in hours.items()} == {("chat", 12): 60_000, ("draft", 12): 50_000}


def test_a_deployment_that_nobody_declared_yet_is_counted_by_its_name(engine):
    it = Collector(engine)
    it.take(request(reading(0, 0), reading(0, 0, OTHER))).take(request(reading(10, 500), reading(10, 500, OTHER)))
    assert it.hours() == {("oss-b200", 12): {"millijoules": 1_000_000, "counted_ms": 10_000, "gap_ms": 0, "resets": 0}}


def test_boards_whose_names_are_not_unique_are_told_apart_by_host(engine):
    it = Collector(engine, deployment(accelerators=2))
    for at, (one, two) in ((0, (5000, 900_000)), (10, (6000, 907_000))):
        it.take(
            request(reading(at, one, "gpu0"), host__name="a"), request(reading(at, two, "gpu0"), host__name="b")
        )  # fmt: skip
    assert it.joules() == 8000


def test_tenants_never_meet(engine):
    one, two = Collector(engine, deployment()), Collector(engine, deployment())
    one.take(request(reading(0, 1000)))
    two.take(request(reading(5, 2000)))
    one.take(request(reading(10, 2000)))
    two.take(request(reading(10, 2500)))
    assert (one.joules(), two.joules()) == (1000, 500)


# ---- counters that begin with their process


def test_a_process_that_began_while_we_read_counts_from_its_beginning(engine):
    it = Collector(engine, deployment())

    def dcgm(at, joules, start):
        return request(reading(at, joules, name="gpu.dcgm.energy_consumption", start=start), gpu__uuid=BOARD)

    it.take(dcgm(0, 4000.0, -3600)).take(dcgm(60, 34_000.0, -3600))
    it.take(dcgm(180, 55_000.0, 70))
    assert it.joules() == 30_000 + 55_000


def test_a_counter_of_the_board_that_is_said_to_begin_with_a_process_is_not_counted_whole(engine):
    it = Collector(engine, deployment())
    it.take(request(reading(0, 918_000_000.0, start=-10))).take(request(reading(15, 918_010_000.0, start=-10)))
    it.take(request(reading(45, 918_030_000.0, start=40))).take(request(reading(60, 918_040_000.0, start=40)))
    assert it.joules() == 20_000


def test_nothing_draws_more_than_a_board_can(engine):
    it = Collector(engine, deployment())
    it.take(request(reading(0, 100.0))).take(request(reading(15, 1e9))).take(request(reading(30, 1e9 + 500)))
    assert it.joules() == 500


# ---- ways to say it


@pytest.mark.parametrize(
    ("told", "resource"),
    [
        ({"name": "hw.energy"}, {}),
        ({"name": "gpu.dcgm.energy_consumption"}, {"gpu__uuid": BOARD}),
        ({"name": "gpu.dcgm.energy_consumption", "uuid": BOARD}, {}),
        ({"name": "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "UUID": BOARD, "Hostname": "a"}, {}),
    ],
)
@pytest.mark.parametrize("kind", [int, float])
def test_metrics_of_energy_are_read_in_their_units(engine, told, resource, kind):
    it = Collector(engine, deployment())
    in_unit = 1000 if told["name"].startswith("DCGM") else 1
    it.take(request(reading(0, kind(0), **told), **resource))
    it.take(request(reading(10, kind(5000 * in_unit), **told), **resource))
    assert it.joules() == 5000


def test_the_deployment_may_stand_on_the_point_and_be_given_by_a_rule(engine):
    by_service = Rule(
        position=1, when=(Condition("service", "is", ("gpu-host",)), Condition("resource:zone", "is", ("a",))),
        sets={"deployment": "by-rule"},
    )  # fmt: skip
    it = Collector(engine, deployment(), rules=[by_service])
    for at, joules in ((0, 0), (10, 500)):
        it.take(
            request(reading(at, joules, millicent__deployment="on-point"), deployment="of-resource"),
            request(reading(at, joules, OTHER), deployment=None, service__name="gpu-host", zone="a"),
        )
    assert {key[0]: row["millijoules"] for key, row in it.hours().items()} == {"on-point": 500_000, "by-rule": 500_000}


@pytest.mark.parametrize(
    ("told", "resource", "reason"),
    [
        ({"hw__type": "cpu"}, {}, "energy:not_a_gpu"),
        ({"hw__type": None}, {}, "energy:not_a_gpu"),
        ({"hw__id": None}, {}, "energy:no_id"),
        ({}, {"deployment": None}, "energy:no_deployment"),
        ({"kind": "gauge"}, {}, "energy:gauge"),
        ({"temporality": 1}, {}, "energy:delta"),
        ({"temporality": 0}, {}, "energy:no_temporality"),
        ({"rises": False}, {}, "energy:not_monotonic"),
    ],
)
def test_what_is_not_read_says_why(engine, told, resource, reason):
    it = Collector(engine, deployment())
    it.take(request(reading(0, 100, **told), **resource)).take(request(reading(9, 200, **told), **resource))
    assert it.left == {("not_a_call", reason): 2}
    assert it.hours() == {}


@pytest.mark.parametrize(
    ("joules", "seconds", "reason"),
    [
        (None, 5, "no_value"),
        (-5, 5, "absurd"),
        (float("nan"), 5, "absurd"),
        (float("inf"), 5, "absurd"),
        (1e300, 5, "absurd"),
        (2**62, 5, "absurd"),
        (50, 3 * 3600 + 700, "in_the_future"),
        (50, -10 * 365 * 86400, "too_long_ago"),
    ],
)
def test_what_cannot_be_true_leaves_and_spoils_nothing(engine, joules, seconds, reason):
    it = Collector(engine, deployment())
    it.take(request(reading(0, 0))).take(request(reading(seconds, joules))).take(request(reading(10, 700)))
    assert it.joules() == 700
    assert it.left == {("not_a_call", "energy"): 2, ("not_a_call", f"energy:{reason}"): 1}


# ---- exactly once


def test_a_batch_that_is_not_stored_is_counted_when_it_comes_again(engine):
    it = Collector(engine, deployment())
    it.take(request(reading(0, 0)))
    it.take(request(reading(10, 500)), lost=True).take(request(reading(10, 500)))
    assert it.joules() == 500


def test_hours_and_readings_commit_with_the_position_or_not_at_all(engine):
    it = Collector(engine, deployment())
    it.take(request(reading(0, 0)))
    done = it.prepared([request(reading(10, 500))])
    before = metered.series(engine, it.tenant), ledger.position(engine, "otlp")
    broken = pl.DataFrame({"no such column": [1]})
    batch = ledger.Batch(done.spans, broken, done.quarantined, meter_hours=done.meter_hours,
                         meter_series=done.meter_series)  # fmt: skip
    with pytest.raises(Exception, match="no such column"):
        ledger.commit(engine, batch, "otlp", (0, next(_positions)))
    assert it.hours() == {}
    assert metered.series(engine, it.tenant).equals(before[0])
    assert ledger.position(engine, "otlp") == before[1]


def test_readings_are_remembered_by_board_and_do_not_pile_up(engine):
    it = Collector(engine, deployment())
    for start in range(0, 5 * 3600, 600):
        at = start + 300
        it.take(request(reading(at, 100.0, name="gpu.dcgm.energy_consumption", start=start), gpu__uuid=BOARD),
                received_at=NOON + timedelta(hours=6))  # fmt: skip
    kept = metered.series(engine, it.tenant)
    assert set(kept["counter"]) == {"millijoules", "counted"}
    assert set(kept["series"]) == {BOARD}
    assert kept.height <= 8


def test_energy_beside_tokens_leaves_the_tokens_as_they_are(engine):
    tokens = otlp_metrics.Metric(
        name="gen_ai.client.inference.usage.input_tokens",
        sum=otlp_metrics.Sum(
            data_points=[otlp_metrics.NumberDataPoint(start_time_unix_nano=ns(-60), time_unix_nano=ns(0), as_int=100)],
            aggregation_temporality=2, is_monotonic=True,
        ),
    )  # fmt: skip
    it = Collector(engine, deployment())
    done = it.prepared([request(tokens, reading(0, 0))])
    assert done.spans["input_tokens"].to_list() == [100]
    assert done.meter_series.height == 1

"""Spans go on to another back end with their cost: whole, at least once, never before they are stored."""

import asyncio
import json
import socket
import threading
import time
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from millicent.collector import forwarding
from millicent.collector.forwarding import FILE, Forwarder, Progress, Target
from millicent.collector.loader import Loader
from millicent.collector.spool import START, Spool, SpoolReader
from millicent.warehouse.calls import Search
from millicent.warehouse.query import Period
from millicent.warehouse.store import Warehouse

NOW = datetime.now(UTC).replace(microsecond=0)
NOW_NS = int(NOW.timestamp()) * 10**9
PATIENCE_S = 60
GENAI = "opentelemetry.instrumentation.genai.openai"


# ---- an installation


class Installation:
    """Spool, warehouse and loader on a directory, and forwarders beside them."""

    def __init__(self, directory):
        self.directory = directory
        self.spool = Spool(directory / "spool", reserve_bytes=0, segment_bytes=4096)
        self.warehouse = Warehouse.embedded(directory, memory_limit="256MB")
        self.loader = Loader(self.warehouse, SpoolReader(directory / "spool"))
        self.stop = threading.Event()

    def send(self, *bodies, load=True, **fields):
        async def one_by_one():
            for body in bodies:
                spans = body.count(b"millicent.test.span") if "spans" not in fields else fields["spans"]
                await self.spool.append(body, tenant="default", key_id="k", **{"spans": spans or 1, **fields})

        asyncio.run(one_by_one())
        if load:
            self.load()

    def load(self):
        while self.loader.step():
            pass

    def forwarder(self, url, **headers):
        return Forwarder(
            self.warehouse.engine, SpoolReader(self.directory / "spool"), lambda: self.loader.position,
            Target(url, headers), self.directory, retry_s=0.001,
        )  # fmt: skip

    def forward(self, forwarder):
        """Send everything on that is loaded."""
        with httpx.Client(timeout=5) as client:
            while forwarder.step(client, self.stop) or forwarder.progress.position < self.loader.position:
                pass

    def calls(self):
        period = Period(NOW - timedelta(days=2), NOW + timedelta(days=1))
        search = Search(period=period, include_uncounted=True, limit=1000)
        found, _ = self.warehouse.find("default", search)
        return {call["span_id"]: call for call in found}

    def close(self):
        self.warehouse.close()
        self.spool.close()


@pytest.fixture
def home(tmp_path):
    installation = Installation(tmp_path)
    yield installation
    installation.close()


def requests(otlp, number, **fields):
    return [otlp.request(otlp.span(started_ns=NOW_NS - at * 10**9, **fields)) for at in range(number)]


def attributes(span):
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def ours(span):
    return {
        key: value for key, value in attributes(span).items() if key.startswith(("millicent.cost.", "millicent.co"))
    }


def wait_for(what):
    until = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < until
        time.sleep(0.002)
    return found


@contextmanager
def running(forwarder):
    stop = threading.Event()
    thread = threading.Thread(target=forwarder.run, args=(stop,))
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join()


# ---- what arrives


def everything_otlp_can_say(otlp):
    message = ExportTraceServiceRequest.FromString(
        otlp.request(
            otlp.span({"gen_ai.usage.cache_read.input_tokens": 400}, started_ns=NOW_NS),
            otlp.span({"gen_ai.operation.name": "execute_tool"}, started_ns=NOW_NS),
            resource={"service.name": "app"},
        )
    )
    (group,) = message.resource_spans
    group.schema_url = "https://example.com/1"
    group.resource.dropped_attributes_count = 3
    (scoped,) = group.scope_spans
    scoped.schema_url = "https://example.com/2"
    scoped.scope.attributes.append(KeyValue(key="scope.key", value=AnyValue(bytes_value=b"\x00\xff")))
    for span in scoped.spans:
        span.trace_state, span.kind, span.flags, span.dropped_links_count = "a=b", 3, 257, 4
        span.events.append(
            Span.Event(
                name="thought", time_unix_nano=NOW_NS, attributes=[KeyValue(key="a", value=AnyValue(int_value=1))]
            )
        )
        span.links.append(Span.Link(trace_id=b"t" * 16, span_id=b"s" * 8, trace_state="c=d", flags=1))
        span.status.message = "in words"
        tree = KeyValueList(values=[KeyValue(key="in", value=AnyValue(double_value=0.5))])
        listed = ArrayValue(values=[AnyValue(kvlist_value=tree), AnyValue(bytes_value=b"x")])
        span.attributes.append(KeyValue(key="tree", value=AnyValue(array_value=listed)))
    return message


def test_a_call_arrives_as_it_was_sent_with_what_it_cost(otlp, home, backend):
    sent = everything_otlp_can_say(otlp)
    forwarder = home.forwarder(backend.url)
    home.send(sent.SerializeToString(), spans=2)
    home.forward(forwarder)
    (arrived,) = backend.taken
    call, tool = arrived.resource_spans[0].scope_spans[0].spans
    stored = home.calls()[call.span_id.hex()]
    assert ours(call) == {
        "millicent.cost.list_usd": float(stored["list_cost_usd"]),
        "millicent.cost.billed_usd": float(stored["billed_cost_usd"]),
        "millicent.cost.currency": "USD",
        "millicent.cost.price_status": "priced",
        "millicent.cost.price_entry": stored["price_entry"],
        "millicent.cost.price_version": stored["price_version"],
    }
    assert float(stored["list_cost_usd"]) == 0.003
    assert ours(tool) == {}
    added = len(ours(call))
    del call.attributes[-added:]
    assert arrived == sent


def test_the_cost_of_every_call_is_that_of_the_api(otlp, home, backend):
    forwarder = home.forwarder(backend.url)
    priced = [{"gen_ai.usage.output_tokens": n} for n in range(1, 30)]
    unpriced = {"gen_ai.request.model": "nobodys-model", "gen_ai.response.model": None}
    partial = {"gen_ai.usage.output_tokens": None}
    failed = {"gen_ai.usage.input_tokens": None, "gen_ai.usage.output_tokens": None}
    spans = [otlp.span(one, started_ns=NOW_NS + 1234) for one in (*priced, unpriced, partial)]
    own = {"millicent.deployment": "oss-b200", "millicent.engine": "vllm"}
    spans += [otlp.span(failed, error=True, started_ns=NOW_NS), otlp.span(own, started_ns=NOW_NS)]
    home.send(otlp.request(*spans), spans=33)
    home.forward(forwarder)
    stored = home.calls()
    assert len(backend.spans()) == len(stored) == 33
    assert [call for call in stored.values() if 0 == call["billed_cost_usd"] < (call["list_cost_usd"] or 0)]
    for span in backend.spans():
        call = stored[span.span_id.hex()]
        for name in ("list", "billed"):
            amount = call[f"{name}_cost_usd"]
            assert ours(span).get(f"millicent.cost.{name}_usd") == (None if amount is None else float(amount))
        assert ours(span)["millicent.cost.price_status"] == call["price_status"]
    statuses = Counter(ours(span)["millicent.cost.price_status"] for span in backend.spans())
    assert statuses == {"priced": 29, "unpriced": 1, "partial": 1, "not_billed": 2}


def test_a_call_that_is_counted_elsewhere_says_so_and_has_no_cost(otlp, home, backend):
    forwarder = home.forwarder(backend.url)
    same = {"gen_ai.response.id": "r-1"}
    home.send(otlp.request(otlp.span(same, started_ns=NOW_NS), scope=GENAI),
              otlp.request(otlp.span(same, started_ns=NOW_NS), scope="opentelemetry.instrumentation.openai.v1"),
              spans=1)  # fmt: skip
    home.forward(forwarder)
    assert sorted(map(len, map(ours, backend.spans()))) == [1, 6]
    assert {"millicent.counted": False} in [ours(span) for span in backend.spans()]


def test_costs_that_somebody_else_wrote_are_replaced(otlp, home, backend):
    forwarder = home.forwarder(backend.url)
    told = {"millicent.cost.list_usd": 99.0, "millicent.cost.odd": "x", "millicent.counted": False, "kept": "yes"}
    home.send(otlp.request(otlp.span(told, started_ns=NOW_NS)))
    home.forward(forwarder)
    (span,) = backend.spans()
    assert len([one for one in span.attributes if one.key == "millicent.cost.list_usd"]) == 1
    assert ours(span)["millicent.cost.list_usd"] == 0.0035
    assert {"millicent.cost.odd", "millicent.counted"}.isdisjoint(attributes(span))
    assert attributes(span)["kept"] == "yes"


@pytest.mark.parametrize("path", ["", "/", "/v1/traces", "/otel/v1/traces/"])
def test_requests_are_otlp_over_http_with_our_headers(otlp, home, backend, path):
    forwarder = home.forwarder(backend.url + path, authorization="Bearer s3cret", **{"x-scope-orgid": "acme"})
    home.send(*requests(otlp, 1))
    home.forward(forwarder)
    ((asked, headers),) = backend.requests
    assert asked == ("/otel" if path.startswith("/otel") else "") + "/v1/traces"
    assert (headers["content-type"], headers["content-encoding"]) == ("application/x-protobuf", "gzip")
    assert (headers["authorization"], headers["x-scope-orgid"]) == ("Bearer s3cret", "acme")


def test_small_requests_are_sent_on_together_and_large_ones_apart(otlp, home, backend, monkeypatch):
    monkeypatch.setattr(forwarding, "MOST_SPANS", 10)
    forwarder = home.forwarder(backend.url)
    home.send(*requests(otlp, 25))
    home.send(otlp.request(*(otlp.span(started_ns=NOW_NS) for _ in range(30))), spans=30)
    home.forward(forwarder)
    assert max(backend.ids().values()) == 1
    assert len(backend.ids()) == 55
    sizes = [sum(len(r.scope_spans[0].spans) for r in message.resource_spans) for message in backend.taken]
    assert len(sizes) < 20
    assert sorted(sizes)[-2:] == [10, 30]


def test_metrics_and_logs_stay_here(otlp, home, backend):
    forwarder = home.forwarder(backend.url)
    home.send(b"", signal="metrics", spans=4)
    home.send(b"", signal="logs", spans=2)
    home.send(*requests(otlp, 1))
    home.forward(forwarder)
    assert len(backend.spans()) == 1
    assert (forwarder.progress.forwarded, forwarder.progress.dropped, forwarder.pending()) == (1, {}, 0)


# ---- never before, never behind


def test_nothing_goes_on_before_it_is_stored_and_priced(otlp, home, backend):
    forwarder = home.forwarder(backend.url)
    first, second = requests(otlp, 2)
    home.send(first)
    home.send(second, load=False)
    with httpx.Client() as client:
        assert forwarder.step(client, home.stop)
        assert not forwarder.step(client, home.stop)
    assert len(backend.spans()) == 1
    assert forwarder.pending() == 1
    home.load()
    home.forward(forwarder)
    assert len(backend.spans()) == 2
    assert all("millicent.cost.list_usd" in attributes(span) for span in backend.spans())


def test_without_progress_forwarding_begins_with_what_is_not_loaded_yet(otlp, home, backend):
    home.send(*requests(otlp, 3))
    forwarder = home.forwarder(backend.url)
    assert forwarder.pending() == 0
    home.send(*requests(otlp, 2))
    home.forward(forwarder)
    assert len(backend.ids()) == 2
    assert home.forwarder(backend.url).progress == forwarder.progress


def test_progress_that_cannot_be_read_begins_with_everything_kept(otlp, home, backend):
    (home.directory / FILE).write_text('{"segment": ')
    home.send(*requests(otlp, 3))
    home.forward(home.forwarder(backend.url))
    assert len(backend.ids()) == 3


def test_a_spool_that_was_made_anew_is_read_from_its_beginning(otlp, home, backend):
    Progress(segment=9, offset=10**6, spans=400, forwarded=7, dropped={"retired": 1}).keep(home.directory / FILE)
    forwarder = home.forwarder(backend.url)
    home.send(*requests(otlp, 2))
    home.forward(forwarder)
    assert len(backend.ids()) == 2
    assert (forwarder.progress.forwarded, forwarder.progress.dropped) == (9, {"retired": 1})


def test_another_forwarder_goes_on_exactly_where_the_last_one_stopped(otlp, home, backend):
    forwarder = home.forwarder(backend.url)
    for _ in range(3):
        home.send(*requests(otlp, 7))
        home.forward(forwarder)
        forwarder = home.forwarder(backend.url)
    assert backend.ids() == Counter(dict.fromkeys(backend.ids(), 1))
    assert len(backend.ids()) == 21
    assert forwarder.progress.forwarded == 21


def test_after_a_crash_between_sending_and_keeping_the_same_spans_come_again(otlp, home, backend, monkeypatch):
    forwarder = home.forwarder(backend.url)
    home.send(*requests(otlp, 4))

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, httpx.Client() as client:
        patched.setattr(Progress, "keep", crash)
        with pytest.raises(KeyboardInterrupt):
            forwarder.step(client, home.stop)
    home.forward(home.forwarder(backend.url))
    assert set(backend.ids().values()) == {2}
    assert len(backend.ids()) == 4


# ---- a back end in trouble


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def test_a_back_end_that_is_away_holds_up_nobody_and_misses_nothing(otlp, home, make_backend):
    port = free_port()
    forwarder = home.forwarder(f"http://127.0.0.1:{port}")
    with running(forwarder):
        home.send(*requests(otlp, 5))
        wait_for(lambda: forwarder.failures > 2)
        home.send(*requests(otlp, 20))  # and is loaded meanwhile
        assert len(home.calls()) == 25
        assert "ConnectError" in forwarder.last_error
        assert forwarder.pending() == 25
        backend = make_backend(port)
        wait_for(lambda: forwarder.pending() == 0)
    assert set(backend.ids().values()) == {1}
    assert len(backend.ids()) == 25
    assert (forwarder.progress.dropped, forwarder.last_error) == ({}, None)
    backend.close()


@pytest.mark.parametrize("status", [301, 307, 408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(otlp, home, backend, status):
    forwarder = home.forwarder(backend.url)
    backend.answers = [(status, {"location": "/elsewhere"}, b"")] * 3
    home.send(*requests(otlp, 2))
    with running(forwarder):
        wait_for(lambda: forwarder.pending() == 0)
    assert backend.ids() == Counter(dict.fromkeys(backend.ids(), 1))
    assert (len(backend.requests), forwarder.failures, forwarder.progress.dropped) == (4, 3, {})
    assert {path for path, _ in backend.requests} == {"/v1/traces"}


def test_a_back_end_that_asks_to_wait_is_left_alone_so_long(otlp, home, backend):
    forwarder = home.forwarder(backend.url)
    backend.answers = [(503, {"retry-after": "3600"}, b"")]
    home.send(*requests(otlp, 1))
    waited = []

    class Stop(threading.Event):
        def wait(self, timeout=None):
            waited.append(timeout)
            return True

    with httpx.Client() as client:
        assert not forwarder.step(client, Stop())
    assert 40 < waited[0] < 80  # an hour is cut to a minute
    assert forwarder.progress.forwarded == 0
    home.forward(forwarder)
    assert forwarder.progress.forwarded == 1


@pytest.mark.parametrize("status", [401, 403, 404, 415])
def test_what_is_refused_for_good_is_counted_with_its_reason(otlp, home, backend, status):
    forwarder = home.forwarder(backend.url)
    backend.answers = [(status, {}, b"no")]
    home.send(*requests(otlp, 3))
    home.send(*requests(otlp, 1))
    home.forward(forwarder)
    lost = forwarder.progress.dropped[f"http_{status}"]
    assert lost >= 3
    assert forwarder.progress.forwarded + lost == 4
    assert home.forwarder(backend.url).progress.dropped == {f"http_{status}": lost}


@pytest.mark.parametrize("status", [400, 413, 422])
def test_one_request_that_is_refused_costs_none_of_the_others(otlp, home, backend, status):
    forwarder = home.forwarder(backend.url)
    backend.refuses = lambda message: status * (b"the bad one" in message.SerializeToString())
    bad = otlp.request(otlp.span({"note": "the bad one"}, started_ns=NOW_NS))
    home.send(*requests(otlp, 4), bad, *requests(otlp, 3))
    home.forward(forwarder)
    assert len(backend.ids()) == 7
    assert forwarder.progress.dropped == {f"http_{status}": 1}
    home.send(*requests(otlp, 2))
    home.forward(forwarder)
    assert forwarder.progress.forwarded == 9


@pytest.mark.parametrize(
    "answer",
    [
        ExportTraceServiceResponse(
            partial_success=ExportTracePartialSuccess(rejected_spans=2, error_message="too old")
        ).SerializeToString(),
        b'{"partialSuccess": {"rejectedSpans": "2", "errorMessage": "too old"}}',
    ],
)
def test_spans_that_the_back_end_rejects_are_counted(otlp, home, backend, answer):
    forwarder = home.forwarder(backend.url)
    backend.answers = [(200, {}, answer)]
    home.send(otlp.request(*(otlp.span(started_ns=NOW_NS) for _ in range(5))), spans=5)
    home.forward(forwarder)
    assert (forwarder.progress.forwarded, forwarder.progress.dropped) == (3, {"rejected": 2})


@pytest.mark.parametrize(
    "answer", [b"{}", b"ok", b"[]", b'{"partialSuccess": null}', b'{"partialSuccess": {}}', b"\xff"]
)
def test_whatever_else_stands_in_an_answer_says_nothing(otlp, home, backend, answer):
    forwarder = home.forwarder(backend.url)
    backend.answers = [(200, {}, answer)]
    home.send(*requests(otlp, 1))
    home.forward(forwarder)
    assert (forwarder.progress.forwarded, forwarder.progress.dropped) == (1, {})


def test_a_store_that_cannot_be_asked_is_asked_again(otlp, home, backend, monkeypatch):
    forwarder = home.forwarder(backend.url)
    home.send(*requests(otlp, 2))
    told = []

    def broken(*args, real=forwarding.ledger.amounts):
        told.append(args)
        if len(told) < 3:
            raise forwarding.ledger.EngineError("closed")
        return real(*args)

    monkeypatch.setattr(forwarding.ledger, "amounts", broken)
    with running(forwarder):
        wait_for(lambda: forwarder.pending() == 0)
    assert len(backend.ids()) == 2
    assert all("millicent.cost.list_usd" in attributes(span) for span in backend.spans())


# ---- what the spool lost


def test_what_was_retired_while_the_back_end_was_away_is_counted(otlp, home, backend):
    forwarder = home.forwarder(backend.url)
    home.send(*requests(otlp, 60))  # several segments
    reader = SpoolReader(home.directory / "spool")
    assert reader.retire(home.loader.position, datetime.now(UTC) - timedelta(hours=24)) == 0  # kept for a day
    assert reader.retire(home.loader.position, datetime.now(UTC) + timedelta(hours=1)) > 2
    home.send(*requests(otlp, 1))
    home.forward(forwarder)
    lost = forwarder.progress.dropped["retired"]
    assert 0 < lost < 60
    assert len(backend.ids()) + lost == 61
    assert forwarder.progress.forwarded + lost == reader.total_spans()


def test_what_was_damaged_is_counted_and_the_rest_goes_on(otlp, home, backend):
    forwarder = home.forwarder(backend.url)
    home.send(*requests(otlp, 5), load=False)
    (segment, *_) = sorted((home.directory / "spool").glob("*.segment"))
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 0xFF
    segment.write_bytes(data)
    home.load()
    home.forward(forwarder)
    assert (len(backend.ids()), forwarder.progress.dropped) == (4, {"damaged": 1})


def test_a_record_that_is_no_request_is_counted(otlp, home, backend):
    end = home.spool.end
    target = Target(backend.url)
    spool = SpoolReader(home.directory / "spool")
    forwarder = Forwarder(home.warehouse.engine, spool, lambda: end().position, target, home.directory)
    home.send(b"\xff\xff", load=False, spans=3)
    home.send(b"not gzip", load=False, spans=4, encoding="gzip")
    home.send(*requests(otlp, 1), load=False)
    with httpx.Client() as client:
        while forwarder.step(client, home.stop):
            pass
    assert (len(backend.ids()), forwarder.progress.dropped) == (1, {"undecodable": 7})
    assert ours(backend.spans()[0]) == {}  # the store does not have it


def test_progress_is_small_and_readable(otlp, home, backend):
    forwarder = home.forwarder(backend.url)
    assert forwarder.progress.position == START
    home.send(*requests(otlp, 3))
    home.forward(forwarder)
    kept = json.loads((home.directory / FILE).read_text())
    assert (kept["segment"], kept["offset"]) == home.loader.position
    assert (kept["spans"], kept["forwarded"], kept["dropped"]) == (3, 3, {})

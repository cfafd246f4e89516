"""Sending: a real collector's side of OTLP over HTTP, and collectors that are not there."""

import os
import socket
import subprocess
import sys
from importlib.metadata import version

import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

from millicent.sdk import attributes, attribution, instrument, sdk_stats, track_tokens

WAIT_S = 20


def plain(pairs):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def use_app_provider(monkeypatch, provider):
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)


@track_tokens
def ask(model):
    return {"input_tokens": 1, "model": model}


def run(program, **environment):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "MILLICENT_"))}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env | environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.usefixtures("no_app_provider")
def test_spans_arrive_as_otlp_protobuf_with_key_and_tags(collector):
    handle = instrument(
        collector.url, "mk_1", team="search", accelerator="H200", accelerator_count=8, labels={"a": "b"}, service="shop"
    )
    try:
        with attribution(customer="acme"):
            ask("m")
        assert collector.names(1) == ["chat m"]
    finally:
        handle.shutdown()
    (request,) = collector.requests
    assert (request.path, request.headers["authorization"]) == ("/v1/traces", "Bearer mk_1")
    assert request.headers["content-type"] == "application/x-protobuf"
    assert request.headers["content-encoding"] == "gzip"
    assert (
        collector.resources[0]
        | {
            "service.name": "shop",
            "millicent.team": "search",
            "millicent.accelerator": "H200",
            "millicent.accelerator_count": 8,
            "millicent.label.a": "b",
        }
        == collector.resources[0]
    )
    assert plain(collector.spans[0].attributes)["millicent.customer"] == "acme"


@pytest.mark.usefixtures("no_app_provider")
def test_arguments_win_over_our_environment_and_that_over_opentelemetrys(collector, monkeypatch):
    settings = {
        "MILLICENT_ENDPOINT": collector.url,
        "MILLICENT_KEY": "from-env",
        "MILLICENT_TEAM": "env-team",
        "MILLICENT_PROJECT": "env-project",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-extra=yes,authorization=Bearer%20other",
        "OTEL_SERVICE_NAME": "otel-service",
        "OTEL_RESOURCE_ATTRIBUTES": "millicent.project=otel,millicent.feature=otel",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    handle = instrument(team="argument")
    try:
        ask("m")
        collector.names(1)
    finally:
        handle.shutdown()
    assert collector.requests[0].headers["authorization"] == "Bearer from-env"
    assert collector.requests[0].headers["x-extra"] == "yes"
    told = collector.resources[0]
    assert [told[f"millicent.{name}"] for name in ("team", "project", "feature")] == ["argument", "env-project", "otel"]
    assert told["service.name"] == "otel-service"


@pytest.mark.usefixtures("no_app_provider")
@pytest.mark.parametrize(
    ("name", "suffix"),
    [("OTEL_EXPORTER_OTLP_ENDPOINT", ""), ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "/custom/v1/traces")],
)
def test_opentelemetrys_endpoint_will_do(collector, monkeypatch, name, suffix):
    monkeypatch.setenv(name, collector.url + suffix)
    handle = instrument()
    try:
        ask("m")
        collector.names(1)
    finally:
        handle.shutdown()
    assert collector.requests[0].path == (suffix or "/v1/traces")


def test_calls_belong_to_the_apps_trace_and_service_whatever_its_sampling(collector, monkeypatch):
    app = TracerProvider(
        sampler=ParentBased(ALWAYS_OFF), resource=Resource({"service.name": "shop"}), shutdown_on_exit=False
    )
    use_app_provider(monkeypatch, app)
    seen = []

    @track_tokens
    def call():
        seen.append(trace.get_current_span().get_span_context())
        seen.append(app.get_tracer("app").start_span("child").get_span_context())

    handle = instrument(collector.url)
    try:
        with app.get_tracer("app").start_as_current_span("request") as request:
            call()
        call()
        collector.names(2)
    finally:
        handle.shutdown()
    inside, alone = collector.spans
    assert inside.trace_id == request.get_span_context().trace_id.to_bytes(16, "big")
    assert inside.parent_span_id == request.get_span_context().span_id.to_bytes(8, "big")
    assert alone.parent_span_id == b""
    assert [context.trace_flags.sampled for context in seen] == [False] * 4
    assert seen[0].span_id.to_bytes(8, "big") == inside.span_id
    assert seen[1].trace_id == seen[0].trace_id
    assert collector.resources[0]["service.name"] == "shop"


def test_the_apps_own_spans_are_stamped_while_it_lasts(collector, monkeypatch):
    app = TracerProvider(shutdown_on_exit=False)
    use_app_provider(monkeypatch, app)
    tracer = app.get_tracer("app")
    first = instrument(collector.url, team="first")
    second = instrument(collector.url, team="second")
    stamped = tracer.start_span("request")
    second.shutdown()
    bare = tracer.start_span("request")
    first.shutdown()
    assert dict(stamped.attributes) == {"millicent.team": "second"}
    assert dict(bare.attributes) == {}
    assert len(app._active_span_processor._span_processors) == 1


@pytest.mark.usefixtures("no_app_provider")
def test_a_second_call_replaces_the_first_and_loses_nothing(collector, monkeypatch):
    @track_tokens
    def stream(model):
        yield model

    first = instrument("http://127.0.0.1:1", team="first")
    body = stream(model="under way")
    next(body)
    with monkeypatch.context() as patch:
        patch.setattr("millicent.sdk.sender.DELAY_S", 60)
        ask("queued")
        second = instrument(collector.url, team="second")
    ask("new")
    assert list(body) == []
    assert collector.names(3) == ["chat new", "chat queued", "chat under way"]
    first.shutdown()
    ask("still there")
    assert collector.names(4) == ["chat new", "chat queued", "chat still there", "chat under way"]
    second.shutdown()
    ask("nobody listens")
    assert second.flush(0)
    assert len(collector.spans) == 4


@pytest.mark.usefixtures("no_app_provider")
def test_what_is_lost_is_counted(collector, caplog):
    collector.status = 400
    before = sdk_stats()
    handle = instrument(collector.url)
    ask("refused")
    assert handle.flush(WAIT_S)
    collector.status = 200
    ask("taken")
    assert handle.flush(WAIT_S)
    handle.shutdown()
    told = {name: count - before[name] for name, count in sdk_stats().items()}
    assert told == {
        "internal_errors": 0,
        "spans_ended": 2,
        "spans_exported": 1,
        "spans_failed": 1,
        "spans_dropped": 0,
        "energy_exported": 0,
        "energy_failed": 0,
        "budget_denied": 0,
        "budget_unchecked": 0,
    }
    assert "400" in caplog.text


@pytest.mark.usefixtures("no_app_provider")
def test_a_full_queue_drops_counts_and_does_not_wait(monkeypatch):
    monkeypatch.setattr("millicent.sdk.sender.QUEUE_SPANS", 10)
    with socket.create_server(("127.0.0.1", 0)) as hung:  # accepts, and never answers
        before = sdk_stats()["spans_dropped"]
        handle = instrument(f"http://127.0.0.1:{hung.getsockname()[1]}")
        for _ in range(30):
            ask("m")
        assert not handle.flush(0.01)
        assert sdk_stats()["spans_dropped"] - before >= 10
        handle.shutdown(0.01)


EXITING = """
from millicent.sdk import instrument, track_tokens
instrument()
track_tokens(lambda model: None)(model="last words")
"""


def test_what_a_short_program_did_arrives(collector):
    run(EXITING, MILLICENT_ENDPOINT=collector.url)
    assert collector.names(1) == ["chat last words"]


# Exit handlers run last in, first out: instrument()'s runs between these two.
TIMED_EXIT = f"""
import atexit, time
began = []
atexit.register(lambda: print(time.monotonic() - began[0]))
{EXITING}
atexit.register(lambda: began.append(time.monotonic()))
"""


@pytest.mark.parametrize("fault", ["hung", "refusing", "no such host", "not a URL"])
def test_a_dead_collector_does_not_hold_the_exit(fault):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if fault == "refusing":
            server.close()
        url = {"no such host": "http://millicent.invalid:4318", "not a URL": "http://[broken"}.get(
            fault, f"http://127.0.0.1:{port}"
        )
        done = run(TIMED_EXIT, MILLICENT_ENDPOINT=url)
    assert "Traceback" not in done.stderr
    assert float(done.stdout) < 5  # 1.5 by design; an exporter left to itself takes 10 and more


FORKING = """
import os, sys
from millicent.sdk import instrument, track_tokens
ask = track_tokens(lambda model: None)
handle = instrument()
ask(model="before")
if {warm}: handle.flush()
children = []
for number in range(3):
    child = os.fork()
    if child == 0:
        for call in range(5):
            ask(model=f"child {{number}}.{{call}}")
        assert handle.flush(20)
        os._exit(0)
    children.append(child)
ask(model="after")
for child in children:
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize("warm", [False, True])
def test_every_process_of_a_fork_reports_its_own_calls_once(collector, warm):
    run(FORKING.format(warm=warm), MILLICENT_ENDPOINT=collector.url)
    expected = ["chat after", "chat before", *(f"chat child {n}.{call}" for n in range(3) for call in range(5))]
    assert collector.names(17) == sorted(expected)


def test_the_scope_version_is_the_packages():
    assert version("millicent-sdk") == attributes.VERSION

"""Sending: our own always-on provider, OTLP over HTTP, and the settings that lead there."""

import atexit
import os
import threading
import time
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter

from millicent.sdk import attributes, budget, call
from millicent.sdk.attribution import Tags, clean_tags, typed
from millicent.sdk.processor import TokenSpanProcessor
from millicent.sdk.sampling import EveryCall
from millicent.sdk.sender import Sender

if TYPE_CHECKING:  # most apps ask for none of it
    from opentelemetry.sdk.metrics.export import MetricExporter

    from millicent.sdk.energy import EnergyReader
    from millicent.sdk.hardware import Hardware

DEFAULT_ENDPOINT: Final = "http://127.0.0.1:4318"
EXIT_S: Final = 1.5  # what the exit of a process may wait for a collector that does not answer
DETECT_S: Final = 0.2  # what the start of an app may wait for a driver that is slow to answer
_YES: Final = ("1", "true", "yes", "on")


class Instrumentation:
    """What `instrument` returns: the running connection to the collector."""

    def __init__(self, sender: Sender, energy: "EnergyReader | None" = None) -> None:
        self._sender = sender
        self._energy = energy

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Send what is queued now. Call it before `os._exit`, which skips the flush at exit.

        Returns:
            Whether the queue was emptied in time; `sdk_stats()` tells how many spans arrived.
        """
        until = time.monotonic() + timeout_s
        is_empty = self._sender.force_flush(int(timeout_s * 1000))
        return (self._energy is None or self._energy.flush(until - time.monotonic())) and is_empty

    def shutdown(self, timeout_s: float = 5.0) -> None:
        """Flush, then stop: tracked calls run on and are no longer recorded. Safe to repeat."""
        global _running  # noqa: PLW0603  # one connection per process
        with _lock:
            if _running is self:
                _running = None
                call.send_spans_to(None)
                for stamp in _stamps.values():
                    stamp.defaults = {}
        atexit.unregister(self.shutdown)
        until = time.monotonic() + timeout_s
        if self._energy is not None:
            self._energy.stop()
        self._sender.shutdown(int(timeout_s * 1000))
        if self._energy is not None:
            self._energy.join(until - time.monotonic())


_lock = threading.Lock()
_running: Instrumentation | None = None
_stamps: weakref.WeakKeyDictionary[object, TokenSpanProcessor] = weakref.WeakKeyDictionary()


def instrument(
    endpoint: str | None = None,
    key: str | None = None,
    *,
    team: str | None = None,
    project: str | None = None,
    feature: str | None = None,
    customer: str | None = None,
    environment: str | None = None,
    region: str | None = None,
    deployment: str | None = None,
    engine: str | None = None,
    accelerator: str | None = None,
    accelerator_count: int | None = None,
    precision: str | None = None,
    labels: Mapping[str, str] | None = None,
    service: str | None = None,
    detect_hardware: bool = False,
    estimate: bool = False,
    energy: bool | None = None,
) -> Instrumentation:
    """Send every tracked call to a Millicent collector, whatever the app's own sampling.

    Also stamps tags onto the spans of the app's global `TracerProvider`, if there is one: call this after setting
    it. A second call replaces the first. Each argument left out is taken from the environment: `MILLICENT_ENDPOINT`,
    `MILLICENT_KEY`, `MILLICENT_TEAM` and so on, then OpenTelemetry's `OTEL_EXPORTER_OTLP_ENDPOINT`,
    `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`. A collector that is down costs the
    app nothing: spans wait in a bounded queue and are counted when dropped.

    Args:
        endpoint: Base URL of the collector; http://127.0.0.1:4318 by default.
        key: Ingest key, sent as `Authorization: Bearer`.
        team: Who pays for calls that no decorator and no `attribution` says more about; likewise the other tags.
        project: For which project.
        feature: For which feature of the product.
        customer: On behalf of which customer.
        environment: production, staging, …
        region: Where the models run.
        deployment: Which of our own deployments serves them.
        engine: vllm, sglang, tensorrt-llm, …
        accelerator: Name of the accelerator behind the deployment.
        accelerator_count: Number of accelerators behind the deployment.
        precision: bf16, fp8, …
        labels: Any other tags.
        service: Name of this service; by default that of the app's own provider.
        detect_hardware: Fill in `accelerator` and `accelerator_count` from the local machine: NVIDIA's accelerators
            (needs `millicent-sdk[nvidia]`), AMD's and Google's. A driver that is slow to answer is not waited for:
            calls are tagged from when it has.
        estimate: Count the tokens of calls that tell no usage, here, by the tokenizer of the model, and mark them as
            estimated. Needs `millicent-sdk[estimate]`.
        energy: Read the energy counters of the local accelerators every 15 s and send them as the metric `hw.energy`;
            `deployment` is what their energy is counted for. Needs `millicent-sdk[nvidia]`, or ROCm's `amdsmi`. By
            default as `MILLICENT_ENERGY` says.

    Returns:
        A handle to flush and to shut down. At exit it flushes by itself, for at most 1.5 s.
    """
    named: dict[str, object] = {
        attributes.TEAM: team,
        attributes.PROJECT: project,
        attributes.FEATURE: feature,
        attributes.CUSTOMER: customer,
        attributes.ENVIRONMENT: environment,
        attributes.REGION: region,
        attributes.DEPLOYMENT: deployment,
        attributes.ENGINE: engine,
        attributes.ACCELERATOR: accelerator,
        attributes.ACCELERATOR_COUNT: accelerator_count,
        attributes.PRECISION: precision,
    }
    tags = clean_tags({name: _setting(name, value) for name, value in named.items()}, labels)
    detecting, found = None, None
    if detect_hardware and attributes.ACCELERATOR not in tags:
        from millicent.sdk.hardware import detection  # noqa: PLC0415  # only those who ask for it pay for it

        detecting = detection()
        found = detecting.within(DETECT_S)
        tags = {**_detected(found), **tags}
    if estimate:
        from millicent.sdk.estimate import prepare  # noqa: PLC0415  # only those who ask for it pay for it

        prepare()
    token = key or os.environ.get("MILLICENT_KEY")
    url = _url(endpoint, "traces")
    sender = Sender(lambda: _exporter(url, token))
    resource = _resource(tags, service or os.environ.get("MILLICENT_SERVICE"))
    budget.instrumented(tags, token)
    handle = Instrumentation(sender, _energy(energy, _url(endpoint, "metrics"), token, resource))
    global _running
    with _lock:
        earlier, _running = _running, handle
        _send(sender, resource, tags, estimate=estimate)
    if earlier is not None:
        atexit.unregister(earlier.shutdown)
        if earlier._energy is not None:  # noqa: SLF001  # our own
            earlier._energy.stop()  # noqa: SLF001  # our own
        earlier._sender.hand_over(sender)  # noqa: SLF001  # our own
    atexit.register(handle.shutdown, EXIT_S)

    def learn(late: "Hardware") -> None:
        known = {**_detected(late), **tags}
        with _lock:
            if _running is handle:
                _send(sender, resource.merge(Resource(typed(known))), known, estimate=estimate)

    if detecting is not None and found is None:
        detecting.later(learn)
    return handle


def _detected(found: "Hardware | None") -> Tags:
    return clean_tags({attributes.ACCELERATOR: found.name, attributes.ACCELERATOR_COUNT: found.count}) if found else {}


def _send(sender: Sender, resource: Resource, tags: Tags, *, estimate: bool) -> None:
    """From now on, send tracked calls as of `resource`, and stamp `tags` onto the app's own spans."""
    provider = TracerProvider(sampler=EveryCall(), resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(sender)
    call.send_spans_to(provider, estimate=estimate)
    _stamp_app_spans(tags)


def _energy(asked: bool | None, url: str, key: str | None, resource: Resource) -> "EnergyReader | None":
    """What reads the energy counters, if it is asked for."""
    if asked is None:
        asked = os.environ.get("MILLICENT_ENERGY", "").strip().lower() in _YES
    if not asked:
        return None
    from millicent.sdk.energy import EnergyReader  # noqa: PLC0415  # only those who ask for it pay for it

    return EnergyReader(lambda: _metrics_exporter(url, key), resource)


def _setting(name: str, argument: object) -> object:
    """Return a tag's value: the argument, else `MILLICENT_TEAM` and so on."""
    return os.environ.get(name.upper().replace(".", "_")) if argument is None else argument


def _url(endpoint: str | None, signal: str) -> str:
    base = endpoint or os.environ.get("MILLICENT_ENDPOINT")
    if base is None:
        exact = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
        if exact:
            return exact
        base = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") if signal != "traces" else None
        base = base or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or DEFAULT_ENDPOINT
    if "://" not in base:
        base = f"http://{base}"
    return f"{base.rstrip('/').removesuffix('/v1/traces')}/v1/{signal}"


def _exporter(url: str, key: str | None) -> SpanExporter:
    # The exporter and its HTTP stack take as long to import as all of OpenTelemetry: only here, in the sending thread.
    from opentelemetry.exporter.otlp.proto.http import Compression  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    return OTLPSpanExporter(endpoint=url, headers=_headers(key), compression=Compression.Gzip)


def _metrics_exporter(url: str, key: str | None) -> "MetricExporter":
    from opentelemetry.exporter.otlp.proto.http import Compression  # noqa: PLC0415  # as above
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415  # as above

    return OTLPMetricExporter(endpoint=url, headers=_headers(key), compression=Compression.Gzip)


def _headers(key: str | None) -> dict[str, str] | None:
    return {"authorization": f"Bearer {key}"} if key else None


def _resource(tags: Tags, service: str | None) -> Resource:
    """Say the same about this process as the app's own provider does, if it has one, and add our tags."""
    ours = dict(typed(tags)) | ({SERVICE_NAME: service} if service else {})
    theirs = getattr(trace.get_tracer_provider(), "resource", None)
    return theirs.merge(Resource(ours)) if isinstance(theirs, Resource) else Resource.create(ours)


def _stamp_app_spans(tags: Tags) -> None:
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        if provider not in _stamps:
            _stamps[provider] = TokenSpanProcessor()
            provider.add_span_processor(_stamps[provider])
        _stamps[provider].defaults = typed(tags)

"""What the SDK costs its host: time per tracked call, and time to import, each beside OpenTelemetry's own.

The reference span carries the very attributes that the tracked call writes, set as OpenTelemetry's own
instrumentations do: what is known before the call at its start, the rest in one step at its end.
"""

import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from openai.types.chat import ChatCompletion
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind

from millicent.sdk import attributes, track_tokens

CALLS, ROUNDS, IMPORTS = 1_000, 101, 15
RATIO_TARGET, IMPORT_TARGET_MS = 1.3, 20.0

ANSWER = ChatCompletion.model_validate(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "choices": [],
        "service_tier": "default",
        "usage": {
            "prompt_tokens": 1200,
            "completion_tokens": 300,
            "total_tokens": 1500,
            "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 200, "audio_tokens": 0},
        },
    }
)


class Keep(SpanProcessor):
    """Keeps the last span, so that both sides can be compared."""

    last: ReadableSpan

    def on_end(self, span: ReadableSpan) -> None:
        """Keep a span."""
        self.last = span


def ask(model: str) -> ChatCompletion:  # noqa: ARG001  # the tracked call reads it
    """Answer at once."""
    return ANSWER


def seconds_per_call(function: Callable[..., object]) -> float:
    started = time.perf_counter()
    for _ in range(CALLS):
        function(model="gpt-4o")
    return (time.perf_counter() - started) / CALLS


def overhead(keep: Keep) -> list[tuple[float, float]]:
    """Return the seconds of a bare span and of a tracked call, measured in turns."""
    tracked = track_tokens(team="search", project="assistant", environment="production")(ask)
    tracked(model="gpt-4o")
    written = dict(keep.last.attributes or {})
    known = {
        key: value for key, value in written.items() if key in (attributes.OPERATION, attributes.REQUEST_MODEL)
    } | {key: value for key, value in written.items() if key.startswith("millicent.") and "usage" not in key}
    told = {key: value for key, value in written.items() if key not in known}
    tracer = trace.get_tracer("bare")

    def bare(model: str) -> ChatCompletion:
        with tracer.start_as_current_span(f"chat {model}", kind=SpanKind.CLIENT, attributes=known) as span:
            answer = ask(model)
            span.set_attributes(told)
            return answer

    bare("gpt-4o")
    if dict(keep.last.attributes or {}) != written:
        raise SystemExit("the two spans differ; the comparison would be unfair")
    return [(seconds_per_call(bare), seconds_per_call(tracked)) for _ in range(ROUNDS)]


def import_ms(modules: Sequence[str]) -> list[float]:
    """Return the median milliseconds to import each module, each time in a new interpreter, in turns."""
    program = "import time; t = time.perf_counter(); import {}; print((time.perf_counter() - t) * 1000)"
    runs = [
        [float(subprocess.check_output([sys.executable, "-c", program.format(module)])) for module in modules]
        for _ in range(IMPORTS)
    ]
    return [statistics.median(run[index] for run in runs) for index in range(len(modules))]


def main() -> None:
    keep = Keep()
    provider = TracerProvider()
    provider.add_span_processor(keep)
    trace.set_tracer_provider(provider)
    gc.disable()
    turns = overhead(keep)
    bare_s, tracked_s = (statistics.median(side) for side in zip(*turns, strict=True))
    ratio = statistics.median(tracked / bare for bare, tracked in turns)  # a busy machine slows both sides of a turn
    print(f"bare OpenTelemetry span     {bare_s * 1e6:8.2f} µs/call  (reference)")
    print(f"@track_tokens               {tracked_s * 1e6:8.2f} µs/call")
    print(f"ratio                       {ratio:8.2f} ×        (target ≤ {RATIO_TARGET} ×)")
    otel_ms, sdk_ms = import_ms(["opentelemetry.sdk.trace", "millicent.sdk"])
    print(f"import opentelemetry.sdk    {otel_ms:8.1f} ms       (reference)")
    print(f"import millicent.sdk        {sdk_ms:8.1f} ms")
    print(f"difference                  {sdk_ms - otel_ms:8.1f} ms       (target ≤ {IMPORT_TARGET_MS:.0f} ms)")


if __name__ == "__main__":
    main()

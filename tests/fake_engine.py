"""Engines and exporters that count, for tests: real HTTP, each engine's own metric names, totals that are known.

    python tests/fake_engine.py --engine vllm --port 8000

serves `/metrics` of an engine that is asked something every now and then. In tests, `FakeEngine` runs on a free port:
`serve` adds a request, `restart` begins all counters again, and `mode` makes it load, fail, dawdle or talk nonsense.
"""

import argparse
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

MODEL = "meta-llama/Llama-3.3-70B-Instruct"
PATHS = {"tensorrt_llm": "/prometheus/metrics"}
LOADING = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}


@dataclass
class Totals:
    """What a process has counted; times in seconds, energy in millijoules by UUID."""

    prompt: int = 0
    cached: int = 0
    output: int = 0
    requests: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    energy: dict[str, int] = field(default_factory=dict)

    def add(self, other: "Totals") -> None:
        """Add everything but energy, which belongs to the boards."""
        for one in fields(self):
            if one.name != "energy":
                setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


# ---- texts, as the engines write them


def _head(name: str, kind: str, text: str) -> str:
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def _metric(name: str, kind: str, text: str, *samples: tuple[str, Any]) -> str:
    lines = "".join(f"{name}{labels} {value}\n" for labels, value in samples)
    return _head(name, kind, text) + lines


def _histogram(name: str, text: str, labels: str, total: float, count: int) -> str:
    inside = labels.strip("{}")
    sep = "," if inside else ""
    edges = "".join(f'{name}_bucket{{{inside}{sep}le="{edge}"}} {count}.0\n' for edge in ("0.3", "10.0", "+Inf"))
    return f"{_head(name, 'histogram', text)}{edges}{name}_count{labels} {count}.0\n{name}_sum{labels} {total}\n"


def _process(started: float | None) -> str:
    noise = _metric(
        "python_gc_objects_collected_total", "counter", "Objects collected during gc", ('{generation="0"}', 9001.0)
    )
    if started is None:
        return noise
    return noise + _metric(
        "process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", ("", started)
    )


def vllm(t: Totals, running: int, waiting: int, started: float | None) -> str:
    of = f'{{engine="0",model_name="{MODEL}"}}'
    labelled = of[:-1]
    computed = t.prompt - t.cached
    return "".join(
        [
            _process(started),
            _metric("vllm:num_requests_running", "gauge", "Number of requests in model execution batches.",
                    (of, float(running))),
            _metric("vllm:num_requests_waiting", "gauge", "Number of requests waiting to be processed.",
                    (of, float(waiting))),
            _metric("vllm:kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent usage.", (of, 0.25)),
            _metric("vllm:prefix_cache_queries_total", "counter", "Prefix cache queries, in tokens.",
                    (of, float(30 * t.prompt))),
            _metric("vllm:prefix_cache_hits_total", "counter", "Prefix cache hits, in tokens.",
                    (of, float(30 * t.cached))),
            _metric("vllm:prompt_tokens_total", "counter", "Number of prefill tokens processed.",
                    (of, float(t.prompt))),
            _metric("vllm:prompt_tokens_created", "gauge", "Number of prefill tokens processed.", (of, 1.79e9)),
            _metric("vllm:prompt_tokens_by_source_total", "counter", "Number of prompt tokens by source.",
                    (labelled + ',source="local_compute"}', float(computed)),
                    (labelled + ',source="local_cache_hit"}', float(t.cached)),
                    (labelled + ',source="external_kv_transfer"}', 0.0)),
            _metric("vllm:prompt_tokens_cached_total", "counter", "Number of cached prompt tokens (local + external).",
                    (of, float(t.cached))),
            _metric("vllm:generation_tokens_total", "counter", "Number of generation tokens processed.",
                    (of, float(t.output))),
            _metric("vllm:request_success_total", "counter", "Count of successfully processed requests.",
                    (labelled + ',finished_reason="stop"}', float(t.requests))),
            _histogram("vllm:iteration_tokens_total", "Histogram of number of tokens per engine_step.", of,
                       t.prompt + t.output, t.requests),
            _histogram("vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", of, 0.5,
                       t.requests),
            _histogram("vllm:request_prefill_time_seconds", "Histogram of time spent in PREFILL phase for request.",
                       of, t.prefill_s, t.requests),
            _histogram("vllm:request_decode_time_seconds", "Histogram of time spent in DECODE phase for request.",
                       of, t.decode_s, t.requests),
        ]
    )  # fmt: skip


def sglang(t: Totals, running: int, waiting: int, _: float | None) -> str:
    """Several processes write one directory, so there is no start; label sets appear with the first request."""
    rank = f'{{engine_type="unified",model_name="{MODEL}",pp_rank="0",tp_rank="0"}}'
    of = f'{{model_name="{MODEL}"}}'
    host = t.cached // 3
    told: list[tuple[str, Any]] = [(of, float(t.prompt))] if t.requests else []
    cached = [(f'{{cache_source="{where}",model_name="{MODEL}"}}', float(n))
              for where, n in (("device", t.cached - host), ("host", host)) if n]  # fmt: skip
    return "".join(
        [
            _metric("sglang:num_running_reqs", "gauge", "The number of running requests.", (rank, float(running))),
            _metric("sglang:num_queue_reqs", "gauge", "The number of requests in the waiting queue.",
                    (rank, float(waiting))),
            _metric("sglang:cache_hit_rate", "gauge", "The prefix cache hit rate.", (rank, 0.0)),
            _metric("sglang:prompt_tokens_total", "counter", "Number of prefill tokens processed.", *told),
            _metric("sglang:generation_tokens_total", "counter", "Number of generation tokens processed.",
                    *([(of, float(t.output))] if t.requests else [])),
            _metric("sglang:cached_tokens_total", "counter", "Number of cached prompt tokens by source.", *cached),
            _histogram("sglang:time_to_first_token_seconds", "Histogram of time to first token in seconds.", of, 0.5,
                       t.requests) if t.requests else "",
        ]
    )  # fmt: skip


def tensorrt_llm(t: Totals, running: int, waiting: int, started: float | None) -> str:
    of = f'{{engine_type="undefined",model_name="{MODEL}"}}'
    return "".join(
        [
            _process(started),
            _metric("trtllm_num_requests_running", "gauge", "Number of requests running", (of, float(running))),
            _metric("trtllm_num_requests_waiting", "gauge", "Number of requests waiting", (of, float(waiting))),
            _metric("trtllm_prompt_tokens_total", "counter", "Prompt tokens", (of, float(t.prompt))),
            _metric("trtllm_generation_tokens_total", "counter", "Generation tokens", (of, float(t.output))),
            _metric("trtllm_prompt_cached_tokens_total", "counter", "Cached prompt tokens", (of, float(t.cached))),
            _histogram("trtllm_time_to_first_token_seconds", "Time to first token", of, 0.5, t.requests),
            _histogram("trtllm_request_prefill_time_seconds", "Prefill time", of, t.prefill_s, t.requests),
            _histogram("trtllm_request_decode_time_seconds", "Decode time", of, t.decode_s, t.requests),
        ]
    )


def triton(t: Totals, running: int, waiting: int, _: float | None) -> str:
    """No start, token counts as histograms (newer backends only), and the energy of its boards in joules."""
    of = '{model="tensorrt_llm",version="1"}'
    kinds = {"waiting": waiting, "context": 0, "scheduled": running, "max": 512, "active": running + waiting}
    requests = [(f'{{model="tensorrt_llm",request_type="{kind}",version="1"}}', n) for kind, n in kinds.items()]
    energy = [(f'{{gpu_uuid="{uuid}"}}', f"{mj / 1000:.6f}") for uuid, mj in t.energy.items()]
    return "".join(
        [
            _metric("nv_inference_request_success", "counter", "Number of successful inference requests, all batch "
                    "sizes", (of, t.requests)),
            _metric("nv_trt_llm_request_metrics", "gauge", "TRT LLM request metrics", *requests),
            _metric("nv_energy_consumption", "counter", "GPU energy consumption in joules since the Triton Server "
                    "started", *energy),
            _metric("nv_gpu_power_usage", "gauge", "GPU power usage in watts",
                    *((f'{{gpu_uuid="{uuid}"}}', "412.000000") for uuid in t.energy)),
        ]
    )  # fmt: skip


def tgi(t: Totals, running: int, waiting: int, _: float | None) -> str:
    return "".join(
        [
            _metric("tgi_request_count", "counter", "Total number of requests", ("", t.requests)),
            _metric("tgi_batch_current_size", "gauge", "Current batch size", ("", running)),
            _metric("tgi_queue_size", "gauge", "Current number of requests in the queue", ("", waiting)),
            _histogram("tgi_request_input_length", "Input token length per request", "", t.prompt, t.requests),
            _histogram("tgi_request_generated_tokens", "Generated tokens per request", "", t.output, t.requests),
            _histogram("tgi_batch_inference_duration", "Batch inference duration", '{method="prefill"}', t.prefill_s,
                       t.requests),
            _histogram("tgi_batch_inference_duration", "Batch inference duration", '{method="decode"}', t.decode_s,
                       t.requests),
        ]
    )  # fmt: skip


def llamacpp(t: Totals, running: int, waiting: int, _: float | None) -> str:
    rows = (
        ("prompt_tokens_total", "counter", "Number of prompt tokens processed, excluding cached tokens",
         t.prompt - t.cached),
        ("prompt_tokens_cached_total", "counter", "Number of prompt tokens reused from the cache", t.cached),
        ("prompt_seconds_total", "counter", "Total time spent processing prompts", f"{t.prefill_s:g}"),
        ("tokens_predicted_total", "counter", "Number of generation tokens processed", t.output),
        ("tokens_predicted_seconds_total", "counter", "Total time spent generating tokens", f"{t.decode_s:g}"),
        ("n_decode_total", "counter", "Total number of llama_decode() calls", t.output),
        ("requests_processing", "gauge", "Number of requests processing", running),
        ("requests_deferred", "gauge", "Number of requests deferred", waiting),
    )  # fmt: skip
    return "".join(_metric(f"llamacpp:{name}", kind, text, ("", value)) for name, kind, text, value in rows)


def dynamo(t: Totals, running: int, waiting: int, _: float | None) -> str:
    of = f'{{model="{MODEL}"}}'
    return "\n".join(
        [
            _metric("dynamo_frontend_inflight_requests", "gauge", "Number of inflight requests", (of, running)),
            _metric("dynamo_frontend_queued_requests", "gauge", "Number of requests in HTTP processing queue",
                    (of, waiting)),
            _metric("dynamo_frontend_output_tokens_total", "counter", "Total number of output tokens generated",
                    (of, t.output)),
            _histogram("dynamo_frontend_input_sequence_tokens", "Input sequence length in tokens", of, t.prompt,
                       t.requests),
            _histogram("dynamo_frontend_cached_tokens", "Number of cached tokens per request", of, t.cached,
                       t.requests),
            _histogram("dynamo_frontend_time_to_first_token_seconds", "Time to first token in seconds", of, 0.5,
                       t.requests),
        ]
    )  # fmt: skip


def lmdeploy(t: Totals, running: int, waiting: int, started: float | None) -> str:
    of = f'{{engine="0",model_name="{MODEL}"}}'
    return "".join(
        [
            _process(started),
            _metric("lmdeploy:num_requests_running", "gauge", "Number of requests in model execution batches.",
                    (of, float(running))),
            _metric("lmdeploy:num_requests_waiting", "gauge", "Number of requests waiting to be processed.",
                    (of, float(waiting))),
            _metric("lmdeploy:prompt_tokens_total", "counter", "Number of prefill tokens processed.",
                    (of, float(t.prompt))),
            _metric("lmdeploy:generation_tokens_total", "counter", "Number of generation tokens processed.",
                    (of, float(t.output))),
            _histogram("lmdeploy:time_to_first_token_seconds", "Time to first token", of, 0.5, t.requests),
            _histogram("lmdeploy:request_prefill_time_seconds", "Prefill time", of, t.prefill_s, t.requests),
            _histogram("lmdeploy:request_decode_time_seconds", "Decode time", of, t.decode_s, t.requests),
        ]
    )  # fmt: skip


def vllm_mlx(t: Totals, running: int, waiting: int, started: float | None) -> str:
    of = '{endpoint="chat_completions",stream="false"}'
    return "".join(
        [
            _process(started),
            _metric("vllm_mlx_prompt_tokens_total", "counter", "Prompt/input tokens processed by endpoint.",
                    (of, float(t.prompt))),
            _metric("vllm_mlx_completion_tokens_total", "counter", "Generated output tokens produced by endpoint.",
                    (of, float(t.output))),
            _metric("vllm_mlx_scheduler_running_requests", "gauge", "Running requests.", ("", float(running))),
            _metric("vllm_mlx_scheduler_waiting_requests", "gauge", "Waiting requests.", ("", float(waiting))),
        ]
    )  # fmt: skip


def aphrodite(t: Totals, running: int, waiting: int, started: float | None) -> str:
    return vllm(t, running, waiting, started).replace("vllm:", "aphrodite:").replace("prompt_tokens_cached", "other")


def dcgm(t: Totals, *_: Any) -> str:
    """As dcgm-exporter writes it; a board cut into instances (MIG) tells its energy once for each of them."""
    boards = []
    for n, (uuid, millijoules) in enumerate(t.energy.items()):
        names = f'gpu="{n}",UUID="{uuid}",device="nvidia{n}",modelName="NVIDIA H100 80GB HBM3"'
        slices = ('GPU_I_PROFILE="3g.40gb",GPU_I_ID="1",', 'GPU_I_PROFILE="3g.40gb",GPU_I_ID="2",')
        for of in slices if "mig" in uuid else ("",):
            labels = f'{{{names},{of}Hostname="node-1",DCGM_FI_DRIVER_VERSION="580.95.05"}}'
            boards.append((labels, millijoules))
    power = [(labels, "412.351000") for labels, _ in boards]
    return _metric("DCGM_FI_DEV_POWER_USAGE", "gauge", "Power draw (in W).", *power) + _metric(
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "counter", "Total energy consumption since boot (in mJ).", *boards
    )


TEXTS: dict[str, Callable[..., str]] = {
    "vllm": vllm, "sglang": sglang, "tensorrt_llm": tensorrt_llm, "triton_trtllm": triton, "tgi": tgi,
    "llamacpp": llamacpp, "dynamo": dynamo, "lmdeploy": lmdeploy, "vllm_mlx": vllm_mlx, "aphrodite": aphrodite,
    "dcgm": dcgm,
}  # fmt: skip


# ---- the server


class FakeEngine:
    """One process that serves its counters; `with` runs it on a free port.

    Attributes:
        totals: What the process that runs now has counted.
        ever: What all its processes have counted.
        running: Requests that run.
        waiting: Requests that wait.
        mode: "up", "loading" (503), "broken" (500), "denied" (401), "moved" (307), "slow" (no answer until `go_on` is
            set), "nonsense" (HTML), "huge" (more than anybody reads), "cut" (breaks off in the middle).
        started: When the process began (seconds since 1970), where the engine tells; None hides it.
        rewrite: What is done to the text before it is sent.
        looks: How often it was asked.
    """

    def __init__(self, engine: str = "vllm", *, port: int = 0, started: float | None = None) -> None:
        self.engine = engine
        self.totals, self.ever = Totals(), Totals()
        self.running = self.waiting = 0
        self.mode = "up"
        self.started = started
        self.rewrite: Callable[[str], str] = str
        self.looks = 0
        self.go_on = threading.Event()
        self._port = port
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        """Where its counters are."""
        return f"http://127.0.0.1:{self._port}{PATHS.get(self.engine, '/metrics')}"

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def up(self) -> None:
        """Listen, on the same port as before."""
        self._server = _Server(("127.0.0.1", self._port), type("Handler", (_Handler,), {"fake": self}))
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def down(self) -> None:
        """Listen no more: who connects is refused."""
        self.go_on.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def serve(
        self, prompt: int = 0, output: int = 0, cached: int = 0, prefill_s: float = 0, decode_s: float = 0
    ) -> None:
        """One request more."""
        one = Totals(prompt, cached, output, 1, prefill_s, decode_s)
        self.totals.add(one)
        self.ever.add(one)

    def draw(self, **millijoules: int) -> None:
        """Energy of boards by UUID."""
        for of in (self.totals, self.ever):
            for uuid, more in millijoules.items():
                of.energy[uuid] = of.energy.get(uuid, 0) + more

    def restart(self, started: float | None = None) -> None:
        """Begin a new process, with counters from 0."""
        self.totals = Totals(energy=dict.fromkeys(self.totals.energy, 0))
        self.started = started

    def text(self) -> str:
        """What it answers when it is well."""
        whole = TEXTS[self.engine](self.totals, self.running, self.waiting, self.started)
        return self.rewrite(whole)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True


class _Handler(BaseHTTPRequestHandler):
    fake: FakeEngine

    def do_GET(self) -> None:
        fake = self.fake
        fake.looks += 1
        if self.path == "/elsewhere":
            self._send(200, fake.text().encode())
            return
        if self.path.partition("?")[0] != PATHS.get(fake.engine, "/metrics"):
            self._send(404, b'{"detail":"Not Found"}', "application/json")
            return
        answer = {"loading": 503, "broken": 500, "denied": 401, "moved": 307}.get(fake.mode)
        if answer is not None:
            self._send(answer, repr(LOADING).encode(), "application/json")
        elif fake.mode == "nonsense":
            self._send(200, b"<!doctype html><title>Welcome</title>", "text/html")
        elif fake.mode == "huge":
            self._stream(b"# " + b"x" * (1 << 20) + b"\n", 9)
        elif fake.mode == "cut":
            self._send(200, fake.text().encode()[:50], missing=100)
        else:
            if fake.mode == "slow":
                fake.go_on.wait(60)
            self._send(200, fake.text().encode())

    def _send(self, status: int, body: bytes, kind: str = "text/plain; version=0.0.4", missing: int = 0) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body) + missing))
        if status == 307:
            self.send_header("location", "/elsewhere")
        self.end_headers()
        self._write([body])

    def _stream(self, part: bytes, times: int) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.end_headers()
        self._write(part for _ in range(times))

    def _write(self, parts: "Iterator[bytes] | list[bytes]") -> None:
        try:
            for part in parts:
                self.wfile.write(part)
        except ConnectionError:  # nobody listens any more
            return

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


def main() -> None:
    """Serve until interrupted, with a request every now and then."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=sorted(TEXTS), default="vllm")
    parser.add_argument("--port", type=int, default=8000)
    told = parser.parse_args()
    with FakeEngine(told.engine, port=told.port, started=time.time()) as fake:
        print(fake.url, flush=True)  # noqa: T201 - tells whoever started it where it is
        try:
            while True:
                fake.running = random.randint(0, 3)
                fake.serve(prompt=1200, cached=1024, output=300, prefill_s=0.2, decode_s=4.5)
                fake.draw(**{"GPU-0": 900_000, "GPU-1": 850_000})
                time.sleep(1)
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()

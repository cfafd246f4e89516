"""How fast requests are received, checked, synced to disk and acknowledged, over loopback.

    python benchmarks/receive.py [--seconds 5] [--directory DIR]

The reference, in the same run: the same server and the same load with a handler that answers 200 and reads nothing.
Load generator and server share the machine, so "per core" divides by the processor time that the server used.
"""

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from millicent.collector import otlp_pb2 as otlp
from millicent.collector.receiver import Principal, Receiver
from millicent.collector.serve import serve
from millicent.collector.spool import Spool, SpoolReader
from millicent.collector.telemetry import Telemetry

CASES = ((512, 1), (512, 8), (5, 1), (5, 32), (5, 128))  # spans in a request, connections


def request(spans: int) -> bytes:
    """One export of `spans` calls as an instrumented client sends it, headers included."""

    def text(key: str, value: str) -> otlp.KeyValue:
        return otlp.KeyValue(key=key, value=otlp.AnyValue(string_value=value))

    def number(key: str, value: int) -> otlp.KeyValue:
        return otlp.KeyValue(key=key, value=otlp.AnyValue(int_value=value))

    calls = [
        otlp.Span(
            trace_id=os.urandom(16),
            span_id=os.urandom(8),
            parent_span_id=os.urandom(8),
            name="chat gpt-5-mini",
            kind=3,
            start_time_unix_nano=time.time_ns(),
            end_time_unix_nano=time.time_ns() + 10**9,
            attributes=[
                text("gen_ai.operation.name", "chat"),
                text("gen_ai.provider.name", "openai"),
                text("gen_ai.request.model", "gpt-5-mini"),
                text("gen_ai.response.model", "gpt-5-mini-2025-08-07"),
                text("gen_ai.response.id", f"chatcmpl-{os.urandom(15).hex()}"),
                text("server.address", "api.openai.com"),
                text("millicent.team", "search"),
                text("millicent.project", "ranking"),
                text("millicent.feature", "query-rewrite"),
                number("gen_ai.usage.input_tokens", 1200 + index),
                number("gen_ai.usage.output_tokens", 300),
                number("gen_ai.usage.cache_read.input_tokens", 1024),
                number("server.port", 443),
            ],
        )
        for index in range(spans)
    ]
    scope = otlp.ScopeSpans(scope=otlp.InstrumentationScope(name="millicent.sdk", version="0.1.0"), spans=calls)
    resource = otlp.Resource(attributes=[text("service.name", "ranker"), text("deployment.environment.name", "prod")])
    export = otlp.ExportTraceServiceRequest(resource_spans=[otlp.ResourceSpans(resource=resource, scope_spans=[scope])])
    body = export.SerializeToString()
    head = (
        "POST /v1/traces HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/x-protobuf\r\n"
        f"authorization: Bearer benchmark\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Client(asyncio.Protocol):
    """One connection that sends the next request when the last one is answered."""

    def __init__(self, data: bytes, deadline: float, done: "asyncio.Future[None]") -> None:
        self.data, self.deadline, self.done = data, deadline, done
        self.latencies_s: list[float] = []

    def connection_made(self, transport: asyncio.WriteTransport) -> None:  # type: ignore[override]  # it is TCP
        self.transport = transport
        self._send()

    def _send(self) -> None:
        self.sent = time.perf_counter()
        self.transport.write(self.data)

    def data_received(self, data: bytes) -> None:
        if not data.startswith(b"HTTP/1.1 200 "):
            self.done.set_exception(RuntimeError(data.decode(errors="replace")))
            self.transport.close()
            return
        now = time.perf_counter()
        self.latencies_s.append(now - self.sent)
        if now < self.deadline:
            self._send()
        else:
            self.done.set_result(None)
            self.transport.close()


async def load(port: int, data: bytes, connections: int, seconds: float) -> list[float]:
    """Keep `connections` busy and return every latency in seconds."""
    loop = asyncio.get_running_loop()
    deadline = time.perf_counter() + seconds
    clients = [Client(data, deadline, loop.create_future()) for _ in range(connections)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.gather(*(client.done for client in clients))
    return [latency for client in clients for latency in client.latencies_s]


async def answer_200(_scope: Any, _receive: Any, send: Any) -> None:
    """The reference."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def run_server(directory: str) -> None:
    if directory == "reference":
        config = uvicorn.Config(answer_200, http="httptools", loop="uvloop", lifespan="off", ws="none",
                                server_header=False, access_log=False, log_config=None,
                                timeout_graceful_shutdown=1)  # fmt: skip
        listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        print(listener.getsockname()[1], flush=True)
        uvicorn.Server(config).run([listener])
        return
    benchmark = Principal("benchmark", "benchmark")
    telemetry = Telemetry()
    with Spool(Path(directory), on_commit=telemetry.synced) as spool:
        app = Receiver(spool, lambda _: benchmark, telemetry)
        serve(app, port=0, parent=0, ready=lambda at: print(at.port, flush=True))


def measure(server: str, spans: int, connections: int, seconds: float) -> tuple[float, float, list[float]]:
    """Requests per second, the same per second of the server's processor time, and the latencies."""
    child = subprocess.Popen([sys.executable, __file__, "--serve", server], stdin=-1, stdout=-1, text=True)
    assert child.stdout
    port = int(child.stdout.readline())
    data = request(spans)
    uvloop.run(load(port, data, connections, 0.3))  # warm
    before = processor_seconds(child.pid)
    begun = time.perf_counter()
    latencies = uvloop.run(load(port, data, connections, seconds))
    elapsed = time.perf_counter() - begun
    used = processor_seconds(child.pid) - before
    child.terminate()
    child.communicate()
    return len(latencies) / elapsed, len(latencies) / used, latencies


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each case")
    parser.add_argument("--directory", type=Path, help="on the disk to measure; default: the temporary directory")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        run_server(arguments.serve)
        return
    print(f"{os.cpu_count()} cores, {arguments.seconds} s a case; reference: answers 200, reads nothing\n")
    print(f"{'':26}│ {'acknowledged':>37} │ {'per core':>17} │ {'reference':>17}")
    print("spans  conns  KiB/request │ requests/s   calls/s  p50 ms  p99 ms │ requests    calls │ requests/s  /core")
    for spans, connections in CASES:
        with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
            rate, per_core, latencies = measure(directory, spans, connections, arguments.seconds)
            kept = SpoolReader(Path(directory)).total_spans()
            assert kept >= len(latencies) * spans, f"acknowledged {len(latencies) * spans}, kept {kept}"
        base, base_per_core, _ = measure("reference", spans, connections, arguments.seconds)
        p50, p99 = (1000 * q for q in (statistics.median(latencies), statistics.quantiles(latencies, n=100)[98]))
        print(
            f"{spans:5}  {connections:5}  {len(request(spans)) / 1024:11.1f} │ {rate:10,.0f} {rate * spans:9,.0f} "
            f"{p50:7.2f} {p99:7.2f} │ {per_core:8,.0f} {per_core * spans:8,.0f} │ {base:10,.0f} {base_per_core:6,.0f}"
        )


if __name__ == "__main__":
    main()

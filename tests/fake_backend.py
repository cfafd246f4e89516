"""A tracing back end: takes OTLP over HTTP and keeps it, or answers as it is told."""

import gzip
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Backend(ThreadingHTTPServer):
    """Listens as soon as it is made.

    Attributes:
        taken: Requests answered with 200, in order.
        requests: Path of every request, and its headers by lower-case name.
        answers: Status, headers and body for the next requests; 200 without a body afterwards.
        refuses: Gives a status for a request that is refused whenever it comes, else 0.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int = 0) -> None:
        self.taken: list[ExportTraceServiceRequest] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.refuses = lambda _: 0
        super().__init__(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def spans(self) -> list[Span]:
        """Every span taken, in order, one that came again again."""
        return [
            span for message in self.taken for r in message.resource_spans for s in r.scope_spans for span in s.spans
        ]

    def ids(self) -> Counter[bytes]:
        """How often each span came."""
        return Counter(span.span_id for span in self.spans())

    def close(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Backend

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        message = ExportTraceServiceRequest.FromString(gzip.decompress(body))
        self.server.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        status, headers, answer = self.server.refuses(message) or 200, dict[str, str](), b""
        if status == 200 and self.server.answers:
            status, headers, answer = self.server.answers.pop(0)
        if status == 200:
            self.server.taken.append(message)
        self.send_response(status)
        for name, value in {"content-length": str(len(answer)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass

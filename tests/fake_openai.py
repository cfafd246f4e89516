"""A small OpenAI-compatible server for tests and examples: real HTTP, invented answers, any usage you like.

    python tests/fake_openai.py --port 9100

serves `/v1/chat/completions` (whole and streamed), `/v1/responses` (whole and streamed) and `/v1/embeddings`
without looking at the key. In tests, `FakeOpenAI` runs it on a free port and its attributes choose the answers.
"""

import argparse
import itertools
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

ANSWER = "The answer is forty-two."


def _completion_usage() -> dict[str, Any]:
    return {
        "prompt_tokens": 1200,
        "completion_tokens": 300,
        "total_tokens": 1500,
        "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 192, "audio_tokens": 0},
    }


def _response_usage() -> dict[str, Any]:
    return {
        "input_tokens": 1200,
        "input_tokens_details": {"cached_tokens": 1024, "cache_write_tokens": 128},
        "output_tokens": 300,
        "output_tokens_details": {"reasoning_tokens": 192},
        "total_tokens": 1500,
    }


@dataclass
class FakeOpenAI:
    """What the server answers, and what it was asked.

    Attributes:
        completion_usage: `usage` of chat completions; None leaves it out.
        response_usage: `usage` of the Responses API.
        service_tier: Tier that every answer reports.
        model: Model that every answer names; None repeats the one asked for.
        status: HTTP status; 400 and above answers an error.
        refusals: How many of the next requests are answered 429, whatever `status` says.
        breaks_after: Chunks of a stream after which the connection breaks off; None lets it end.
        requests: Bodies received so far.
    """

    completion_usage: dict[str, Any] | None = field(default_factory=_completion_usage)
    response_usage: dict[str, Any] | None = field(default_factory=_response_usage)
    service_tier: str = "default"
    model: str | None = None
    status: int = 200
    refusals: int = 0
    breaks_after: int | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self._server = _Server(("127.0.0.1", self.port), type("Handler", (_Handler,), {"fake": self}))
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def serve_forever(self) -> None:
        """Serve in this thread until interrupted."""
        self._server.serve_forever()

    def next_status(self) -> int:
        """Return the status of the next answer."""
        if not self.refusals:
            return self.status
        self.refusals -= 1
        return 429

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any] | Iterator[dict[str, Any]]:
        """Return the answer to one request: an object, or the events of a stream."""
        if path.endswith("/chat/completions"):
            return self._chunks(body) if body.get("stream") else self._completion(body)
        if path.endswith("/responses"):
            return self._events(body) if body.get("stream") else self._response(body)
        if path.endswith("/embeddings"):
            usage = {"prompt_tokens": 8, "total_tokens": 8}
            vector = {"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}
            return {"object": "list", "model": self.model or body["model"], "data": [vector], "usage": usage}
        raise LookupError(path)

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": ANSWER, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        usage = {} if self.completion_usage is None else {"usage": self.completion_usage}
        return self._head(body, "chat.completion", "chatcmpl-") | {"choices": [choice]} | usage

    def _chunks(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        wants_usage = (body.get("stream_options") or {}).get("include_usage", False)
        usage = {"usage": None} if wants_usage else {}
        head = self._head(body, "chat.completion.chunk", "chatcmpl-")
        for word in ANSWER.split():
            yield head | usage | {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
        yield head | usage | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        if wants_usage:
            yield head | {"choices": [], "usage": self.completion_usage}

    def _response(self, body: dict[str, Any]) -> dict[str, Any]:
        text = {"type": "output_text", "text": ANSWER, "annotations": []}
        message = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [text]}
        return {
            **self._head(body, "response", "resp_"),
            "created_at": 1_790_000_000,
            "status": "completed",
            "output": [message],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": self.response_usage,
        }

    def _events(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        whole = self._response(body)
        begun = whole | {"status": "in_progress", "output": [], "usage": None}
        yield {"type": "response.created", "sequence_number": 0, "response": begun}
        message = {"type": "message", "id": "msg_1", "status": "in_progress", "role": "assistant", "content": []}
        yield {"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": message}
        position = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        part = {"type": "output_text", "text": "", "annotations": []}
        yield {"type": "response.content_part.added", "sequence_number": 2, "part": part, **position}
        for number, word in enumerate(ANSWER.split(), 3):
            delta = {"delta": word, "logprobs": []}
            yield {"type": "response.output_text.delta", "sequence_number": number, **delta, **position}
        yield {"type": "response.completed", "sequence_number": 99, "response": whole}

    def _head(self, body: dict[str, Any], kind: str, prefix: str) -> dict[str, Any]:
        return {
            "id": f"{prefix}{next(self._numbers)}",
            "object": kind,
            "created": 1_790_000_000,
            "model": self.model or body["model"],
            "service_tier": self.service_tier,
        }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class _Handler(BaseHTTPRequestHandler):
    fake: FakeOpenAI
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.fake.requests.append(body)
        status = self.fake.next_status()
        if status >= 400:
            self._send(status, {"error": {"message": "as configured", "type": "test", "code": None}})
            return
        try:
            answer = self.fake.answer(self.path, body)
        except LookupError:
            self._send(404, {"error": {"message": f"no such path: {self.path}", "type": "test", "code": None}})
            return
        if isinstance(answer, dict):
            self._send(200, answer)
        else:
            self._stream(answer)

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        payload = json.dumps(answer).encode()
        self._begin(status, "application/json", len(payload))
        self.wfile.write(payload)

    def _stream(self, events: Iterator[dict[str, Any]]) -> None:
        is_broken = self.fake.breaks_after is not None
        self._begin(200, "text/event-stream", 1_000_000 if is_broken else None)  # more than will come
        self.close_connection = True
        try:
            for event in itertools.islice(events, self.fake.breaks_after):
                name = f"event: {event['type']}\n" if "type" in event else ""
                self.wfile.write(f"{name}data: {json.dumps(event)}\n\n".encode())
            if not is_broken:
                self.wfile.write(b"data: [DONE]\n\n")
        except ConnectionError:  # the client stopped listening
            return

    def _begin(self, status: int, content_type: str, length: int | None) -> None:
        self.send_response(status)
        self.send_header("x-request-id", f"req_{len(self.fake.requests)}")
        self.send_header("content-type", content_type)
        self.send_header(*(("connection", "close") if length is None else ("content-length", str(length))))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=9100)
    fake = FakeOpenAI(port=parser.parse_args().port)
    print(fake.url, flush=True)  # noqa: T201  # tells whoever started it where it is
    try:
        fake.serve_forever()
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()

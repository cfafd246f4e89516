"""A provider for real clients: it invents usage, tells it in each API's own words, and keeps books of what it served.

It speaks OpenAI's chat completions, responses and embeddings, Anthropic's messages and Gemini's generateContent, whole
and streamed. Programs reach it as their HTTP proxy, so that their spans name the host they asked for; the API key says
whose books a request goes to. A prompt may ask for trouble: see `Prompt`.
"""

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any, Self
from urllib.parse import urlsplit

WORDS = ("Forty", "-two", " it is", ".")
PLACEHOLDER = 3
"""Output tokens that Anthropic names when a stream begins; the last message tells the real number."""


class Prompt:
    """What a program says, and what it gets for it."""

    USUAL = "canary: how much is a token?"
    LEFT = "canary: leave before the end"
    TWIN = "canary: answer each of us alike"
    REFUSED = "canary: refuse every try"
    REFUSED_ONCE = "canary: refuse the first try"


@dataclass(frozen=True)
class Usage:
    """What one answer took, in parts that do not overlap."""

    uncached: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    visible: int = 0
    reasoning: int = 0

    @property
    def cache_write(self) -> int:
        return self.cache_write_5m + self.cache_write_1h

    @property
    def input(self) -> int:
        return self.uncached + self.cache_read + self.cache_write

    @property
    def output(self) -> int:
        return self.visible + self.reasoning


PARTS = {
    "cache_read": "cache_read_tokens",
    "cache_write_5m": "cache_write_5m_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "reasoning": "reasoning_tokens",
}


@dataclass(frozen=True)
class Api:
    """One API: whose it is, where (by the ends of path and host), how it answers, which kinds of tokens it knows."""

    name: str
    provider: str
    operation: str
    path: str
    whole: Any
    streamed: Any = None
    kinds: tuple[str, ...] = ("uncached", "cache_read", "visible", "reasoning")
    host: str = ""
    billing: str = "api"


@dataclass(frozen=True)
class Served:
    """One line of the books. `usage` is None where the client was not told any; `id` where there was no answer."""

    api: Api
    host: str
    request_model: str
    response_model: str | None
    streaming: bool
    usage: Usage | None
    id: str | None

    @property
    def refused(self) -> bool:
        return self.id is None

    @property
    def traits(self) -> set[str]:
        """By which of its sides an instrumentation may tell it differently."""
        streamed = {"streamed", f"{self.api.name} streamed"} if self.streaming else {"whole"}
        return {"any", self.api.name} | ({"refused"} if self.refused else streamed)

    def row(self) -> dict[str, Any]:
        """The columns of the record that this call should have."""
        usage = Usage() if self.refused else self.usage
        told = {"input_tokens": "input", "output_tokens": "output"}
        told |= {column: kind for kind, column in PARTS.items() if kind in self.api.kinds}
        told |= {"cache_write_tokens": "cache_write"} if "cache_write_5m" in self.api.kinds else {}
        return {
            "operation": self.api.operation,
            "provider": self.api.provider,
            "billing": self.api.billing,
            "endpoint_host": self.host,
            "request_model": self.request_model,
            "response_model": self.response_model,
            "streaming": self.streaming,
            "status": "error" if self.refused else "ok",
            "usage_source": "missing" if usage is None else "reported",
            **{column: usage and getattr(usage, kind) for column, kind in told.items()},
        }


@dataclass
class Request:
    """One request, as far as every API has it."""

    body: dict[str, Any]
    host: str
    streaming: bool
    usage: Usage
    number: int

    @property
    def model(self) -> str:
        return self.body["model"]

    @property
    def answering(self) -> str:
        """The dated model behind the name asked for; open weights have no date."""
        return (
            self.model
            if "/" in self.model
            else f"{self.model}-{'20251001' if 'claude' in self.model else '2025-08-07'}"
        )

    @property
    def calls_tool(self) -> str | None:
        """The tool that this answer asks for: the first one offered, unless its result is here."""
        tools = self.body.get("tools")
        if not tools or '"tool_call_id"' in (text := json.dumps(self.body)) or '"tool_result"' in text:
            return None
        return tools[0].get("name") or tools[0]["function"]["name"]


# ---- OpenAI


def completion_usage(request: Request) -> dict[str, Any]:
    usage = request.usage
    reasoning = {
        "reasoning_tokens": usage.reasoning,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    }
    return {
        "prompt_tokens": usage.input,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read, "audio_tokens": 0},
        "completion_tokens": usage.output,
        "completion_tokens_details": reasoning if usage.reasoning else None,
        "total_tokens": usage.input + usage.output,
    }


def completion(request: Request) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "".join(WORDS), "refusal": None}
    if request.calls_tool:
        function = {"name": request.calls_tool, "arguments": "{}"}
        message |= {"content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": function}]}
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": "tool_calls" if request.calls_tool else "stop",
        "logprobs": None,
    }
    head = {"id": f"chatcmpl-{request.number:029x}", "created": 1_790_000_000, "model": request.answering}
    return head | {
        "object": "chat.completion",
        "service_tier": "default",
        "choices": [choice],
        "usage": completion_usage(request),
    }


def completion_chunks(request: Request) -> Iterator[dict[str, Any]]:
    told = includes_usage(request)
    head = {key: value for key, value in completion(request).items() if key not in ("choices", "usage")}
    head |= {"object": "chat.completion.chunk"} | ({"usage": None} if told else {})
    for word in WORDS:
        yield head | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": None}]}
    yield head | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    if told:
        yield head | {"choices": [], "usage": completion_usage(request)}


def includes_usage(request: Request) -> bool:
    return bool((request.body.get("stream_options") or {}).get("include_usage"))


def response(request: Request, status: str = "completed") -> dict[str, Any]:
    usage = request.usage
    done = status == "completed"
    text = {"type": "output_text", "text": "".join(WORDS), "annotations": []}
    message = {"type": "message", "id": "msg_1", "status": status, "role": "assistant", "content": [text]}
    return {
        "id": f"resp_{request.number:048x}",
        "object": "response",
        "created_at": 1_790_000_000,
        "status": status,
        "model": request.answering,
        "output": [message] if done else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "service_tier": "default",
        "usage": {
            "input_tokens": usage.input,
            "input_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write},
            "output_tokens": usage.output,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning},
            "total_tokens": usage.input + usage.output,
        } if done else None,
    }  # fmt: skip


def response_events(request: Request) -> Iterator[dict[str, Any]]:
    yield {"type": "response.created", "sequence_number": 0, "response": response(request, "in_progress")}
    for number, word in enumerate(WORDS, 1):
        position = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": []}
        yield {"type": "response.output_text.delta", "sequence_number": number, "delta": word, **position}
    yield {"type": "response.completed", "sequence_number": 99, "response": response(request)}


def embedding(request: Request) -> dict[str, Any]:
    vector = {"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}
    usage = {"prompt_tokens": request.usage.input, "total_tokens": request.usage.input}
    return {"object": "list", "model": request.model, "data": [vector], "usage": usage}


# ---- Anthropic


def message(request: Request) -> dict[str, Any]:
    usage = request.usage
    content: list[dict[str, Any]] = [{"type": "text", "text": "".join(WORDS)}]
    if request.calls_tool:
        content = [{"type": "tool_use", "id": "toolu_1", "name": request.calls_tool, "input": {}}]
    return {
        "id": f"msg_{request.number:024x}",
        "type": "message",
        "role": "assistant",
        "model": request.answering,
        "content": content,
        "stop_reason": "tool_use" if request.calls_tool else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": usage.uncached,
            "cache_read_input_tokens": usage.cache_read,
            "cache_creation_input_tokens": usage.cache_write,
            "cache_creation": {
                "ephemeral_5m_input_tokens": usage.cache_write_5m,
                "ephemeral_1h_input_tokens": usage.cache_write_1h,
            },
            "output_tokens": usage.output,
            "output_tokens_details": {"thinking_tokens": usage.reasoning},
            "service_tier": "standard",
        },
    }


def message_events(request: Request) -> Iterator[dict[str, Any]]:
    whole = message(request)
    began = {**whole["usage"], "output_tokens": PLACEHOLDER}
    began.pop("output_tokens_details")
    yield {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None, "usage": began}}
    (block,) = whole["content"]
    yield {
        "type": "content_block_start",
        "index": 0,
        "content_block": block | ({"text": ""} if "text" in block else {}),
    }
    deltas = [{"type": "text_delta", "text": word} for word in WORDS]
    if request.calls_tool:
        deltas = [{"type": "input_json_delta", "partial_json": "{}"}]
    for delta in deltas:
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    ended = {key: value for key, value in whole["usage"].items() if key not in ("cache_creation", "service_tier")}
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": whole["stop_reason"], "stop_sequence": None},
        "usage": ended,
    }
    yield {"type": "message_stop"}


# ---- Gemini


def generated(request: Request, text: str = "".join(WORDS), share: float = 1) -> dict[str, Any]:
    usage = request.usage
    visible, thoughts = int(usage.visible * share), usage.reasoning
    return {
        "responseId": f"{request.number:022x}",
        "modelVersion": request.model,
        "candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP"}],
        "usageMetadata": {
            "promptTokenCount": usage.input,
            "cachedContentTokenCount": usage.cache_read,
            "candidatesTokenCount": visible,
            "thoughtsTokenCount": thoughts,
            "totalTokenCount": usage.input + visible + thoughts,
        },
    }


def generated_chunks(request: Request) -> Iterator[dict[str, Any]]:
    for number, word in enumerate(WORDS, 1):
        yield generated(request, word, number / len(WORDS))


# ---- the server


APIS = (
    Api("vllm", "self-hosted", "chat", "/chat/completions", completion, completion_chunks,
        ("uncached", "cache_read", "visible"), ".internal", "self_hosted"),
    Api("completions", "openai", "chat", "/chat/completions", completion, completion_chunks),
    Api("responses", "openai", "chat", "/responses", response, response_events),
    Api("embeddings", "openai", "embeddings", "/embeddings", embedding, kinds=("uncached",)),
    Api("messages", "anthropic", "chat", "/messages", message, message_events,
        ("uncached", "cache_read", "cache_write_5m", "cache_write_1h", "visible", "reasoning")),
    Api("gemini", "gcp.gemini", "generate_content", ":generateContent", generated),
    Api("gemini", "gcp.gemini", "generate_content", ":streamGenerateContent", generated, generated_chunks),
)  # fmt: skip


@dataclass
class Provider:
    """Running while it is entered. `books` has, per API key, what was served in the order of the requests."""

    books: dict[str, list[Served]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self._numbers = count(1)
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def serve(self, url: str, headers: dict[str, str], body: dict[str, Any]) -> dict[str, Any] | Iterator | None:
        """Answer one request, and write it down; None refuses it."""
        target = urlsplit(url)
        if target.path.endswith("/count_tokens"):
            return {"input_tokens": 4711}  # bills nothing, so it is not in the books
        host = target.hostname or ""
        api = next(api for api in APIS if target.path.endswith(api.path) and host.endswith(api.host))
        if api.name == "gemini":
            body["model"] = target.path.rpartition("/")[2].partition(":")[0]
        caller = headers.get("x-api-key") or headers.get("x-goog-api-key") or headers["authorization"].split()[-1]
        number, text = next(self._numbers), json.dumps(body)
        streaming = api.path == ":streamGenerateContent" or bool(body.get("stream"))
        request = Request(body, host, streaming, _usage(api, 0 if Prompt.TWIN in text else number), number)
        again = headers.get("x-stainless-retry-count", "0") != "0"
        if again:
            refused = self.books[caller].pop()  # the same call, tried once more
            assert refused.refused, f"{caller} repeats a call that was served"
        asked = (api, request.host, request.model)
        if Prompt.REFUSED in text or (Prompt.REFUSED_ONCE in text and not again):
            self.books[caller].append(Served(*asked, None, streaming, None, None))
            return None
        whole = api.whole(request)
        silent = streaming and api.streamed is completion_chunks and not includes_usage(request)
        told = not silent and Prompt.LEFT not in text
        answered = whole.get("model") or whole["modelVersion"]
        served = Served(*asked, answered, streaming, request.usage if told else None, whole.get("id", str(number)))
        self.books[caller].append(served)
        return api.streamed(request) if streaming else whole


def _usage(api: Api, number: int) -> Usage:
    """No two requests alike, in any of their numbers."""
    invented = {"uncached": 300 + 7 * number, "cache_read": 1024 + 128 * number, "cache_write_5m": 200 + 3 * number,
                "cache_write_1h": 100 + 2 * number, "visible": 40 + number, "reasoning": 64 + number}  # fmt: skip
    return Usage(**{kind: invented[kind] for kind in api.kinds})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def _handler(provider: Provider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            target = self.path if self.path.startswith("http") else f"http://{self.headers['host']}{self.path}"
            match provider.serve(target, {name.lower(): value for name, value in self.headers.items()}, body):
                case dict(answer):
                    self._send(200, answer)
                case None:
                    refusal = {"message": "too many requests", "type": "rate_limit_error", "code": 429}
                    self._send(429, {"type": "error", "error": refusal})
                case events:
                    self._stream(events)

        def _send(self, status: int, answer: dict[str, Any]) -> None:
            payload = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(payload)))
            self.send_header("retry-after-ms", "1")
            self.end_headers()
            self.wfile.write(payload)

        def _stream(self, events: Iterator[dict[str, Any]]) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("connection", "close")
            self.end_headers()
            self.close_connection = True
            try:
                for event in events:
                    name = f"event: {event['type']}\n" if "type" in event else ""
                    self.wfile.write(f"{name}data: {json.dumps(event)}\n\n".encode())
                if self.path.endswith("/chat/completions"):
                    self.wfile.write(b"data: [DONE]\n\n")
            except ConnectionError:  # the client stopped listening
                return

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    return Handler

"""A real llama.cpp server with a tiny model of random weights: what it answered is what its counters told us.

The server comes with `xllamacpp`, which `make install` brings (Linux on x86-64); the model is made here.
"""

import array
import json
import random
import socket
import struct
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec

import httpx
import pytest
from sqlalchemy import select

from millicent.collector.scraping import Scraper
from millicent.warehouse.deployments import Deployment
from millicent.warehouse.store import Warehouse
from millicent.warehouse.tables import METERED, meter_hours

pytestmark = pytest.mark.skipif(find_spec("xllamacpp") is None, reason="no llama.cpp server is built for this machine")
SERVER = """
import sys, xllamacpp
told = xllamacpp.CommonParams()
told.model.path, told.port, told.hostnames = sys.argv[1], int(sys.argv[2]), ["127.0.0.1"]
told.endpoint_metrics, told.n_ctx, told.n_parallel, told.n_gpu_layers, told.warmup = True, 512, 1, 0, False
server = xllamacpp.Server(told)
print("up", flush=True)
sys.stdin.read()
"""


def tiny_model(path, width=64, layers=2, hidden=128):
    """A file as GGUF has it: a llama of random weights that spells in bytes."""
    random_ = random.Random(7)
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581"]

    def text(value):
        raw = value.encode()
        return struct.pack("<Q", len(raw)) + raw

    def many(kind, packed):
        return struct.pack("<IIQ", 9, kind, len(packed)) + b"".join(packed)

    def number(value):
        return struct.pack("<II", 4, value)

    settings = {
        "general.architecture": struct.pack("<I", 8) + text("llama"),
        "llama.context_length": number(512), "llama.embedding_length": number(width),
        "llama.block_count": number(layers), "llama.feed_forward_length": number(hidden),
        "llama.attention.head_count": number(4), "llama.attention.head_count_kv": number(4),
        "llama.rope.dimension_count": number(width // 4), "llama.vocab_size": number(len(pieces)),
        "llama.attention.layer_norm_rms_epsilon": struct.pack("<If", 6, 1e-5),
        "tokenizer.ggml.model": struct.pack("<I", 8) + text("llama"),
        "tokenizer.ggml.tokens": many(8, [text(piece) for piece in pieces]),
        "tokenizer.ggml.scores": many(6, [struct.pack("<f", 0.0)] * len(pieces)),
        "tokenizer.ggml.token_type": many(5, [struct.pack("<i", kind) for kind in [2, 3, 3, *[6] * 256, 1]]),
        "tokenizer.ggml.bos_token_id": number(1), "tokenizer.ggml.eos_token_id": number(2),
        "tokenizer.ggml.unknown_token_id": number(0),
    }  # fmt: skip
    shapes = {"token_embd": (width, len(pieces)), "output_norm": (width,), "output": (width, len(pieces))}
    for n in range(layers):
        shapes |= {f"blk.{n}.{name}": (width,) for name in ("attn_norm", "ffn_norm")}
        shapes |= {f"blk.{n}.attn_{name}": (width, width) for name in ("q", "k", "v", "output")}
        shapes |= {f"blk.{n}.ffn_{name}": (width, hidden) for name in ("gate", "up")}
        shapes[f"blk.{n}.ffn_down"] = (hidden, width)
    head, data = b"", b""
    for name, shape in shapes.items():
        size = shape[0] * (shape[1] if len(shape) > 1 else 1)
        head += text(f"{name}.weight") + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(data))
        weights = [1.0] * size if "norm" in name else [random_.gauss(0, 0.05) for _ in range(size)]
        data += array.array("f", weights).tobytes()
        data += b"\0" * (-len(data) % 32)
    whole = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(settings))
    whole += b"".join(text(key) + value for key, value in settings.items()) + head
    path.write_bytes(whole + b"\0" * (-len(whole) % 32) + data)


class LlamaCpp:
    """The server as a process of its own, on one port for as long as the test lasts."""

    def __init__(self, model):
        self.model = model
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.told = dict.fromkeys(("prompt_n", "cache_n", "predicted_n"), 0)
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, self.model, str(self.port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert self.process.stdout.readline() == b"up\n"

    def kill(self):
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            pipe.close()

    def complete(self, prompt, tokens):
        asked = {"prompt": prompt, "n_predict": tokens, "ignore_eos": True, "cache_prompt": True}
        answer = httpx.post(f"{self.url}/completion", content=json.dumps(asked), timeout=120).json()
        for name in self.told:
            self.told[name] += answer["timings"][name]


def test_a_real_engine_s_counters_are_what_it_answered_through_its_crash_and_ours(tmp_path):
    tiny_model(tmp_path / "tiny.gguf")
    warehouse, now = Warehouse.embedded(tmp_path / "data", memory_limit="256MB"), datetime.now(UTC)
    engine = LlamaCpp(str(tmp_path / "tiny.gguf"))
    try:
        tiny = Deployment(
            name="tiny", model="tiny", engine="llamacpp", accelerator="nvidia-h100-sxm", accelerator_count=1,
            effective_from=now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=1),
            profile={"kind": "rented", "usd_per_hour": "2"}, metrics=(f"{engine.url}/metrics",),
        )  # fmt: skip
        warehouse.control.declare(tiny)
        scraper = Scraper(warehouse)
        scraper.look(datetime.now(UTC))
        engine.complete("Once upon a time", 20)
        engine.complete("Once upon a time, again", 30)
        scraper.look(datetime.now(UTC))
        scraper.commit()
        scraper = Scraper(warehouse)  # ours has ended and begun again
        engine.complete("Once more", 10)
        scraper.look(datetime.now(UTC))
        engine.kill()
        scraper.look(datetime.now(UTC))
        engine.start()
        engine.complete("A new life", 5)
        scraper.look(datetime.now(UTC))
        scraper.commit()
        rows = warehouse.engine.read(select(meter_hours)).to_pylist()
        told = {name: sum(row[name] or 0 for row in rows) for name in METERED}
        assert {row["source"] for row in rows} == {"llamacpp"}
        assert engine.told["cache_n"] > 0
        assert (told["prompt_tokens"], told["cached_tokens"], told["output_tokens"]) == tuple(engine.told.values())
        assert told["prefill_us"] > 0 < told["decode_us"]
        assert told["unavailable_ms"] > 0
        assert told["resets"] == 1
    finally:
        engine.kill()
        warehouse.close()

"""Counting tokens where nobody told, with real tokenizers and no network."""

import logging
import socket
import subprocess
import sys

import openai
import pytest

from millicent.sdk import TokenUsage, attributes, estimate, instrument, sdk_stats, track_tokens
from millicent.sdk.estimate import VOCABULARIES, Estimate, vocabulary_of

splintr = pytest.importorskip("splintr", reason="the extra millicent-sdk[estimate] is not installed")

# OpenAI's own example of counting by hand; its API counts 129 tokens for gpt-4 and 124 for gpt-4o.
EXAMPLE = [
    {"role": role, "name": name, "content": content} if name else {"role": role, "content": content}
    for role, name, content in (
        (
            "system",
            None,
            "You are a helpful, pattern-following assistant that translates corporate jargon into plain English.",
        ),
        ("system", "example_user", "New synergies will help drive top-line growth."),
        ("system", "example_assistant", "Things working well together will increase revenue."),
        (
            "system",
            "example_user",
            "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.",
        ),
        ("system", "example_assistant", "Let's talk later when we're less busy about how to do better."),
        ("user", None, "This late pivot means we don't have time to boil the ocean for the client deliverable."),
    )
]
ANSWER_TOKENS = len(splintr.Tokenizer.from_pretrained("o200k_base").encode_ordinary("Theanswerisforty-two."))


def told(span):
    return tuple(span.attributes.get(name) for name in (attributes.INPUT, attributes.OUTPUT, attributes.USAGE_SOURCE))


@pytest.fixture
def client(fake_openai):
    fake_openai.completion_usage = None
    with openai.OpenAI(base_url=fake_openai.url, api_key="test", max_retries=0) as client:
        yield client


@pytest.mark.parametrize(("model", "tokens"), [("gpt-4", 129), ("gpt-4o", 124), ("openai/gpt-4o-2024-08-06", 124)])
def test_a_chat_is_counted_as_its_provider_does(model, tokens):
    counts = Estimate({"messages": EXAMPLE}).counts(model, {}, "chat")
    assert counts == {attributes.INPUT: tokens}


@pytest.mark.parametrize("vocabulary", [vocabulary for vocabulary, _ in VOCABULARIES])
def test_every_vocabulary_comes_with_the_package(vocabulary, monkeypatch):
    monkeypatch.setattr(socket, "socket", None)
    assert splintr.Tokenizer.from_pretrained(vocabulary).encode_ordinary("The quick brown fox")


@pytest.mark.parametrize(
    ("model", "vocabulary"),
    [
        ("gpt-5-mini", "o200k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("openai/gpt-oss-120b", "o200k_harmony"),
        ("Qwen/Qwen3-8B", "qwen3"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-70B", "llama3"),
        ("deepseek-ai/DeepSeek-V3.1", "deepseek_v3"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama3"),
        ("mistral-small-latest", "mistral_v3"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mistral_v1"),
        ("gemini-2.5-flash", "gemma3"),
        ("claude-sonnet-4-5", None),
        ("Qwen/Qwen3.5-9B", None),
        ("", None),
        (None, None),
    ],
)
def test_a_model_is_counted_in_its_own_vocabulary_or_not_at_all(model, vocabulary):
    assert vocabulary_of(model) == vocabulary


def test_a_stream_without_usage_is_estimated(spans, client):
    ask = track_tokens(estimate=True)(client.chat.completions.create)
    for _ in ask(model="gpt-4o", messages=EXAMPLE, stream=True):
        pass
    assert told(spans.only) == (124, ANSWER_TOKENS, "estimated")


def test_a_whole_answer_without_usage_is_estimated(spans, client):
    track_tokens(estimate=True)(client.chat.completions.create)(model="gpt-4o", messages=EXAMPLE)
    assert told(spans.only)[2] == "estimated"


def test_what_was_told_is_not_estimated(spans, client, fake_openai):
    fake_openai.completion_usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    track_tokens(estimate=True)(client.chat.completions.create)(model="gpt-4o", messages=EXAMPLE)
    assert told(spans.only) == (1, 1, "reported")


@pytest.mark.parametrize(
    ("known", "expected"), [({"input_tokens": 7}, (7, 4, "estimated")), ({"output_tokens": 7}, (2, 7, "estimated"))]
)
def test_only_the_missing_total_is_estimated(spans, known, expected):
    @track_tokens(estimate=True, model="gpt-4o")
    def stream(prompt):
        yield TokenUsage(**known)
        yield "The quick brown fox"

    list(stream("hello world"))
    assert told(spans.only) == expected


def test_a_stream_left_early_is_estimated_by_what_came(spans):
    @track_tokens(estimate=True, model="gpt-4o")
    def stream(prompt):
        yield "The quick brown fox"
        yield " jumps over the lazy dog"

    body = stream("The quick brown fox")
    next(body)
    body.close()
    assert told(spans.only) == (4, 4, "estimated")


def test_a_refused_call_used_nothing(spans, client, fake_openai):
    fake_openai.status = 400
    with pytest.raises(openai.BadRequestError):
        track_tokens(estimate=True)(client.chat.completions.create)(model="gpt-4o", messages=EXAMPLE)
    assert told(spans.only) == (None, None, None)


def test_a_model_without_a_vocabulary_stays_unknown(spans):
    track_tokens(estimate=True, model="claude-sonnet-4-5")(lambda prompt: "text")("?")
    assert told(spans.only) == (None, None, "missing")


@pytest.mark.parametrize(
    "answer",
    [
        {"choices": [{"message": {"content": "The quick brown fox"}}]},
        {"choices": [{"message": {"tool_calls": [{"function": {"arguments": "The quick brown fox"}}]}}]},
        {"choices": [{"text": "The quick brown fox"}]},
        {"output": [{"content": [{"type": "output_text", "text": "The quick brown fox"}]}]},
        {"type": "response.output_text.delta", "delta": "The quick brown fox"},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "The quick brown fox"}},
        {"type": "message", "content": [{"type": "text", "text": "The quick brown fox"}]},
        {"candidates": [{"content": {"parts": [{"text": "The quick"}, {"text": " brown fox"}]}}]},
        {"contentBlockDelta": {"delta": {"text": "The quick brown fox"}}},
        {"type": "content-delta", "delta": {"message": {"content": {"text": "The quick brown fox"}}}},
        {"message": {"role": "assistant", "content": "The quick brown fox"}},
        {"type": "AIMessageChunk", "content": "The quick brown fox"},
        'data: {"choices": [{"delta": {"content": "The quick brown fox"}}]}',
        "The quick brown fox",
    ],
)
def test_the_text_of_every_shape_is_heard_once(answer):
    heard = Estimate({})
    heard.hear(answer)
    assert heard.counts("gpt-4o", {}, "chat") == {attributes.OUTPUT: 4}


def test_images_sounds_and_endless_texts_are_not_counted():
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9_000}}
    asked = Estimate({"messages": [{"role": "user", "content": [{"type": "text", "text": "?"}, picture]}]})
    asked.hear({"type": "response.output_audio.delta", "delta": "UklGRg=="})
    assert asked.counts("gpt-4o", {}, "chat") == {attributes.INPUT: 8}
    endless = Estimate({"prompt": "word " * (1 << 20)})
    assert endless.counts("gpt-4o", {}, "chat") == {}


def test_instrument_asks_for_all_calls_and_a_decorator_may_decline(spans, monkeypatch):
    handle = instrument("http://127.0.0.1:1", estimate=True)
    ended = []
    monkeypatch.setattr(handle._sender, "_put", ended.append)
    try:
        track_tokens(model="gpt-4o")(lambda prompt: "The quick brown fox")("?")
        track_tokens(model="gpt-4o", estimate=False)(lambda prompt: "The quick brown fox")("?")
    finally:
        handle.shutdown(0)
    assert [told(span)[1:] for span in ended] == [(4, "estimated"), (None, "missing")]


def forget():
    estimate._tokenizer.cache_clear()
    estimate._library.cache_clear()


def test_without_the_extra_calls_stay_unknown_and_it_is_said_once(spans, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "splintr", None)
    forget()
    before = sdk_stats()["internal_errors"]
    with caplog.at_level(logging.WARNING, logger="millicent.sdk"):
        ask = track_tokens(estimate=True, model="gpt-oss-120b")(lambda prompt: "text")
        ask("?"), ask("?")
    forget()
    assert [told(span) for span in spans()] == [(None, None, "missing")] * 2
    assert [record.message for record in caplog.records if "millicent-sdk[estimate]" in record.message]
    assert len(caplog.records) == 1
    assert sdk_stats()["internal_errors"] == before


def test_nobody_pays_for_it_unasked():
    program = "import sys, millicent.sdk; print('millicent.sdk.estimate' in sys.modules, 'splintr' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).split() == ["False", "False"]

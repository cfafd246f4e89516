"""What real instrumentations sent comes out as the calls that were billed: each once, with its tokens or unknown.

`tests/fixtures/otlp/truth.json` says of every capture what the provider billed. Here captures go through the whole
pipeline into a real ledger: whole, span by span in any order and batches, several times, and with their other signals.
"""

import gzip
import itertools
import json
import random
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

FOLDER = Path(__file__).parent.parent / "fixtures" / "otlp"
CAPTURES = {one["file"]: one for one in json.loads((FOLDER / "truth.json").read_text())}
WHOLE = [name for name, one in CAPTURES.items() if one["signal"] != "metrics" and one.get("judge", "calls") == "calls"]
TRACES = [name for name in WHOLE if CAPTURES[name]["signal"] == "traces"]
TOKENS = {
    "input_tokens_total": "input_tokens", "output_tokens_total": "output_tokens", "cache_read": "cache_read_tokens",
    "cache_write": "cache_write_tokens", "cache_write_5m": "cache_write_5m_tokens",
    "cache_write_1h": "cache_write_1h_tokens", "cache_write_30m": "cache_write_30m_tokens",
    "cache_write_12h": "cache_write_12h_tokens", "reasoning": "reasoning_tokens", "audio_in": "input_audio_tokens",
    "audio_out": "output_audio_tokens",
}  # fmt: skip
ARRIVED = datetime(2026, 11, 24, tzinfo=UTC)
SIGNALS = defaultdict(list)
for one in CAPTURES.values():
    SIGNALS[one.get("group")].append(one["file"])
TOGETHER = [group for group, files in SIGNALS.items() if group and len(files) > 1]


def body(name):
    told = (FOLDER / name).read_bytes()
    return gzip.decompress(told) if CAPTURES[name].get("content_encoding") == "gzip" else told


def wrong(row, call):
    """Facts of a call that a row tells otherwise."""
    unknown, perhaps = call.get("unobservable", ()), call.get("raw_only", ())
    told = []
    for fact in TOKENS.keys() & call.keys():
        found, billed = row[TOKENS[fact]], call[fact]
        fits = (
            found is None if fact in unknown else found == billed or (found is None and (fact in perhaps or not billed))
        )
        told += [] if fits else [(fact, found, billed)]
    if (row["status"] == "error") != call["error"]:
        told.append(("error", row["status"], call["error"]))
    if "streaming" not in unknown and bool(row["streaming"]) != call["streaming"]:
        told.append(("streaming", row["streaming"], call["streaming"]))
    models = {call["request_model"], call["response_model"]}
    if row["model"] not in models:
        told.append(("model", row["model"], models))
    acceptable = call.get("provider_acceptable", [call["provider"]])
    if row["provider"] not in (None, *acceptable) or (row["provider"] is None and "provider" not in unknown):
        told.append(("provider", row["provider"], acceptable))
    return sorted(told)


def assert_billed(rows, calls):
    """Rows that count and calls that were billed are the same, one to one."""
    mine = [row for row in rows if row["counted"]]
    assert len(mine) == len(calls)
    best = min(
        ([wrong(row, call) for row, call in zip(order, calls, strict=True)] for order in itertools.permutations(mine)),
        key=lambda told: sum(map(len, told)),
    )
    assert best == [[] for _ in calls]


@pytest.fixture(scope="module")
def stored(ledger_of):
    def stored(*batches):
        tenant = ledger_of.load(*batches, received_at=ARRIVED)
        ledger_of.assert_rollup_is_raw(tenant)
        return ledger_of.rows(tenant).to_dicts()

    return stored


@pytest.mark.parametrize("name", WHOLE)
def test_a_capture_is_the_calls_that_were_billed(stored, name):
    assert_billed(stored([(body(name), CAPTURES[name]["signal"])]), CAPTURES[name]["truth"]["calls"])


@pytest.mark.parametrize("group", TOGETHER)
@pytest.mark.parametrize("order", [1, -1])
def test_several_signals_of_one_process_count_its_calls_once(stored, group, order):
    files = SIGNALS[group][::order]
    (traces,) = (CAPTURES[name] for name in files if CAPTURES[name]["signal"] == "traces")
    rows = stored(*([(body(name), CAPTURES[name]["signal"])] for name in files))
    assert_billed(rows, traces["truth"]["calls"])
    reasons = {row["not_counted_reason"] for row in rows if row["signal"] == "metric"}
    assert reasons <= {"spans_tell_of_it"}


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(TRACES), st.randoms(use_true_random=False))
def test_spans_of_a_capture_in_any_order_and_batches_three_times_over_are_the_same_calls(
    otlp, stored, name, rnd: random.Random
):
    spans = list(otlp.alone(body(name))) * 3
    rnd.shuffle(spans)
    cuts = sorted(rnd.sample(range(1, len(spans)), rnd.randint(0, min(4, len(spans) - 1))))
    batches = [spans[start:end] for start, end in itertools.pairwise([0, *cuts, len(spans)])]
    assert_billed(stored(*batches), CAPTURES[name]["truth"]["calls"])


def test_all_captures_at_once_count_every_call_once(ledger_of):
    bodies = [(body(name), "traces") for name in TRACES if not CAPTURES[name].get("synthetic")]
    tenant = ledger_of.load(bodies, received_at=ARRIVED)
    calls = [
        call for name in TRACES if not CAPTURES[name].get("synthetic") for call in CAPTURES[name]["truth"]["calls"]
    ]
    rows = ledger_of.rows(tenant).filter(counted=True)
    assert rows.height == len(calls)
    known = sum(
        call["input_tokens_total"] for call in calls if "input_tokens_total" not in call.get("unobservable", ())
    )
    assert rows["input_tokens"].sum() == known

"""Prices through the running product: a model gets one, past calls follow, and a restart forgets nothing."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import httpx

NOW = datetime.now(UTC)


def millicent(instance, *words: str) -> subprocess.CompletedProcess:
    """A command against the instance, as a person types it."""
    return subprocess.run(
        [sys.executable, "-m", "millicent.dashboard.cli", *words, "--url", instance.url],
        check=False, capture_output=True, text=True, timeout=120, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip


def printed(instance, *words: str):
    done = millicent(instance, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def send(instance, *numbers: int) -> None:
    calls = [
        {"id": f"call-{n}", "started_at": (NOW - timedelta(hours=20 * n)).isoformat(), "provider": "acme",
         "model": "acme-7b", "input_tokens": 1000, "output_tokens": 100}
        for n in numbers
    ]  # fmt: skip
    assert httpx.post(f"{instance.otlp}/api/v1/calls", json=calls).status_code == 200


def costs(instance) -> list[Decimal | None]:
    """List cost of every call, newest first."""
    found = instance.get("calls", period="30d")["calls"]
    return [call["list_cost_usd"] and Decimal(call["list_cost_usd"]) for call in found]


def test_a_model_without_a_price_gets_one_and_its_past_calls_follow(running, wait_for):
    send(running, 1, 2, 3)
    wait_for(lambda: len(costs(running)) == 3)
    assert costs(running) == [None] * 3
    (model,) = printed(running, "prices", "unpriced")["models"]
    assert (model["provider"], model["model"], model["calls"]) == ("acme", "acme-7b", 3)

    told = printed(running, "prices", "unpriced", "--model", "acme-7b", "--like", "openai/gpt-4o", "--yes")
    assert (told["run"]["state"], told["run"]["changed"]) == ("done", 3)
    assert costs(running) == [Decimal("0.0035")] * 3
    spent = running.get("query", measures="spend_usd,unpriced_calls", basis="list", period="30d")["rows"]
    assert spent == [{"spend_usd": "0.0105", "unpriced_calls": 0}]

    send(running, 0)
    wait_for(lambda: costs(running) == [Decimal("0.0035")] * 4)
    newest = running.get("calls", limit=1)["calls"][0]
    lines = running.get(f"explain/{newest['trace_id']}/{newest['span_id']}")["lines"]
    assert any("the price of openai/gpt-4o" in json.dumps(line) for line in lines)

    running.kill()
    running.start().wait_ready()
    assert costs(running) == [Decimal("0.0035")] * 4
    assert [one["like"] for one in running.get("prices/entries")["entries"]] == ["openai/gpt-4o"]
    undone = printed(running, "reprice", "undo", str(told["run"]["id"]), "--yes")
    assert (undone["state"], undone["changed"]) == ("done", 3)
    assert costs(running) == [Decimal("0.0035"), None, None, None]


def test_a_file_with_mistakes_is_told_line_by_line(running, tmp_path):
    file = tmp_path / "prices.toml"
    file.write_text('[[override]]\nmodel = "x"\nlike = "y"\neffective_from = 2026-01-01\n\n[[fx_rat]]\n')
    offline, online = (millicent(running, "prices", "diff", str(file)),
                       subprocess.run([sys.executable, "-m", "millicent.dashboard.cli", "prices", "check", str(file)],
                                      check=False, capture_output=True, text=True, timeout=120,
                                      env={**os.environ, "COLUMNS": "200"}))  # fmt: skip
    for done in (offline, online):
        assert done.returncode == 1
        problems = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert [any(said in line for line in problems) for said in ("source is missing", "[[fx_rat]]")] == [True, True]

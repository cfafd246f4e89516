"""One call from the decorator to the number: a real program, a real server, the real product in between."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from millicent.warehouse.control import Control, Deployment

ROOT = Path(__file__).parents[2]
USAGE = {"input_tokens": 1200, "output_tokens": 300, "cache_read_tokens": 1024, "reasoning_tokens": 192}


@pytest.fixture
def declared(installation):
    control = Control(installation.data)
    control.declare(
        Deployment(
            name="oss-b200", model="gpt-oss-120b", accelerator="nvidia-b200", accelerator_count=2, engine="vllm",
            effective_from=datetime.now(UTC).replace(minute=0, second=0, microsecond=0),
            profile={"kind": "rented", "usd_per_hour": "2.60"},
        )
    )  # fmt: skip
    control.close()
    return installation


def run(program: Path, fake_openai, *launcher: str, **environment: str) -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "MILLICENT_"))}
    env |= {"OPENAI_BASE_URL": fake_openai.url, "OPENAI_API_KEY": "none", **environment}
    done = subprocess.run(
        [*launcher, sys.executable, program], env=env, timeout=60, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def amounts(lines: list[dict], step: str) -> list[Decimal]:
    return [Decimal(line["value"]) for line in lines if line["step"] == step and line["unit"] == "USD"]


def test_the_quickstart_shows_up_priced_attributed_and_explained(declared, wait_for, fake_openai):
    instance = declared.start().wait_ready()

    run(ROOT / "examples" / "quickstart.py", fake_openai, MILLICENT_ENDPOINT=instance.otlp)
    calls = wait_for(lambda: {c["team"]: c for c in instance.get("calls")["calls"]}, 2)

    assert calls.keys() == {"Search", "Research"}
    api, own = calls["Search"], calls["Research"]
    assert {name: api[name] for name in USAGE} == USAGE
    assert (api["model"], api["billing"], api["price_status"], api["feature"]) == (
        "gpt-5-mini", "api", "priced", "answers",
    )  # fmt: skip
    # 176 uncached at 0.25, 1024 cached at 0.025 and 300 out at 2 USD per million, the published prices.
    assert Decimal(api["list_cost_usd"]) == Decimal("0.0006696") == Decimal(api["effective_cost_usd"])
    assert (own["deployment"], own["accelerator"], own["engine"], own["billing"]) == (
        "oss-b200", "nvidia-b200", "vllm", "self_hosted",
    )  # fmt: skip

    lines = instance.get(f"explain/{api['trace_id']}/{api['span_id']}")["lines"]
    *parts, total = amounts(lines, "list price")
    assert sum(parts) == total == Decimal(api["list_cost_usd"])

    wait_for(lambda: instance.get(f"calls/{own['trace_id']}/{own['span_id']}")["effective_cost_usd"], 5)
    explained = instance.get(f"explain/{own['trace_id']}/{own['span_id']}")
    weight = 176 * 1000 + 1024 * 100 + 300 * 4000
    rate = next(Decimal(line["value"]) for line in explained["lines"] if line["unit"] == "USD per thousandth")
    assert Decimal(explained["call"]["effective_cost_usd"]) == weight * rate > 0
    *parts, total = amounts(explained["lines"], "own hardware")
    assert sum(parts) == total == weight * rate


def test_an_app_instrumented_by_opentelemetry_needs_only_environment_variables(
    running, wait_for, fake_openai, tmp_path
):
    program = tmp_path / "app.py"
    program.write_text(
        "import openai\n"
        "messages = [{'role': 'user', 'content': 'canary'}]\n"
        "openai.OpenAI().chat.completions.create(model='gpt-5-mini', messages=messages)\n"
    )
    run(
        program,
        fake_openai,
        str(Path(sys.executable).with_name("opentelemetry-instrument")),
        OTEL_TRACES_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_ENDPOINT=running.otlp,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_METRICS_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
        OTEL_RESOURCE_ATTRIBUTES="service.name=checkout,millicent.team=Payments",
    )
    (call,) = wait_for(lambda: running.get("calls")["calls"], 5)
    assert {name: call[name] for name in USAGE} == USAGE
    assert (call["team"], call["service"], call["model"]) == ("Payments", "checkout", "gpt-5-mini")
    assert (call["dialect"], call["price_status"]) == ("otel_genai", "priced")
    assert Decimal(call["list_cost_usd"]) == Decimal("0.0006696")

"""`millicent deployments`, `allocate` and the catalog of `doctor`, on a data directory and against an instance."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from millicent.dashboard.cli import app as commands
from millicent.pricing import catalog
from millicent.warehouse import capacity
from millicent.warehouse.control import Control
from millicent.warehouse.store import Warehouse

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
RACK = ("deployments", "declare", "oss-b200", "--model", "gpt-oss-120b", "--accelerator", "B200", "--count", "2",
        "--profile", "kind=rented", "--profile", "usd_per_hour=2.60")  # fmt: skip
FILE = """
[[deployment]]
name = "chat"
model = "llama"
accelerator = "H100 SXM"
effective_from = 2026-03-01T00:00:00Z
profile = {kind = "preset", name = "dated"}
"""
ABACUS = """
[[accelerator]]
id = "acme-abacus"
vendor = "Acme"
name = "Abacus"
tdp_w = 20
sources = ["spec=the workshop"]
as_of = "2026-11"
confidence = "low"
"""


@pytest.fixture(autouse=True)
def _this_hour(monkeypatch):
    """Of the test, which may have been collected in an hour before."""
    monkeypatch.setattr(f"{__name__}.NOW", datetime.now(UTC).replace(minute=0, second=0, microsecond=0))


@pytest.fixture
def warehouse(priced_calls) -> Warehouse:
    return priced_calls(
        {"span_id": 1, "billing": "self_hosted", "price_status": "not_billed", "started_at": NOW - HOUR,
         "deployment": "edge", "engine": "llama.cpp", "model": "qwen3-8b", "input_tokens": 10},
    )  # fmt: skip


@pytest.fixture
def here(tmp_path):
    """`millicent` on a data directory, with no instance; `ran.control()` looks into it."""
    home = tmp_path / "home"
    yield lambda *words, **env: CliRunner().invoke(
        commands, words, env={"MILLICENT_DATA": str(home), "MILLICENT_URL": None, "MILLICENT_TOKEN": None,
                              "COLUMNS": "250", **env}
    )  # fmt: skip
    catalog.use(None)


@pytest.fixture(params=["here", "instance"])
def either(request, tmp_path):
    """The same commands where nothing runs, and against an instance."""
    return request.getfixturevalue("here" if request.param == "here" else "run")


def told(shown):
    assert shown.exit_code == 0, shown.output
    return json.loads(shown.stdout)


def said(shown):
    assert shown.exit_code == 0, shown.output
    return shown.stdout


def test_a_deployment_is_declared_listed_changed_and_ended(either):
    since = (NOW - 7 * DAY).strftime("%Y-%m-%dT%H:%M:%S")
    assert said(either(*RACK, "--since", since)).startswith(
        f"oss-b200: 2 × nvidia-b200 from {NOW - 7 * DAY:%Y-%m-%d %H:%M} UTC"
    )
    assert "as before" in said(either(*RACK))
    assert "would be: oss-b200: 4 ×" in said(either(*RACK, "--count", "4", "--dry-run"))
    assert "oss-b200: 4 ×" in said(either(*RACK, "--count", "4"))
    listed = told(either("deployments", "list", "--json"))["deployments"]
    assert [one["accelerator_count"] for one in listed] == [2, 4]
    assert listed[0]["effective_to"] == listed[1]["effective_from"]
    assert "rented 2.60" in said(either("deployments", "list"))
    assert f"to {NOW + HOUR:%Y-%m-%d %H:%M} UTC" in said(either("deployments", "end", "oss-b200"))
    listed = told(either("deployments", "list", "--json"))["deployments"]
    assert listed[1]["effective_to"] == (NOW + HOUR).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_every_flag_of_a_declaration_is_kept(either):
    said(either(
        *RACK, "--engine", "vllm", "--precision", "fp8", "--region", "us-va", "--environment", "production",
        "--endpoint", "llm.internal", "--power", "pue=1.2", "--pool", "shared", "--prefill", "1", "--decode", "1",
        "--parallelism", "TP2", "--owner", "Search", "--weight", "output=5000", "--metrics", "prefill=http://a:1/metrics",
        "--metrics", "decode=http://b:1/metrics", "--dcgm", "http://a:9400/metrics", "--gpu", "GPU-1",
        "--until", (NOW + DAY).strftime("%Y-%m-%dT%H:%M:%S"),
    ))  # fmt: skip
    (one,) = told(either("deployments", "list", "--json"))["deployments"]
    kept = {name: one[name] for name in ("engine", "precision", "region", "environment", "endpoints", "power", "pool",
            "prefill_count", "decode_count", "parallelism", "owner", "weights", "metrics", "dcgm", "gpus")}  # fmt: skip
    assert kept == {
        "engine": "vllm", "precision": "fp8", "region": "us-va", "environment": "production",
        "endpoints": ["llm.internal"], "power": {"pue": "1.2"}, "pool": "shared", "prefill_count": 1, "decode_count": 1,
        "parallelism": "TP2", "owner": "Search", "weights": {"output": "5000"},
        "metrics": ["prefill=http://a:1/metrics", "decode=http://b:1/metrics"], "dcgm": ["http://a:9400/metrics"],
        "gpus": ["GPU-1"],
    }  # fmt: skip
    assert one["effective_to"] == (NOW + DAY).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_file_is_applied_again_and_again(either, tmp_path):
    file = tmp_path / "deployments.toml"
    file.write_text(FILE)
    assert "chat: 1 × nvidia-h100-sxm from 2026-03-01 00:00 UTC\n" in said(
        either("deployments", "declare", "--file", str(file))
    )
    assert "as before" in said(either("deployments", "declare", "--file", str(file)))
    file.write_text(FILE + FILE.replace('"chat"', '"two"').replace("H100 SXM", "H1000000") + "[[pool]]\n")
    refused = either("deployments", "declare", "--file", str(file))
    assert refused.exit_code == 1
    assert refused.stderr.count("error:") == 2
    assert len(told(either("deployments", "list", "--json"))["deployments"]) == 1
    assert "choose one of the two" in either(*RACK, "--file", str(file)).stderr


def test_everything_that_is_missing_is_named(either):
    refused = either("deployments", "declare", "chat")
    assert refused.exit_code == 1
    for field in ("model", "accelerator", "profile"):
        assert f"{field} is missing" in refused.stderr
    assert "'cheap' is not name=value" in either(*RACK, "--power", "cheap").stderr
    assert "there is no deployment 'chat'" in either("deployments", "end", "chat").stderr


def test_a_wrong_declaration_is_corrected_when_told_so(either):
    since = ("--since", "2026-03-01T00:00:00")
    said(either(*RACK, *since))
    refused = either(*RACK, *since, "--count", "3")
    assert (refused.exit_code, "or replace that one" in refused.stderr) == (1, True)
    assert "in place of" in said(either(*RACK, *since, "--count", "3", "--replace"))


def test_policies_are_set_and_shown(either):
    (built_in,) = told(either("allocate", "show", "--json"))["policies"]
    assert (built_in["idle"], built_in["cached"]) == ("show", "fraction")
    said(either("allocate", "set", "--idle", "spread by use", "--from", "2026-03-01T00:00:00", "--note", "agreed"))
    shown = said(either("allocate", "set", "--cached", "free"))
    assert "agreed" in shown
    last = told(either("allocate", "show", "--json"))["policies"][-1]
    assert (last["idle"], last["cached"]) == ("spread by use", "free"), "what is left out stays"
    assert "spread evenly" in either("allocate", "set", "--idle", "hide").stderr


def test_an_instance_also_lists_what_nobody_declared(run):
    shown = run("deployments", "list")
    assert "nobody declared them" in shown.stderr
    assert "edge" in shown.stderr
    assert told(run("deployments", "list", "--json"))["discovered"][0]["deployment"] == "edge"


def test_hours_of_a_deployment_are_shown(run, warehouse):
    said(run(*RACK, "--since", (NOW - 3 * HOUR).strftime("%Y-%m-%dT%H:%M:%S")))
    capacity.refresh(warehouse.engine, warehouse.control, datetime.now(UTC))
    assert "5.2000" in said(run("deployments", "hours", "oss-b200"))
    assert len(told(run("deployments", "hours", "oss-b200", "--json"))["hours"]) >= 3


# ---- discovering


def test_an_engine_tells_what_it_is_and_how_it_is_declared(here, fake_engine):
    engine = fake_engine("vllm")
    engine.serve(prompt=700, cached=200, output=50)
    found = told(here("deployments", "discover", engine.url, "--json"))
    assert found["engine"] == "vllm"
    assert {"prompt_tokens": 700, "cached_tokens": 200, "output_tokens": 50}.items() <= found["counters"].items()
    bare = engine.url.partition("://")[2].partition("/")[0]
    shown = said(here("deployments", "discover", bare))
    assert f"--model {found['models'][0]} --accelerator ACCELERATOR --count COUNT --engine vllm --metrics" in shown
    assert "prompt_tokens 700" in shown


def test_an_exporter_tells_its_accelerators(here, fake_engine):
    exporter = fake_engine("dcgm")
    exporter.draw(**{"GPU-0": 900_000, "GPU-1": 850_000})
    found = told(here("deployments", "discover", exporter.url, "--json"))
    assert (found["engine"], found["boards"]) == (None, ["GPU-0", "GPU-1"])
    assert f"--accelerator {found['accelerator']} --count 2 --dcgm {exporter.url}" in found["command"]
    assert found["accelerator"] in {one.id for one in catalog.accelerators()}


@pytest.mark.parametrize(("mode", "reason"), [("nonsense", "not_counters"), ("loading", "unavailable"),
                                              ("denied", "status")])  # fmt: skip
def test_what_cannot_be_read_says_why(here, fake_engine, mode, reason):
    engine = fake_engine("sglang")
    engine.mode = mode
    shown = here("deployments", "discover", engine.url)
    assert (shown.exit_code, f"({reason})" in shown.stderr) == (1, True)


# ---- the catalog


def test_a_catalog_of_ones_own_is_known_to_commands(here, tmp_path):
    file = tmp_path / "catalog.toml"
    file.write_text(ABACUS)
    words = (*RACK[:5], "--accelerator", "Abacus", *RACK[7:])
    assert "'Abacus' is not in the catalog" in here(*words).stderr
    assert "2 × acme-abacus" in said(here(*words, MILLICENT_CATALOG=str(file)))
    doctor = told(here("doctor", "--json", MILLICENT_CATALOG=str(file)))
    assert doctor["settings"]["catalog"] == [str(file), "environment"]
    assert f"of which {file} adds or changes 1" in doctor["checks"]["catalog"]
    assert not any("problem" in name for name in doctor["checks"])
    without = told(here("doctor", "--json"))["checks"]
    assert "'acme-abacus' is not in the catalog" in without["deployments, problem 1"]


def test_the_example_catalog_is_well(here):
    file = Path(__file__).parents[2] / "examples" / "catalog.toml"
    checks = told(here("doctor", "--json", MILLICENT_CATALOG=str(file)))["checks"]
    assert checks["catalog"].endswith("adds or changes 5")
    assert not any("problem" in name for name in checks)


def test_doctor_names_every_problem_of_the_catalog_and_fails(here, tmp_path):
    file = tmp_path / "catalog.toml"
    file.write_text(ABACUS.replace("tdp_w = 20", "tdp_w = -20\ncolour = 3") + "[[engines]]\n")
    shown = here("doctor", "--json", MILLICENT_CATALOG=str(file))
    assert shown.exit_code == 1
    checks = json.loads(shown.stdout)["checks"]
    problems = [line for name, line in checks.items() if name.startswith("catalog, problem")]
    assert len(problems) == 3
    assert all(str(file) in line for line in problems)
    refused = here(*RACK, MILLICENT_CATALOG=str(file))
    assert (refused.exit_code, refused.stderr.count("error:")) == (1, 3)
    assert "cannot be read" in here(*RACK, MILLICENT_CATALOG=str(tmp_path / "none.toml")).stderr


def test_the_control_plane_is_only_looked_at_where_there_is_one(here, tmp_path):
    told(here("doctor", "--json"))
    assert not (tmp_path / "home" / "control.db").exists()
    said(here(*RACK))
    opened = Control(tmp_path / "home")
    assert [one.name for _, one in opened.deployments()] == ["oss-b200"]
    opened.close()

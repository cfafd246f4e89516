"""Deployments and policies as people handle them: over HTTP, with the keys that may, and from a file."""

import json
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millicent.dashboard import deployment_reading, reference_api
from millicent.pricing import catalog
from millicent.pricing.catalog.rows import columns
from millicent.warehouse import capacity
from millicent.warehouse.deployments import BadDeploymentsError, Deployment
from millicent.warehouse.store import Warehouse

EXAMPLES = Path(__file__).parents[2] / "examples"

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
RACK = {"name": "oss-b200", "model": "gpt-oss-120b", "accelerator": "B200", "accelerator_count": 2,
        "profile": {"kind": "rented", "usd_per_hour": "2.60"}}  # fmt: skip
FILE = """
[[deployment]]
name = "oss-b200"
model = "gpt-oss-120b"
accelerator = "B200"
accelerator_count = 2
effective_from = 2026-03-01T00:00:00Z
engine = "vllm"
endpoints = "llm.internal:8000"
metrics = ["http://10.0.0.1:8000/metrics"]
owner = "Search"

[deployment.profile]
kind = "owned"
capex_usd = 38_000
life_years = 5.5
hosting_includes_power = true

[deployment.power]
pue = 1.2
tariff_usd_per_kwh = 0.07

[deployment.weights]
output = 5000

[[deployment]]
name = "spot-h100"
model = "qwen3-8b"
accelerator = "H100 SXM"
effective_from = 2026-03-01T00:00:00Z

[deployment.profile]
kind = "spot"

[deployment.profile.prices]
2026-03-01T00:00Z = 1.20
"2026-03-02T06:00Z" = 1.35
""".replace("\n2026-03-01T00:00Z =", '\n"2026-03-01T00:00Z" =')


@pytest.fixture(autouse=True)
def _this_hour(monkeypatch):
    """Of the test, which may have been collected in an hour before."""
    monkeypatch.setattr(f"{__name__}.NOW", datetime.now(UTC).replace(minute=0, second=0, microsecond=0))


@pytest.fixture
def warehouse(priced_calls) -> Warehouse:
    """Calls to a host of ours, to a deployment that nobody declared, and to an API."""
    own = {"billing": "self_hosted", "price_status": "not_billed", "started_at": NOW - HOUR, "input_tokens": 1000}
    return priced_calls(
        {**own, "span_id": 1, "endpoint_host": "10.0.0.9", "engine": "vllm", "model": "qwen3-8b"},
        {**own, "span_id": 2, "deployment": "oss-b200", "model": "gpt-oss-120b", "accelerator": "nvidia-b200",
         "accelerator_count": 2, "region": "us-va", "output_tokens": 500, "endpoint_host": "10.0.0.1"},
        {**own, "span_id": 3, "deployment": "oss-b200", "model": "gpt-oss-120b", "accelerator": "nvidia-b200",
         "region": "us-va", "started_at": NOW - 3 * HOUR, "endpoint_host": "10.0.0.2"},
        {"span_id": 4, "provider": "openai", "model": "gpt-4o", "started_at": NOW - HOUR, "input_tokens": 10},
    )  # fmt: skip


def get(client, path: str, **params):
    answer = client.get(f"/api/v1/{path}", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def post(client, path: str, told, status: int = 201, **params):
    answer = client.post(f"/api/v1/{path}", json=told, params=params)
    assert answer.status_code == status, answer.text
    return answer.json()


def toml(client, path: str, text: str, status: int = 201):
    headers = {"content-type": "application/toml"}
    answer = client.post(f"/api/v1/{path}", content=text, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()


def outcomes(answer) -> list[str]:
    return [one["outcome"] for one in answer["deployments"]]


# ---- declaring


def test_one_deployment_is_declared_from_this_hour_on_and_told_back(operator):
    made = post(operator, "deployments", RACK)["deployments"][0]
    assert made["outcome"] == "added"
    told = get(operator, "deployments")["deployments"]
    assert told == [made["deployment"]]
    assert told[0] == {
        **RACK, "accelerator": "nvidia-b200", "effective_from": NOW.isoformat().replace("+00:00", "Z"),
        "effective_to": None, "engine": None, "precision": None, "region": None, "environment": None, "endpoints": [],
        "power": {}, "pool": None, "prefill_count": None, "decode_count": None, "parallelism": None, "owner": None,
        "weights": {}, "metrics": [], "dcgm": [], "gpus": [],
    }  # fmt: skip


def test_what_is_told_back_can_be_declared_again_and_changes_nothing(operator):
    toml(operator, "deployments", FILE)
    told = get(operator, "deployments")["deployments"]
    assert outcomes(post(operator, "deployments", {"deployments": told})) == ["unchanged", "unchanged"]
    assert outcomes(post(operator, "deployments", told)) == ["unchanged", "unchanged"]
    assert get(operator, "deployments")["deployments"] == told


def test_a_file_can_be_applied_on_every_deploy(operator, warehouse):
    assert outcomes(toml(operator, "deployments", FILE)) == ["added", "added"]
    assert outcomes(toml(operator, "deployments", FILE)) == ["unchanged", "unchanged"]
    rack, spot = (one for _, one in warehouse.control.deployments())
    assert (rack.cost_profile().capex_usd, str(rack.electricity().pue), rack.token_weights().output) == (
        38_000, "1.2", 5000,
    )  # fmt: skip
    assert rack.endpoints == ("llm.internal:8000",)
    assert [str(usd) for _, usd in spot.cost_profile().prices] == ["1.20", "1.35"]

    undated = FILE.replace("effective_from = 2026-03-01T00:00:00Z\n", "")
    assert outcomes(toml(operator, "deployments", undated)) == ["unchanged", "unchanged"]
    dearer = undated.replace("38_000", "40_000")
    assert outcomes(toml(operator, "deployments", dearer)) == ["added", "unchanged"]
    assert outcomes(toml(operator, "deployments", dearer)) == ["unchanged", "unchanged"]
    told = [one for one in get(operator, "deployments")["deployments"] if one["name"] == "oss-b200"]
    assert [(one["profile"]["capex_usd"], one["effective_to"]) for one in told] == [
        ("38000", told[1]["effective_from"]), ("40000", None),
    ]  # fmt: skip


def test_the_example_file_is_taken_and_days_begin_at_midnight_in_utc(operator, warehouse):
    example = EXAMPLES / "deployments.toml"
    assert outcomes(toml(operator, "deployments", example.read_text())) == ["added"] * 6
    days = example.read_text().replace("T00:00:00Z", "").replace("T00:00Z", "")
    assert outcomes(toml(operator, "deployments", days)) == ["unchanged"] * 6


def test_every_problem_of_every_table_is_told_and_nothing_is_stored(operator):
    wrong = """
        [[deployment]]
        name = "one"
        modle = "m"
        accelerator = "H1000000"
        accelerator_count = 0
        profile = {kind = "leased"}
        effective_from = 2026-03-01T00:00:00

        [[deployment]]
        name = "two"
        model = "m"
        accelerator = "H100 SXM"
        profile = {kind = "rented", usd_per_hour = "cheap"}
        power = {pue = -1}
        weights = {output = 0}
        metrics = ["ftp://10.0.0.1"]
        prefill_count = 1

        [[deployment]]
        name = "three"
        model = "m"
        accelerator = "H100 SXM"
        profile = {kind = "rented", usd_per_hour = 2}

        [pool]
    """
    problem = toml(operator, "deployments", wrong, 400)
    assert (problem["title"], problem["status"]) == ("Bad deployments", 400)
    found = problem["problems"]
    for part in (
        "[[pool]] is no table of deployments", "1 'one': model is missing", "did you mean 'model'?",
        "'H1000000' is not",
        "accelerator_count '0'", "effective_from '2026-03-01 00:00:00' is no instant", "2 'two': usd_per_hour 'cheap'",
        "2 'two': pue '-1'", "weight output '0'", "metrics 'ftp://10.0.0.1'", "prefill_count 1 and decode_count None",
    ):  # fmt: skip
        assert any(part in one for one in found), (part, found)
    assert not any("'three'" in one for one in found)
    assert get(operator, "deployments")["deployments"] == []


def test_checking_says_what_would_happen_and_stores_nothing(client, operator):
    reader = client("read")
    answer = reader.post("/api/v1/deployments/check", json=RACK)
    assert answer.status_code == 200
    assert outcomes(answer.json()) == ["added"]
    assert get(operator, "deployments")["deployments"] == []
    assert reader.post("/api/v1/deployments/check", json={**RACK, "region": "atlantis"}).status_code == 400


def test_only_an_operator_declares_and_sets_policies(client):
    reader = client("read")
    assert reader.post("/api/v1/deployments", json=RACK).status_code == 403
    assert reader.post("/api/v1/policies", json={"idle": "show"}).status_code == 403
    assert client("ingest").get("/api/v1/deployments").status_code == 403
    assert get(reader, "deployments")["deployments"] == []


def test_a_period_ends_when_it_is_declared_with_an_end(operator):
    since = (NOW - 7 * DAY).isoformat()
    post(operator, "deployments", {**RACK, "effective_from": since})
    ended = post(operator, "deployments", {**RACK, "effective_to": (NOW - HOUR).isoformat(), "effective_from": since})
    assert outcomes(ended) == ["ended"]
    (told,) = get(operator, "deployments")["deployments"]
    assert told["effective_to"] == (NOW - HOUR).isoformat().replace("+00:00", "Z")


def test_a_wrong_declaration_of_the_past_is_replaced_only_when_told_so(operator):
    since = (NOW - 7 * DAY).isoformat()
    post(operator, "deployments", {**RACK, "effective_from": since})
    other = {**RACK, "effective_from": since, "accelerator_count": 4}
    refused = post(operator, "deployments", other, 400)
    assert "or replace that one" in refused["problems"][0]
    assert outcomes(post(operator, "deployments", other, replace=True)) == ["replaced"]
    assert [one["accelerator_count"] for one in get(operator, "deployments")["deployments"]] == [4]


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [("{", "application/json", 400), ("[1]", "application/json", 400), ("[[deployment]", "application/toml", 400),
     ("{}", "application/xml", 415), ("x" * (1 << 21), "application/toml", 413), (b"\xff", "application/json", 400),
     ('{"deployments": 3}', "application/json", 400), ("[" * 100_000, "application/json", 400)],
)  # fmt: skip
def test_a_body_that_cannot_be_read_says_why(operator, content, kind, status):
    answer = operator.post("/api/v1/deployments", content=content, headers={"content-type": kind})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("2026-03-01T00:00:00Z"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NUMBERS = st.sampled_from(
    ["0", "1", "1e999999", "1e-999999", "-0", "1_000", "٣", "999999999999", "0.000000000000000001"]
)
PROFILE = st.fixed_dictionaries(
    {"kind": st.sampled_from(["owned", "rented", "reserved", "spot", "preset", "x"])},
    optional={
        "usd_per_hour": NUMBERS, "capex_usd": NUMBERS, "life_years": NUMBERS, "cost_of_capital": NUMBERS,
        "months": NUMBERS, "accelerators": NUMBERS, "hours_per_month": NUMBERS, "upfront_share": NUMBERS,
        "contract": st.just("c"), "starts": st.sampled_from(["2026-01-01T00:00Z", "9999-12-31T23:00Z", "0001-01-01"]),
        "prices": st.sampled_from(["2026-01-01T00:00Z=1", "x", {"2026-01-01T00:00Z": 1}, ["2026-01-01T00:00Z=1"]]),
        "name": st.sampled_from(["dated", "ix-2025"]), "includes_power": st.booleans(),
    },
)  # fmt: skip
TOLD = st.fixed_dictionaries(
    {"name": st.just("a") | JSON, "model": st.just("m") | JSON, "accelerator": st.just("h100") | JSON,
     "profile": PROFILE | JSON},
    optional={name: JSON for name in deployment_reading.schema()["properties"]["deployments"]["items"]["properties"]
              if name not in {"name", "model", "accelerator", "profile"}},
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(told=TOLD | JSON)
def test_whatever_is_told_is_read_or_refused_with_reasons(told):
    found, problems = read(json.dumps(told))
    assert bool(problems) != bool(found) or told in ([], {"deployments": []})
    assert all(isinstance(one, Deployment) for one in found)
    assert all(len(problem) < 2000 for problem in problems)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(told=TOLD | JSON, path=st.sampled_from(["deployments", "deployments/check", "policies"]), replace=st.booleans())
def test_whatever_is_sent_is_answered_and_never_breaks_anything(operator, told, path, replace):
    answer = operator.post(f"/api/v1/{path}", content=json.dumps(told), params={"replace": replace},
                           headers={"content-type": "application/json"})  # fmt: skip
    assert answer.status_code in {200, 201, 400}
    if answer.status_code == 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]
    assert operator.get("/api/v1/deployments").status_code == 200


def read(text: str) -> tuple[list[Deployment], tuple[str, ...]]:
    try:
        return deployment_reading.from_json(text, NOW), ()
    except BadDeploymentsError as error:
        return [], error.problems


# ---- what nobody declared


def test_hardware_that_calls_tell_of_and_nobody_declared_is_discovered(operator):
    named, hosted = get(operator, "deployments")["discovered"]
    assert (named["deployment"], named["accelerator"], named["accelerator_count"], named["region"]) == (
        "oss-b200", "nvidia-b200", 2, "us-va",
    )  # fmt: skip
    assert (named["calls"], named["tokens"], named["declared"]) == (2, 2500, [])
    assert named["first_at"] < named["last_at"]
    assert named["missing"] == ["how its hours are paid (profile)"]
    assert (hosted["deployment"], hosted["endpoint_host"], hosted["engine"]) == (None, "10.0.0.9", "vllm")
    assert len(hosted["missing"]) == 4


def test_what_is_declared_for_the_time_of_its_calls_is_discovered_no_more(operator):
    post(operator, "deployments", {**RACK, "effective_from": (NOW - 2 * HOUR).isoformat()})
    named, _ = get(operator, "deployments")["discovered"]
    assert named["calls"] == 1, "the call before the period"
    assert named["declared"][0]["effective_to"] is None
    assert named["missing"] == ["a period that begins before these calls, or ends after them"]
    post(operator, "deployments", {**RACK, "effective_from": (NOW - DAY).isoformat(), "effective_to":
         (NOW - 2 * HOUR).isoformat()})  # fmt: skip
    assert [one["deployment"] for one in get(operator, "deployments")["discovered"]] == [None]
    assert get(operator, "deployments", start=(NOW - HOUR / 2).isoformat())["discovered"] == []


# ---- hours


def test_hours_tell_what_each_cost_and_why(operator, warehouse):
    name = "racks/oss b200"
    since = NOW - 3 * HOUR
    post(operator, "deployments", {**RACK, "name": name, "effective_from": since.isoformat()})
    capacity.refresh(warehouse.engine, warehouse.control, datetime.now(UTC))
    path = f"deployments/{quote(name)}/hours"
    answer = get(operator, path, start=(NOW - DAY).isoformat())
    first, *_ = answer["hours"]
    assert (first["hour"], first["idle_usd"], first["busy_usd"]) == (
        since.isoformat().replace("+00:00", "Z"),
        "5.2",
        "0",
    )
    assert {"name": "rent", "value": "2.60", "unit": "USD/h", "source": "declared: contract"} in first["sources"]
    assert [one["provisional"] for one in answer["hours"]][:3] == [False] * 3
    assert get(operator, path, start=since.isoformat(), end=NOW.isoformat(), limit=2)["left_off"] == 1
    assert get(operator, "deployments/none/hours") == {"hours": [], "left_off": 0}

    why = get(operator, f"explain/deployments/{quote(name)}/{first['hour']}")
    assert (why["deployment"], why["hour"]) == (name, first["hour"])
    assert {"rent", "cost of the hour"} <= {line["what"] for line in why["lines"]}
    missing = operator.get(f"/api/v1/explain/deployments/{quote(name)}/{(NOW - DAY).isoformat()[:19]}Z")
    assert (missing.status_code, "has no hour" in missing.json()["detail"]) == (404, True)


@pytest.mark.parametrize("hour", ["yesterday", "2026-03-01T00:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:00Z"])
def test_an_hour_that_is_none_is_refused(operator, hour):
    assert operator.get(f"/api/v1/explain/deployments/rack/{quote(hour)}").status_code == 400
    assert operator.get("/api/v1/deployments/rack/hours", params={"start": hour}).status_code == 400
    assert operator.get("/api/v1/deployments", params={"end": hour}).status_code == 400


# ---- policies


def test_policies_hold_from_their_hour_on(operator):
    (built_in,) = get(operator, "policies")["policies"]
    assert (built_in["id"], built_in["idle"], built_in["cached"]) == (None, "show", "fraction")
    told = {"idle": "spread by use", "cached": "full", "effective_from": (NOW - DAY).isoformat(), "note": "agreed"}
    _, made = post(operator, "policies", told)["policies"]
    assert (made["idle"], made["cached"], made["note"]) == ("spread by use", "full", "agreed")
    assert made["author"].startswith("key ")
    _, _, now = post(operator, "policies", {"idle": "charge the owner"})["policies"]
    assert now["effective_from"] == NOW.isoformat().replace("+00:00", "Z")
    assert post(operator, "policies", {"idle": "charge the owner"}) == get(operator, "policies"), "it holds already"


@pytest.mark.parametrize(
    ("told", "why"),
    [({"idle": "hide"}, "idle"), ({"cached": "twice"}, "cached"), ({"effective_from": "2026-03-01T00:30:00Z"}, "whole"),
     ({"effective_from": "0001-01-01T00:00:00+14:00"}, "correct the year"),
     ({"note": "x" * 2000}, "2,000"), ({"from": "2026"}, "from")],
)  # fmt: skip
def test_a_policy_that_cannot_be_says_why(operator, told, why):
    assert why in post(operator, "policies", told, 400)["detail"]


# ---- the catalog


def test_every_value_of_the_catalog_tells_where_it_was_read(operator):
    rows = get(operator, "catalog/accelerators")["rows"]
    assert len(rows) == len(catalog.accelerators())
    (h100,) = get(operator, "catalog/accelerators", name="NVIDIA H100 80GB HBM3")["rows"]
    price = h100["values"]["capex_usd_typical"]
    assert (h100["id"], price["value"], price["ours"]) == ("nvidia-h100-sxm", "33600", False)
    assert price["source"].startswith("https://")
    assert (price["as_of"], price["confidence"]) == ("2026-07", "high")
    told = set(h100["values"]) | set(h100["unknown"])
    assert (
        {"tdp_w", "idle_w", "memory_gb", "ix_v2_neocloud_usd_hr"}
        <= told
        <= set(columns(type(catalog.accelerators()[0])))
    )
    numbers = ("tdp_w", "capex_usd_typical", "cloud_usd_per_hour", "system_power_w_per_accelerator")
    for row in rows:
        assert all(row["values"][name]["source"] for name in numbers if name in row["values"]), row["id"]


def test_regions_tell_electricity_carbon_and_pue(operator):
    (here,) = get(operator, "catalog/regions", name="aws/us-east-1")["rows"]
    assert {"price_usd_per_kwh", "gco2e_per_kwh", "pue"} <= here["values"].keys()
    assert get(operator, "catalog/engines", name="vLLM")["rows"][0]["values"]["metric_prefix"]["value"] == "vllm:"
    assert get(operator, "catalog/pue", name="default/ai-air")["rows"][0]["values"]["pue"]["value"] == "1.27"
    missing = operator.get("/api/v1/catalog/accelerators", params={"name": "H1000000"})
    assert (missing.status_code, "nearest" in missing.json()["detail"]) == (404, True)


def test_values_of_an_extension_are_marked_as_ours(operator):
    catalog.use(catalog.bundled().extended(
        '[[accelerator]]\nid = "nvidia-h100-sxm"\ncapex_usd_typical = 27_400\ncapex_scope = ["typical=server_share"]\n'
        'sources = ["capex_typical=purchase order 4711"]\nas_of = "2026-11"\nconfidence = "high"\n'
    ))  # fmt: skip
    try:
        (row,) = get(operator, "catalog/accelerators", name="H100 SXM")["rows"]
    finally:
        catalog.use(None)
    assert row["values"]["capex_usd_typical"] == {
        "value": "27400", "source": "purchase order 4711", "as_of": "2026-11", "confidence": "high", "ours": True,
    }  # fmt: skip
    assert not row["values"]["tdp_w"]["ours"]


# ---- the description


def test_every_route_describes_its_body_its_parameters_and_its_answer(operator):
    described = get(operator, "openapi.json")["paths"]
    routes = {
        (method, path): told
        for path, methods in described.items()
        for method, told in methods.items()
        if path.removeprefix("/api/v1/").partition("/")[0] in {"deployments", "policies", "catalog"}
        or "explain/deployments" in path
    }
    assert len(routes) == 11
    for (method, path), told in routes.items():
        assert reference_api.schema_of(told), (method, path)
        assert ("requestBody" in told) == (method == "post"), (method, path)
        assert all(one["description"] for one in told.get("parameters", ()) if one["in"] == "query"), (method, path)
    body = routes["post", "/api/v1/deployments"]["requestBody"]["content"]["application/json"]["schema"]
    one = body["properties"]["deployments"]["items"]
    assert one["required"] == ["name", "model", "accelerator", "profile"]
    assert one["properties"].keys() == {field.name for field in fields(Deployment)}
    assert all(told["description"] and told["type"] for told in one["properties"].values())

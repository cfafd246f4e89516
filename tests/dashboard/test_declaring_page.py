"""Declaring a deployment on the Accelerators page without a screen: what its form holds, what it says, and who may."""

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

import pytest
from asked_pages import words
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from starlette.testclient import TestClient

from millicent.dashboard import app as pages
from millicent.dashboard import deployment_reading
from millicent.dashboard.access import Access
from millicent.dashboard.api import mount_api
from millicent.dashboard.pages import declaring
from millicent.dashboard.pages.declaring_form import begun, declaration, in_words, known_of, opens
from millicent.warehouse.control import DEFAULT_TENANT, audit
from millicent.warehouse.deployments import BadDeploymentsError, Deployment
from millicent.warehouse.discovered import Discovered
from millicent.warehouse.query import Period
from millicent.warehouse.store import Warehouse

NOW = datetime(2026, 11, 25, 10, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOSTILE = "<img src=x onerror=alert(1)>"
PAID = {
    "rented": {"usd_per_hour": "2.20", "includes_power": "true"},
    "owned": {"capex_usd": "30000", "life_years": "5", "cost_of_capital": "0.06", "residual_usd": "1000",
              "hosting_usd_per_kw_month": "90", "hosting_includes_power": "true"},
    "reserved": {"contract": "H200 2026", "usd_per_hour": "2.10", "starts": "2026-01-01", "months": "12",
                 "accelerators": "8"},
    "spot": {"prices": "2026-11-01T00:00Z=1.20 2026-11-24T06:00Z=1.35"},
    "preset": {"name": "dated", "tier": "neocloud"},
}  # fmt: skip
SAID = {"name": "lab-b200", "model": "gpt-oss-120b", "accelerator": "nvidia-b200", "kind": "rented",
        "rented.usd_per_hour": "2.20"}  # fmt: skip
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


# ---- what the form holds


@pytest.mark.parametrize("kind", list(PAID))
def test_a_form_says_what_json_says_and_what_was_typed_for_another_kind_has_no_say(kind):
    form = {**SAID, "accelerator": "H200 SXM", "count": "4", "rented.usd_per_hour": "9.99", "tariff": "$0.07",
            "kind": kind, "day": "2026-11-24", "hour": "06", "endpoints": "llm:8000\n10.0.3.7\n",
            "metrics": " prefill=http://a:8000/metrics \n decode=http://b:8000/metrics", "prefill": "1", "decode": "3",
            "pool": " rack 7 ", "owner": "Search", "region": "us-va", "engine": "vllm",
            **{f"{kind}.{name}": value.replace(" 2026", "\n2026") for name, value in PAID[kind].items()}}  # fmt: skip
    said = {"name": "lab-b200", "model": "gpt-oss-120b", "accelerator": "nvidia-h200-sxm", "accelerator_count": 4,
            "effective_from": "2026-11-24T06:00:00Z", "endpoints": ["llm:8000", "10.0.3.7"], "pool": "rack 7",
            "metrics": ["prefill=http://a:8000/metrics", "decode=http://b:8000/metrics"], "owner": "Search",
            "prefill_count": 1, "decode_count": 3, "region": "us-va", "engine": "vllm",
            "power": {"tariff_usd_per_kwh": "0.07"}, "profile": {"kind": kind, **PAID[kind]}}  # fmt: skip
    assert declaration(form, NOW) == deployment_reading.read(said, NOW)


def test_what_is_empty_was_not_said_and_is_never_0():
    form = {**SAID, "kind": "owned", "count": " ", "tariff": "", "owned.capex_usd": " ", "owned.life_years": "",
            "engine": "", "pool": "", "endpoints": "\n \n", "until_hour": "05", "hour": "05"}  # fmt: skip
    found = declaration(form, NOW)
    bare = Deployment(name="lab-b200", model="gpt-oss-120b", accelerator="nvidia-b200", accelerator_count=1,
                      effective_from=NOW.replace(minute=0), profile={"kind": "owned"})  # fmt: skip
    assert found == bare


def test_everything_that_is_wrong_is_named_as_the_form_calls_it():
    form = {"name": "x", "accelerator": "H9000", "count": "two", "kind": "reserved", "reserved.usd_per_hour": "2",
            "prefill": "1", "metrics": "ftp://x", "tariff": "cheap", "day": "2026-11-24", "hour": "06"}  # fmt: skip
    with pytest.raises(BadDeploymentsError) as raised:
        declaration(form, NOW)
    said = [in_words(problem, "x") for problem in raised.value.problems]
    starts = ("Model is missing", "Accelerator", "Count 'two'", "Prefill 1 and Decode None", "Engine metrics 'ftp",
              "Reserved lacks contract", "Electricity, USD per kWh 'cheap'")  # fmt: skip
    for start in starts[:1] + starts[2:]:
        assert any(one.startswith(start) for one in said), (start, said)
    assert any("H9000" in one for one in said)
    assert len(said) == len(set(said))
    with pytest.raises(BadDeploymentsError, match="Rented lacks usd_per_hour"):
        declaration({**SAID, "rented.usd_per_hour": ""}, NOW)


@given(st.dictionaries(st.sampled_from([*SAID, "count", "day", "hour", "until", "metrics", "tariff", "prefill",
                                        "rented.includes_power", "spot.prices", "pool", "region"]), texts))  # fmt: skip
def test_whatever_a_form_holds_is_a_deployment_or_a_problem(told):
    with suppress(BadDeploymentsError):
        assert isinstance(declaration({**SAID, **told}, NOW), Deployment)


# ---- what it begins with


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), texts, max_size=5))
def test_the_address_carries_what_a_form_begins_with(told):
    assert begun(opens(**told)) == told


@given(st.text(max_size=300))
def test_any_address_opens_a_form_or_something_else(text):
    found = begun(text)
    assert (found is None) == (text.partition("?")[0] != "declare")


def discovered(**told) -> Discovered:
    unknown = dict.fromkeys(("deployment", "endpoint_host", "model", "engine", "precision", "accelerator",
                             "accelerator_count", "region", "environment", "tokens"))  # fmt: skip
    bounds = {"first_at": NOW.replace(tzinfo=None), "last_at": NOW.replace(tzinfo=None)}
    return Discovered(**unknown | bounds | {"calls": 1, "declared": (), "missing": ()} | told)


def test_what_calls_tell_is_filled_in_and_declares_from_their_first_hour():
    known = known_of(discovered(deployment="lab", model="qwen3-235b", accelerator="H100 SXM", accelerator_count=8))
    found = declaration({**known, "kind": "rented", "rented.usd_per_hour": "2"}, NOW)
    assert (found.name, found.accelerator, found.accelerator_count) == ("lab", "nvidia-h100-sxm", 8)
    assert (found.effective_from, found.effective_to) == (NOW.replace(minute=0), None)
    nameless = known_of(discovered(endpoint_host="llm.internal", model="x"))
    assert nameless["endpoints"] == "llm.internal"
    assert "name" not in nameless


def test_before_a_period_that_is_declared_it_ends_where_that_begins():
    later = NOW.replace(minute=0) + 3 * HOUR
    known = known_of(discovered(deployment="lab", declared=((later, None),)))
    assert (known["until"], known["until_hour"]) == ("2026-11-25", "13")


# ---- the page


@pytest.fixture
def warehouse(tmp_path):
    made = Warehouse.embedded(tmp_path / "data")
    yield made
    made.close()


def answer_of(client, output: str, changed: str, **told):
    """What a callback answers, by output; `told` by the end of the id of its inputs."""
    known = client.get("/_dash-dependencies").json()
    (found,) = (one for one in known if output in one["output"] and not one.get("clientside_function"))
    names = [part.rsplit(".", 1) for part in found["output"].strip(".").split("...")]
    outputs = [{"id": name, "property": prop} for name, prop in names]
    fill = lambda of: [{**one, "value": told.get(one["id"].rpartition("-")[2])} for one in of]  # noqa: E731
    body = {"output": found["output"], "outputs": outputs if found["output"].startswith("..") else outputs[0],
            "inputs": fill(found["inputs"]), "state": fill(found["state"]), "changedPropIds": [changed]}  # fmt: skip
    return client.post("/_dash-update-component", json=body, headers={"sec-fetch-site": "same-origin"})


def did(client, do: str, **told) -> dict:
    act = {"do": do, "told": told, "at": 1}
    answer = answer_of(client, "accelerators-answer", "accelerators-do.data", do=act, scope="?v=1&p=7d",
                       look="?v=1&order=-idle")  # fmt: skip
    assert answer.status_code == 200, answer.text
    return {name: next(iter(value.values())) for name, value in answer.json()["response"].items()}


def opened(client, open_: str, changed: str = "accelerators-open.data"):
    return answer_of(client, "accelerators-drawer", changed, open=open_, scope="?v=1")


def test_an_hour_is_told_with_its_inputs_and_nothing_is_stored(operator, warehouse):
    found = did(operator, "check", **SAID, count="2")
    beside = words(found["declaring-effect"])
    assert "$4.40" in beside
    assert "contract" in beside  # where the price is from
    assert "accelerators-changed" not in found
    assert warehouse.control.deployments() == []
    assert "It can be declared so" in beside


def test_what_is_declared_is_stored_under_the_name_of_who_did_it_and_the_page_asks_again(operator, warehouse):
    found = did(operator, "declare", **SAID, count="2", replace="")
    assert "lab-b200 is declared from" in words(found["accelerators-answer"])
    assert dict(parse_qsl(found["accelerators-acted"]["go"].removeprefix("?"))) == {
        "v": "1",
        "p": "7d",
        "order": "-idle",
    }
    assert found["accelerators-changed"] == {"at": 1}
    ((tenant, one),) = warehouse.control.deployments()
    assert (tenant, one.name, one.accelerator_count) == (DEFAULT_TENANT, "lab-b200", 2)
    with warehouse.control._engine.connect() as connection:
        asked = select(audit.c.actor).where(audit.c.action == "deployment.declare")
        (actor,) = connection.execute(asked).scalars()
    assert actor.startswith("key ")
    again = did(operator, "declare", **SAID, count="2")
    assert "declared so already" in words(again["accelerators-answer"])


def test_what_is_wrong_stands_beside_the_form_and_the_page_stays(operator, warehouse):
    found = did(operator, "declare", **{**SAID, "name": HOSTILE, "accelerator": "H9000", "rented.usd_per_hour": ""})
    beside = words(found["declaring-effect"])
    assert "H9000" in beside
    assert "Rented lacks USD per accelerator-hour" in beside
    assert "2 things are wrong" in words(found["accelerators-answer"])
    assert found["accelerators-acted"]["go"] is None
    assert "accelerators-changed" not in found
    assert warehouse.control.deployments() == []


def test_an_earlier_hour_is_replaced_only_where_that_is_said(operator, warehouse):
    since = datetime.now(UTC) - 5 * HOUR
    told = {**SAID, "day": f"{since:%Y-%m-%d}", "hour": f"{since:%H}"}
    did(operator, "declare", **told)
    other = {**told, "rented.usd_per_hour": "3"}
    assert "overlaps" in words(did(operator, "declare", **other)["declaring-effect"])
    did(operator, "declare", **other, replace="yes")
    ((_, one),) = warehouse.control.deployments()
    assert one.profile["usd_per_hour"] == "3"


def test_who_only_reads_sees_the_command_and_declares_nothing(client, warehouse):
    reader = client("read")
    assert "millicent deployments declare" in words(
        json.loads(opened(reader, "declare").text)["response"]["accelerators-drawer"]["children"]
    )
    found = did(reader, "declare", **SAID)
    assert "may read deployments, not declare them" in words(found["accelerators-answer"])
    assert warehouse.control.deployments() == []
    offered = answer_of(reader, "accelerators-declare", "accelerators-scope.data", scope="").json()
    assert offered["response"]["accelerators-declare"]["children"] is None


def test_an_operator_finds_the_form_before_the_first_call_and_filters_do_not_draw_it_anew(operator):
    offered = answer_of(operator, "accelerators-declare", "accelerators-scope.data", scope="").json()
    assert "Declare a deployment" in words(offered["response"]["accelerators-declare"]["children"])
    shown = opened(operator, opens(name=HOSTILE)).json()["response"]["accelerators-drawer"]["children"]
    assert "How its hours are paid" in words(shown)
    assert opened(operator, opens(name="x"), "accelerators-scope.data").json()["response"] == {}
    assert "There is no such figure" in words(
        opened(operator, "shoe").json()["response"]["accelerators-drawer"]["children"]
    )


def test_where_there_is_no_own_hardware_yet_the_form_is_one_click_away(warehouse_of):
    made = warehouse_of({"span_id": 1})
    server = pages.create_app(made, mount=lambda server: mount_api(server, made, books=dict, metrics=str, ready=bool))
    with TestClient(Access(server, made.control, insecure_local=True), base_url="http://127.0.0.1:8050") as client:
        said = answer_of(client, "accelerators-kpis", "accelerators-scope.data", scope="").json()["response"]
    assert "No own hardware yet" in words(said["accelerators-notice"]["children"])
    assert "Declare a deployment" in words(said["accelerators-notice"]["children"])


@pytest.mark.parametrize(
    "act",
    [None, [], {"do": "drop"}, {"do": "check"}, {"do": "declare", "told": [1]},
     {"do": "declare", "told": {"name": 1, "kind": None, "count": "9" * 5000}}],
)  # fmt: skip
def test_any_act_is_answered(operator, warehouse, act):
    assert answer_of(operator, "accelerators-answer", "accelerators-do.data", do=act).status_code == 200
    assert warehouse.control.deployments() == []


def test_outside_a_request_nobody_declares(warehouse):
    assert declaring.carry_out(warehouse, {"do": "declare", "told": SAID}).words == "Nobody is asking."
    assert not declaring.operates()
    assert warehouse.hours(DEFAULT_TENANT, Period(NOW, NOW + HOUR)).is_empty()

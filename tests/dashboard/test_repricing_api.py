"""Stored calls and new prices, over HTTP and from the command line: shown first, then changed, undone, or adjusted."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from millicent.pricing import bundled
from millicent.warehouse.prices import Prices
from millicent.warehouse.store import Warehouse

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
DAY = timedelta(days=1)
SINCE = (TODAY - 4 * DAY).isoformat()
TERM = {"kind": "term", "provider": "openai", "percent_off": "10", "effective_from": SINCE, "source": "order form 4"}
PER_CALL = Decimal("0.0035")
"""List price of each stored call of gpt-4o."""


@pytest.fixture(autouse=True)
def _today(monkeypatch):
    """Of the test, which may have been collected the day before."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    monkeypatch.setattr(f"{__name__}.TODAY", today)
    monkeypatch.setattr(f"{__name__}.SINCE", (today - 4 * DAY).isoformat())
    monkeypatch.setitem(TERM, "effective_from", SINCE)


@pytest.fixture
def warehouse(priced_calls) -> Warehouse:
    """Three days before today, each with two calls of gpt-4o and one of a model without a price."""
    calls = [(day, model) for day in (1, 2, 3) for model in ("gpt-4o", "gpt-4o", "acme-7b")]
    return priced_calls(*(
        {"span_id": n, "started_at": TODAY - day * DAY + timedelta(hours=n), "team": "Search" if n % 3 else None,
         "provider": "openai", "model": model, "input_tokens": 1000, "output_tokens": 100}
        for n, (day, model) in enumerate(calls, start=1)
    ))  # fmt: skip


def get(client, path: str, **params):
    answer = client.get(f"/api/v1/{path}", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def post(client, path: str, told=None, status: int = 202, **params):
    answer = client.post(f"/api/v1/{path}", json=told, params=params)
    assert answer.status_code == status, answer.text
    return answer.json()


def finished(client, run: dict) -> dict:
    patience = threading.Event()
    while run["state"] in {"waiting", "running"}:
        patience.wait(0.01)
        run = get(client, f"reprice/{run['id']}")
    assert run["state"] == "done", run
    return run


def costs(client) -> list[tuple]:
    """List and billed cost of every stored call, in the order they were told."""
    found = get(client, "calls", limit=100)["calls"]
    ordered = sorted(found, key=lambda call: call["span_id"])
    return [(call["list_cost_usd"], call["billed_cost_usd"]) for call in ordered]


# ---- over HTTP


def test_new_prices_are_shown_applied_and_undone(operator, repricer):
    before = costs(operator)
    assert before[:3] == [("0.0035", "0.0035"), ("0.0035", "0.0035"), (None, None)]
    post(operator, "prices/entries", {"entries": [TERM]}, 201)
    assert costs(operator) == before, "stored calls keep their prices"

    would = get(operator, "reprice", start=SINCE)
    assert would["calls"] == 6
    assert len(would["differences"]) == 3
    for one in would["differences"]:
        assert (one["model"], one["team"], one["closed"]) == ("gpt-4o", "Search", False)
        assert (one["list_usd_before"], one["list_usd_after"]) == ("0.007", "0.007")
        assert (one["billed_usd_before"], one["billed_usd_after"]) == ("0.007", "0.0063")
    assert costs(operator) == before

    run = finished(operator, post(operator, "reprice", start=SINCE))
    assert (run["changed"], run["billed_usd_before"], run["billed_usd_after"]) == (6, "0.021", "0.0189")
    assert run["days_done"] == run["days_total"] == 5
    assert costs(operator)[:3] == [("0.0035", "0.00315"), ("0.0035", "0.00315"), (None, None)]
    assert get(operator, "reprice", start=SINCE) == {"calls": 0, "differences": []}
    again = finished(operator, post(operator, "reprice", start=SINCE))
    assert again["changed"] == 0

    undone = finished(operator, post(operator, f"reprice/{run['id']}/undo"))
    assert (undone["undo_of"], undone["changed"]) == (run["id"], 6)
    assert costs(operator) == before
    assert [one["id"] for one in get(operator, "reprice/runs")["runs"]] == [undone["id"], again["id"], run["id"]]
    refused = operator.post(f"/api/v1/reprice/{run['id']}/undo")
    assert (refused.status_code, "was undone by" in refused.json()["detail"]) == (409, True)


def test_only_what_a_filter_keeps_is_priced_again(operator, repricer):
    post(operator, "prices/entries", {"entries": [TERM]}, 201)
    day = (TODAY - 2 * DAY).isoformat()
    assert get(operator, "reprice", start=SINCE, filter="-model:gpt-4o")["calls"] == 0
    would = get(operator, "reprice", start=day, end=TODAY.isoformat(), filter="team:Search")
    assert would["calls"] == 4
    run = finished(operator, post(operator, "reprice", start=day, end=(TODAY - DAY).isoformat(), filter="model:gpt-4o"))
    assert (run["filters"], run["changed"]) == (["model:gpt-4o"], 2)


def test_a_closed_day_keeps_its_amounts_and_the_difference_is_charged(operator, repricer):
    before = costs(operator)
    start, end = (TODAY - 3 * DAY).isoformat(), (TODAY - 2 * DAY).isoformat()
    (closed,) = post(operator, "periods", {"start": start, "end": end}, 201)["periods"]
    assert (closed["start"], closed["end"]) == (start.replace("+00:00", "Z"), end.replace("+00:00", "Z"))
    assert closed["actor"].startswith("key ")
    spend = get(operator, "query", measures="spend_usd", basis="billed", start=start, end=end)["rows"]
    post(operator, "prices/entries", {"entries": [TERM]}, 201)
    assert [one["closed"] for one in get(operator, "reprice", start=SINCE)["differences"]] == [True, False, False]

    run = finished(operator, post(operator, "reprice", start=SINCE))
    assert [day["adjusted"] for day in run["days"] if day["changed"]] == [True, False, False]
    assert costs(operator)[6:] == before[6:]
    assert get(operator, "query", measures="spend_usd", basis="billed", start=start, end=end)["rows"] == spend
    (charge,) = get(operator, "charges")["charges"]
    assert (charge["type"], charge["model"], charge["team"], charge["run"]) == (
        "adjustment",
        "gpt-4o",
        "Search",
        run["id"],
    )
    assert (charge["list_usd"], charge["billed_usd"]) == ("0", "-0.0007")
    assert get(operator, "charges", type="fee") == {"charges": []}

    post_again = operator.post("/api/v1/rules/changes", params={"start": start, "end": end})
    assert (post_again.status_code, post_again.json()["title"]) == (409, "Closed period")


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"}, "swap them"),
        ({"start": "2026-01-01T05:00:00Z", "end": "2026-02-01T00:00:00Z"}, "midnight"),
        ({"start": "2026-01-01T00:00:00Z", "end": "2999-01-01T00:00:00Z"}, "not past"),
        ({"start": "2026-01-01T00:00:00", "end": "2026-02-01T00:00:00Z"}, "start"),
        ({"start": "2026-01-01T00:00:00Z"}, "end"),
    ],
)
def test_what_cannot_be_closed_says_why(operator, told, says):
    refused = operator.post("/api/v1/periods", json=told)
    assert refused.status_code == 400
    assert says in refused.json()["detail"]
    assert get(operator, "periods") == {"periods": []}


@pytest.mark.parametrize("path", ["reprice/7", "reprice/7/undo", "reprice/runs/7"])
def test_a_run_that_is_not_there_is_told(operator, path):
    asked = operator.post if path.endswith("undo") else operator.get
    assert asked(f"/api/v1/{path}").status_code == 404


@pytest.mark.parametrize(
    "params",
    [{}, {"start": "soon"}, {"start": "2026-01-01T00:00:00"}, {"start": "2999-01-01T00:00:00Z"},
     {"start": SINCE, "filter": "nobody:x"}],
)  # fmt: skip
def test_a_period_that_is_none_is_not_priced(operator, warehouse, params):
    for asked in (operator.get, operator.post):
        assert asked("/api/v1/reprice", params=params).status_code == 400
    assert warehouse.control.repricings() == []


# ---- what has no price


def test_unpriced_models_are_listed_and_one_command_prices_them_back_to_the_first_call(operator, run, repricer):
    (model,) = get(operator, "prices/unpriced")["models"]
    assert (model["model"], model["calls"], model["tokens"]) == ("acme-7b", 3, 3300)
    assert "acme-7b" in run("prices", "unpriced").stdout
    refused = run("prices", "unpriced", "--model", "acme-7b", "--like", "openai/gpt-4o", input="n\n")
    assert (refused.exit_code, "acme-7b" in refused.stderr) == (1, True)
    assert get(operator, "prices/entries")["entries"] == []

    done = run(
        "prices", "unpriced", "--model", "acme-7b", "--like", "openai/gpt-4o", "--multiply", "2", "--yes", "--json"
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["run"]["changed"], told["entries"][0]["effective_from"]) == (3, model["first_at"])
    assert costs(operator)[2::3] == [("0.007", "0.007")] * 3
    assert get(operator, "prices/unpriced") == {"models": []}
    gone = run("prices", "unpriced", "--model", "acme-7b", "--like", "openai/gpt-4o")
    assert (gone.exit_code, "without a price" in gone.stderr) == (1, True)


# ---- an update of the price data


@pytest.fixture
def updated(warehouse) -> Callable[[], str]:
    """Installs price data in which gpt-4o always cost a tenth more."""

    def dearer(entry):
        if (entry.provider, entry.model) != ("openai", "gpt-4o"):
            return entry
        cells = [
            replace(cell, prices={key: price * Decimal("1.1") for key, price in cell.prices.items()})
            for cell in entry.cells
        ]
        return replace(entry, cells=tuple(cells))

    def install() -> str:
        warehouse.prices = Prices(warehouse.control, "genai-prices 99.0", map(dearer, bundled.entries()))
        return "genai-prices 99.0"

    return install


def test_an_update_that_changes_the_past_waits_and_history_does_not_move(operator, updated, run, repricer):
    assert get(operator, "prices/update")["pending"] is None
    assert run("prices", "update").stdout == "nothing found\n"
    before, version = costs(operator), updated()

    pending = get(operator, "prices/update")["pending"]
    assert pending["version_to"] == version
    assert {one["model"] for one in pending["changes"]} == {"gpt-4o"}
    (of_input,) = [one for one in pending["changes"] if one["key"] == "input_mtok" and one["variant"] == []]
    assert (of_input["old"], of_input["new"]) == ("2.5", "2.75")
    effect = get(operator, "prices/update/effect", start=pending["effect_from"])
    assert (effect["calls"], {one["model"] for one in effect["differences"]}) == (6, {"gpt-4o"})
    shown = run("prices", "update", "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert "2.75" in shown.stderr
    assert "0.021 → 0.0231" in shown.stderr
    assert run("prices", "update", input="n\n").exit_code == 1
    assert get(operator, "prices/update")["pending"] is not None
    assert costs(operator) == before

    taken = run("prices", "update", "--yes", "--json")
    assert taken.exit_code == 0, taken.output
    assert json.loads(taken.stdout)["pending"] is None
    assert costs(operator) == before, "accepting moves no stored amount"
    assert get(operator, "prices/update/effect", start=SINCE) == {"calls": 0, "differences": []}
    finished(operator, post(operator, "reprice", start=SINCE))
    assert costs(operator)[0] == ("0.00385", "0.00385")


# ---- from the command line


def test_charges_are_listed_with_what_they_are_of(operator, run, repricer):
    assert run("charges").stdout == "nothing found\n"
    start, end = (TODAY - 3 * DAY).isoformat(), (TODAY - 2 * DAY).isoformat()
    post(operator, "periods", {"start": start, "end": end}, 201)
    post(operator, "prices/entries", {"entries": [TERM]}, 201)
    finished(operator, post(operator, "reprice", start=SINCE))
    shown = run("charges", "--type", "adjustment")
    assert shown.exit_code == 0, shown.output
    table = " ".join(shown.stdout.split())
    assert all(words in table for words in ("billed_usd", "-0.0007", "adjustment", "team Search"))
    assert "hardware_usd" not in table
    (one,) = json.loads(run("charges", "--json").stdout)["charges"]
    assert (one["team"], one["billed_usd"]) == ("Search", "-0.0007")
    assert run("charges", "--type", "fee").stdout == run("charges", "--to", start[:10]).stdout == "nothing found\n"


FILE = """
[[term]]
provider = "openai"
percent_off = "10"
effective_from = 2026-01-01
source = "order form 4"
"""


def test_a_file_is_compared_asked_about_and_stored(run, operator, tmp_path):
    file = tmp_path / "prices.toml"
    file.write_text(FILE)
    shown = run("prices", "diff", str(file))
    assert shown.exit_code == 0, shown.output
    assert "10 % off" in shown.stderr
    assert any("gpt-4o" in line and "2.25" in line for line in shown.stderr.splitlines())
    assert run("prices", "set", "--file", str(file), input="n\n").exit_code == 1
    assert get(operator, "prices/entries")["entries"] == []
    stored = run("prices", "set", "--file", str(file), "--yes", "--json")
    assert stored.exit_code == 0, stored.output
    assert json.loads(stored.stdout)["entries"][0]["percent_off"] == "10"
    assert "millicent reprice --from 2026-01-01T00:00:00Z --dry-run" in stored.stderr
    assert "nothing new" in run("prices", "set", "--file", str(file)).stderr
    assert "order form 4" in run("prices", "entries").stdout
    assert run("prices", "retire", "1").exit_code == 0
    assert run("prices", "entries").stdout == "nothing found\n"


def test_flags_make_the_same_entries_as_a_file(run, operator):
    euro = {
        "kind": "fx_rate",
        "currency": "EUR",
        "usd_per_unit": "1.1",
        "effective_from": "2026-01-01",
        "source": "bank",
    }
    post(operator, "prices/entries", {"entries": [euro]}, 201)
    common = ("--from", "2026-01-01", "--source", "wiki", "--yes", "--json")
    made = [
        run("prices", "set", "--model", "acme-7b", "--price", "input_mtok=3", "--price", "output_mtok=12", "--above",
            "200000:input_mtok=6", "--currency", "EUR", "--daily-from", "22:00", "--daily-to", "06:00", "--zone",
            "Europe/Berlin", "--note", "night", *common),
        run("prices", "set", "--model", "acme-*", "--like", "openai/gpt-4o", "--multiply", "1.1", "--region", "eu",
            *common),
        run("prices", "set", "--provider", "openai", "--percent-off", "12.5", "--key", "output_mtok", "--to",
            "2027-01-01", *common),
        run("prices", "set", "--provider", "openai", "--host", "api.openai.com", "--tier", "flex", "--billed-price",
            "input_mtok=2", *common),
    ]  # fmt: skip
    for one in made:
        assert one.exit_code == 0, one.output
    _, override, like, percent, contract = get(operator, "prices/entries")["entries"]
    assert (override["prices"], override["above"]) == (
        {"input_mtok": "3", "output_mtok": "12"}, [{"input_tokens": 200000, "prices": {"input_mtok": "6"}}],
    )  # fmt: skip
    assert [override[name] for name in ("currency", "daily_from", "daily_to", "zone", "note")] == [
        "EUR", "22:00:00", "06:00:00", "Europe/Berlin", "night",
    ]  # fmt: skip
    assert (like["like"], like["multiply"], like["region"]) == ("openai/gpt-4o", "1.1", "eu")
    assert (percent["percent_off"], percent["keys"], percent["effective_to"]) == (
        "12.5",
        ["output_mtok"],
        "2027-01-01T00:00:00Z",
    )
    assert (contract["prices"], contract["endpoint_host"], contract["service_tier"]) == (
        {"input_mtok": "2"},
        "api.openai.com",
        "flex",
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("set",), "nothing to set"),
        (("set", "--model", "x", "--price", "input_mtok"), "is not price=amount"),
        (("set", "--model", "x", "--price", "a=1", "--above", "many:a=1"), "is not tokens:price=amount"),
        (("set", "--model", "x", "--like", "a/b", "--percent-off", "3"), "two entries"),
        (("set", "--model", "x", "--file", "prices.toml"), "put all of it into the file"),
        (("set", "--file", "no-such.toml"), "cannot be read"),
        (
            ("set", "--model", "x", "--price", "inptu_mtok=1", "--from", "2026-01-01", "--source", "s"),
            "did you mean 'input_mtok'",
        ),
        (("set", "--model", "x", "--price", "input_mtok=1"), "effective_from is missing"),
        (("check", "no-such.toml"), "cannot be read"),
        (("retire", "7"), "no live entry 7"),
        (("search", "x", "--provider", "nobody"), "no price list of provider 'nobody'"),
    ],
)
def test_what_cannot_be_done_says_so(run, words, says):
    done = run("prices", *words)
    assert done.exit_code == 1, done.output
    assert says in done.stderr.replace("\n", " ")


def test_stored_calls_are_priced_again_from_the_command_line(run, operator, repricer):
    post(operator, "prices/entries", {"entries": [TERM]}, 201)
    since = ("--from", f"{TODAY - 4 * DAY:%Y-%m-%d}")
    shown = json.loads(run("reprice", *since, "--dry-run", "--json").stdout)
    assert (shown["calls"], len(shown["differences"])) == (6, 3)
    refused = run("reprice", *since, input="n\n")
    assert (refused.exit_code, "6 calls change" in refused.stderr) == (1, True)
    assert "0.007 → 0.0063" in refused.stderr
    done = run("reprice", *since, "--filter", "team:Search", "--yes", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["state"], told["changed"]) == ("done", 6)
    assert json.loads(run("reprice", *since, "--yes", "--json").stdout) == {"calls": 0, "differences": []}
    assert "done" in run("reprice", "runs").stdout
    assert json.loads(run("reprice", "show", str(told["id"]), "--json").stdout) == told
    undone = json.loads(run("reprice", "undo", str(told["id"]), "--yes", "--json").stdout)
    assert (undone["undo_of"], undone["changed"]) == (told["id"], 6)
    assert run("reprice").exit_code == 1
    assert "no repricing 99" in run("reprice", "undo", "99", "--yes").stderr


def test_a_month_is_closed_from_the_command_line(run):
    assert run("periods", "close", "--from", "2026-10-01", "--to", "2026-11-01", input="n\n").exit_code == 1
    done = run("periods", "close", "--from", "2026-10-01", "--to", "2026-11-01", "--yes", "--json")
    assert done.exit_code == 0, done.output
    (period,) = json.loads(run("periods", "list", "--json").stdout)["periods"]
    assert (period["start"], period["end"]) == ("2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z")
    again = run("periods", "close", "--from", "2026-10-15", "--to", "2026-11-02", "--yes")
    assert (again.exit_code, "overlaps" in again.stderr) == (1, True)

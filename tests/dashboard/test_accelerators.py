"""The Accelerators page without a screen: its address, marks and order, and that it tells what the API tells."""

import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from threading import Barrier
from typing import get_args
from urllib.parse import parse_qs, urlsplit

import pytest
from asked_pages import callback, every, flat, words
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from millicent.dashboard import app as pages
from millicent.dashboard.access import Access
from millicent.dashboard.api import mount_api
from millicent.dashboard.pages.accelerators_bars import Scale, known_by
from millicent.dashboard.pages.accelerators_homes import KEY, MEASURES, Home, marked
from millicent.dashboard.pages.accelerators_place import Place
from millicent.dashboard.pages.accelerators_table import columns, ordered
from millicent.dashboard.pages.accelerators_undeclared import command
from millicent.dashboard.pages.asked_once import asked_once
from millicent.dashboard.pages.figures import Figure, exact
from millicent.dashboard.state import HARDWARE_FILTERS, RANGES, View
from millicent.pricing.entries import FxRate
from millicent.warehouse import capacity
from millicent.warehouse.deployments import Deployment
from millicent.warehouse.discovered import Discovered
from millicent.warehouse.metrics import DICTIONARY
from millicent.warehouse.query import Basis, Period

NOW = datetime.now(UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SINCE = NOW.replace(minute=0, second=0, microsecond=0) - 30 * HOUR
HOSTILE = "<img src=x onerror=alert(1)>"
DRAWER = "accelerators-drawer.children"
HEADED = "accelerators-kpis.children"
PARTS = ("accelerators-kpis.children", "cheapest-body.children", "costs-body.children", "energy-body.children",
         "accelerators-undeclared.children")  # fmt: skip

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
hours = st.integers(400_000, 500_000).map(lambda hour: datetime.fromtimestamp(hour * 3600, UTC))
figures = st.builds(
    Figure,
    measure=st.sampled_from(tuple(DICTIONARY)),
    basis=st.sampled_from(get_args(Basis)),
    kept=st.dictionaries(st.sampled_from(HARDWARE_FILTERS), st.none() | texts, max_size=4).map(
        lambda told: tuple(told.items())
    ),
    during=st.none()
    | st.tuples(hours, st.integers(1, 2000)).map(lambda told: Period(told[0], told[0] + told[1] * HOUR)),
    hour=st.none() | st.tuples(texts, hours),
    newest=st.booleans(),
)
places = st.builds(
    Place,
    view=st.builds(
        View,
        range=st.sampled_from(tuple(RANGES)),
        compare=st.sampled_from(("previous", "none")),
        filters=st.fixed_dictionaries(
            {},
            optional=dict.fromkeys(HARDWARE_FILTERS, st.lists(texts, min_size=1, max_size=2, unique=True).map(tuple)),
        ).map(lambda found: tuple((name, found[name]) for name in HARDWARE_FILTERS if name in found)),
    ),
    per=st.sampled_from(("total", "output")),
    cut=st.sampled_from(("model", "deployment")),
    order=st.sampled_from(("", *(sign + column.key for column in columns("total") for sign in ("", "-")))),
    opened=st.none() | figures,
)


def every_of(component, kind: str) -> list:
    """Every component of a type inside the JSON of one."""
    if isinstance(component, list):
        return [found for one in component for found in every_of(one, kind)]
    if not isinstance(component, dict):
        return []
    inside = every_of(component.get("props", {}).get("children"), kind)
    return [component, *inside] if component.get("type") == kind else inside


# ---- the address


@given(places)
def test_an_address_is_read_as_it_was_written(place):
    assert Place.parse(place.search()) == place
    assert place.href()


@given(figures)
def test_a_figure_is_read_as_it_was_written(figure):
    assert Figure.parse(figure.written) == figure


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_address_opens(search, opened):
    assert Place.parse(f"?{search}").href()
    assert Place.parse(f"?v=1&open={opened}").href()
    assert Figure.parse(opened) is None or Figure.parse(opened).written


@pytest.mark.parametrize("opened", ["", "shoe?model=x", "spend_usd?basis=moon&at=yesterday&from=2026&to=2025"])
def test_what_a_figure_cannot_mean_is_ignored(opened):
    found = Figure.parse(opened)
    assert found is None or found == Figure.of("spend_usd")


# ---- what is marked, and in which order


def home(model="a", accelerator="nvidia-b200", cost="1", tokens=5_000_000, capacity_usd="10") -> Home:
    told = dict.fromkeys((*KEY, *MEASURES)) | {
        "model": model, "accelerator": accelerator, "own_tokens": tokens, "calls": 1,
        "capacity_cost_usd": Decimal(capacity_usd), "cost_per_mtok_usd": None if cost is None else Decimal(cost),
    }  # fmt: skip
    return Home(told)


def test_the_cheapest_home_of_a_model_is_marked_where_there_is_another_and_few_tokens_do_not_count():
    of_one = [home(cost="3"), home(accelerator="amd-mi355x", cost="2"), home(accelerator="x", cost="0.1", tokens=9)]
    spare = home(model=None, accelerator=None, cost=None, tokens=None)
    found = marked([spare, *of_one, home(model="alone", cost="0.5")], "total")
    assert [(one.model, one.told["accelerator"]) for one in found if one.cheapest] == [("a", "amd-mi355x")]
    assert [one.told["accelerator"] for one in found if one.low] == ["x", None]
    assert found[-1].hardware == "Reserved, not taken"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers(0, 50)), max_size=12), st.booleans())
def test_any_order_keeps_every_home_and_leaves_the_unknown_at_the_end(told, down):
    homes = [home(model=model, cost=None if cost is None else str(cost)) for model, cost in told]
    found = ordered(homes, Place(order="-cost" if down else "cost"))
    assert sorted(map(id, found)) == sorted(map(id, homes))
    costs = [one.cost("total") for one in found]
    known = [cost for cost in costs if cost is not None]
    assert known == sorted(known, reverse=down)
    assert costs[: len(known)] == known


@given(st.lists(st.decimals("0.0001", 1000, places=4), min_size=1, max_size=12))
def test_a_scale_holds_most_bars_and_cuts_only_what_would_hide_the_others(lengths):
    scale = Scale.of(lengths)
    kept = [length for length in lengths if not scale.cuts(length)]
    assert max(kept) == scale.top
    assert all(float(scale.at(length).removesuffix("%")) <= 100 for length in lengths)
    assert min((length for length in lengths if scale.cuts(length)), default=4 * scale.top) > 3 * scale.top


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(Decimal("1234.5000"), "usd", "$1,234.5"), (Decimal("-0.10"), "usd", "−$0.1"), (1_000_000, "tokens", "1,000,000"),
     (None, "usd", "unknown"), (Decimal(100), "ratio", "100")],
)  # fmt: skip
def test_a_figure_in_full_keeps_every_digit(value, unit, text):
    assert exact(value, unit) == text


def test_measured_and_modelled_are_said_in_words():
    assert [known_by(Decimal(one)) for one in ("0", "1", "0.76")] == ["modelled", "measured", "76% measured"]


def test_the_command_that_declares_is_one_line_whatever_calls_are_called():
    told = dict.fromkeys(("engine", "precision", "region", "environment", "accelerator_count", "tokens"))
    first = datetime(2026, 11, 3, 4, 5, tzinfo=UTC)
    found = Discovered(deployment="a; rm -rf '$HOME'", endpoint_host=None, model=HOSTILE, accelerator=None, calls=1,
                       first_at=first, last_at=NOW, declared=(), missing=(), **told)  # fmt: skip
    said = shlex.split(command(found))
    assert said[3:8] == ["a; rm -rf '$HOME'", "--model", HOSTILE, "--accelerator", "ACCELERATOR"]
    assert said[-2:] == ["--since", "2026-11-03T04:00:00"]


# ---- what parts of a page share


def test_parts_that_ask_at_once_share_one_answer_and_other_keys_none(warehouse):
    together, asked = Barrier(4), []

    def part(tenant: str) -> str:
        together.wait()
        return asked_once(warehouse, (tenant, "x"), lambda: asked.append(tenant) or tenant)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(part, "aabb")) == list("aabb")
    assert sorted(asked) == ["a", "b"]


def test_what_fails_is_asked_again(warehouse):
    def fail() -> None:
        raise ValueError("not now")

    with pytest.raises(ValueError, match="not now"):
        asked_once(warehouse, "fails", fail)
    assert asked_once(warehouse, "fails", lambda: "answered") == "answered"


# ---- the page over a small warehouse


def call(number: int, **told):
    started = SINCE + number * HOUR
    return {
        "span_id": number + 1, "trace_id": number.to_bytes(16), "started_at": started, "duration_ms": 1_800_000,
        "billing": "self_hosted", "deployment": "chat-b200", "model": "gpt-oss-120b", "accelerator": "nvidia-b200",
        "engine": "vllm", "precision": "fp8", "team": "search", "environment": "production",
        "input_tokens": 4_000_000, "output_tokens": 500_000, "price_status": "unpriced", **told,
    }  # fmt: skip


def declared(name: str, accelerator: str, **told) -> Deployment:
    return Deployment(name=name, model="gpt-oss-120b", accelerator=accelerator, accelerator_count=2, engine="vllm",
                      precision="fp8", environment="production", effective_from=SINCE,
                      profile={"kind": "rented", "usd_per_hour": "2.5"}, **told)  # fmt: skip


@pytest.fixture(scope="module")
def warehouse(warehouse_of):
    h100 = {"deployment": "chat-h100", "accelerator": "nvidia-h100-sxm"}
    calls = [call(n) for n in range(12)] + [call(n + 12, **h100) for n in range(6)]
    made = warehouse_of(*calls, call(20, deployment=HOSTILE, accelerator=None, model=HOSTILE, team=HOSTILE))
    made.control.declare(declared("chat-b200", "nvidia-b200"))
    made.control.declare(declared("chat-h100", "nvidia-h100-sxm"))
    capacity.refresh(made.engine, made.control, NOW)
    return made


def site_of(warehouse) -> TestClient:
    def mount(server) -> None:
        mount_api(server, warehouse, books=dict, metrics=str, ready=lambda: True)

    server = pages.create_app(warehouse, mount=mount)
    return TestClient(Access(server, warehouse.control, insecure_local=True), base_url="http://127.0.0.1:8050")


@pytest.fixture(scope="module")
def site(warehouse):
    with site_of(warehouse) as client:
        yield client


def ask(site, output: str, scope: str = "", **inputs):
    """What a callback answers, by output; by model where nothing else is told."""
    return flat(callback(site, output, **{"scope": scope, "by": "model", **inputs}))


@pytest.mark.parametrize("output", [*PARTS, DRAWER])
@pytest.mark.parametrize(
    "scope",
    ["", "?v=1&p=7d&team=nobody", "?v=1&team=search", "?v=9", "%%%&team=%00", "?model=" + "x" * 9000,
     "?v=1&per=output&model=&region=eu&precision=fp8", f"?v=1&deployment={HOSTILE}&engine=&accelerator="],
)  # fmt: skip
def test_every_callback_answers_to_any_scope(site, output, scope):
    ask(site, output, scope, open="cost_per_mtok_usd?model=gpt-oss-120b", order="-idle")


def test_amounts_asked_at_once_in_two_currencies_are_each_in_its_own(warehouse, site):
    warehouse.control.add_prices([FxRate(currency="EUR", usd_per_unit=Decimal(2), effective_from=SINCE - 90 * DAY,
                                         source="a test")])  # fmt: skip
    costs = {cur: ask(site, "costs-body.children", f"?v=1&p=7d&cur={cur}")["costs-body.children"]
             for cur in ("USD", "EUR")}  # fmt: skip
    usd, eur = (re.findall(r"[$€]([\d.,]+k?)", words(cost)) for cost in costs.values())
    assert usd != eur
    assert "$" not in words(costs["EUR"])


def test_the_page_says_what_the_api_says(site):
    said = ask(site, HEADED, "?v=1&p=7d")
    (total,) = site.get("/api/v1/query", params={"measures": "capacity_cost_usd,idle_cost_usd", "period": "7d"}).json()[
        "rows"
    ]
    titles = every(said[HEADED], "title")
    assert exact(Decimal(total["capacity_cost_usd"]), "usd") in titles
    assert exact(Decimal(total["idle_cost_usd"]), "usd") in titles
    exported = site.get(said["accelerators-export.href"])
    assert exported.status_code == 200, exported.text
    assert exported.text.splitlines()[0].startswith("model,accelerator,engine,precision")


@pytest.mark.parametrize("per", ["total", "output"])
def test_every_sum_and_ratio_of_the_table_is_that_of_the_api(site, per):
    scope = f"?v=1&p=7d&per={per}&deployment=chat-b200&deployment=chat-h100"
    body = ask(site, "costs-body.children", scope)["costs-body.children"]
    rows = every_of(body, "Tr")
    asked = [column for column in columns(per) if column.basis == "effective"]
    told = {"measures": ",".join(column.measure for column in asked), "period": "7d",
            "filter": "deployment:chat-b200,chat-h100", "group_by": "accelerator"}  # fmt: skip
    by_accelerator = site.get("/api/v1/query", params=told).json()["rows"]
    (total,) = site.get("/api/v1/query", params=told | {"group_by": ""}).json()["rows"]
    shown = [[title for title in every(row, "title") if title] for row in rows]
    for answer in (total, *by_accelerator):
        texts = {exact(Decimal(str(answer[one.measure])), DICTIONARY[one.measure].unit)
                 for one in asked if answer[one.measure] is not None}  # fmt: skip
        assert any(texts <= set(titles) for titles in shown), answer


def test_the_cheapest_home_is_told_first_and_what_is_not_declared_is_a_notice(site):
    assert "gpt-oss-120b is cheapest on B200" in words(ask(site, HEADED, "?v=1&p=7d")["accelerators-lead.children"])
    bars = words(ask(site, "cheapest-body.children", "?v=1&p=7d")["cheapest-body.children"])
    assert bars.index("B200") < bars.index("H100")
    notice = words(ask(site, PARTS[-1], "?v=1&p=7d")[PARTS[-1]])
    assert "1 deployment is not declared" in notice
    assert "1 call with 4.50M tokens" in notice
    table = words(ask(site, "costs-body.children", "?v=1&p=7d")["costs-body.children"])
    assert table.count("not declared") == 1
    assert HOSTILE in notice


def test_what_belongs_to_the_hardware_is_not_told_of_a_team(site):
    said = ask(site, HEADED, "?v=1&p=7d&team=search")
    assert "Filtered by team" in words(said["accelerators-notice.children"])
    cards = words(said[HEADED])
    assert re.search(r"Busy, of paid hours .{,400}? — ", cards)
    assert not re.search(r"— ", cards.split("Busy, of paid hours")[0].split("Idle")[0])
    rates = ask(site, "rates-body.children", "?v=1&team=search")["rates-body.children"]
    assert "belong to deployments, not to teams" in words(rates)


@pytest.mark.parametrize("name", [name for name in MEASURES if name not in {"calls", "unpriced_calls"}])
def test_every_figure_of_the_table_opens_with_its_formula_its_sums_and_its_hours(site, name):
    opened = Figure.of(name, model="gpt-oss-120b", accelerator="nvidia-b200")
    drawer = ask(site, DRAWER, "?v=1&p=7d", open=opened.written)[DRAWER]
    text, measure = words(drawer), DICTIONARY[name]
    assert measure.label in text
    assert measure.formula in text
    assert "Deployment-hours behind it" in text
    (there,) = (href for href in every(drawer, "href") if href.startswith("/api/v1/query"))
    (row,) = site.get(there).json()["rows"]
    value = row[name]
    assert exact(None if value is None else Decimal(value), measure.unit) in text
    assert parse_qs(urlsplit(there).query)["measures"][0].startswith(name)


def test_an_hour_opens_with_every_line_and_its_sources(site):
    opened = Figure(measure="capacity_cost_usd", hour=("chat-b200", SINCE))
    drawer = ask(site, DRAWER, "?v=1&p=7d", open=opened.written)[DRAWER]
    text = words(drawer)
    assert "chat-b200" in text
    assert "2.5" in text
    (there,) = (href for href in every(drawer, "href") if href.startswith("/api/v1/explain/"))
    assert site.get(there).status_code == 200
    gone = Figure(measure="capacity_cost_usd", hour=(HOSTILE, SINCE))
    said = ask(site, DRAWER, "", open=gone.written)
    assert "No such hour is known" in words(said[DRAWER])


def test_the_hours_behind_a_figure_add_up_to_it(site):
    opened = Figure.of("capacity_cost_usd", accelerator="nvidia-b200")
    drawer = ask(site, DRAWER, "?v=1&p=7d", open=opened.written)[DRAWER]
    titles = every(drawer, "title")
    shown = [title for title in titles if title and title.startswith("$")]
    assert shown.count(shown[0]) >= 2  # the figure, and the sum of its hours


# ---- nothing to see, and why


def test_before_anything_the_page_tells_how_to_connect_and_then_how_to_declare(warehouse_of):
    with site_of(warehouse_of()) as empty:
        assert "Send your first call" in words(ask(empty, HEADED)["accelerators-notice.children"])
    with site_of(warehouse_of({"span_id": 1, "model": "gpt-5-mini", "input_tokens": 1, "output_tokens": 1})) as by_api:
        assert "millicent deployments declare" in words(ask(by_api, HEADED)["accelerators-notice.children"])


def test_nothing_for_these_filters_says_so_and_leads_out(site):
    said = ask(site, HEADED, "?v=1&p=7d&model=none-such")["accelerators-notice.children"]
    assert "match" in words(said)
    assert "?v=1&p=7d" in every(said, "href")


def test_nobody_sees_anything_outside_an_authenticated_request(warehouse):
    server = TestClient(pages.create_app(warehouse), base_url="http://127.0.0.1:8050")
    with server as open_:
        assert "may not see" in words(ask(open_, HEADED)["accelerators-notice.children"])
        for output in PARTS[1:]:
            assert set(ask(open_, output).values()) == {None}
        assert "no such figure" in words(ask(open_, DRAWER, open="calls")[DRAWER])

"""The Teams page without a screen: its address, what its parts say, and who may close a month."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from millicent.dashboard import app as pages
from millicent.dashboard.access import Access
from millicent.dashboard.months import Month
from millicent.dashboard.pages.teams_place import PLACE, Looked, days
from millicent.dashboard.pages.teams_statement import money
from millicent.dashboard.state import View
from millicent.warehouse import capacity
from millicent.warehouse.control import DEFAULT_TENANT, Deployment
from millicent.warehouse.store import Warehouse

DAY = timedelta(days=1)
START = datetime(2026, 3, 1, tzinfo=UTC)
MARCH = "?v=1&m=2026-03"
HOSTILE = "<img src=x onerror=alert(1)>"
OUTPUTS = (
    "chargeback-notice", "chargeback-teams-body", "months-body", "otherwise-body", "orphans-body",
    "statement-body", "closing-body",
)  # fmt: skip
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
who = st.lists(st.none() | texts, max_size=3, unique=True).map(tuple)
places = st.builds(
    Looked,
    view=st.builds(
        View, range=st.sampled_from(("4w", "mtd")), currency=st.none() | st.just("EUR"),
        zone=st.none() | st.just("Europe/Berlin"),
        filters=who.map(lambda names: (("team", names),) if names else ()),
    ),
    month=st.none() | st.builds(Month, st.integers(1990, 2100), st.integers(1, 12)),
    manner=st.sampled_from(("showback", "chargeback")),
)  # fmt: skip


# ---- the address


@given(places)
def test_an_address_is_read_as_it_was_written(place):
    assert Looked.parse(place.search()) == place
    assert place.href()


@given(st.text(max_size=300), st.text(max_size=20) | st.none())
def test_any_address_opens(search, manner):
    assert Looked.parse(f"?{search}", manner).href()


@given(places, who)
def test_a_link_shows_somebody_elses_statement_of_the_same_month(place, names):
    there = Looked.parse(place.of(*names))
    assert there.who == (() if names == place.who else names)
    assert (there.month, there.manner, there.view.currency) == (place.month, place.manner, place.view.currency)


def test_the_plain_address_is_everybodys_showback_of_this_month():
    place = Looked.parse("")
    assert (place.who, place.month, place.manner, place.search()) == ((), None, "showback", "")
    now = datetime(2026, 11, 26, tzinfo=UTC)
    assert place.at(now) == Month(2026, 11)
    assert place.over(now).range == days(Month(2026, 11)) == "2026-11-01..2026-11-30"
    assert PLACE.path == "/teams"


@pytest.mark.parametrize(
    ("amount", "text"),
    [("1234.5", "$1,234.50"), ("-0.01", "\N{MINUS SIGN}$0.01"), ("0", "$0.00"), (None, "\N{EM DASH}")],
)
def test_amounts_of_a_statement_are_to_the_cent(amount, text):
    assert money(None if amount is None else Decimal(amount)) == text


# ---- the callbacks, which anybody may send


def call(span: int, day: float, team: str | None, **told) -> dict:
    known = {"span_id": span, "started_at": START + day * DAY, "team": team, "provider": "openai", "model": "gpt-4o",
             "feature": "chat", "service": HOSTILE, "input_tokens": 1_000_000, "output_tokens": 1000,
             "billing": "api", "list_cost_usd": Decimal(3), "billed_cost_usd": Decimal("2.5")}  # fmt: skip
    return {**known, **told}


OWN = {"billing": "self_hosted", "deployment": "rack", "model": "qwen3-8b", "duration_ms": 900_000,
       "list_cost_usd": None, "billed_cost_usd": None}  # fmt: skip
CALLS = (
    call(1, 2, "Search"),
    call(2, 3, HOSTILE),
    call(3, 4, None),
    call(4, 9.5, "Search", **OWN),
    call(5, -10, "Ads"),
)


def filled(make) -> Warehouse:
    made = make(*CALLS)
    made.control.declare(Deployment(
        name="rack", engine="vllm", model="qwen3-8b", accelerator="nvidia-h100-sxm", accelerator_count=2,
        region="us-va", profile={"kind": "rented", "usd_per_hour": "2"}, effective_from=START + 9 * DAY,
        effective_to=START + 10 * DAY, owner="Ads",
    ))  # fmt: skip
    capacity.refresh(made.engine, made.control, datetime.now(UTC))
    return made


def browsed(warehouse):
    server = Access(pages.create_app(warehouse), warehouse.control, insecure_local=True)
    return TestClient(server, base_url="http://127.0.0.1:8050")


@pytest.fixture(scope="module")
def site(warehouse_of):
    """Where no test changes anything."""
    with browsed(filled(warehouse_of)) as client:
        yield client


@pytest.fixture
def warehouse(priced_calls) -> Warehouse:
    return filled(priced_calls)


def text_of(told) -> str:
    """All text of what a callback answers, in order."""
    if isinstance(told, str | int):
        return str(told)
    if isinstance(told, list | tuple):
        return " ".join(filter(None, map(text_of, told)))
    if isinstance(told, dict):
        children = told["props"].get("children") if "props" in told else list(told.values())
        return text_of(children)
    return ""


def shown(answer: str, output: str) -> str:
    return text_of(json.loads(answer)["response"][output].get("children"))


def test_teams_are_listed_with_what_they_pay_and_add_up(site, answered):
    teams = shown(answered(site, "chargeback-teams-body", scope=MARCH), "chargeback-teams-body")
    assert teams.index("Search") < teams.index("Unattributed") < teams.index("What no team carries")
    assert HOSTILE in teams, "text, which the browser never reads as markup"
    assert teams.rstrip().partition("Everybody")[2].count("$") == 4
    cards = answered(site, "chargeback-notice", scope=MARCH)
    assert "November" not in shown(cards, "chargeback-words")
    assert "1 Mar \N{EN DASH} 31 Mar 2026" in shown(cards, "chargeback-words")
    assert "/api/v1/exports/statement?month=2026-03" in cards


def test_a_statement_is_of_whoever_is_chosen(site, answered):
    answer = answered(site, "statement-body", scope=f"{MARCH}&team=Search")
    text = shown(answer, "statement-body")
    assert shown(answer, "statement-title") == "Search"
    for words in ("API calls", "Own hardware, used", "Idle share of own hardware", "By feature", "By model",
                  "No team carries idle", "Control totals", "Other teams"):  # fmt: skip
        assert words in text
    assert "open=spend_usd%3Fcost_type%3Dapi" in answer, "amounts open their derivation"
    assert "team=Search&month=2026-03&format=pdf" in answer


def test_every_part_answers_where_there_is_nothing(site, answered):
    for scope in ("?v=1&m=2020-01", f"{MARCH}&team=nobody", "?v=1&m=2026-03&cur=CHF", "?v=1&tz=Mars/Base"):
        for output in OUTPUTS:
            assert answered(site, output, scope=scope)
    assert "Clear the filters" in answered(site, "chargeback-notice", scope=f"{MARCH}&team=nobody")
    assert "$" in shown(answered(site, "statement-body", scope=f"{MARCH}&cur=CHF"), "statement-body")


def test_before_the_first_call_the_page_says_how_to_connect(tmp_path, answered):
    empty = Warehouse.embedded(tmp_path / "none")
    with browsed(empty) as client:
        for output in OUTPUTS:
            assert answered(client, output, scope="")
    empty.close()


def test_other_policies_say_what_each_team_would_carry(site, answered):
    text = shown(answered(site, "otherwise-body", scope=MARCH), "otherwise-body")
    assert text.index("Search") < text.index("Nobody, its own line")
    assert "Ads" in text, "who owns the deployment"
    orphans = shown(answered(site, "orphans-body", scope=MARCH), "orphans-body")
    assert HOSTILE in orphans
    assert "gpt-4o" in orphans


def test_chargeback_of_an_open_month_charges_nothing_and_closing_changes_that(warehouse, answered):
    site = browsed(warehouse)

    def statement():
        return shown(answered(site, "statement-body", scope=f"{MARCH}&team=Search", now="chargeback"), "statement-body")

    assert "nothing is charged" in statement()
    assert "Close March 2026" in shown(answered(site, "closing-body", scope=MARCH), "closing-body")
    act = {"do": "close", "told": {"month": "2026-03", "tz": "UTC"}, "at": 1}
    assert "stays open" in answered(site, "chargeback-answer", do=act)
    assert not warehouse.control.closed_periods(DEFAULT_TENANT)
    act["told"]["sure"] = "yes"
    assert "March 2026 is closed" in answered(site, "chargeback-answer", do=act)
    assert "is closed already" in answered(site, "chargeback-answer", do=act)
    (closed,) = warehouse.control.closed_periods(DEFAULT_TENANT)
    assert (closed.start, closed.end) == (START, START + 31 * DAY)
    assert "API calls" in statement()
    assert "insecure-local" in shown(answered(site, "closing-body", scope=MARCH), "closing-body")
    assert "closed" in answered(site, "months-body", scope=MARCH)


def test_months_of_another_time_zone_are_closed_one_after_the_other(warehouse, answered):
    site, told = browsed(warehouse), {"tz": "Europe/Berlin", "sure": "yes"}
    for month in ("2026-03", "2026-04"):
        answered(site, "chargeback-answer", do={"do": "close", "told": {**told, "month": month}})
    first, second = warehouse.control.closed_periods(DEFAULT_TENANT)
    assert (first.start, first.end, second.end) == (START - DAY, START + 31 * DAY, START + 61 * DAY)


@pytest.mark.parametrize(
    ("act", "says"),
    [({"do": "close", "told": {"month": "soon", "sure": "yes"}}, "is not a month"), ({"do": "open"}, "no such action"),
     ("close", "no such action"), ({"do": "close", "told": "x"}, "is not a month"),
     ({"do": "close", "told": {"month": "2026-03", "sure": "yes", "tz": "Mars"}}, "Mars"),
     ({"do": "close", "told": {"month": "2099-01", "sure": "yes"}}, "is not over")],
)  # fmt: skip
def test_what_cannot_be_closed_says_why(site, answered, act, says):
    assert says in answered(site, "chargeback-answer", do=act)
    assert "still open" in shown(answered(site, "closing-body", scope=MARCH), "closing-words")


def test_only_an_operator_closes_a_month(client, warehouse, answered):
    act = {"do": "close", "told": {"month": "2026-03", "sure": "yes"}}
    reader = client("read")
    assert "ask for an operator" in answered(reader, "chargeback-answer", do=act)
    assert not warehouse.control.closed_periods(DEFAULT_TENANT)
    assert "An operator can close it" in shown(answered(reader, "closing-body", scope=MARCH), "closing-body")

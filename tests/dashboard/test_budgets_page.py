"""The Budgets page without a screen: its address, what its parts say, its form, and who may change a budget."""

import gzip
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import asked_pages
import pytest
from asked_pages import callback, every, flat
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from millicent.dashboard import app as pages
from millicent.dashboard import outlook_figures
from millicent.dashboard.access import Access
from millicent.dashboard.pages import budgets_form, budgets_one, budgets_reading
from millicent.dashboard.pages.budgets_place import PLACE, Looked, opened, opens
from millicent.dashboard.state import View
from millicent.warehouse import alert_rules, alerts, standings
from millicent.warehouse.budgets import Budget, end, history, live, put
from millicent.warehouse.control import DECLARED, DEFAULT_TENANT
from millicent.warehouse.query import Filter, Period
from millicent.warehouse.standings import Standing
from millicent.warehouse.store import Warehouse
from millicent.warehouse.workspace import Workspace

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
DAY = timedelta(days=1)
LONG_AGO = NOW - 400 * DAY
HOSTILE = "<img src=x onerror=alert(1)>"
PARTS = ("limits-notice", "plan-body", "one-body", "pasts-body", "revisions-body", "warnings-body")
ANSWER_BYTES = 80_000
LIKED = Workspace()
texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=12)
places = st.builds(
    Looked,
    view=st.builds(View, range=st.sampled_from(("4w", "mtd")), currency=st.none() | st.just("EUR")),
    show=st.sampled_from(("all", "over", "risk", "kept", "incomplete")),
    text=texts | st.just(""), budget=st.none() | st.integers(0, 10**8),
)  # fmt: skip
scopes = st.builds(
    Filter, st.sampled_from(("team", "feature", "customer", "provider")),
    st.lists(st.none() | texts.map(str.strip).filter(bool), min_size=1, max_size=3, unique=True).map(tuple),
    negated=st.booleans(),
)  # fmt: skip
made_budgets = st.builds(
    Budget,
    name=texts.map(str.strip).filter(bool), amount=st.decimals("0.01", "1e9", places=2),
    filters=st.lists(scopes, max_size=4).map(tuple),
    period=st.sampled_from(("day", "week", "month", "quarter", "fiscal_year")),
    currency=st.sampled_from(("USD", "EUR")), basis=st.sampled_from(("effective", "billed", "usage")),
    time_zone=st.sampled_from(("UTC", "Asia/Kolkata")), fiscal_month=st.integers(1, 12),
    rollover=st.sampled_from(("none", "unspent", "balance")), enforcement=st.sampled_from(("none", "warn", "block")),
    parent=st.none() | st.integers(1, 99), owner=st.just("") | texts.map(str.strip),
    note=st.just("") | texts.map(str.strip), effective_from=st.just(NOW), id=st.integers(1, 99),
    version=st.integers(1, 99),
)  # fmt: skip


# ---- the address


@given(places)
def test_an_address_is_read_as_it_was_written(place):
    assert Looked.parse(place.search()) == place
    assert place.href()


@given(st.text(max_size=300), st.none() | st.text(max_size=40))
def test_any_address_opens(search, text):
    assert Looked.parse(f"?{search}", text).href()
    assert opened(search)


@given(texts, texts)
def test_what_is_opened_is_read_as_it_was_written(name, value):
    assert opened(opens("new", name=name, note=value)) == ("new", {"name": name, "note": value})


def test_the_plain_address_lists_all_and_opens_the_first():
    place = Looked.parse("")
    assert (place.show, place.text, place.budget, place.search()) == ("all", "", None, "")
    assert PLACE.path == "/budgets"


# ---- the form


ODD = Budget(name="Odd", amount=Decimal(1), id=1, version=1, effective_from=NOW, filters=(
    Filter("team", ("a, b", "c\\", "d ,e")), Filter("feature", ("-minus",)), Filter("model", ("-",), negated=True),
    Filter("customer", (" lead and trail ",)),
))  # fmt: skip


@settings(max_examples=150)
@example(ODD)
@given(made_budgets)
def test_a_form_holds_the_budget_that_it_was_made_of(budget):
    told = budgets_form.told_of(budget)
    read = budgets_form.read(told, LIKED)
    assert budgets_form.holds(budget, LIKED)
    kept = ("name", "amount", "period", "currency", "basis", "time_zone", "fiscal_month", "rollover", "enforcement",
            "parent", "owner", "note", "id", "version")  # fmt: skip
    assert {name: getattr(read, name) for name in kept} == {name: getattr(budget, name) for name in kept}
    assert sorted(map(repr, read.filters)) == sorted(map(repr, budget.filters))


def test_a_scope_that_no_form_can_hold_is_not_changed_by_one():
    budget = Budget(name="Odd", amount=Decimal(1), filters=(Filter("team", ("two\nlines",)),), effective_from=NOW)
    assert not budgets_form.holds(budget, LIKED)


def test_a_form_reads_what_people_write():
    told = {"name": "X", "amount": " $27,500.50 ", "scope.team": "search, ads", "scope.model": "-gpt-5.1",
            "filters": "provider:openai\n\n-feature:chat", "since": "2026-11-01", "time_zone": "Europe/Berlin",
            "period": "rolling", "rolling_days": "30", "rollover": "unspent"}  # fmt: skip
    read = budgets_form.read(told, LIKED)
    assert read.amount == Decimal("27500.50")
    assert read.filters == (
        Filter("team", ("search", "ads")), Filter("model", ("gpt-5.1",), negated=True),
        Filter("provider", ("openai",)), Filter("feature", ("chat",), negated=True),
    )  # fmt: skip
    assert read.effective_from == datetime(2026, 10, 31, 23, tzinfo=UTC), "the midnight of its own zone"
    assert (read.rolling_days, read.rollover) == (30, "none"), "what a rolling period leaves cannot be"
    assert budgets_form.read({**told, "period": "month"}, LIKED).rolling_days is None


# ---- what the page says


@pytest.fixture(scope="module")
def warehouse(warehouse_of):
    """Sixty days: 30 USD a day of Search, half of it for chat, 10 of a team with a hostile name; one call unpriced."""
    calls = [
        {"started_at": NOW - n * DAY, "span_id": 4 * n + at, "team": team, "feature": feature, "customer": "acme",
         "billed_cost_usd": Decimal(usd)}
        for n in range(60)
        for at, (team, feature, usd) in enumerate(
            (("Search", "chat", 15), ("Search", "answers", 15), (HOSTILE, "chat", 10)), start=1
        )
    ]  # fmt: skip
    unpriced = {"started_at": NOW, "span_id": 999, "team": HOSTILE, "price_status": "unpriced"}
    made = warehouse_of(*calls, unpriced)
    for told in (
        {"name": "Company", "amount": Decimal(9000), "owner": "Dana", "note": "Plan"},
        {"name": "Search", "amount": Decimal(5), "filters": (Filter("team", ("Search",)),), "parent": 1,
         "owner": "Ann", "enforcement": "block"},
        {"name": "Search: chat", "amount": Decimal(4000), "parent": 2,
         "filters": (Filter("team", ("Search",)), Filter("feature", ("chat",)))},
        {"name": HOSTILE, "amount": Decimal(9900), "filters": (Filter("team", (HOSTILE,)),), "parent": 1},
        {"name": "Acme", "amount": Decimal(8000), "filters": (Filter("customer", ("acme",)),), "parent": 1},
        {"name": "Week by week", "amount": Decimal(20000), "period": "rolling", "rolling_days": 7},
    ):  # fmt: skip
        put(made.control, DEFAULT_TENANT, Budget(**told, effective_from=NOW - 45 * DAY), "ann")
    return made


def words(component) -> str:
    """All text of a component, in order, with one blank between words."""
    return " ".join(asked_pages.words(component).split())


def browsed(warehouse) -> TestClient:
    server = Access(pages.create_app(warehouse), warehouse.control, insecure_local=True)
    return TestClient(server, base_url="http://127.0.0.1:8050")


@pytest.fixture(scope="module")
def site(warehouse):
    """Where no test changes anything."""
    with browsed(warehouse) as client:
        yield client


def shown(site, output: str, **told) -> dict:
    return flat(callback(site, output, most_bytes=ANSWER_BYTES, **told))


def listed(site, scope: str = "", text: str = "") -> list[str]:
    """Names in the list, in order."""
    found = shown(site, "plan-body.children", scope=scope, text=text)["plan-body.children"]
    return [words(name) for name in every(found, "children")
            if isinstance(name, dict) and name.get("props", {}).get("className") == "name"]  # fmt: skip


def test_budgets_are_listed_as_a_tree_the_worst_first(site):
    assert listed(site) == ["Company", "Search", "Search: chat", "Acme", HOSTILE, "Week by week"]
    text = words(shown(site, "plan-body.children", scope="")["plan-body.children"])
    for told in ("ran out", "will be kept", "the last 7 days", "incomplete", "blocks", "Ann"):
        assert told in text
    assert "Company" in words(shown(site, "one-body.children", scope="")["one-title.children"])


def test_a_search_and_a_filter_keep_what_leads_to_what_they_find(site):
    assert listed(site, text="ann") == ["Company", "Search"]
    assert listed(site, text="chat SEARCH") == ["Company", "Search", "Search: chat"]
    assert listed(site, scope="?v=1&show=over") == ["Company", "Search"]
    assert words(shown(site, "one-body.children", scope="?v=1&show=over")["one-title.children"]) == "Search"
    nothing = words(shown(site, "plan-body.children", scope="", text="nobody")["plan-body.children"])
    assert "No budget matches" in nothing
    assert "Show all" in nothing


def test_budgets_that_are_parts_of_each_other_are_listed():
    def untold(name: int, parent: int) -> standings.Untold:
        budget = Budget(name=f"b{name}", amount=Decimal(1), id=name, parent=parent, effective_from=NOW)
        return standings.Untold(budget, Period(NOW, NOW + DAY), "no rate")

    found = budgets_reading.listed([untold(1, 2), untold(2, 1), untold(3, 3)], Looked())
    assert sorted(line.one.budget.id for line in found) == [1, 2, 3]


def test_tiles_count_and_lead_to_their_budgets(site):
    tiles = shown(site, "limits-notice.children", scope="")["limits-kpis.children"]
    assert [words(tile).split()[0] for tile in tiles] == ["Over", "Will", "At", "Will", "Next", "Incomplete"]
    over = words(tiles[0])
    assert over.startswith("Over already ")
    assert over.endswith("Search")
    assert "?v=1&show=over" in every(tiles[0], "href")
    again = shown(site, "limits-notice.children", scope="?v=1&show=over")["limits-kpis.children"]
    assert every(again[0], "href") == ["?"]


def test_the_budget_that_is_open_says_what_was_spent_of_it_and_what_it_may_still_be(site):
    told = shown(site, "one-body.children", scope="?v=1&budget=1")
    body = words(told["one-body.children"])
    spent = 40 * NOW.day
    assert f"Spent ${spent:,} " in body or f"Spent ${spent:.2f}" in body
    assert "Incomplete. Not in what was spent: 1 call is unpriced" in body
    assert told["one-title.children"] == "Company"
    assert "all spend" in words(told["one-words.children"])
    facts = words(told["one-facts.children"])
    assert "3 parts" in facts
    assert "1 of them counts in another way" in facts, "what Acme counts is counted by teams, too"
    assert "The parts may come to $905 more than the whole" in facts
    assert "/explore?v=1&p=" in json.dumps(told["one-facts.children"])
    names = {trace["name"] for trace in told["limit-burn-chart.figure"]["data"]}
    assert {"Even pace", "Left"} <= names


def stood(budget: Budget) -> Standing:
    """A budget of which half is spent."""
    half = budget.amount / 2
    return Standing(budget, budget.period_at(NOW), budget.amount, Decimal(0), half, None, Decimal("0.5"), None, (),
                    ((NOW.date(), half),))  # fmt: skip


def test_parts_that_cannot_be_added_up_are_named_apart():
    whole = Budget(name="Search", amount=Decimal(100), filters=(Filter("team", ("Search",)),), id=1, effective_from=NOW)
    kept = {"parent": 1, "effective_from": NOW}
    of = {name: (*whole.filters, Filter("feature", (name,))) for name in ("chat", "answers")}
    found = [
        stood(whole),
        stood(Budget(name="Chat", amount=Decimal(40), filters=of["chat"], id=2, **kept)),
        stood(Budget(name="Answers", amount=Decimal(50), filters=of["answers"], id=3, **kept)),
        stood(Budget(name="In euro", amount=Decimal(70), filters=of["chat"], currency="EUR", id=4, **kept)),
        stood(Budget(name="Elsewhere", amount=Decimal(80), filters=(Filter("team", ("Ads",)),), id=5, **kept)),
    ]
    head, body = budgets_one.parts(found[0], found, Looked())
    said = words(body)
    assert head == "4 parts"
    assert "Its parts together $45.00 — $90.00" in said
    assert "No part of it $5.00 — $10.00" in said
    assert "$10.00 is shared out to no part." in said
    assert "2 of them count in another way" in said
    assert "What Elsewhere may spend is not all within it." in said
    assert budgets_one.parts(found[1], found, Looked()) is None


def test_a_rolling_budget_is_drawn_by_the_days_of_each_window(site):
    told = shown(site, "one-body.children", scope="?v=1&budget=6")
    (line,) = told["limit-burn-chart.figure"]["data"]
    assert line["x"][-1] == NOW.date().isoformat()
    assert line["y"][-1] == 7 * 40
    assert "To keep it" not in words(told["one-body.children"])
    assert "any 7 days" in words(told["one-facts.children"])


def test_past_periods_are_told_before_the_budget_held_too(site):
    told = shown(site, "pasts-body.children", scope="?v=1&budget=1")
    titles = every(told["pasts-body.children"], "title")
    assert any("of $9,000.00" in title for title in titles)
    first = (NOW - 59 * DAY).strftime("%B %Y")
    assert titles[0].startswith(first)
    if (NOW - 45 * DAY).month != (NOW - 59 * DAY).month:
        assert "before the budget held" in titles[0]


def test_rules_and_alerts_of_a_budget_are_told(warehouse, site):
    rule = next(one for one in alert_rules.live(warehouse.control, DEFAULT_TENANT, budget=2) if one.threshold == 1)
    alert = alerts.Alert(
        id="al_" + "0" * 32, rule=rule.id or 0, budget=2, scope="budget:2", period_start=NOW - DAY, period_end=NOW,
        dedup_key="2|1|x", state="firing", severity="error", late=True, told=True, opened_at=NOW, changed_at=NOW,
        summary=f"{HOSTILE} is over", data={"summary": "x"},
    )  # fmt: skip
    with warehouse.control.begin() as connection:
        alerts.fire(connection, DEFAULT_TENANT, alert, "actual", ())
    told = shown(site, "warnings-body.children", scope="?v=1&budget=2")
    text = words(told["warnings-body.children"])
    assert f"{HOSTILE} is over" in text
    for said in ("late", "Spend reaches 100% of the limit", "Forecast reaches 110% of the limit", "fires"):
        assert said in text
    assert told["warnings-words.children"].endswith("1 open")
    assert f"/alerts?v=1&open=alert%3Fid%3Dal_{'0' * 32}" in every(told["warnings-body.children"], "href")


def test_a_budget_without_a_rate_says_so_and_the_others_stand(priced_calls):
    made = priced_calls({"started_at": NOW, "span_id": 1, "model": "gpt-4o", "provider": "openai"})
    held = {"effective_from": LONG_AGO}
    put(made.control, DEFAULT_TENANT, Budget(name="Paris", amount=Decimal(9), currency="EUR", **held), "ann")
    put(made.control, DEFAULT_TENANT, Budget(name="Company", amount=Decimal(9), **held), "ann")
    with browsed(made) as site:
        assert listed(site) == ["Company", "Paris"]
        paris = words(shown(site, "one-body.children", scope="?v=1&budget=1")["one-body.children"])
        assert "EUR" in paris
        assert "rate" in paris
        for output in PARTS:
            assert shown(site, f"{output}.children", scope="?v=1&budget=1")


def test_before_the_first_call_and_the_first_budget_the_page_says_what_to_do(tmp_path, priced_calls):
    empty = Warehouse.embedded(tmp_path / "none")
    with browsed(empty) as site:
        for output in PARTS:
            assert shown(site, f"{output}.children", scope="")
        notice = shown(site, "limits-notice.children", scope="")["limits-notice.children"]
        assert "Send your first call" in words(notice)
    empty.close()
    with browsed(priced_calls({"started_at": NOW, "span_id": 1})) as site:
        notice = shown(site, "limits-notice.children", scope="")["limits-notice.children"]
        assert "No budget is set yet" in words(notice)
        assert "New budget" in words(notice)


def test_a_link_to_a_budget_that_is_gone_says_so(priced_calls):
    made = priced_calls({"started_at": NOW, "span_id": 1})
    for name in ("Old", "Company"):
        put(made.control, DEFAULT_TENANT, Budget(name=name, amount=Decimal(9), effective_from=LONG_AGO), "ann")
    end(made.control, DEFAULT_TENANT, 1, "ann", NOW - 2 * DAY)
    with browsed(made) as site:
        old = words(shown(site, "one-body.children", scope="?v=1&budget=1")["one-body.children"])
        assert old.startswith("Old holds no more, or not yet")
        never = words(shown(site, "one-body.children", scope="?v=1&budget=77")["one-body.children"])
        assert never.startswith("Budget 77 does not exist")


def test_hundreds_of_budgets_are_listed_in_an_answer_of_bounded_size(priced_calls):
    made = priced_calls({"started_at": NOW, "span_id": 1, "team": "a"})
    for number in range(75):
        told = Budget(name=f"{number} {'x' * 80}", amount=Decimal(9), effective_from=LONG_AGO, owner="o" * 40,
                      filters=(Filter("team", (f"t{number}",)),))  # fmt: skip
        put(made.control, DEFAULT_TENANT, told, "ann")
    with browsed(made) as site:
        found = flat(callback(site, "plan-body.children", scope=""))["plan-body.children"]
        assert len(gzip.compress(json.dumps(found).encode())) < ANSWER_BYTES, "as it is sent"
        assert "and 15 more: search" in words(found)
        assert len(listed(site, text="74")) == 1


def test_a_period_with_a_day_of_23_hours_ends_with_its_last_day():
    at = datetime(2026, 3, 10, 12, tzinfo=UTC)
    budget = Budget(name="b", amount=Decimal(31), time_zone="Europe/Berlin", effective_from=LONG_AGO)
    one = Standing(budget, budget.period_at(at), Decimal(31), Decimal(0), Decimal(9), None, Decimal("0.3"), None, (),
                   ((datetime(2026, 3, 1, tzinfo=UTC).date(), Decimal(1)),))  # fmt: skip
    pace = outlook_figures.burn_down(one)["data"][0]
    assert pace["x"] == ["2026-02-28", "2026-03-31"]


# ---- changing it, which anybody may try


@pytest.fixture
def changing(priced_calls):
    """Forty days of calls of one team, and a budget of it."""
    calls = [{"started_at": NOW - n * DAY, "span_id": n + 1, "team": "Search", "model": "gpt-4o", "provider": "openai",
              "input_tokens": 1_000_000, "output_tokens": 0} for n in range(70)]  # fmt: skip
    made = priced_calls(*calls)
    put(made.control, DEFAULT_TENANT, Budget(name="Search", amount=Decimal(50), effective_from=LONG_AGO,
                                             filters=(Filter("team", ("Search",)),)), "ann")  # fmt: skip
    with browsed(made) as site:
        yield made, site


def act(site, do: str, **told: str) -> dict:
    return flat(callback(site, "limits-answer.children", scope="?v=1&show=kept", do={"do": do, "told": told, "at": 1}))


def test_a_budget_is_set_changed_and_ended(changing):
    warehouse, site = changing
    made = act(site, "set", name=HOSTILE, amount="2,000", **{"scope.team": "Search", "parent": "1"})
    assert f"{HOSTILE} may come to $2,000 each month" in words(made["limits-answer.children"])
    assert made["limits-acted.data"]["go"] == "?v=1&show=kept&budget=2"
    assert made["limits-changed.data"] == {"at": 1}
    (new,) = history(warehouse.control, DEFAULT_TENANT, 2)
    assert (new.amount, new.parent, new.author) == (Decimal(2000), 1, "insecure-local")
    assert alert_rules.live(warehouse.control, DEFAULT_TENANT, budget=2), "it has the usual rules"

    form = shown(site, "limits-drawer.children", open="change?id=2")["limits-drawer.children"]
    values = dict(zip(every(form, "name"), every(form, "value"), strict=False))
    assert "2000" in every(form, "value"), values
    told = {"id": "2", "version": "1", "name": HOSTILE, "amount": "2500", "note": "More, after all"}
    changed = act(site, "set", **told)
    assert "It is version 2" in words(changed["limits-answer.children"])
    again = act(site, "set", **{**told, "amount": "9"})
    assert "not at version 1 any more" in words(again["limits-answer.children"])
    assert again["limits-acted.data"]["go"] is None
    same = act(site, "set", **{**told, "version": "2"})
    assert "says so already" in words(same["limits-answer.children"])

    told_of = words(shown(site, "revisions-body.children", scope="?v=1&budget=2")["revisions-body.children"])
    assert "Limit $2,000 → $2,500 (▲ 25.0%)" in told_of
    assert "Counts team Search → all spend" in told_of
    assert "Part of Search → nothing" in told_of
    assert "“More, after all”" in told_of
    assert "insecure-local" in told_of

    gone = act(site, "end", id="2")
    assert "holds no more" in words(gone["limits-answer.children"])
    assert [one.name for one in live(warehouse.control, DEFAULT_TENANT, datetime.now(UTC))] == ["Search"]


@pytest.mark.parametrize(
    ("do", "told", "says"),
    [
        ("set", {"name": "X"}, "Limit is missing"), ("set", {"amount": "5"}, "Name is missing"),
        ("set", {"name": "X", "amount": "-5"}, "Limit -5 is not above 0"),
        ("set", {"name": "X", "amount": "a lot"}, "is no number"),
        ("set", {"name": "X", "amount": "5", "filters": "planet:mars"}, "unknown filter"),
        ("set", {"name": "X", "amount": "5", "time_zone": "Mars/Base"}, "Mars/Base"),
        ("set", {"name": "X", "amount": "5", "since": "soon"}, "soon"),
        ("set", {"name": "X", "amount": "5", "period": "rolling"}, "Days None is not 1 to"),
        ("set", {"name": "X", "amount": "5", "parent": "99"}, "is no budget that holds"),
        ("set", {"name": "X\n\ud800", "amount": "5"}, "characters that are no text"),
        ("end", {"id": "99"}, "there is no budget 99"), ("end", {}, "is no number"),
        ("drop", {"id": "1"}, "no such action"),
    ],
)  # fmt: skip
def test_what_cannot_be_says_why_in_the_words_of_the_form(changing, do, told, says):
    warehouse, site = changing
    answer = act(site, do, **told)
    assert says in words(answer["limits-answer.children"])
    assert answer["limits-acted.data"]["go"] is None
    assert "limits-changed.data" not in answer
    assert len(live(warehouse.control, DEFAULT_TENANT, datetime.now(UTC))) == 1


def test_what_is_no_act_is_refused(changing):
    _, site = changing
    for do in (
        "set",
        None,
        7,
        ["set"],
        {"do": ["set"]},
        {"do": "set", "told": "x"},
        {"do": "set", "told": {"name": 7}},
    ):
        answer = flat(callback(site, "limits-answer.children", scope=None, do=do))
        assert answer["limits-acted.data"]["go"] is None


def test_a_draft_is_answered_by_what_might_be_and_by_what_would_have_been(changing):
    _, site = changing
    draft = {"name": "", "scope.team": "Search", "period": "month", "currency": "USD"}

    def tried(**more: str) -> tuple[str, str, list[str]]:
        found = shown(site, "limits-trial.children", draft={**draft, **more})
        offer = found["limits-suggestion.children"]
        return words(offer), words(found["limits-trial.children"]), every(offer, "data-fill")

    offer, trial, fills = tried()
    assert offer.startswith("Suggested $")
    assert json.loads(fills[0])[0] == "limits-amount"
    assert "Write a limit" in trial
    offer, trial, _ = tried(amount="40")
    assert "Its limit would have been reached in" in trial
    assert "50%" in trial
    assert "Told at 50%, 80%, 100%, 120% spent and 100%, 110% forecast" in trial
    _, trial, _ = tried(amount="1000000")
    assert "reached in none" in trial
    assert "nobody would have been told" in trial
    assert "Before it can be set" in tried(currency="usd")[1]
    assert "Currency 'usd' is not three capital letters" in tried(currency="usd")[1]
    offer, trial, fills = tried(amount="40", **{"scope.team": "Nobody"})
    assert (offer.strip(), fills) == ("Nothing was spent that could tell.", [])
    assert "Nothing was spent that could tell" in trial
    for hostile in (None, 7, [], {"amount": 7}, {"amount": "1" * 500}, {"id": "1", "amount": "5", "version": "x"}):
        assert shown(site, "limits-trial.children", draft=hostile) is not None


def test_a_change_is_tried_with_the_rules_that_the_budget_has(changing):
    warehouse, site = changing
    for rule in alert_rules.live(warehouse.control, DEFAULT_TENANT, budget=1):
        if rule.threshold != Decimal("0.8"):
            alert_rules.end(warehouse.control, DEFAULT_TENANT, rule.id or 0, "ann")
    draft = {"id": "1", "version": "1", "name": "Search", "amount": "40", "scope.team": "Search"}
    trial = words(shown(site, "limits-trial.children", draft=draft)["limits-trial.children"])
    assert "Told at 80% spent; other rules are not tried." in trial


def test_only_an_operator_changes_budgets_and_a_file_its_own(client, changing, answered):
    warehouse, site = changing
    reader = client("read")
    asked = {"do": "set", "told": {"name": "X", "amount": "5"}, "at": 1}
    assert "ask for an operator" in answered(reader, "limits-answer.children", do=asked)
    assert "millicent budgets set" in answered(reader, "limits-drawer.children", open="new")
    assert "New budget" not in answered(reader, "limits-notice.children", scope="")
    assert "Change" not in words(shown(reader, "one-body.children", scope="")["one-aside.children"])
    assert "Its limit would have been" in answered(reader, "limits-trial.children", draft=asked["told"])
    assert len(live(warehouse.control, DEFAULT_TENANT, datetime.now(UTC))) == 1

    put(warehouse.control, DEFAULT_TENANT, Budget(name="Plan", amount=Decimal(7), effective_from=LONG_AGO), DECLARED)
    refused = act(site, "set", name="Plan", amount="8")
    assert "is declared in millicent.toml: change it there" in words(refused["limits-answer.children"])
    aside = words(shown(site, "one-body.children", scope="?v=1&budget=2")["one-aside.children"])
    assert "Declared in a file" in aside
    assert "Change" not in aside

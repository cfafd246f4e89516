"""Statements: lines that add up to the month of everybody, figures that stay once it is closed, files read back."""

import csv
import io
import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import openpyxl
import polars as pl
import pypdf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millicent.dashboard import statement_files, statements
from millicent.dashboard.format import Presentation
from millicent.dashboard.months import Month, closing, open_days, over
from millicent.dashboard.statement_pdf import shown
from millicent.dashboard.statements import EVERYBODY, NOBODY, Line, Monthly, adding_up, cents
from millicent.pricing.entries import FxRate
from millicent.warehouse import capacity, late, ledger
from millicent.warehouse.control import DEFAULT_TENANT, Deployment
from millicent.warehouse.policies import Policy
from millicent.warehouse.query import Filter, Query
from millicent.warehouse.record import IDLE
from millicent.warehouse.repricings import ClosedPeriod

from .conftest import CALLS as CALLED
from .conftest import KNOWN, OUTCOMES

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MARCH = Month(2026, 3)
START = datetime(2026, 3, 1, tzinfo=UTC)
USD = Presentation()
BERLIN = ZoneInfo("Europe/Berlin")
HOSTILE = '=HYPERLINK("x") <b>&</b> \u202e東京 Ωμέγα \N{ROBOT FACE}'
FORMS = ("csv", "xlsx", "pdf")
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
amounts = st.none() | st.decimals(-(10**9), 10**9, places=24, allow_nan=False, allow_infinity=False)
months = st.builds(Month, st.integers(1972, 8000), st.integers(1, 12))


# ---- months


@given(months, st.integers(-500, 500))
def test_a_month_is_read_as_it_is_written_and_counted_back_and_forth(month, n):
    assert Month.parse(month.written) == month
    assert month.before(n).before(-n) == month
    assert (month.before(n) < month) == (n > 0)


@pytest.mark.parametrize(
    "text", [None, "", "2026", "2026-13", "2026-1", "1970-01", "9999-01", "2026-11-01", " 2026-11"]
)
def test_what_is_no_month_is_none(text):
    assert Month.parse(text) is None


@given(months, st.sampled_from(("UTC", "Europe/Berlin", "Asia/Kathmandu", "America/New_York", "Pacific/Apia")))
def test_months_of_a_time_zone_follow_each_other(month, name):
    zone = ZoneInfo(name)
    period = month.period(zone)
    assert period.end == month.before(-1).period(zone).start
    assert Month.of(period.start, zone) == month == Month.of(period.end - timedelta(microseconds=1), zone)


@st.composite
def closings(draw):
    """Closed periods of whole days around March, which do not overlap."""
    cuts = sorted(draw(st.sets(st.integers(-5, 40), max_size=8)))
    pairs = zip(cuts[::2], cuts[1::2], strict=False)
    return [ClosedPeriod(START + a * DAY, START + b * DAY, START + 60 * DAY + a * HOUR, f"cfo {a}") for a, b in pairs]


@given(closings(), st.sampled_from((UTC, BERLIN, ZoneInfo("Asia/Tokyo"))))
def test_a_month_is_closed_once_what_is_left_open_of_it_is(closed, zone):
    period = MARCH.period(zone)
    left = open_days(period, closed)
    assert all(one.start.hour == one.end.hour == 0 and one.start.tzinfo is UTC for one in left)
    assert (closing(period, closed) is None) == bool(left)
    more = [ClosedPeriod(one.start, one.end, START + 90 * DAY, "now") for one in left]
    for one, other in itertools.combinations([*closed, *more], 2):
        assert one.end <= other.start or other.end <= one.start, "none is closed twice"
    done = closing(period, [*closed, *more])
    assert done is not None
    assert done.by == (
        "now"
        if left
        else max(
            (one for one in closed if one.start < period.end and period.start < one.end), key=lambda one: one.closed_at
        ).actor
    )


def test_a_month_can_be_closed_once_each_utc_day_that_it_touches_has_ended():
    new_york = MARCH.period(ZoneInfo("America/New_York"))
    assert not over(new_york, datetime(2026, 4, 1, 23, 59, tzinfo=UTC))
    assert over(new_york, datetime(2026, 4, 2, tzinfo=UTC))
    assert over(MARCH.period(UTC), datetime(2026, 4, 1, tzinfo=UTC))


# ---- arithmetic


@given(st.lists(amounts, max_size=20))
def test_lines_add_up_to_their_total_to_the_cent(exact):
    known = [one for one in exact if one is not None]
    total = statements.added(exact)
    *rows, whole = adding_up([Line(None, str(at), one) for at, one in enumerate(exact)], "Total", total)
    assert whole.amount == cents(total)
    assert sum(one.amount for one in rows if one.amount is not None) == (whole.amount or 0)
    for before, after in zip(exact, rows, strict=False):
        assert (before is None) == (after.amount is None)
        assert before is None or abs(before - after.amount) <= Decimal("0.005")
    rounding = [one.amount for one in rows[len(exact) :]]
    assert len(rounding) <= 1
    assert all(abs(one) <= Decimal("0.005") * (len(known) + 1) for one in rounding)


kinds = st.dictionaries(st.sampled_from(statements.KINDS), amounts, min_size=1)
names = st.none() | st.just(IDLE) | texts.filter(bool)


@given(st.dictionaries(names, kinds, max_size=6), st.data())
def test_whoever_is_asked_for_the_control_totals_are_everybodys_month(teams, data):
    whole = Monthly(month=MARCH, period=MARCH.period(), teams=teams, closing=None)
    who = data.draw(st.sampled_from((EVERYBODY, NOBODY, *((name,) for name in teams))))
    *rows, everybody = whole.control(who)
    assert everybody.amount == cents(whole.total() or Decimal(0))
    assert sum(one.amount for one in rows) == everybody.amount
    *lines, total = statements.lines(whole, who)
    assert sum(one.amount for one in lines if one.amount is not None) == (total.amount or 0)
    if who:
        assert next(one.amount for one in rows if one.name == statements.called(who)) == (total.amount or 0)


# ---- the ledger


def call(span: int, day: float, team: str | None, **told):
    known = {"span_id": span, "started_at": START + day * DAY, "team": team, "provider": "openai", "model": "gpt-4o",
             "feature": "chat", "input_tokens": 1234 * span, "output_tokens": 321, "billing": "api"}  # fmt: skip
    return {**known, **told}


def own(span: int, day: float, team: str | None, **told):
    served = {"billing": "self_hosted", "deployment": "rack", "model": "qwen3-8b", "provider": None,
              "duration_ms": 900_000, "cache_read_tokens": 0}  # fmt: skip
    return call(span, day, team, **served, **told)


CALLS = (
    call(1, 2, "Search"), call(2, 3, "Search", feature=None), call(3, 4, "Ads"), call(4, 5, None),
    call(50, 6, HOSTILE, model="gpt-5-mini", feature=HOSTILE), call(6, 8, "Ads", model="acme-7b"),
    own(7, 10, "Search"), own(8, 10.2, "Ads"), own(9, 10.4, None), call(10, -20, "Search"), call(11, 35, "Search"),
)  # fmt: skip


@pytest.fixture
def warehouse(priced_calls):
    made = priced_calls(*CALLS)
    profile = {"kind": "rented", "usd_per_hour": "2"}
    made.control.declare(Deployment(
        name="rack", engine="vllm", model="qwen3-8b", accelerator="nvidia-h100-sxm", accelerator_count=2,
        region="us-va", profile=profile, effective_from=START + 9 * DAY, effective_to=START + 12 * DAY, owner="Ads",
    ))  # fmt: skip
    capacity.refresh(made.engine, made.control, datetime.now(UTC))
    return made


def told(warehouse, who=EVERYBODY, shown=USD, month=MARCH):
    return statements.statement(warehouse, DEFAULT_TENANT, who, month, shown, datetime(2026, 4, 20, 8, tzinfo=UTC))


def overview(warehouse, who, month=MARCH, shown=USD):
    """What the Overview shows for the month, to the cent."""
    asked = Query(measures=("spend_usd",), period=month.period(shown.zone), currency=shown.currency,
                  filters=(Filter("team", who),) if who else ())  # fmt: skip
    return cents(warehouse.ask(DEFAULT_TENANT, asked).frame.item())


def rate_of(usd, since):
    return FxRate(currency="EUR", usd_per_unit=Decimal(usd), effective_from=since, source="ECB")


def by_name(lines):
    return {one.name: one.amount for one in lines}


@pytest.mark.parametrize(
    ("idle", "carriers"),
    [("show", ()), ("spread by use", ("Search", "Ads")), ("spread evenly", ("Search", "Ads")),
     ("charge the owner", ("Ads",))],
)  # fmt: skip
def test_every_table_of_a_statement_adds_up_to_what_the_overview_shows(warehouse, idle, carriers):
    warehouse.control.set_policy(Policy(idle=idle, effective_from=START), DEFAULT_TENANT, "cfo")
    capacity.refresh(warehouse.engine, warehouse.control, datetime.now(UTC))
    for who in (EVERYBODY, NOBODY, ("Search",), ("Ads",), (HOSTILE,), ("Search", "Ads")):
        found = told(warehouse, who)
        assert found.total == overview(warehouse, who)
        assert found.total > 0
        for table in (found.lines, found.features, found.models):
            *rows, total = table
            assert total.amount == found.total == sum(one.amount for one in rows if one.amount is not None)
        assert cents(found.history[-1].total) == found.total
        assert cents(found.history[-2].total) == (overview(warehouse, who, MARCH.before()) or 0)
        assert by_name(found.monthly.control(who))["Everybody"] == overview(warehouse, EVERYBODY)
        carried = by_name(found.lines).get("Idle share of own hardware", Decimal(0))
        assert (carried > 0) == any(name in carriers for name in who)


def test_a_month_of_another_time_zone_has_other_calls(warehouse):
    edge = Presentation("USD", BERLIN)
    found = told(warehouse, ("Search",), edge)
    assert found.total == overview(warehouse, ("Search",), shown=edge)
    assert (found.monthly.period.start, found.zone) == (START - HOUR, "Europe/Berlin")


def test_another_currency_is_by_the_rates_of_the_month_and_says_which(warehouse):
    added = [rate_of("1.25", START - 90 * DAY), rate_of("1.5", START + 4 * DAY)]
    warehouse.control.add_prices(added, DEFAULT_TENANT, "cfo")
    euro = Presentation("EUR", UTC)
    found = told(warehouse, ("Search",), euro)
    assert found.total == overview(warehouse, ("Search",), shown=euro) == sum(one.amount for one in found.lines[:-1])
    rates = [value for name, value in statement_files.facts(found, UTC) if name == "Exchange rate"]
    assert [one.partition(" from ")[0] for one in rates] == ["1 EUR = 1.25 USD", "1 EUR = 1.5 USD"]
    assert len(found.history) == 4, "months before the first rate are left out"


def test_a_month_without_calls_costs_nothing(warehouse):
    found = told(warehouse, ("Search",), month=Month(2025, 1))
    assert (found.total, found.features[-1].amount) == (Decimal(0), Decimal(0))
    assert {one.amount for one in found.lines} == {Decimal(0)}
    for form in FORMS:
        assert statement_files.written(found, form, UTC)


def test_the_rule_names_each_policy_that_held_in_the_month(warehouse):
    warehouse.control.set_policy(Policy(idle="spread by use", effective_from=START - DAY), DEFAULT_TENANT, "cfo")
    warehouse.control.set_policy(
        Policy(idle="charge the owner", cached="free", effective_from=START + 9 * DAY), DEFAULT_TENANT, "cfo"
    )
    warehouse.control.set_policy(Policy(idle="show", effective_from=START + 40 * DAY), DEFAULT_TENANT, "cfo")
    rules = [rule for rule in told(warehouse).rules if "idle and unavailable hardware" in rule.lower()]
    assert [rule.partition(":")[0] for rule in rules] == ["From 1 Mar 2026 00", "From 10 Mar 2026 00"]
    assert "by what their calls used" in rules[0]
    assert "team that owns the deployment" in rules[1]
    assert "weigh nothing" in rules[1]


# ---- a closed month


@pytest.fixture
def late_calls(warehouse):
    """Stores calls that come now, as the loader does."""

    def store(*told):
        rows = [{"received_at": one["started_at"], **KNOWN, "trace_id": one["span_id"].to_bytes(16), **one}
                for one in told]  # fmt: skip
        frame = pl.DataFrame([{name: row.get(name) for name in CALLED} for row in rows], schema=CALLED)
        priced = warehouse.prices.price(frame)
        frame = frame.with_columns(priced[name] for name in priced.columns if name in CALLED)
        batch = ledger.Batch(frame, pl.DataFrame(schema=OUTCOMES), pl.DataFrame())
        with late.heeding(warehouse.control, frame) as closed:
            ledger.commit(warehouse.engine, batch, "otlp", (0, 2), closed)

    return store


def test_what_a_closed_month_says_stays_byte_by_byte(warehouse, late_calls):
    people = (EVERYBODY, ("Search",), NOBODY)
    warehouse.control.add_prices([rate_of("1.25", START - 90 * DAY)], DEFAULT_TENANT, "cfo")
    warehouse.close_period(DEFAULT_TENANT, START, START + 31 * DAY, "cfo")

    def files():
        found = [told(warehouse, who, shown_) for who in people for shown_ in (USD, Presentation("EUR", UTC))]
        return [statement_files.written(one, form, UTC) for one in found for form in FORMS]

    before, charged = files(), told(warehouse, ("Search",)).lines
    late_calls(call(100, 7, "Search"), call(101, 8, None), own(102, 10.1, "Search"), call(103, 7, "New"),
               call(104, 7, "Unpriced", model="acme-7b", feature="new"))  # fmt: skip
    warehouse.control.add_prices([rate_of("1.5", START + 3 * DAY)], DEFAULT_TENANT, "cfo")
    warehouse.close_period(DEFAULT_TENANT, START - 28 * DAY, START, "cfo")
    assert told(warehouse, ("Search",)).lines == charged
    assert files() == before
    assert told(warehouse, ("New",)).total == 0
    this_month = Month.of(datetime.now(UTC))
    now = by_name(told(warehouse, ("Search",), month=this_month).lines)
    assert now["Adjustments of closed months"] > 0, "what came late is charged now"
    assert now["API calls"] == 0


def test_a_closed_month_says_who_closed_it_and_an_open_one_that_it_may_change(warehouse):
    open_ = told(warehouse, ("Search",))
    assert open_.kind == "Showback statement"
    assert "may still change" in open_.rules[-1]
    assert dict(statement_files.facts(open_, UTC))["Made"] == "20 Apr 2026 08:00"
    warehouse.close_period(DEFAULT_TENANT, START, START + 31 * DAY, "the cfo")
    closed = told(warehouse, ("Search",))
    assert (closed.kind, closed.made) == ("Chargeback statement", None)
    about = dict(statement_files.facts(closed, UTC))
    assert about["Closed"].endswith("by the cfo")
    assert "Made" not in about
    assert closed.lines == open_.lines
    assert [one.month for one in closed.history] == [MARCH], (
        "months that were open then may change, so they are not told"
    )


# ---- files


def sums(rows):
    """(parts, total) of (name, amount) rows."""
    found = [Decimal(str(amount)) for _, amount in rows]
    return sum(found[:-1]), found[-1]


def test_a_spreadsheet_has_typed_amounts_that_add_up_and_no_formula(warehouse):
    found = told(warehouse, (HOSTILE,))
    book = openpyxl.load_workbook(io.BytesIO(statement_files.written(found, "xlsx", UTC)))
    assert book.sheetnames[-1] == "Notes"
    cells = [cell for sheet in book for row in sheet.iter_rows() for cell in row]
    assert not [cell for cell in cells if cell.data_type == "f"]
    for title in ("Statement", "By feature", "By model", "Control totals"):
        rows = list(book[title].iter_rows(min_row=2, values_only=True))
        parts, total = (one.quantize(Decimal("0.01")) for one in sums(rows))
        assert parts == total
    assert Decimal(str(list(book["Statement"].values)[-1][1])) == found.total
    assert book["Statement"].freeze_panes == "A2"
    notes = dict(list(book["Notes"].values)[:6])
    assert notes["For"] == found.name
    assert [value for name, value in book["Notes"].values if name == "Rule"] == list(found.rules)


def test_a_text_file_adds_up_and_no_cell_is_a_formula(warehouse):
    found = told(warehouse, (HOSTILE,))
    rows = list(csv.DictReader(io.StringIO(statement_files.written(found, "csv", UTC).decode("utf-8-sig"))))
    lines = [(row["item"], row["amount"]) for row in rows if row["section"] == "Statement"]
    parts, total = sums(lines)
    assert parts == total == found.total
    told_ = [value for row in rows for name, value in row.items() if name != "amount" and value]
    assert not [value for value in told_ if value[0] in "=+-@\t"]
    assert {row["currency"] for row in rows} == {"USD", ""}


@pytest.mark.parametrize("who", [EVERYBODY, (HOSTILE,)])
def test_a_pdf_has_its_text_its_rule_its_totals_and_its_pages(warehouse, who):
    found = told(warehouse, who)
    reader = pypdf.PdfReader(io.BytesIO(statement_files.written(found, "pdf", UTC)))
    texts_of = [page.extract_text() for page in reader.pages]
    for number, text in enumerate(texts_of, start=1):
        assert f"Page {number} of {len(texts_of)}" in text
    text = " ".join(" ".join(texts_of).split())
    for rule in found.rules:
        assert rule in text
    for title in ("Statement", "By feature", "By model", "Month by month", "Control totals", "Showback statement"):
        assert title in text
    assert f"Total {found.total:,.2f}" in text
    assert f"Everybody {found.monthly.control(who)[-1].amount:,.2f}" in text
    if who == (HOSTILE,):
        assert '=HYPERLINK("x") <b>&</b> [U+202E][U+6771][U+4EAC]' in text
        assert "[U+1F916]" in text
        assert "written as their Unicode numbers" in text
    fonts = {font["/BaseFont"] for page in reader.pages for font in page["/Resources"]["/Font"].values()}
    assert any("Vera" in name for name in map(str, fonts))


@given(texts)
def test_whatever_a_name_is_a_pdf_can_show_it(text):
    drawn = shown(text)
    assert "<" not in drawn.replace("&lt;", "")
    assert all(ord(one) < 0x3000 for one in drawn)


def test_a_long_table_is_cut_and_still_adds_up(warehouse):
    teams = {f"team {n:04}": {"api": Decimal(n) / 3} for n in range(1, 400)}
    whole = Monthly(month=MARCH, period=MARCH.period(), teams=teams, closing=None)
    found = told(warehouse)
    lines = adding_up([Line(None, name, parts["api"]) for name, parts in teams.items()], "Total", whole.total())
    made = replace(found, monthly=whole, features=lines)
    pages = pypdf.PdfReader(io.BytesIO(statement_files.written(made, "pdf", UTC))).pages
    text = " ".join(" ".join(page.extract_text() for page in pages).split())
    left = lines[99:-1]
    assert f"and {len(left)} more {sum(one.amount for one in left):,.2f} Total {lines[-1].amount:,.2f}" in text
    sheet = openpyxl.load_workbook(io.BytesIO(statement_files.written(made, "xlsx", UTC)))["By feature"]
    assert sheet.max_row == len(lines) + 1


def test_a_file_is_named_in_letters_that_every_system_takes(warehouse):
    named = {EVERYBODY: "everybody", ("Search",): "Search", (HOSTILE,): "HYPERLINK-x-b-b", ("東京",): "team",
             ("../../etc",): "etc"}  # fmt: skip
    found = told(warehouse)
    for who, name in named.items():
        assert statement_files.file_name(replace(found, who=who), "pdf") == f"millicent-2026-03-{name}.pdf"


# ---- over HTTP and from the command line


def test_the_api_answers_a_statement_and_its_files(client, warehouse):
    reader = client("read")
    address = "/api/v1/exports/statement"
    asked = {"team": "Search", "month": "2026-03"}
    found = reader.get(address, params=asked).json()
    assert (found["teams"], found["month"], found["kind"]) == (["Search"], "2026-03", "Showback statement")
    assert found["total"] == f"{overview(warehouse, ('Search',)):f}"
    assert reader.get(address, params={"month": "2026-03", "team": ""}).json()["teams"] == [None]
    assert reader.get(address, params={"month": "2026-03"}).json()["for"] == "Everybody"
    for form, kind in (("pdf", "application/pdf"), ("csv", "text/csv"), ("xlsx", "spreadsheetml")):
        answer = reader.get(address, params={**asked, "format": form})
        assert answer.status_code == 200
        assert kind in answer.headers["content-type"]
        assert f'filename="millicent-2026-03-Search.{form}"' in answer.headers["content-disposition"]
    for wrong, says in (({"month": "2026-3"}, "2026-3"), ({"time_zone": "Mars"}, "Mars"), ({"currency": "XXX"}, "XXX"),
                        ({"format": "doc"}, "format")):  # fmt: skip
        answer = reader.get(address, params={**asked, **wrong})
        assert answer.status_code == 400
        assert says in answer.json()["detail"]


def test_a_chargeback_is_refused_until_the_month_is_closed(client, warehouse):
    asked = {"team": "Search", "month": "2026-03", "chargeback": "true"}
    reader = client("read")
    refused = reader.get("/api/v1/exports/statement", params=asked)
    assert (refused.status_code, "2026-03 is not closed" in refused.json()["detail"]) == (400, True)
    warehouse.close_period(DEFAULT_TENANT, START, START + 31 * DAY, "cfo")
    assert reader.get("/api/v1/exports/statement", params=asked).json()["kind"] == "Chargeback statement"


def test_the_command_prints_a_statement_and_writes_its_files(run, warehouse, tmp_path):
    shown_ = run("export", "statement", "--team", "Search", "--month", "2026-03")
    assert shown_.exit_code == 0, shown_.output
    assert f"{overview(warehouse, ('Search',)):f}" in shown_.output
    as_json = run("export", "statement", "--team", "", "--month", "2026-03", "--json")
    assert json.loads(as_json.output)["for"] == "Calls without a team"
    path = tmp_path / "march.pdf"
    written = run("export", "statement", "--month", "2026-03", "--format", "pdf", "--to", str(path))
    assert written.output.strip() == str(path)
    assert path.read_bytes().startswith(b"%PDF")
    refused = run("export", "statement", "--month", "2026-03", "--chargeback")
    assert refused.exit_code == 1

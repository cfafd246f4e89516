"""Files of what a page shows: their menu asks the API exactly what the page asked."""

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import parse_qs, urlsplit

import openpyxl
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from millicent.dashboard import export_files, exporting
from millicent.warehouse.query import Filter, Period, Query

ASKED = Query(
    measures=("spend_usd", "calls"),
    period=Period(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 8, tzinfo=UTC)),
    dimensions=("team",),
    filters=(Filter("model", ("a,b", None)), Filter("region", ("eu",), negated=True)),
    grain="day",
    basis="usage",
    order=("-spend_usd",),
    limit=10,
)


def test_an_address_of_a_file_asks_all_that_the_question_does():
    asked = parse_qs(urlsplit(exporting.address(ASKED, "csv")).query)
    assert asked == {
        "measures": ["spend_usd,calls"], "group_by": ["team"], "filter": ["model:a\\,b,null", "-region:eu"],
        "start": ["2026-11-01T00:00:00Z"], "end": ["2026-11-08T00:00:00Z"], "grain": ["day"], "basis": ["usage"],
        "order": ["-spend_usd"], "limit": ["10"], "format": ["csv"],
    }  # fmt: skip


def test_a_menu_offers_every_form_of_the_question_and_what_else_the_page_has():
    statement = exporting.Choice("Statement", "for the team", "/statement.pdf")
    shown = str(exporting.menu(ASKED, "teams", [statement]))
    assert "id='teams-export-menu'" in shown
    assert "/statement.pdf" in shown
    for form in exporting.FORMATS:
        assert exporting.address(ASKED, form) in shown


# ---- files

HOSTILE = ["=1+1", "+cmd|' /C calc'!A0", "-2+3+cmd|' /C calc'!A0", "@SUM(1)", "\t=1", "＝1+1", "plain", None]
SHEET = export_files.Sheet(
    pl.DataFrame(
        {
            "team": HOSTILE,
            "time": [datetime(2026, 11, 1, 12, tzinfo=UTC)] * 8,
            "spend_usd": [Decimal("-0.000000012345"), *[Decimal("12345678.123456789012")] * 7],
            "calls": [1, None, 3, 4, 5, 6, 7, 8],
        },
        schema_overrides={"spend_usd": pl.Decimal(38, 12)},
    ),
    {"spend_usd": Decimal("86419746.864197510739"), "calls": 34},
    [("Filters", "none"), ("Basis", "=effective")],
    "millicent-test",
)


def test_csv_keeps_every_digit_and_makes_no_formula_of_text():
    rows = list(csv.DictReader(io.StringIO(export_files.written(SHEET, "csv").decode())))
    assert [row["team"][:1] for row in rows[:6]] == ["'"] * 6
    assert [row["team"] for row in rows[6:]] == ["plain", ""]
    assert rows[0]["spend_usd"] == "-0.000000012345"
    assert rows[1]["spend_usd"] == "12345678.123456789012"
    assert rows[1]["calls"] == ""
    assert rows[0]["time"] == "2026-11-01T12:00:00Z"


def test_a_spreadsheet_is_typed_has_totals_and_says_what_it_is():
    book = openpyxl.load_workbook(io.BytesIO(export_files.written(SHEET, "xlsx")))
    data, notes = book["Data"], book["Notes"]
    assert data.freeze_panes == "A2"
    assert [cell.value for cell in data[1]] == ["team", "time", "spend_usd", "calls"]
    assert [data.cell(row, 1).value for row in range(2, 10)] == HOSTILE
    assert all(data.cell(row, 1).data_type == "s" for row in range(2, 8))
    assert all(data.cell(row, 1).quotePrefix for row in range(2, 8))
    assert data["B2"].value == datetime(2026, 11, 1, 12)  # noqa: DTZ001 - a cell has no zone
    assert data["D3"].value is None
    assert [cell.value for cell in data[10]] == ["Total", None, pytest.approx(86419746.8641975), 34]
    said = {row[0].value: row[1].value for row in notes.iter_rows()}
    assert said["Total of spend_usd, in full"] == "86419746.864197510739"
    assert said["Basis"] == "=effective"
    assert notes["B3"].data_type == "s"


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_parquet_and_arrow_carry_exact_amounts_and_the_totals_in_their_schema(form):
    stored = io.BytesIO(export_files.written(SHEET, form))
    table = pq.read_table(stored) if form == "parquet" else pa.ipc.open_stream(stored).read_all()
    assert table.schema.field("spend_usd").type == pa.decimal128(38, 12)
    assert sum(table["spend_usd"].to_pylist()) == SHEET.totals["spend_usd"]
    assert json.loads(table.schema.metadata[b"millicent.totals"]) == {"spend_usd": "86419746.864197510739", "calls": 34}
    assert json.loads(table.schema.metadata[b"millicent.notes"])["Filters"] == "none"


def test_an_empty_table_is_a_file_too():
    empty = export_files.Sheet(SHEET.frame.clear())
    for form in export_files.FORMS:
        assert export_files.written(empty, form)


def test_more_rows_than_a_spreadsheet_holds_are_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(export_files, "MOST_ROWS", 8)
    with pytest.raises(ValueError, match="ask for CSV or Parquet"):
        export_files.written(SHEET, "xlsx")


# ---- the API

CALLS = [
    {"team": "search", "model": "m", "list_cost_usd": Decimal("0.10"), "billed_cost_usd": Decimal("0.10"),
     "input_tokens": 100, "output_tokens": 10},
    {"team": "search", "model": "n", "list_cost_usd": Decimal("0.000000000001"),
     "billed_cost_usd": Decimal("0.000000000001"), "input_tokens": 50, "output_tokens": 10},
    {"team": "=ads", "model": "m", "list_cost_usd": Decimal("0.02"), "billed_cost_usd": Decimal("0.02"),
     "input_tokens": 100, "output_tokens": 30},
]  # fmt: skip
MEASURES = "spend_usd,calls,cost_per_mtok_usd"


@pytest.fixture(scope="module")
def warehouse(warehouse_of):
    return warehouse_of(*({"span_id": at, **call} for at, call in enumerate(CALLS, 1)))


@pytest.mark.parametrize("form", export_files.FORMS)
def test_the_rows_of_a_file_add_up_to_its_totals_which_the_api_answers_without_the_cut(client, form):
    reader = client("read")
    answer = reader.get("/api/v1/query", params={"measures": MEASURES, "group_by": "team,model", "format": form})
    assert answer.status_code == 200, answer.text
    whole = reader.get("/api/v1/query", params={"measures": MEASURES}).json()["rows"][0]
    assert json.loads(answer.headers["x-millicent-totals"]) == whole
    assert whole["spend_usd"] == "0.120000000001"
    assert f'.{form}"' in answer.headers["content-disposition"]


def test_a_limited_file_tells_the_totals_of_everything_and_says_so(client):
    reader = client("read")
    asked = {"measures": MEASURES, "group_by": "team", "limit": 1, "filter": "model:m", "format": "xlsx"}
    answer = reader.get("/api/v1/query", params=asked)
    book = openpyxl.load_workbook(io.BytesIO(answer.content))
    notes = {row[0].value: row[1].value for row in book["Notes"].iter_rows()}
    assert book["Data"].max_row == 3
    assert notes["Total of spend_usd, in full"] == "0.12"
    assert notes["Filters"] == "model:m"
    assert "these are the first" in notes["Rows left out"]
    assert notes["Cost basis"].startswith("effective: ")

"""Files of what a page shows: their menu asks the API exactly what the page asked."""

from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

from millicent.dashboard import exporting
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

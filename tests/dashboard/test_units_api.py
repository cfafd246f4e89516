"""Business units over HTTP and from the command line: uploaded, listed, refused, forgotten."""

import json
from datetime import UTC, datetime, timedelta

import pytest

DAY = f"{datetime.now(UTC) - timedelta(days=2):%Y-%m-%d}"
CSV = f"unit,day,quantity,feature,revenue_usd\nticket,{DAY},4,triage,10\nticket,{DAY},2.5,chat,\n"


@pytest.fixture
def warehouse(priced_calls):
    return priced_calls()


def post(client, body, kind="text/csv"):
    return client.post("/api/v1/units", content=body, headers={"content-type": kind})


def test_units_are_uploaded_again_without_a_change_listed_and_forgotten(operator):
    assert post(operator, CSV).json() == {"added": 2, "replaced": 0, "unchanged": 0}
    rows = [{"unit": "ticket", "day": DAY, "quantity": 5, "feature": "triage"}]
    done = post(operator, json.dumps({"rows": rows}), "application/json")
    assert (done.status_code, done.json()) == (201, {"added": 0, "replaced": 1, "unchanged": 0})
    told = operator.get("/api/v1/units", params={"unit": "ticket"}).json()
    assert told["units"] == [{"unit": "ticket", "rows": 2, "first": DAY, "last": DAY}]
    assert {row["feature"]: (row["quantity"], row["revenue_usd"]) for row in told["rows"]} == {
        "chat": ("2.5", None), "triage": ("5", None),
    }  # fmt: skip
    assert operator.delete("/api/v1/units/ticket").json() == {"rows": 2}
    assert operator.delete("/api/v1/units/ticket").status_code == 404


@pytest.mark.parametrize(
    ("body", "kind", "status", "words"),
    [
        ("unit,day\nticket,x", "text/csv", 400, "quantity is missing"),
        (b"\xff", "text/csv", 400, "send UTF-8"),
        ("[", "application/json", 400, "cannot be read"),
        ("[" * 100_000, "application/json", 400, "cannot be read"),
        ('{"rows": 3}', "application/json", 400, "there are no rows"),
        ("[[]]", "application/json", 400, "is no row"),
        (CSV, "application/xml", 415, "is not read"),
        ("x" * (9 << 20), "text/csv", 413, "send the rows in parts"),
    ],
)
def test_what_is_wrong_is_refused_with_the_remedy(operator, body, kind, status, words):
    answer = post(operator, body, kind)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert words in answer.json()["detail"]


def test_who_reads_does_not_upload(client):
    assert post(client("read"), CSV).status_code == 403
    assert client("read").get("/api/v1/units").json() == {"units": [], "rows": []}


def test_a_file_is_imported_from_the_command_line(run, tmp_path):
    (tmp_path / "units.csv").write_text(CSV)
    done = run("import", "units", str(tmp_path / "units.csv"))
    assert (done.exit_code, done.output) == (0, "2 added, 0 replaced, 0 unchanged\n")
    assert json.loads(run("import", "units", str(tmp_path / "units.csv"), "--json").output)["unchanged"] == 2
    (tmp_path / "units.csv").write_text("unit,day,quantity\nticket,tomorrow,1\n")
    refused = run("import", "units", str(tmp_path / "units.csv"))
    assert refused.exit_code == 1
    assert "row 2: day 'tomorrow' is no day" in refused.stderr

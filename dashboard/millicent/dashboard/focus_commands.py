"""`millicent export focus` and `export query`: files that other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from millicent.dashboard.terminal import URL, AsJson, Failed, Token, Url, err, fetch, get, out, show

To = Annotated[Path | None, typer.Option("--to", help="The file to write.", show_default="here, by its own name")]


def export_focus(
    month: Annotated[str | None, typer.Option(help="2026-11, of UTC.", show_default="the present one")] = None,
    version: Annotated[Literal["1.2", "1.3"], typer.Option(help="Of FOCUS.")] = "1.2",
    profile: Annotated[
        Literal["token-service", "split-allocation"],
        typer.Option(help="Own hardware as tokens, or (1.3) as accelerator-hours that are split."),
    ] = "token-service",
    form: Annotated[Literal["csv", "parquet", "xlsx"], typer.Option("--format", help="Of the file.")] = "csv",
    to: To = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing: print sums, and the rules broken.")] = False,
    url: Url = URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """A month as FOCUS Cost and Usage. A file that breaks a rule, or whose sums are not those of pages, is refused."""
    told = {"month": month, "version": version, "profile": profile}
    asked: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
    if not check:
        if as_json:
            raise Failed("--json stands without --check: a file is CSV, Parquet or XLSX; add --check for its sums")
        _written(fetch(url, token, "exports/focus", {**asked, "format": form}), to)
        return
    found = get(url, token, "exports/focus", {**asked, "format": "json", "limit": 0})
    if not as_json:
        err.print(f"FOCUS {found['version']}, {found['profile']}, {found['month']}: {found['row_count']:,} rows, "
                  f"{found['rule_count']} rules", highlight=False, markup=False)  # fmt: skip
    sums = [{"sum": one["name"], "file": one["file"], "page": one["page"], "by rounding": one["residue"]}
            for one in found["controls"]]  # fmt: skip
    show(sums, found, as_json=as_json)
    if not found["passed"]:
        broken = [f"{one['rule']} ({one['words']}): {one['rows']:,} rows" for one in found["findings"]]
        broken += [f"{one['name']} is not that of pages" for one in found["controls"] if not one["holds"]]
        raise Failed(*broken)


def export_query(
    measures: Annotated[list[str], typer.Argument(help="Measures, such as spend_usd total_tokens.")],
    by: Annotated[list[str] | None, typer.Option(help="Dimension to group by; repeat for more.")] = None,
    filters: Annotated[list[str] | None, typer.Option("--filter", help="team:search, -team:null (repeat).")] = None,
    start: Annotated[str | None, typer.Option(help="Day or instant.")] = None,
    end: Annotated[str | None, typer.Option(help="Day or instant, not included.")] = None,
    period: Annotated[str | None, typer.Option(help="24h, 7d, 4w or mtd, up to now.", show_default="28d")] = None,
    grain: Annotated[str | None, typer.Option(help="hour, day, week or month.")] = None,
    basis: Annotated[str, typer.Option(help="list, billed, effective, usage or marginal.")] = "effective",
    currency: Annotated[str, typer.Option(help="ISO 4217 code.")] = "USD",
    time_zone: Annotated[str, typer.Option(help="IANA name.")] = "UTC",
    order: Annotated[str | None, typer.Option(help="Columns, a leading - for descending.")] = None,
    limit: Annotated[int | None, typer.Option(help="The first so many rows.")] = None,
    form: Annotated[Literal["csv", "xlsx", "parquet", "arrow"], typer.Option("--format", help="Of the file.")] = "csv",
    to: To = None,
    url: Url = URL,
    token: Token = None,
) -> None:
    """The answer to a question as a file, with its totals and notes in it."""
    asked = {"measures": measures, "group_by": by, "filter": filters, "start": start, "end": end, "period": period,
             "grain": grain, "basis": basis, "currency": currency, "time_zone": time_zone, "order": order,
             "limit": limit, "format": form}  # fmt: skip
    _written(fetch(url, token, "query", {name: value for name, value in asked.items() if value}), to)


def _written(found: tuple[bytes, str], to: Path | None) -> None:
    content, name = found
    path = to or Path(name)
    path.write_bytes(content)
    out.print(str(path), highlight=False, markup=False, soft_wrap=True)

"""`millicent export statement`: what a team pays for in a month, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from millicent.dashboard.terminal import URL, AsJson, Failed, Token, Url, err, fetch, get, out, show

FileForm = Literal["pdf", "xlsx", "csv"]


def export_statement(
    team: Annotated[
        list[str] | None, typer.Option(help="A team (repeat for more); '' for calls without one.", show_default="all")
    ] = None,
    month: Annotated[str | None, typer.Option(help="2026-11.", show_default="the present one")] = None,
    form: Annotated[
        FileForm | None, typer.Option("--format", help="Write a file of this kind.", show_default="print it")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="The file to write.", show_default="here, by its own name")] = None,
    chargeback: Annotated[bool, typer.Option("--chargeback", help="Refuse a month that is not closed.")] = False,
    time_zone: Annotated[str | None, typer.Option(help="IANA name.", show_default="the workspace's")] = None,
    currency: Annotated[str | None, typer.Option(help="ISO 4217 code.", show_default="the workspace's")] = None,
    url: Url = URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """What a team pays for in a month: lines, total, rule, control totals."""
    told = {"team": team, "month": month, "time_zone": time_zone, "currency": currency,
            "chargeback": "true" if chargeback else None}  # fmt: skip
    asked: dict[str, Any] = {name: value for name, value in told.items() if value not in (None, [])}
    if form is None and to is not None:
        raise Failed(f"--to {to} has no --format: add --format pdf, xlsx or csv")
    if form is None:
        answer = get(url, token, "exports/statement", asked)
        if not as_json:
            err.print(f"{answer['for']}: {answer['kind'].lower()}, {answer['month']}", highlight=False, markup=False)
        show([{"item": line["name"], answer["currency"]: line["amount"]} for line in answer["lines"]], answer,
             as_json=as_json)  # fmt: skip
        return
    content, name = fetch(url, token, "exports/statement", {**asked, "format": form})
    path = to or Path(name)
    path.write_bytes(content)
    out.print(str(path), highlight=False, markup=False, soft_wrap=True)

"""`millicent import`: what the company knows besides calls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from millicent.dashboard.terminal import URL, AsJson, Failed, OperatorToken, Url, ask, out, show

imports = typer.Typer(no_args_is_help=True, help="Bring in what is known elsewhere.")


@imports.callback()
def _group() -> None:
    """Keep `import` a group, so that more can be imported."""


@imports.command("units")
def import_units(
    file: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help="CSV: unit,day,quantity[,team,feature,customer,revenue_usd]."),
    ],
    url: Url = URL,
    token: OperatorToken = None,
    as_json: AsJson = False,
) -> None:
    """Business units by UTC day, such as resolved tickets; the same file again changes nothing."""
    try:
        text = file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise Failed(f"{file} is not UTF-8 ({error}): save it as UTF-8") from error
    answer = ask("POST", url, token, "units", {"content-type": "text/csv"}, content=text.encode())
    if as_json:
        show([], answer, as_json=True)
    else:
        told = ", ".join(f"{answer[name]:,} {name}" for name in ("added", "replaced", "unchanged"))
        out.print(f"{told}", highlight=False)

"""What commands share: where they print, how they fail, and how they ask a running instance."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, TypeVar

import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

out, err = Console(), Console(stderr=True)
URL: Final = "http://127.0.0.1:8050"
WAIT_S: Final = 600

Url = Annotated[str, typer.Option(envvar="MILLICENT_URL", help="A running instance.")]
Token = Annotated[str | None, typer.Option(envvar="MILLICENT_TOKEN", help="A read key of it.")]
OperatorToken = Annotated[str | None, typer.Option(envvar="MILLICENT_TOKEN", help="An operator key of it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Failed(typer.Exit):
    """Ends the command with a message on standard error."""

    def __init__(self, message: str) -> None:
        err.print(f"[red]error:[/red] {message}", highlight=False)
        super().__init__(1)


def get(url: str, token: str | None, path: str, params: dict[str, Any]) -> Any:
    """JSON of an address below `/api/v1`.

    Raises:
        Failed: nothing answers, or the instance refuses.
    """
    return ask("GET", url, token, path, params=params)


def ask(method: str, url: str, token: str | None, path: str, **sent: Any) -> Any:
    """As `get`, with any method; `sent` is what httpx takes: `params`, `json`."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    headers["sec-fetch-site"] = "none"  # a person asked, not a page of another site
    address = f"{url.rstrip('/')}/api/v1/{path}"
    try:
        answer = httpx.request(method, address, headers=headers, timeout=WAIT_S, **sent)
    except httpx.TransportError as error:
        raise Failed(f"nothing answers at {url} ({error}): start `millicent up`, or name another with --url") from error
    if answer.is_error:
        raise Failed(answer.json()["detail"] if "problem" in answer.headers.get("content-type", "") else answer.text)
    return answer.json()


_Item = TypeVar("_Item")


def agreed(would: dict[str, Any], rows: str, *, dry_run: bool, yes: bool, as_json: bool) -> bool:
    """Show what a change of history would do (`would`: how many `calls`, and `rows`), and ask whether to do it.

    Raises:
        typer.Abort: the answer is no.
    """
    if dry_run or not would["calls"]:
        show(would[rows], would, as_json=as_json)
        return False
    if not yes:
        show(would[rows], would, as_json=False, to=err)
        typer.confirm(f"{would['calls']:,} calls change. Go on?", abort=True, err=True)
    return True


def progress(items: Sequence[_Item], words: str) -> Iterator[_Item]:
    """`items` one by one, with a bar on standard error for as long as it takes."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        yield from bar.track(items, description=words)


def show(rows: Sequence[dict[str, Any]], whole: Any, *, as_json: bool, to: Console = out) -> None:
    """Print `rows` as a table, or `whole` as JSON."""
    if as_json:
        print(json.dumps(whole, ensure_ascii=False))  # noqa: T201 - JSON is for pipes, not for the console's width
        return
    if not rows:
        to.print("nothing found")
        return
    table = Table(box=None)
    for name in rows[0]:
        table.add_column(name, overflow="fold")  # an id that is cut cannot be asked about
    for row in rows:
        table.add_row(*("—" if value is None else str(value) for value in row.values()))
    to.print(table)

"""What commands share: where they print, how they fail, and how they ask a running instance."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeVar

import httpx
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

out, err = Console(), Console(stderr=True)
URL: Final = "http://127.0.0.1:8050"
WAIT_S: Final = 600
_NONE: Final[Mapping[str, str]] = MappingProxyType({})

Url = Annotated[str, typer.Option(envvar="MILLICENT_URL", help="A running instance.")]
Token = Annotated[str | None, typer.Option(envvar="MILLICENT_TOKEN", help="A read key of it.")]
OperatorToken = Annotated[str | None, typer.Option(envvar="MILLICENT_TOKEN", help="An operator key of it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Failed(typer.Exit):
    """Ends the command with one or more messages on standard error, each on lines of its own."""

    def __init__(self, *messages: str) -> None:
        for message in messages:
            err.print("[red]error:[/red]", escape(message), highlight=False, soft_wrap=True)
        super().__init__(1)


def get(url: str, token: str | None, path: str, params: dict[str, Any]) -> Any:
    """JSON of an address below `/api/v1`.

    Raises:
        Failed: nothing answers, or the instance refuses.
    """
    return ask("GET", url, token, path, params=params)


def ask(method: str, url: str, token: str | None, path: str, headers: Mapping[str, str] = _NONE, **sent: Any) -> Any:
    """As `get`, with any method; `sent` is what httpx takes: `params`, `json`, `content`."""
    return _answer(method, url, token, path, headers, **sent).json()


def fetch(url: str, token: str | None, path: str, params: Mapping[str, Any]) -> tuple[bytes, str]:
    """A file of an address below `/api/v1`, and its name.

    Raises:
        Failed: as `get`.
    """
    answer = _answer("GET", url, token, path, _NONE, params=dict(params))
    name = answer.headers.get("content-disposition", "").partition('filename="')[2].partition('"')[0]
    return answer.content, PurePath(name).name or "millicent"


def _answer(
    method: str, url: str, token: str | None, path: str, headers: Mapping[str, str], **sent: Any
) -> httpx.Response:
    headers = {**headers, "sec-fetch-site": "none"}  # a person asked, not a page of another site
    if token:
        headers["authorization"] = f"Bearer {token}"
    address = f"{url.rstrip('/')}/api/v1/{path}"
    try:
        answer = httpx.request(method, address, headers=headers, timeout=WAIT_S, **sent)
    except httpx.TransportError as error:
        raise Failed(f"nothing answers at {url} ({error}): start `millicent up`, or name another with --url") from error
    if answer.is_error:
        if "problem" not in answer.headers.get("content-type", ""):
            raise Failed(answer.text)
        told = answer.json()
        raise Failed(*(told.get("problems") or [told["detail"]]))
    return answer


_Item = TypeVar("_Item")
_BAR: Final = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())


def agreed(
    would: dict[str, Any], rows: str, *, dry_run: bool, yes: bool, as_json: bool, line: Callable[[Any], Any] = dict
) -> bool:
    """Show what a change of history would do (`would`: how many `calls`, and `rows`), and ask whether to do it.

    `line` makes a row into what a table shows of it.

    Raises:
        typer.Abort: the answer is no.
    """
    lines = [line(row) for row in would[rows]]
    if dry_run or not would["calls"]:
        show(lines, would, as_json=as_json)
        return False
    if not yes:
        show(lines, would, as_json=False, to=err)
        typer.confirm(f"{would['calls']:,} calls change. Go on?", abort=True, err=True)
    return True


def progress(items: Sequence[_Item], words: str) -> Iterator[_Item]:
    """`items` one by one, with a bar on standard error for as long as it takes."""
    with Progress(*_BAR, console=err, transient=True) as bar:
        yield from bar.track(items, description=words)


@contextmanager
def task(words: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error for as long as the block lasts; it is told how many of `total` are done."""
    with Progress(*_BAR, console=err, transient=True) as bar:
        number = bar.add_task(words, total=total)
        yield lambda done: bar.update(number, completed=done)


def short(instant: str | None) -> str | None:
    """An instant of the API for a table: its UTC day, with the time to the minute where it is not midnight."""
    if instant is None:
        return None
    day, _, clock = instant.partition("T")
    return day if clock.startswith("00:00:00Z") else f"{day} {clock:.5}"


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
        table.add_row(*("—" if value is None else escape(str(value)) for value in row.values()))
    to.print(table)

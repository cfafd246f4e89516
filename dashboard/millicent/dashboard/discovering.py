"""What an address of counters tells of a deployment: engine, models and totals, or accelerators and their energy."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

import httpx

from millicent.collector.meter_reading import Reading, UnreadableError, read_boards, read_engine
from millicent.collector.scraping import TIMEOUT_S, fetch
from millicent.pricing import catalog

_BOARD_NAME: Final = re.compile(r'modelName="([^"]+)"')
_UNKNOWN: Final = {"name": "NAME", "model": "MODEL", "accelerator": "ACCELERATOR", "count": "COUNT"}


@dataclass(frozen=True, slots=True)
class Found:
    """What was read at `url`.

    Attributes:
        url: The address that answered.
        engine: Id of the engine; None where it is an exporter.
        models: Models as the engine calls them.
        counters: What it has counted since it began, all label sets together.
        running: Requests that run or wait; None where it does not tell.
        boards: UUIDs of the accelerators whose energy it tells.
        accelerator: Their catalog id; None where it does not tell, or they are of several kinds.
        notes: What to heed.
        command: What declares it, with what has to be found out in capitals.
    """

    url: str
    engine: str | None
    models: tuple[str, ...]
    counters: dict[str, int]
    running: int | None
    boards: tuple[str, ...]
    accelerator: str | None
    notes: tuple[str, ...]
    command: str


def look(address: str, now: datetime) -> Found:
    """Read an address once; one without a path is tried where the engines of the catalog have their counters.

    Raises:
        UnreadableError: nothing answers there, or what answers is no counter of a known engine or exporter.
    """
    failed: UnreadableError | None = None
    with httpx.Client(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as client:
        for url in _tried(address):
            try:
                return _found(url, fetch(client, url), now)
            except UnreadableError as error:
                failed = failed or error
    raise failed or UnreadableError("unreachable", "there is no address to read")


def _tried(address: str) -> Iterator[str]:
    url = address if "://" in address else f"http://{address}"
    if urlsplit(url).path.strip("/"):
        yield url
        return
    paths = dict.fromkeys(row.metrics_path for row in catalog.engines() if row.metrics_path)
    yield from (url.rstrip("/") + path for path in paths)


def _found(url: str, text: str, now: datetime) -> Found:
    reading: Reading | None = None
    try:
        reading = read_engine(text, None, now)
        boards, refused = dict(reading.boards), reading.refused
    except UnreadableError:
        boards, refused = read_boards(text)
    counters = Counter[str]()
    for one in reading.counters if reading else ():
        counters[one.counter] += one.value
    named = {name for line in text.splitlines() for name in _BOARD_NAME.findall(line)}
    accelerator = _accelerator(named)
    notes = [*refused, *_notes(reading, named, accelerator)]
    return Found(
        url=url,
        engine=reading.source if reading else None,
        models=reading.models if reading else (),
        counters=dict(counters),
        running=reading.running if reading else None,
        boards=tuple(sorted(boards)),
        accelerator=accelerator,
        notes=tuple(notes),
        command=_command(url, reading, accelerator, len(boards)),
    )


def _accelerator(named: set[str]) -> str | None:
    """The one catalog id that all names mean."""
    try:
        ids = {catalog.accelerator(name).id for name in named}
    except LookupError:
        return None
    return ids.pop() if len(ids) == 1 else None


def _notes(reading: Reading | None, named: set[str], accelerator: str | None) -> Iterator[str]:
    if reading is not None and reading.fronts:
        yield "it stands in front of other engines: declare it or its workers, never both"
    if reading is not None and len(reading.models) > 1:
        yield "it serves several models: declare the one whose calls count, or name deployments on the calls"
    if reading is None:
        yield "it is an exporter: name it with --dcgm where the deployment on these accelerators is declared"
    if named and accelerator is None:
        yield f"its accelerators are {', '.join(sorted(named))}: the catalog does not know them as one kind"


def _command(url: str, reading: Reading | None, accelerator: str | None, boards: int) -> str:
    words = ["millicent", "deployments", "declare", _UNKNOWN["name"]]
    models = reading.models if reading else ()
    words += ["--model", models[0] if len(models) == 1 else _UNKNOWN["model"]]
    words += ["--accelerator", accelerator or _UNKNOWN["accelerator"], "--count", str(boards or _UNKNOWN["count"])]
    words += ["--engine", reading.source, "--metrics", url] if reading else ["--dcgm", url]
    words += ["--profile", "kind=rented", "--profile", "usd_per_hour=PRICE"]
    return shlex.join(words)

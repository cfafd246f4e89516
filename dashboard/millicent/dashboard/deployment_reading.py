"""Deployments and policies as they are told: in a TOML file, in JSON, on the command line; one reading for all."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final

from millicent.pricing import catalog
from millicent.pricing.checking import near
from millicent.warehouse.deployments import LISTS, PROFILES, BadDeploymentsError, Deployment

MOST_BYTES: Final = 1 << 20
_TEXTS: Final = (
    "name", "model", "accelerator", "engine", "precision", "region", "environment", "pool", "parallelism", "owner",
)  # fmt: skip
_COUNTS: Final = ("accelerator_count", "prefill_count", "decode_count")
_INSTANTS: Final = ("effective_from", "effective_to")
_TABLES: Final = ("profile", "power", "weights")
_NEEDED: Final = ("name", "model", "accelerator", "profile")
_MEANINGS: Final[Mapping[str, str]] = {
    "name": "as calls name it (`millicent.deployment`)",
    "model": "model that it serves",
    "accelerator": "a name that the catalog knows",
    "accelerator_count": "how many accelerators; 1 if left out",
    "effective_from": "first instant, on a whole UTC hour; this hour if left out",
    "effective_to": "first instant after it; open if left out, or the end of its reservation",
    "engine": "what serves the model: vllm, sglang, tensorrt-llm, ...",
    "precision": "fp8, nvfp4, bf16, ...",
    "region": "catalog region, for tariff, carbon and PUE",
    "environment": "production, staging, ...",
    "endpoints": "host or host:port whose calls belong to it",
    "profile": f"how its hours are paid: `kind` ({', '.join(PROFILES)}) and the settings of that kind",
    "power": "settings of its electricity",
    "pool": "deployments of one pool share the same accelerators",
    "prefill_count": "accelerators that do prefill only; with `decode_count`",
    "decode_count": "accelerators that do decode only; with `prefill_count`",
    "parallelism": "how the model lies on them: TP8, as a note",
    "owner": "team that idle cost is charged to where the policy says so",
    "weights": "thousandths of an uncached input token: `uncached_input`, `cached_input`, `output`",
    "metrics": "URLs of the engine's counters, one a replica; prefill=URL and decode=URL where those are apart",
    "dcgm": "URLs of DCGM exporters",
    "gpus": "UUIDs of those of the exporters' GPUs that are its; all if left out",
}


def from_toml(text: str, now: datetime) -> list[Deployment]:
    """The deployments of a file with tables `[[deployment]]`; what has no `effective_from` begins in the hour of `now`.

    Raises:
        BadDeploymentsError: naming every problem with its table and number, from 1.
    """
    try:
        told = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise BadDeploymentsError([f"the file is not TOML: {error}"]) from error
    problems = [
        f"[[{name}]] is no table of deployments{near(name, ['deployment'])}: write [[deployment]]"
        if name != "deployment"
        else "[deployment] is one table: write [[deployment]], once per deployment"
        for name, tables in told.items()
        if name != "deployment" or not isinstance(tables, list)
    ]
    tables = told.get("deployment", [])
    return _each("[[deployment]]", tables if isinstance(tables, list) else [], now, problems)


def from_json(text: str, now: datetime) -> list[Deployment]:
    """The deployments of `{"deployments": […]}` or of a list, or the one that the object is.

    Raises:
        BadDeploymentsError: naming every problem with the number of its deployment, from 1.
    """
    try:
        told = json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise BadDeploymentsError([f"the body is not JSON ({error}): {_SHAPE}"]) from error
    if isinstance(told, dict):
        told = told["deployments"] if told.keys() == {"deployments"} else [told]
    if not isinstance(told, list):
        raise BadDeploymentsError([f"the body has no list of deployments: {_SHAPE}"])
    return _each("deployment", told, now, [])


_SHAPE: Final = 'write {"deployments": [{"name": "…", "model": "…", "accelerator": "…", "profile": {…}}]}'


def _each(what: str, tables: Iterable[Any], now: datetime, problems: list[str]) -> list[Deployment]:
    found = []
    for index, table in enumerate(tables, start=1):
        try:
            found.append(read(table, now))
        except BadDeploymentsError as error:
            name = table.get("name") if isinstance(table, Mapping) else None
            named = f" {str(name)[:40]!r}" if name else ""
            problems += [f"{what} {index}{named}: {problem}" for problem in error.problems]
    if problems:
        raise BadDeploymentsError(problems)
    return found


def read(told: Any, now: datetime) -> Deployment:
    """One deployment, as JSON and TOML write it; accelerators may have any name that the catalog knows.

    Raises:
        BadDeploymentsError: naming everything that is wrong with it.
    """
    if not isinstance(told, Mapping):
        raise BadDeploymentsError([f"{str(told)[:40]!r} is no deployment: {_SHAPE}"])
    problems = [f"{name} is missing: write {_MEANINGS[name]}" for name in _NEEDED if told.get(name) is None]
    fields: dict[str, Any] = {}
    for name, value in told.items():
        if name not in _READERS:
            problems.append(f"{str(name)[:40]!r} is no field{near(name, _READERS)}: write {', '.join(_READERS)}")
            continue
        if value is None:
            continue
        try:
            fields[name] = _READERS[name](name, value)
        except ValueError as error:
            problems.append(str(error))
    fields.setdefault("accelerator_count", 1)
    fields.setdefault("effective_from", now.astimezone(UTC).replace(minute=0, second=0, microsecond=0))
    if all(name in fields for name in _NEEDED):
        try:
            made = Deployment(**fields)
        except BadDeploymentsError as error:
            problems += error.problems
    if problems:
        raise BadDeploymentsError(problems)
    return made


def schema() -> dict[str, Any]:
    """JSON Schema of a body with deployments."""
    told = {name: f"{words}; required" if name in _NEEDED else words for name, words in _MEANINGS.items()}
    members = {name: {**_TYPES[_READERS[name]], "description": words} for name, words in told.items()}
    one = {
        "type": "object", "title": "Deployment", "required": list(_NEEDED), "additionalProperties": False,
        "description": "an engine serving a model on accelerators, from one instant to another",
        "properties": members,
    }  # fmt: skip
    return {
        "type": "object", "required": ["deployments"],
        "properties": {"deployments": {"type": "array", "items": one}},
    }  # fmt: skip


def _wrong(name: str, value: Any, why: str) -> ValueError:
    return ValueError(f"{name} {str(value)[:40]!r} {why}")


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(name, value, "is not text: put it in quotes")
    if name != "accelerator":
        return value.strip()
    try:
        return catalog.accelerator(value).id
    except LookupError as error:
        raise ValueError(str(error.args[0])) from error


def _count(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < _MOST:
        raise _wrong(name, value, f"is not a whole number of accelerators: write 1 to {_MOST - 1:,}")
    return value


def _list(name: str, value: Any) -> tuple[str, ...]:
    told = [value] if isinstance(value, str) else value
    if not isinstance(told, list) or not all(isinstance(part, str) for part in told):
        raise _wrong(name, value, 'is not a list of texts: write ["…", "…"]')
    return tuple(part.strip() for part in told)


def _instant(name: str, value: Any) -> datetime:
    """An instant, or a day's midnight in UTC."""
    told = value.isoformat() if isinstance(value, date) else value
    try:
        day = isinstance(told, str) and len(told) == len("2026-03-01")
        found = datetime.fromisoformat(f"{told}T00:00:00Z" if day else told)
        if found.tzinfo is not None:
            return found.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        pass
    raise _wrong(name, value, "is no instant with a time zone: write 2026-03-01T00:00:00Z, or a day")


def _table(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise _wrong(name, value, "is no table: write its settings by name")
    return {str(key): _setting(f"{name}.{key}", told) for key, told in value.items() if told is not None}


def _setting(name: str, value: Any) -> str:
    """A setting as text; spot prices may also be a list of texts, or a table by instant."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, int | Decimal):
        return str(value)  # never :f, which writes every digit of 1e999999999
    if isinstance(value, date):  # an instant, too
        return value.isoformat()
    if name == "profile.prices" and isinstance(value, list) and all(isinstance(part, str) for part in value):
        return " ".join(value)
    if name == "profile.prices" and isinstance(value, Mapping):
        return " ".join(f"{since}={_setting(name, usd)}" for since, usd in value.items())
    raise _wrong(name, value, "is no setting: write a number or a text")


_MOST: Final = 10_000_000
_READERS: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    name: reader
    for names, reader in ((_TEXTS, _text), (_COUNTS, _count), (_INSTANTS, _instant), (LISTS, _list), (_TABLES, _table))
    for name in names
}
_TYPES: Final[Mapping[Callable[[str, Any], Any], dict[str, Any]]] = {
    _text: {"type": "string"},
    _count: {"type": "integer", "minimum": 1},
    _list: {"type": "array", "items": {"type": "string"}},
    _instant: {"type": "string", "format": "date-time"},
    _table: {"type": "object", "additionalProperties": {"type": "string"}},
}

"""The reference page of the HTTP API, written from its routes and their descriptions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any, Final

from fastapi import FastAPI
from starlette.routing import Route

from millicent.collector import receiver
from millicent.collector.rereading import Difference
from millicent.collector.retag import Move, Reach
from millicent.dashboard import access
from millicent.dashboard.api import mount_api
from millicent.dashboard.markdown import code, listed, page, table
from millicent.warehouse.budgets import Budget
from millicent.warehouse.explain import Line
from millicent.warehouse.ledger import OUTCOMES
from millicent.warehouse.metrics import Measure
from millicent.warehouse.rules import Rule
from millicent.warehouse.units import COLUMNS
from millicent.warehouse.views import SavedView
from millicent.warehouse.workspace import Workspace


def described() -> FastAPI:
    """The API's routes on their own, to be described, not to be asked."""
    nothing: Any = None
    server = FastAPI(title="Millicent", docs_url=None, redoc_url=None, openapi_url=None)
    mount_api(server, nothing, nothing, nothing, nothing)
    return server


CALL: Final = ("every [column of a call](columns.md)", "effective_cost_usd", "energy_wh", "gco2e_g")
BUDGET: Final = tuple(field.name for field in fields(Budget))
ANSWERS: Final[Mapping[str, Mapping[str, Iterable[str]]]] = {
    "/api/v1/query": {
        "": ("rows", "meta"),
        "rows": ("`time` where a grain is asked", "the dimensions", "the measures"),
        "meta": ("start", "end", "basis", "currency", "rates", "time_zone", "source", "elapsed_ms", "measures"),
    },
    "/api/v1/calls": {"": ("calls", "next"), "calls": CALL},
    "/api/v1/calls/{trace_id}/{span_id}": {"": CALL},
    "/api/v1/explain/{trace_id}/{span_id}": {
        "": ("call", "lines"),
        "call": ("list_cost_usd", "billed_cost_usd", "effective_cost_usd", "price_status", "price_entry"),
        "lines": [field.name for field in fields(Line)],
    },
    "/api/v1/balance": {
        "": ("received", *OUTCOMES, "in_spool", "reasons"),
        "reasons": ("outcome", "reason", "spans"),
    },
    "/api/v1/metrics-dictionary": {
        "": ("measures", "dimensions"),
        "measures": [field.name for field in fields(Measure)],
    },
    "/api/v1/rules": {"": ("rules",), "rules": [field.name for field in fields(Rule)]},
    "/api/v1/rules/{rule_id}": {"": [field.name for field in fields(Rule)]},
    "/api/v1/rules/check": {"": ("rules",), "rules": [field.name for field in fields(Reach)]},
    "/api/v1/rules/changes": {"": ("calls", "moves"), "moves": [field.name for field in fields(Move)]},
    "/api/v1/budgets": {"": ("budgets", "at"), "budgets": (*BUDGET, "parts", "standing")},
    "/api/v1/budgets/{budget_id}": {
        "": ("budget", "versions", "at"),
        "versions": BUDGET,
        "budget": (*BUDGET, "parts", "standing"),
    },
    "/api/v1/budgets/{budget_id}/periods": {
        "": ("periods", "since", "until"),
        "periods": ("version", "start", "end", "limit", "carried", "actual", "incomplete"),
    },
    "/api/v1/budgets/suggest": {
        "": ("amount", "currency", "method", "history", "forecast"),
        "history": ("start", "end", "actual", "incomplete"),
    },
    "/api/v1/budgets/simulate": {
        "": ("periods", "exceeded", "told", "currency", "since", "until"),
        "periods": ("start", "end", "over", "limit", "carried", "actual", "run_out_date", "incomplete", "fired"),
    },
    "/api/v1/units": {"": ("units", "rows"), "units": ("unit", "rows", "first", "last"), "rows": COLUMNS},
    "/api/v1/views": {"": ("views",), "views": (*(field.name for field in fields(SavedView)), "address")},
    "/api/v1/workspace": {"": [field.name for field in fields(Workspace)]},
    "/api/v1/exports/statement": {
        "": (
            "teams",
            "for",
            "kind",
            "month",
            "currency",
            "time_zone",
            "start",
            "end",
            "closed_at",
            "closed_by",
            "total",
            "lines",
            "features",
            "models",
            "control_totals",
            "months",
            "rules",
            "facts",
        ),
        "lines": ("key", "name", "amount"),
        "months": ("month", "closed", "amount"),
    },
    "/api/v1/reread": {
        "": ("calls", "differences"),
        "differences": [field.name for field in fields(Difference)],
    },
}
"""Keys of the JSON that a path answers with: of the whole (""), then of what stands under a key of it."""


def api() -> str:
    """Every route with its parameters and answer, and who may use it."""
    server = described()
    whole, sections = server.openapi(), []
    for path, methods in whole["paths"].items():
        for method, told in methods.items():
            rows = [
                (code(given["name"]), given["in"], _shape(given), given.get("description"))
                for given in told.get("parameters", ())
            ]
            sections += [f"## {method.upper()} {path}", f"{told['summary']}."]
            sections += [table(("parameter", "in", "type", "meaning"), rows)] if rows else []
            sections += list(_body(whole, told.get("requestBody")))
            members = list(_members(whole, schema_of(told)))
            if members:
                sections.append(table(("answer", "type", "meaning"), members))
            elif method == "get":
                sections.append("\n\n".join(_answer(ANSWERS[path])))
            else:
                answers = [(status, answer["description"]) for status, answer in told["responses"].items()]
                sections.append(table(("status", "answer"), answers))
    beside = [
        (code(f"GET {route.path}"), access.policy(route.path))
        for route in server.routes
        if isinstance(route, Route) and not getattr(route, "include_in_schema", True) and "{" not in route.path
    ]
    return page(
        "HTTP API",
        "On the dashboard's port. `Authorization: Bearer` with a read key. Decimals are strings, ids lower-case hex, "
        "instants ISO 8601 in UTC. The same as OpenAPI 3.1: `/api/v1/openapi.json`.",
        *sections,
        "## Errors",
        "RFC 9457 problems (`application/problem+json`) with `type`, `title`, `status` and `detail`: 400 for what "
        "cannot be asked, 401 without a key, 403 for a key of another kind, 404 for what is not there, 503 when "
        "the database fails.",
        "## Beside the API",
        table(("address", "policy"), beside),
        "## Policies of the dashboard's port",
        "`public` asks for nothing; `read` asks for a read key or a session got with a set-up token; `guarded` asks "
        "for an ingest key, an operator's or such a session; what is `forwarded` goes to the OTLP port as it came, "
        "which asks for an ingest key. A line holds for its address and all below it, the first one that fits; `/` for "
        "itself alone. The process does not start with a route that no line covers.",
        table(("address", "policy"), [(code(path), policy) for path, policy in access.POLICIES]),
        "## The OTLP port",
        "`ingest` asks for an ingest key, as `Bearer` or as the password of `Basic`; `read` for a read key. OTLP is "
        "`application/x-protobuf` or `application/json`, calls are [JSON or lines of it](call-fields.md), all plain, "
        "gzip or zstd. The gRPC port serves `Export` of the trace, metrics and logs services to ingest keys.",
        table(("address", "policy"), [(code(f"{r.method} {r.path}"), r.policy) for r in receiver.ROUTES]),
    )


def _answer(keys: Mapping[str, Iterable[str]]) -> Iterator[str]:
    for under, names in keys.items():
        head = f"`{under}` holds" if under else "Answers with"
        yield f"{head} {', '.join(name if ' ' in name else code(name) for name in names)}."


def schema_of(operation: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema that a route's answer is described by; empty where it has none."""
    good = next(answer for status, answer in operation["responses"].items() if status.startswith("2"))
    schema: Mapping[str, Any] = good.get("content", {}).get("application/json", {}).get("schema", {})
    return schema


def _body(whole: Mapping[str, Any], told: Mapping[str, Any] | None) -> Iterator[str]:
    """What a route is sent: in words, and by member where it has a schema."""
    if told is None:
        return
    kinds = list(told["content"])
    words = f": {told['description']}" if "description" in told else ""
    yield f"Body ({listed(kinds)}){words.rstrip('.')}."
    schema = told["content"][kinds[0]]["schema"]
    entry = schema.get("properties", {}).get("entries", {}).get("items", {})
    if choices := entry.get("oneOf"):
        yield table(
            ("`kind`", "what it is", "members; the first ones are required"),
            [(code(one["properties"]["kind"]["const"]), one["description"], listed(_by_need(one))) for one in choices],
        )
    elif rows := list(_members(whole, schema)):
        yield table(("body", "type", "meaning"), rows)


def _by_need(schema: Mapping[str, Any]) -> list[str]:
    needed = [name for name in schema["required"] if name != "kind"]
    return [*needed, *(name for name in schema["properties"] if name not in {"kind", *needed})]


def _members(whole: Mapping[str, Any], schema: Mapping[str, Any], under: str = "") -> Iterator[tuple[str, str, str]]:
    """Each member of an answer, with those of the objects in it."""
    own = _resolved(whole, schema)
    for name, told in own.get("properties", {}).items():
        shown = f"{under}{name}"
        parts = [part for part in told.get("anyOf", (told,)) if part.get("type") != "null"]
        inner = [part.get("items", part) for part in parts]
        deep = [part for part in inner if "$ref" in part or "properties" in part]
        types = [_type_of(part) if "type" in part else "object" for part in parts]
        unknown = ", or null" if len(parts) < len(told.get("anyOf", parts)) else ""
        yield code(shown), f"{' or '.join(types)}{unknown}", told.get("description", "")
        for part in deep:
            yield from _members(whole, part, f"{shown}{'[]' if 'list' in types[0] else ''}.")


def _resolved(whole: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in schema:
        return schema
    found: Mapping[str, Any] = whole["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def _shape(given: Mapping[str, Any]) -> str:
    schema = given["schema"]
    types = [part for part in schema.get("anyOf", (schema,)) if part.get("type") != "null"]
    told = "".join(_type_of(part) for part in types)
    if given["required"]:
        return f"{told}, required"
    return f"{told}, default {code(schema['default'])}" if schema.get("default") is not None else told


def _type_of(schema: Mapping[str, Any]) -> str:
    choices = schema.get("enum") or [schema["const"]] if "enum" in schema or "const" in schema else []
    if choices:
        return " or ".join(map(code, choices))
    if schema["type"] == "array":
        objects = schema.get("items", {}).keys() & {"$ref", "additionalProperties"}
        return "list of objects" if objects else "list of text"
    told: str = schema.get("format") or schema["type"]
    return _WORDS.get(told, told)


_WORDS: Final = {"string": "text", "date-time": "instant", "date": "day", "time": "time of day"}

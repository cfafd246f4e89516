"""The reference pages, written from the code: `python -m millicent.dashboard.reference docs/reference`.

Every page is a function without arguments that returns Markdown, the same text every time. Tests compare the pages
with the committed ones and ask that nothing in them is without words.
"""

from __future__ import annotations

import ast
import io
import sys
import tempfile
import tokenize
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, get_args

import polars as pl
import typer
from prometheus_client.core import Metric

from millicent.collector import import_calls
from millicent.collector import telemetry as receiver_telemetry
from millicent.collector.dialects import ATTRIBUTION, DIALECTS, Dialect
from millicent.collector.loader import Loader
from millicent.collector.spool import SpoolReader
from millicent.dashboard import telemetry as platform_telemetry
from millicent.dashboard.cli import app as commands
from millicent.dashboard.markdown import code, listed, page, table
from millicent.dashboard.reference_api import api
from millicent.dashboard.reference_catalog import catalog
from millicent.dashboard.settings import FILE, Settings, default_data
from millicent.warehouse import record
from millicent.warehouse.deployments import PROFILES
from millicent.warehouse.metrics import DICTIONARY, Measure
from millicent.warehouse.query import MAX_ROWS, Basis, Grain
from millicent.warehouse.store import Warehouse
from millicent.warehouse.tables import OF_DEPLOYMENTS

SOURCES: Final = Path(__file__).parents[3]
ATTRIBUTES: Final = "sdk/millicent/sdk/attributes.py"
"""Read as text: the platform imports nothing of the SDK."""


def write(directory: Path) -> None:
    """Write every page into `directory`, which is created if missing."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, made in PAGES.items():
        (directory / name).write_text(made(), encoding="utf-8")


# ---- the command line


def walk(group: Any = None, *above: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that can be run: its words, such as ("keys", "create"), and what typer knows of it."""
    whole: Any = group or typer.main.get_command(commands)
    for name, command in whole.commands.items():
        is_group = hasattr(command, "commands")
        if not is_group or command.invoke_without_command:
            yield (*above, name), command
        if is_group:
            yield from walk(command, *above, name)


def cli() -> str:
    """Every command with its arguments and options."""
    sections = []
    for words, command in walk():
        own = [given for given in command.params if given.name != "help"]
        usage = " ".join(("millicent", *words, *(_placeholder(a) for a in own if a.param_type_name == "argument")))
        rows = [(_spelling(given), _kind(given), _default(given), given.help) for given in own]
        options = " [OPTIONS]" if any(given.param_type_name == "option" for given in own) else ""
        sections += [f"## millicent {' '.join(words)}", command.help, f"```text\n{usage}{options}\n```"]
        sections += [table(("name", "type", "default", "meaning"), rows)] if rows else []
    return page("Commands", "Every command, as `millicent COMMAND --help` prints it.", *sections)


def _placeholder(given: Any) -> str:
    return f"{given.name.upper()}{'...' if given.nargs != 1 else ''}"


def _spelling(given: Any) -> str:
    names = [given.name.upper()] if given.param_type_name == "argument" else [*given.opts, *given.secondary_opts]
    return ", ".join(map(code, names))


def _kind(given: Any) -> str:
    told = given.type_descriptor.annotation
    choices = get_args(told)
    if getattr(given, "is_flag", False):
        return "flag"
    if choices and all(isinstance(choice, str) for choice in choices):
        return " or ".join(map(code, choices))
    if told == list[str]:
        return "text, repeatable"
    return {str: "text", int: "integer", Path: "path"}.get(told, getattr(told, "__name__", str(told)))


def _default(given: Any) -> str:
    if given.required:
        return "required"
    told = [code(given.default)] if given.default not in (None, False) else []
    told += [code(given.show_default)] if isinstance(given.show_default, str) else []
    return " or ".join([*told, *([f"from {code(given.envvar)}"] if given.envvar else [])])


# ---- the record and its measures


def measures() -> str:
    """The metrics dictionary, and what it can be asked by."""
    rows = [
        (code(m.name), m.label, m.unit.replace("_", " "), m.formula, _by(m), m.better, m.words)
        for m in DICTIONARY.values()
    ]
    by = [
        ("dimensions, kept by the hour", ", ".join(map(code, (*record.DIMENSIONS, record.COST_TYPE)))),
        ("details, read from single calls", ", ".join(map(code, record.DETAILS))),
        ("grains", ", ".join(map(code, get_args(Grain)))),
        ("bases", ", ".join(map(code, get_args(Basis)))),
    ]
    return page(
        "Metrics dictionary",
        "Every measure, as API, dashboard and command line show it. A ratio is sum ÷ sum. `better` is the direction of "
        f"good news. An answer has at most {MAX_ROWS:,} rows.",
        table(("measure", "label", "unit", "formula", "asked by", "better", "meaning"), rows),
        "## What they are asked by",
        f"Measures of deployments are asked by {', '.join(map(code, OF_DEPLOYMENTS))} and `{record.COST_TYPE}` alone. "
        f"Capacity that no call used reads `{record.IDLE}` in every dimension that only a caller has. "
        f"A charge reads `{record.CHARGE}` in every dimension that it is not told of.",
        table(("what", "names"), by),
    )


def _by(measure: Measure) -> str:
    return "deployments" if measure.of_deployments else "anything"


def columns() -> str:
    """The record, column by column."""
    rows = [(code(c.name), code(c.type), c.role, c.meaning) for c in record.CALLS]
    return page(
        "Columns of a call",
        "One row per physical LLM call. Types are Arrow's. NULL is unknown, 0 is none. `identity` finds a call; a "
        "`dimension` has few values and is kept in the hourly rollup; a `detail` has many and is read from the calls; "
        "`tokens` and `money` are summed; `fact` is anything else.",
        table(("column", "type", "role", "meaning"), rows),
    )


def dialects() -> str:
    """Whose spans are understood, and where each column is read from."""
    claims = [
        (
            code(d.id), d.about, _marks(d), ", ".join(d.signals), d.rank, _semantics(d.excludes_cache),
            _semantics(d.excludes_reasoning), listed(d.absent_is_zero),
        )
        for d in DIALECTS
    ]  # fmt: skip
    header = ("dialect", "what it is", "recognised by", "comes as", "rank", "input", "output", "absent counts as 0")
    sections = []
    for title, what in (("Usage", "usage"), ("Other units", "units"), ("Facts", "facts")):
        tables: dict[str, list[str]] = {}
        for dialect in DIALECTS:
            tables.setdefault(_keys(getattr(dialect, what)), []).append(dialect.id)
        for text, ids in tables.items():
            sections += [f"## {title} of {', '.join(ids)}", text]
    calls: dict[str, list[str]] = {}
    for dialect in DIALECTS:
        spelled = ", ".join(f"{code(word)} → {code(stored)}" for word, stored in dialect.calls.items())
        calls.setdefault(spelled, []).append(dialect.id)
    return page(
        "Dialects",
        "A row is read by the first dialect that knows the scope it came from and the marks it has, and only then by "
        "one that goes by marks alone. Of several attributes the first one present wins; two spellings of one counter "
        "are never added. [Add a dialect](../howto/add-a-dialect.md) tells how.",
        table(header, claims),
        "`rank`: when two rows tell of one call, the numbers of the lower rank are kept. `input` and `output`: "
        "`inclusive` has cached tokens inside input and reasoning inside output, `exclusive` has them beside; `row by "
        "row` depends on the shape or the version; `undecided` is taken as inclusive, and marked where there is a "
        "cache and nothing proves it. Numbers that cannot be so prove the opposite, whatever stands here.",
        "An absent counter is 0 where the dialect is known to leave it out when it is 0; any other absent counter is "
        "unknown. `ttft_s`, `ttft_ms` and `first_token_at` become `ttft_ms`; `endpoint_url` and `endpoint_port` help "
        "to find host and deployment. `#` leads to a place inside a text: JSON, or what Python prints of it. `llm.*.` "
        "stands for any provider's name.",
        *sections,
        "## Attribution",
        "Blank says nothing. `resource:` is an attribute of the resource. `millicent.label.NAME` becomes `labels`; "
        "`millicent.usage.units.NAME` becomes `units` and `millicent.price.NAME` `price_context`, in any dialect.",
        _keys(ATTRIBUTION),
        "## Words that are calls",
        "Any other word is a roll-up, a tool or a look-up, and is counted as `not_a_call` with the word as its reason.",
        table(("dialects", "word → operation stored"), [(", ".join(ids), spelled) for spelled, ids in calls.items()]),
    )


def _marks(dialect: Dialect) -> str:
    scope = [f"scope {code(dialect.scope)}"] if dialect.scope else []
    marked = dialect.marks.meta.root_names()
    alone = [] if dialect.unscoped is None else dialect.unscoped.meta.root_names()
    marks = [f"and {listed(dict.fromkeys(marked))}"] if scope and marked else []
    others = [f"{'or ' if scope else ''}{listed(dict.fromkeys(alone))}"] if alone else []
    return " ".join((*scope, *marks, *others))


def _semantics(excludes: pl.Expr | None) -> str:
    known = {"None": "undecided", "false": "inclusive", "true": "exclusive"}
    return known.get(str(excludes), "row by row")


def _keys(columns_of: Mapping[str, Sequence[str]]) -> str:
    rows = [(code(column), listed(keys)) for column, keys in columns_of.items() if keys]
    return table(("column", "attributes, first one present wins"), rows)


# ---- running it


def settings() -> str:
    """Every setting of the platform."""
    prefix = Settings.model_config["env_prefix"]
    rows = [
        (code(name), code(f"{prefix}{name}".upper()), _setting_default(told.default), told.description)
        for name, told in Settings.model_fields.items()
    ]
    kinds = [
        (code(kind), ", ".join(code(f.name) for f in fields(made) if f.name != "kind"))
        for kind, made in PROFILES.items()
    ]
    return page(
        "Settings",
        f"`{FILE}` in the working directory, then the environment, then flags; the last one that speaks wins. A name "
        "in the file that is no setting is an error. `millicent doctor` prints each value and where it came from.",
        table(("setting", "environment", "default", "meaning"), rows),
        "## How the hours of a deployment are paid",
        "Settings of `millicent deployments declare --profile`, by `kind`.",
        table(("kind", "settings"), kinds),
    )


def _setting_default(value: object) -> str:
    if type(value).__name__ == "PydanticUndefinedType":
        return (default_data.__doc__ or "").partition(": ")[2].rstrip(".")
    if value is None or value == {}:
        return "none"
    return code(str(value).lower() if isinstance(value, bool) else value)


def telemetry() -> str:
    """The metrics of both processes."""
    mine = [
        (code(_exposed(m)), m.type, listed(getattr(m, "_labelnames", ())), f"{m.documentation}.")
        for m in platform_metrics()
    ]
    theirs = [(code(m.name), m.kind, listed(m.labels), f"{m.help}.") for m in receiver_telemetry.METRICS]
    header = ("metric", "type", "labels", "meaning")
    return page(
        "Telemetry",
        "Prometheus text at `/metrics` of each port, with a read key.",
        "## The OTLP port",
        table(header, theirs),
        "## The dashboard's port",
        table(header, mine),
    )


def platform_metrics() -> list[Metric]:
    """What the platform's process tells about an installation that has just begun."""
    with tempfile.TemporaryDirectory() as scratch:
        warehouse, spool = Warehouse.embedded(Path(scratch)), SpoolReader(Path(scratch) / "spool")
        try:
            return list(platform_telemetry.Telemetry(warehouse, spool, Loader(warehouse, spool)).collect())
        finally:
            warehouse.close()


def _exposed(metric: Metric) -> str:
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def call_fields() -> str:
    """Every field of a call in plain JSON."""
    rows = [
        (code(name), field.meaning, field.kind.rule, code(field.attribute) if field.attribute else "")
        for name, field in import_calls.FIELDS.items()
    ]
    return page(
        "Fields of a call in JSON",
        "What `POST /api/v1/calls` takes; [how to send them](../howto/send-calls-as-json.md). A field that is null or "
        "left out is unknown, which is not 0. An unknown field is an error.",
        table(("field", "meaning", "must be", "becomes the attribute"), rows),
    )


def attributes() -> str:
    """Every attribute that the SDK writes."""
    sections = []
    for title, rows in written(SOURCES / ATTRIBUTES).items():
        sections += [f"## {title}", table(("attribute", "meaning"), [(code(key), said) for key, said in rows])]
    return page(
        "Attributes",
        "What the SDK writes on its spans, whose instrumentation scope is `millicent.sdk`. OpenTelemetry's own names "
        "where it has one, `millicent.*` where not.",
        *sections,
    )


def written(source: Path) -> dict[str, list[tuple[str, str]]]:
    """Constants of a module with the comment behind each, by the comment above them; those under none are left out."""
    text = source.read_text(encoding="utf-8")
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = {token.start: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    beside = {line: comment for (line, column), comment in comments.items() if column}
    above = {line: comment for (line, column), comment in comments.items() if not column}
    sections: dict[str, list[tuple[str, str]]] = {}
    for node in ast.parse(text).body:
        heading = max((line for line in above if line < node.lineno), default=0)
        if heading and isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Constant):
            sections.setdefault(above[heading], []).append((str(node.value.value), beside.get(node.lineno, "")))
    return sections


PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "api.md": api,
    "attributes.md": attributes,
    "call-fields.md": call_fields,
    "catalog.md": catalog,
    "cli.md": cli,
    "columns.md": columns,
    "dialects.md": dialects,
    "metrics-dictionary.md": measures,
    "settings.md": settings,
    "telemetry.md": telemetry,
}

if __name__ == "__main__":
    write(Path(sys.argv[1]))

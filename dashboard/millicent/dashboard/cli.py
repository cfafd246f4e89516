"""The `millicent` command."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import threading
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from millicent.dashboard import catalog_file, declared, serve
from millicent.dashboard.alert_commands import alerts
from millicent.dashboard.budget_commands import budgets
from millicent.dashboard.charge_commands import list_charges
from millicent.dashboard.deployment_commands import Data, allocate, control_of, deployments
from millicent.dashboard.doctor import accelerators
from millicent.dashboard.export_commands import export
from millicent.dashboard.import_commands import imports
from millicent.dashboard.price_commands import prices
from millicent.dashboard.reprice_commands import periods, reprice
from millicent.dashboard.rereading import reread_calls
from millicent.dashboard.rule_commands import rules
from millicent.dashboard.settings import BadSettingsError, Settings, load, told
from millicent.dashboard.terminal import URL, AsJson, Failed, Token, Url, err, get, out, show
from millicent.dashboard.webhook_commands import webhooks
from millicent.warehouse.control import Scope

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False,
    help="What does a token cost us, on which model, on which accelerator, for which team, and why?",
)  # fmt: skip
keys = typer.Typer(no_args_is_help=True, help="Ingest and read keys.")
app.add_typer(keys, name="keys")
app.add_typer(deployments, name="deployments")
app.add_typer(allocate, name="allocate")
app.add_typer(prices, name="prices")
app.add_typer(rules, name="rules")
app.add_typer(reprice, name="reprice")
app.add_typer(periods, name="periods")
app.add_typer(budgets, name="budgets")
app.add_typer(alerts, name="alerts")
app.add_typer(webhooks, name="webhooks")
app.add_typer(imports, name="import")
app.add_typer(export, name="export")
app.command("reread")(reread_calls)
app.command("charges")(list_charges)

Host = Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")]
Port = Annotated[int | None, typer.Option(help="Port of the dashboard and the API.", show_default="8050")]
OtlpPort = Annotated[
    int | None, typer.Option(help="Port that takes OTLP over HTTP and calls in JSON.", show_default="4318")
]
GrpcPort = Annotated[int | None, typer.Option(help="Port that takes OTLP over gRPC.", show_default="4317")]


@app.command()
def up(
    data: Data = None,
    host: Host = None,
    port: Port = None,
    otlp_port: OtlpPort = None,
    grpc_port: GrpcPort = None,
    insecure_local: Annotated[
        bool | None, typer.Option("--insecure-local", help="No keys, no login; loopback only.")
    ] = None,
    behind_proxy: Annotated[bool | None, typer.Option("--behind-proxy", help="A trusted proxy terminates TLS.")] = None,
) -> None:
    """Run collector, jobs, API and dashboard in one process tree."""
    settings = _settings(data=data, host=host, port=port, otlp_port=otlp_port, grpc_port=grpc_port,
                         insecure_local=insecure_local, behind_proxy=behind_proxy)  # fmt: skip
    settings = _free(settings)
    _use_catalog(settings)
    _check_declared(settings)
    made = serve.first_keys(settings)
    if made is not None:
        told_once = (
            f"Ingest key    {made.ingest}\nSet-up token  {made.setup}\n\n"
            "The key goes to your services (OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20<key>),\n"
            "the token opens the dashboard once. Neither is shown again.\n"
        )
        out.print(told_once, highlight=False, soft_wrap=True)
    _announce(settings)
    serve.serve(settings)


@app.command()
def demo(port: Port = None, otlp_port: OtlpPort = None, grpc_port: GrpcPort = None) -> None:
    """Run the product on a scratch directory with an example company's two months, and its calls arriving live."""
    with tempfile.TemporaryDirectory(prefix="millicent-demo-") as scratch:
        settings = _settings(data=Path(scratch), port=port, otlp_port=otlp_port, grpc_port=grpc_port,
                             insecure_local=True)  # fmt: skip
        settings = _free(settings)
        _use_catalog(settings)
        _check_declared(settings)
        _fill(settings)
        _announce(settings)
        stop = threading.Event()
        from millicent.dashboard import demo_receiver  # noqa: PLC0415 - a command's own import
        from millicent.dashboard.demo import live  # noqa: PLC0415 - likewise

        traffic = threading.Thread(target=live, args=(f"http://127.0.0.1:{settings.otlp_port}", stop), name="traffic")
        with demo_receiver.listening(_heard) as receiver:
            settings = demo_receiver.reaching(settings)
            with control_of(settings.data) as control:
                demo_receiver.subscribe(control, settings, receiver)
            traffic.start()
            try:
                serve.serve(settings)
            finally:
                stop.set()
                traffic.join()


def _heard(event: dict[str, Any]) -> None:
    """Tell what an event told the demo's receiver."""
    told = f"Webhook    {event['type']}: {event['data'].get('summary', '')}"
    out.print(told, highlight=False, markup=False, soft_wrap=True)


def _fill(settings: Settings) -> None:
    from millicent.dashboard.demo import DAYS, declare, history  # noqa: PLC0415 - a command's own import
    from millicent.warehouse import capacity  # noqa: PLC0415 - likewise
    from millicent.warehouse.store import Warehouse  # noqa: PLC0415 - likewise

    warehouse, now = Warehouse.embedded(settings.data), datetime.now(UTC)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err) as progress:
        declare(warehouse, now)
        task, stored = progress.add_task("days of example calls", total=DAYS), 0
        for calls in history(warehouse, now):
            stored += calls
            progress.advance(task)
        task = progress.add_task("deployment-hours", total=None)
        hours = capacity.refresh(warehouse.engine, warehouse.control, now)
        progress.update(task, total=hours, completed=hours)
    err.print(f"{stored:,} calls stored", highlight=False)
    warehouse.close()


@app.command()
def doctor(data: Data = None, as_json: AsJson = False) -> None:
    """Print every setting with the source of its value, and check that the product can run here."""
    try:
        rows = told(data=data)
    except (BadSettingsError, ValidationError) as error:
        raise Failed(str(error)) from error
    settings = load(data=data)
    catalog, well = catalog_file.checks(settings.catalog)
    declaration, declared_well = _declared(settings)
    checks = {
        "data directory": _writable(settings.data),
        f"port {settings.port}": _port_state(settings.host, settings.port),
        f"port {settings.otlp_port}": _port_state(settings.host, settings.otlp_port),
        f"port {settings.grpc_port}": _port_state(settings.host, settings.grpc_port),
        "chart bundle": "small" if serve.small_bundle() else "full (make assets fetches the small one)",
        **catalog,
        **(_unknown_costs(settings) if well else {}),
        **declaration,
        **accelerators(),
    }
    if as_json:
        print(json.dumps({"settings": {r.name: [r.value, r.source] for r in rows}, "checks": checks}))  # noqa: T201
    else:
        table = Table("setting", "value", "from", box=None)
        for row in rows:
            table.add_row(escape(row.name), escape(row.value), row.source)
        for name, state in checks.items():
            table.add_row(escape(name), escape(state), "checked now")
        out.print(table)
    if not (well and declared_well):
        raise typer.Exit(1)


def _declared(settings: Settings) -> tuple[dict[str, str], bool]:
    """What `millicent doctor` says of budgets, rules and endpoints that are declared."""
    if not (settings.data / "control.db").exists():
        return declared.checks(settings, None)
    with control_of(settings.data) as control:
        return declared.checks(settings, control)


def _unknown_costs(settings: Settings) -> dict[str, str]:
    """Declared deployments that the catalog gives no cost for; nothing where nothing was ever declared here."""
    if not (settings.data / "control.db").exists():
        return {}
    with control_of(settings.data) as control:
        found = enumerate(catalog_file.unknown_costs(control), start=1)
        return {f"deployments, problem {at}": problem for at, problem in found}


@app.command()
def query(
    measures: Annotated[list[str], typer.Argument(help="Measures, such as spend_usd total_tokens.")],
    by: Annotated[list[str] | None, typer.Option(help="Dimension to group by; repeat for more.")] = None,
    filter: Annotated[list[str] | None, typer.Option(help="team:search,ads keeps, -team:search drops.")] = None,  # noqa: A002
    period: Annotated[str, typer.Option(help="24h, 7d, 4w or mtd.")] = "28d",
    grain: Annotated[str | None, typer.Option(help="hour, day, week or month.")] = None,
    basis: Annotated[str, typer.Option(help="list, billed, effective, usage or marginal.")] = "effective",
    currency: Annotated[str, typer.Option(help="ISO 4217 code, by the rates of the price book.")] = "USD",
    time_zone: Annotated[str, typer.Option(help="IANA name; days begin at its midnights.")] = "UTC",
    url: Url = URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Measures by dimensions over a period."""
    asked = {"measures": measures, "group_by": by, "filter": filter, "period": period, "grain": grain, "basis": basis,
             "currency": currency, "time_zone": time_zone}  # fmt: skip
    answer = get(url, token, "query", {name: value for name, value in asked.items() if value})
    show(answer["rows"], answer, as_json=as_json)


@app.command()
def calls(
    filter: Annotated[list[str] | None, typer.Option(help="team:search keeps, -team:search drops.")] = None,  # noqa: A002
    period: Annotated[str, typer.Option(help="24h, 7d, 4w or mtd.")] = "24h",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    url: Url = URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Single calls, newest first."""
    answer = get(url, token, "calls", {"filter": filter or [], "period": period, "limit": limit})
    shown = ("started_at", "team", "model", "accelerator", "input_tokens", "output_tokens", "effective_cost_usd",
             "trace_id", "span_id")  # fmt: skip
    show([{name: row[name] for name in shown} for row in answer["calls"]], answer, as_json=as_json)


@app.command()
def explain(
    trace_id: Annotated[str, typer.Argument(help="32 hex digits, as `millicent calls --json` prints it.")],
    span_id: Annotated[str, typer.Argument(help="16 hex digits.")],
    url: Url = URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Why a call costs what it does, line by line."""
    answer = get(url, token, f"explain/{trace_id}/{span_id}", {})
    show(answer["lines"], answer, as_json=as_json)


@app.command()
def balance(url: Url = URL, token: Token = None, as_json: AsJson = False) -> None:
    """Where every acknowledged span went."""
    answer = get(url, token, "balance", {})
    rows = [{"what": name, "why": "", "spans": count} for name, count in answer.items() if name != "reasons"]
    rows += [{"what": r["outcome"], "why": r["reason"], "spans": r["spans"]} for r in answer["reasons"]]
    show(rows, answer, as_json=as_json)


@app.command()
def version() -> None:
    """Print the version."""
    out.print(installed("millicent"), highlight=False)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    scope: Annotated[
        Scope,
        typer.Option(help="ingest writes calls, read asks, operator also changes rules, setup opens one session."),
    ] = "ingest",
    data: Data = None,
) -> None:
    """Make a key and print it, once."""
    with control_of(data) as control:
        out.print(control.create_key(scope, name), highlight=False, soft_wrap=True)


@keys.command("list")
def list_keys(data: Data = None, as_json: AsJson = False) -> None:
    """Every key, without its secret."""
    with control_of(data) as control:
        rows = [
            {"id": k.id, "scope": k.scope, "name": k.name, "expires_at": k.expires_at.isoformat(),
             "revoked_at": k.revoked_at.isoformat() if k.revoked_at else None}
            for k in control.keys()  # noqa: SIM118 - the control plane's, not a dictionary's
        ]  # fmt: skip
    show(rows, rows, as_json=as_json)


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="As `millicent keys list` prints it.")], data: Data = None
) -> None:
    """End a key; it stops working within five seconds."""
    with control_of(data) as control:
        if not control.revoke(key_id):
            raise Failed(f"there is no key {key_id!r}: see `millicent keys list`")
    out.print(f"key {key_id} is revoked", highlight=False)


def main() -> None:
    """Run the command line."""
    app()


def _settings(**flags: Any) -> Settings:
    try:
        return load(**flags)
    except (BadSettingsError, ValidationError) as error:
        raise Failed(str(error)) from error


def _use_catalog(settings: Settings) -> None:
    """Have the catalog as the settings extend it, and say which deployments have no cost by it."""
    with control_of(settings.data) as control:
        for problem in catalog_file.unknown_costs(control):
            err.print("[yellow]warning:[/yellow]", escape(problem), highlight=False, soft_wrap=True)


def _check_declared(settings: Settings) -> None:
    """Refuse to start with something declared that cannot be."""
    if declared.speaks(settings):
        with control_of(settings.data) as control:
            try:
                declared.read(settings, control)
            except BadSettingsError as error:
                raise Failed(str(error)) from error


def _announce(settings: Settings) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    out.print(
        f"Dashboard  http://{host}:{settings.port}\nOTLP       http://{host}:{settings.otlp_port}\n"
        f"OTLP gRPC  {host}:{settings.grpc_port}",
        highlight=False,
    )


def _free(settings: Settings) -> Settings:
    """The settings with ports that are free; 0 becomes any one."""
    for name in serve.PORTS:
        port, flag = getattr(settings, name), f"--{name.replace('_', '-')}"
        if (state := _port_state(settings.host, port)) != "free":
            raise Failed(f"port {port} is {state}: stop what uses it, or choose another with {flag} (0: any free one)")
    return serve.with_ports(settings)


def _port_state(host: str, port: int) -> str:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or "not available"
    return "free"


def _writable(directory: Path) -> str:
    existing = next(parent for parent in (directory, *directory.parents) if parent.exists())
    free_gb = shutil.disk_usage(existing).free / 1e9
    return f"{free_gb:.0f} GB free in {existing}"


if __name__ == "__main__":
    main()

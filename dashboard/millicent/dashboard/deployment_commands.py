"""`millicent deployments` and `millicent allocate`: our own accelerators, and who carries what of them nobody used.

With `--url` or a key they ask a running instance; else they work on its data directory, on the same machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args

import typer

from millicent.dashboard import catalog_file, deployment_reading
from millicent.dashboard.rule_commands import instant
from millicent.dashboard.settings import BadSettingsError, Settings, load
from millicent.dashboard.terminal import URL, AsJson, Failed, OperatorToken, Token, Url, ask, err, get, out, short, show
from millicent.pricing.allocation import CachedPolicy
from millicent.pricing.catalog import BadCatalogError
from millicent.pricing.idle import IdlePolicy
from millicent.warehouse import deployments as declarations
from millicent.warehouse import policies
from millicent.warehouse.control import DEFAULT_TENANT, Control
from millicent.warehouse.deployments import BadDeploymentsError
from millicent.warehouse.policies import BUILT_IN, Policy

if TYPE_CHECKING:
    from millicent.warehouse.declaring import Declared

deployments = typer.Typer(
    no_args_is_help=True, help="Our own accelerators: what serves what, since when, at what cost."
)
allocate = typer.Typer(no_args_is_help=True, help="Who carries idle cost, and what cached tokens weigh.")

HOUR: Final = timedelta(hours=1)
J_PER_KWH: Final = 3_600_000
TOML: Final = {"content-type": "application/toml"}
_HELD: Final = {"added": "", "replaced": ", in place of the one declared before", "ended": "",
                "unchanged": ", as before"}  # fmt: skip

Data = Annotated[Path | None, typer.Option(help="Directory of the store, the spool and the keys.")]
Instance = Annotated[
    str | None, typer.Option("--url", envvar="MILLICENT_URL", help="A running instance, in place of --data.")
]
Name = Annotated[str, typer.Argument(help="As calls name it (millicent.deployment).")]


# ---- deployments


@deployments.command("list")
def list_deployments(data: Data = None, url: Instance = None, token: Token = None, as_json: AsJson = False) -> None:
    """Declared deployments and their periods; of a running instance also what calls run on that nobody declared."""
    if (address := _address(data, url, token)) is None:
        with control_of(data) as control:
            told = [declarations.written(one) for _, one in control.deployments(DEFAULT_TENANT)]
        show([_line(one) for one in told], {"deployments": told}, as_json=as_json)
        return
    answer = get(address, token, "deployments", {})
    show([_line(one) for one in answer["deployments"]], answer, as_json=as_json)
    if answer["discovered"] and not as_json:
        err.print("calls run on these, and nobody declared them", style="bold")
        show([_unknown(one) for one in answer["discovered"]], None, as_json=False, to=err)


@deployments.command("declare")
def declare_deployment(
    name: Annotated[str | None, typer.Argument(help="As calls name it (millicent.deployment).")] = None,
    model: Annotated[str | None, typer.Option(help="Model that it serves.")] = None,
    accelerator: Annotated[str | None, typer.Option(help="Name in the catalog, such as H100 or nvidia-b200.")] = None,
    profile: Annotated[
        list[str] | None, typer.Option(help="How it is paid: kind=rented usd_per_hour=1.89 (repeat).")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="How many accelerators.", show_default="1")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="TOML with a table per deployment, in place of all the others.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="What serves it: vllm, sglang, tensorrt-llm, …")] = None,
    precision: Annotated[str | None, typer.Option(help="fp8, nvfp4, bf16, …")] = None,
    region: Annotated[str | None, typer.Option(help="Catalog region, for tariff and carbon.")] = None,
    environment: Annotated[str | None, typer.Option(help="production, staging, …")] = None,
    endpoint: Annotated[
        list[str] | None, typer.Option(help="host or host:port whose calls belong to it (repeat).")
    ] = None,
    power: Annotated[list[str] | None, typer.Option(help="tariff_usd_per_kwh=0.08 (repeat).")] = None,
    pool: Annotated[str | None, typer.Option(help="Deployments of one pool share the same accelerators.")] = None,
    prefill: Annotated[int | None, typer.Option(min=1, help="Accelerators that do prefill only.")] = None,
    decode: Annotated[int | None, typer.Option(min=1, help="Accelerators that do decode only.")] = None,
    parallelism: Annotated[str | None, typer.Option(help="How the model lies on them: TP8, as a note.")] = None,
    owner: Annotated[str | None, typer.Option(help="Team that idle cost is charged to where so agreed.")] = None,
    weight: Annotated[
        list[str] | None, typer.Option(help="output=5000: thousandths of an uncached input token (repeat).")
    ] = None,
    metrics: Annotated[
        list[str] | None, typer.Option(help="URL of the engine's counters; prefill=URL, decode=URL (repeat).")
    ] = None,
    dcgm: Annotated[list[str] | None, typer.Option(help="URL of a DCGM exporter (repeat).")] = None,
    gpu: Annotated[list[str] | None, typer.Option(help="UUID of a GPU of the exporters that is its (repeat).")] = None,
    since: Annotated[datetime | None, typer.Option(help="UTC, on the hour.", show_default="this hour")] = None,
    until: Annotated[datetime | None, typer.Option(help="UTC, on the hour.", show_default="open")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Correct what was declared for the same, earlier hour.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    data: Data = None,
    url: Instance = None,
    token: OperatorToken = None,
    as_json: AsJson = False,
) -> None:
    """Declare deployments, or change them from an hour on; what holds already changes nothing."""
    told = {
        "name": name, "model": model, "accelerator": accelerator, "accelerator_count": count, "engine": engine,
        "precision": precision, "region": region, "environment": environment, "endpoints": endpoint,
        "profile": _pairs("--profile", profile), "power": _pairs("--power", power), "pool": pool,
        "prefill_count": prefill, "decode_count": decode, "parallelism": parallelism, "owner": owner,
        "weights": _pairs("--weight", weight), "metrics": metrics, "dcgm": dcgm, "gpus": gpu,
        "effective_from": instant(since), "effective_to": instant(until),
    }  # fmt: skip
    told = {field: value for field, value in told.items() if value is not None}
    if file is not None and told:
        raise Failed(f"--file says everything, and {', '.join(sorted(told))} is told beside it: choose one of the two")
    if (address := _address(data, url, token)) is not None:
        path = "deployments/check" if dry_run else "deployments"
        sent: dict[str, Any] = {"json": told}
        if file is not None:
            sent = {"content": _text(file), "headers": TOML}
        answer = ask("POST", address, token, path, params={"replace": replace}, **sent)
        _tell(answer["deployments"], as_json=as_json, dry_run=dry_run)
        return
    with control_of(data) as control, _failing():
        now = datetime.now(UTC)
        read = deployment_reading.read
        listed = [read(told, now)] if file is None else deployment_reading.from_toml(_text(file), now)
        declared = control.declare_all(listed, replacing=replace, dry_run=dry_run)
        _tell([_told(one) for one in declared], as_json=as_json, dry_run=dry_run)


@deployments.command("end")
def end_deployment(
    name: Name,
    at: Annotated[datetime | None, typer.Option(help="UTC, on the hour.", show_default="the end of this hour")] = None,
    data: Data = None,
    url: Instance = None,
    token: OperatorToken = None,
) -> None:
    """Say when a deployment ends: no cost accrues from then on."""
    whole = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + HOUR
    end = datetime.fromisoformat(str(instant(at))) if at else whole
    address = _address(data, url, token)
    if address is not None:
        held = _in_force(get(address, token, "deployments", {})["deployments"], name, end)
        answer = ask("POST", address, token, "deployments", json={**held, "effective_to": instant(end)})
        _tell(answer["deployments"], as_json=False, dry_run=False)
        return
    with control_of(data) as control, _failing():
        held = _in_force([declarations.written(one) for _, one in control.deployments(DEFAULT_TENANT)], name, end)
        one = deployment_reading.read({**held, "effective_to": instant(end)}, end)
        _tell([_told(declared) for declared in control.declare_all([one])], as_json=False, dry_run=False)


@deployments.command("discover")
def discover_deployment(
    address: Annotated[str, typer.Argument(help="URL of counters, or host:port of an engine or a DCGM exporter.")],
    as_json: AsJson = False,
) -> None:
    """Read an engine's or an exporter's counters once, from here: what it is, and what declares it. Stores nothing."""
    from millicent.collector.meter_reading import UnreadableError  # noqa: PLC0415 - a command's own import
    from millicent.dashboard import discovering  # noqa: PLC0415 - likewise

    with catalog_of(None):
        try:
            found = discovering.look(address, datetime.now(UTC))
        except UnreadableError as error:
            raise Failed(f"{address} cannot be read ({error.reason}): {error}") from error
    told = asdict(found)
    lines = {name: ", ".join(value) if isinstance(value, tuple) else value for name, value in told.items()}
    counters = ", ".join(f"{name} {value:,}" for name, value in found.counters.items())
    rows = [{"what": name, "told": value or None} for name, value in {**lines, "counters": counters}.items()]
    show([row for row in rows if row["what"] != "command"], told, as_json=as_json)
    if not as_json:
        out.print(f"\n{found.command}", highlight=False, markup=False, soft_wrap=True)


@deployments.command("hours")
def deployment_hours(
    name: Name,
    period: Annotated[str, typer.Option(help="24h, 7d, 4w or mtd.")] = "24h",
    url: Url = URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """What each hour of a deployment cost, and where it went."""
    answer = get(url, token, f"deployments/{name}/hours", {"period": period})
    show([_hour(row) for row in answer["hours"]], answer, as_json=as_json)
    if answer["left_off"] and not as_json:
        err.print(f"and {answer['left_off']:,} more", highlight=False)


def _hour(row: dict[str, Any]) -> dict[str, Any]:
    """An hour as one line of a table, which needs no 24 decimals; JSON has them."""
    parts = {name: row[f"{name}_usd"] for name in ("busy", "idle", "unavailable", "untracked")}
    joules, tokens = row["joules"], [row[f"{side}_tokens"] for side in ("input", "output")]
    energy = None if joules is None else f"{Decimal(joules) / J_PER_KWH:.3f} {row['energy_source'] or ''}".rstrip()
    return {
        "hour": short(row["hour"]),
        **{f"{name} USD": None if usd is None else f"{Decimal(usd):.4f}" for name, usd in parts.items()},
        "tokens": None if None in tokens else f"{sum(map(int, tokens)):,}", "kWh": energy,
        "": "so far" if row["provisional"] else "",
    }  # fmt: skip


# ---- policies


@allocate.command("show")
def show_policies(data: Data = None, url: Instance = None, token: Token = None, as_json: AsJson = False) -> None:
    """Every allocation policy, by the hour from which it holds."""
    if (address := _address(data, url, token)) is not None:
        _tell_policies(get(address, token, "policies", {})["policies"], as_json=as_json)
        return
    with control_of(data) as control:
        _tell_policies(_policies(control), as_json=as_json)


@allocate.command("set")
def set_policy(
    idle: Annotated[str | None, typer.Option(help=", ".join(get_args(IdlePolicy)) + ".", show_default="show")] = None,
    cached: Annotated[
        str | None, typer.Option(help=", ".join(get_args(CachedPolicy)) + ".", show_default="fraction")
    ] = None,
    since: Annotated[
        datetime | None, typer.Option("--from", help="UTC, on the hour.", show_default="this hour")
    ] = None,
    note: Annotated[str, typer.Option(help="Why.")] = "",
    data: Data = None,
    url: Instance = None,
    token: OperatorToken = None,
    as_json: AsJson = False,
) -> None:
    """Say who carries idle cost and what cached tokens weigh, from an hour on; what is left out stays as it is."""
    begin = instant(since or datetime.now(UTC).replace(minute=0, second=0, microsecond=0))
    address = _address(data, url, token)
    if address is not None:
        held = _held(get(address, token, "policies", {})["policies"], str(begin))
        told = {"idle": idle or held["idle"], "cached": cached or held["cached"], "effective_from": begin, "note": note}
        _tell_policies(ask("POST", address, token, "policies", json=told)["policies"], as_json=as_json)
        return
    with control_of(data) as control, _failing():
        held = _held(_policies(control), str(begin))
        choices: dict[str, Any] = {"idle": idle or held["idle"], "cached": cached or held["cached"]}
        control.set_policy(Policy(**choices, effective_from=datetime.fromisoformat(str(begin)), note=note))
        _tell_policies(_policies(control), as_json=as_json)


def _policies(control: Control) -> list[dict[str, Any]]:
    return [policies.written(one) for one in (BUILT_IN, *(policy for _, policy in control.policies()))]


def _held(told: Sequence[dict[str, Any]], begin: str) -> dict[str, Any]:
    """The policy that holds when another is to begin."""
    at = datetime.fromisoformat(begin)
    return [one for one in told if datetime.fromisoformat(one["effective_from"]) <= at][-1]


def _tell_policies(told: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    lines = [
        {"from": "built in" if one["id"] is None else short(one["effective_from"]), "idle": one["idle"],
         "cached": one["cached"], "author": one["author"], "note": one["note"]}
        for one in told
    ]  # fmt: skip
    show(lines, {"policies": list(told)}, as_json=as_json)


# ---- where they are, and how they are shown


@contextmanager
def catalog_of(data: Path | None) -> Iterator[Settings]:
    """The settings, with the catalog that they name in use.

    Raises:
        Failed: the settings or the catalog are wrong.
    """
    try:
        settings = load(data=data)
        catalog_file.use(settings.catalog)
    except BadCatalogError as error:
        raise Failed(*error.problems) from error
    except (BadSettingsError, ValueError) as error:
        raise Failed(str(error)) from error
    yield settings


@contextmanager
def control_of(data: Path | None) -> Iterator[Control]:
    """The control plane of a data directory, with the catalog that the settings name.

    Raises:
        Failed: the settings or the catalog are wrong.
    """
    with catalog_of(data) as settings:
        control = Control(settings.data)
        try:
            yield control
        finally:
            control.close()


@contextmanager
def _failing() -> Iterator[None]:
    """Refusals of the control plane as messages."""
    try:
        yield
    except BadDeploymentsError as error:
        raise Failed(*error.problems) from error
    except ValueError as error:
        raise Failed(str(error)) from error


def _address(data: Path | None, url: str | None, token: str | None) -> str | None:
    """The instance to ask; None where the data directory is meant."""
    if data is not None or (url is None and token is None):
        return None
    return url or URL


def _in_force(told: Sequence[dict[str, Any]], name: str, end: datetime) -> dict[str, Any]:
    """The period of a name that an end falls into."""
    mine = [one for one in told if one["name"] == name]
    if not mine:
        raise Failed(f"there is no deployment {name!r}: see `millicent deployments list`")
    for one in mine:
        until = one["effective_to"]
        if datetime.fromisoformat(one["effective_from"]) < end and (
            until is None or end <= datetime.fromisoformat(until)
        ):
            return one
    raise Failed(f"deployment {name!r} has no period at {end.isoformat()}: see `millicent deployments list`")


def _told(one: Declared) -> dict[str, Any]:
    return {"outcome": one.outcome, "deployment": declarations.written(one.deployment)}


def _tell(declared: Sequence[dict[str, Any]], *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        show([], {"deployments": list(declared)}, as_json=True)
        return
    for told in declared:
        one = told["deployment"]
        until = f" to {_minute(one['effective_to'])}" if one["effective_to"] else ""
        out.print(
            f"{'would be: ' if dry_run else ''}{one['name']}: {one['accelerator_count']} × {one['accelerator']} from "
            f"{_minute(one['effective_from'])}{until} UTC{_HELD[told['outcome']]}",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip


def _minute(instant: str) -> str:
    return f"{datetime.fromisoformat(instant):%Y-%m-%d %H:%M}"


def _line(one: dict[str, Any]) -> dict[str, Any]:
    """A declaration as one line of a table."""
    profile = one["profile"]
    named = (profile.get(name) for name in ("kind", "contract", "name", "usd_per_hour"))
    return {
        "name": one["name"], "model": one["model"], "accelerator": f"{one['accelerator_count']} × {one['accelerator']}",
        "engine": one["engine"], "pool": one["pool"], "paid": " ".join(filter(None, named)),
        "from": short(one["effective_from"]), "to": short(one["effective_to"]),
    }  # fmt: skip


def _unknown(one: dict[str, Any]) -> dict[str, Any]:
    """What calls tell of undeclared hardware as one line of a table."""
    count = f"{one['accelerator_count']} × " if one["accelerator_count"] else ""
    return {
        "deployment": one["deployment"] or f"at {one['endpoint_host']}", "model": one["model"], "engine": one["engine"],
        "accelerator": f"{count}{one['accelerator']}" if one["accelerator"] else None, "calls": f"{one['calls']:,}",
        "from": short(one["first_at"]), "to": short(one["last_at"]), "missing": "; ".join(one["missing"]),
    }  # fmt: skip


def _pairs(flag: str, texts: Sequence[str] | None) -> dict[str, str] | None:
    if not texts:
        return None
    for text in texts:
        if "=" not in text:
            raise Failed(f"{flag} {text!r} is not name=value")
    return dict(text.split("=", 1) for text in texts)


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"{file} cannot be read: {error}") from error

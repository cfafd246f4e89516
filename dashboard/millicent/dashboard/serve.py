"""One command, one process tree: the receiver as a child, and loader, jobs, API and pages in this process.

The receiver starts first and alone, so that it acknowledges within a second or two of the command while the database
and the pages are still being imported; the spool between them is files, so either may end and begin again by itself.
"""

from __future__ import annotations

import contextlib
import gc
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from millicent.dashboard.settings import Settings
from millicent.warehouse.control import DEFAULT_TENANT, Control

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp

    from millicent.collector.forwarding import Forwarder
    from millicent.collector.loader import Loader
    from millicent.collector.scraping import Scraper
    from millicent.collector.spool import SpoolReader
    from millicent.warehouse.store import Warehouse

RESTART_S: Final = 0.5
PORTS: Final = ("port", "otlp_port", "grpc_port")
log = structlog.get_logger("millicent")


@dataclass(frozen=True, slots=True)
class FirstKeys:
    """What a first run makes and prints once."""

    ingest: str
    setup: str


def first_keys(settings: Settings) -> FirstKeys | None:
    """Make an ingest key and a set-up token if the installation has no key yet; None when it has."""
    control = Control(settings.data)
    try:
        if settings.insecure_local or control.keys(DEFAULT_TENANT):
            return None
        return FirstKeys(control.create_key("ingest", "first ingest key"), control.create_key("setup", "first run"))
    finally:
        control.close()


def with_ports(settings: Settings) -> Settings:
    """The same settings with a free port in place of each 0, so that what is announced stays when a child restarts."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with contextlib.ExitStack() as held:  # all at once, or two of them might be the same
        found = {
            name: held.enter_context(socket.create_server((settings.host, 0), family=family)).getsockname()[1]
            for name in PORTS
            if getattr(settings, name) == 0
        }
    return settings.model_copy(update=found)


@contextlib.contextmanager
def receiver(settings: Settings) -> Iterator[None]:
    """Run the OTLP receiver as a child for as long as the block lasts; one that dies is started again."""
    command = [
        sys.executable, "-m", "millicent.collector",
        "--with-parent", "--data", str(settings.data), "--host", settings.host,
        "--port", str(settings.otlp_port), "--grpc-port", str(settings.grpc_port),
        *(["--insecure-local"] if settings.insecure_local else []),
    ]  # fmt: skip
    stop = threading.Event()
    children = [subprocess.Popen(command, stdin=subprocess.PIPE)]

    def watch() -> None:
        while not stop.is_set():
            code = children[-1].wait()
            if stop.wait(RESTART_S):
                return
            log.error("receiver ended, starting it again", exit_code=code)
            children.append(subprocess.Popen(command, stdin=subprocess.PIPE))

    watcher = threading.Thread(target=watch, name="receiver-watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        children[-1].terminate()
        watcher.join()
        if children[-1].poll() is None:
            children[-1].terminate()
            children[-1].wait()


def serve(settings: Settings) -> None:
    """Run everything until SIGTERM or SIGINT, then let loader, jobs and readers finish what they are at, and close."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("info"))
    signal.signal(signal.SIGTERM, _terminated)  # uvicorn raises it again when it is done, and its default is to die
    try:
        with receiver(settings):
            _platform(settings)
    finally:
        gc.freeze()  # looking through all that is left would take seconds, and it goes with the process


def _terminated(*_: object) -> None:
    raise SystemExit(0)


def application(
    warehouse: Warehouse,
    spool: SpoolReader,
    loader: Loader,
    *,
    insecure_local: bool,
    receiver: str = "http://127.0.0.1:4318",
    forwarder: Forwarder | None = None,
    scraper: Scraper | None = None,
) -> ASGIApp:
    """Pages, API, health and telemetry as one ASGI application behind `Access`; `receiver` is where calls are stored.

    Raises:
        UndeclaredRouteError: a route has no policy.
    """
    from millicent.dashboard import access  # noqa: PLC0415 - after the receiver has started
    from millicent.dashboard.api import mount_api  # noqa: PLC0415 - likewise
    from millicent.dashboard.app import create_app  # noqa: PLC0415 - likewise
    from millicent.dashboard.telemetry import Telemetry  # noqa: PLC0415 - likewise

    def mount(server: FastAPI) -> None:
        telemetry = Telemetry(warehouse, spool, loader, forwarder, scraper)
        mount_api(server, warehouse, loader.balance, telemetry.text, lambda: loader.running, receiver)

    server = create_app(warehouse, mount=mount, receiver=_reachable(receiver))
    access.check_routes(getattr(route, "path", repr(route)) for route in server.routes)
    return access.Access(server, warehouse.control, insecure_local=insecure_local)


def _reachable(receiver: str) -> str:
    """Its address as others know it, where it listens on all of this machine's."""
    return receiver.replace("//0.0.0.0:", f"//{socket.gethostname()}:").replace("//[::]:", f"//{socket.gethostname()}:")


def _platform(settings: Settings) -> None:
    import uvicorn  # noqa: PLC0415 - after the receiver has started

    from millicent.collector import jobs  # noqa: PLC0415 - likewise
    from millicent.collector.loader import Loader  # noqa: PLC0415 - likewise
    from millicent.collector.repricing import Repricer  # noqa: PLC0415 - likewise
    from millicent.collector.scraping import Scraper  # noqa: PLC0415 - likewise
    from millicent.collector.spool import SpoolReader  # noqa: PLC0415 - likewise
    from millicent.collector.webhooks.delivering import Deliverer  # noqa: PLC0415 - likewise
    from millicent.warehouse.store import Warehouse  # noqa: PLC0415 - likewise

    warehouse = Warehouse.embedded(settings.data, memory_limit=settings.memory_limit, reach=settings.reach)
    _declare(settings, warehouse.control)
    spool = SpoolReader(settings.data / "spool")
    loader = Loader(warehouse, spool)
    scraper = Scraper(warehouse)
    stop = threading.Event()
    workers = [
        threading.Thread(target=loader.run, args=(stop,), name="loader"),
        threading.Thread(target=jobs.run, args=(warehouse, stop), name="jobs"),
        threading.Thread(target=jobs.run, args=(warehouse, stop, jobs.alerts(settings.address)), name="alerts"),
        threading.Thread(target=Repricer(warehouse).run, args=(stop,), name="repricing"),
        threading.Thread(target=scraper.run, args=(stop,), name="scraping"),
        threading.Thread(
            target=Deliverer.reaching(warehouse.control, settings.reach).run, args=(stop,), name="delivery"
        ),
    ]
    forwarder = _forwarder(settings, warehouse, spool, loader)
    if forwarder is not None:
        workers.append(threading.Thread(target=forwarder.run, args=(stop,), name="forwarder"))
    for worker in workers:
        worker.start()
    try:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        app = application(warehouse, spool, loader, insecure_local=settings.insecure_local,
                          receiver=f"http://{host}:{settings.otlp_port}", forwarder=forwarder,
                          scraper=scraper)  # fmt: skip
        config = uvicorn.Config(app, settings.host, settings.port, log_level="warning", server_header=False,
                                proxy_headers=settings.behind_proxy, lifespan="off")  # fmt: skip
        uvicorn.Server(config).run()
    finally:
        stop.set()
        for worker in workers:
            worker.join()
        warehouse.close()


def _declare(settings: Settings, control: Control) -> None:
    """Make what is declared so. What cannot be is told, and stops nobody from sending calls."""
    from millicent.dashboard import declared  # noqa: PLC0415 - after the receiver has started

    if not declared.speaks(settings):
        return
    try:
        outcome = declared.carry_out(control, declared.read(settings, control))
    except declared.BadDeclarationError as error:
        log.error("nothing declared was carried out", problems=error.problems)  # noqa: TRY400 - they say all
        return
    if outcome.set or outcome.ended:
        log.info("declared", set=outcome.set, ended=outcome.ended)
    for problem in outcome.problems:
        log.error("declared, and cannot be", problem=problem)


def _forwarder(settings: Settings, warehouse: Warehouse, spool: SpoolReader, loader: Loader) -> Forwarder | None:
    if settings.forward_endpoint is None:
        return None
    from millicent.collector.forwarding import Forwarder, Target  # noqa: PLC0415 - after the receiver has started

    headers = {name: value.get_secret_value() for name, value in settings.forward_headers.items()}
    target = Target(settings.forward_endpoint, headers)
    own = type(spool)(spool.directory)  # a reader remembers where it was last
    return Forwarder(warehouse.engine, own, lambda: loader.position, target, settings.data)


def small_bundle() -> bool:
    """Whether the small chart bundle was fetched; without it the one that ships with Dash is served."""
    return (Path(__file__).parent / "assets" / "vendor" / "plotly-cartesian.min.js").exists()

"""Reading the counters of declared deployments: each engine's own, and those of the exporters of its accelerators.

Every few seconds all of them are asked at once. What their counters rose by, how busy they were and when they were not
there becomes rows of hours, about once a minute and when told to stop. A target that is down, slow or talks nonsense
holds up nobody and costs nothing but its own figures.
"""

from __future__ import annotations

import random
import ssl
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final, NamedTuple

import httpx
import structlog

from millicent.collector.meter_account import ANSWERS, BOARDS, ENERGY, UNAVAILABLE, Account, Outcome, Target
from millicent.collector.meter_reading import TOKENS, Counted, Reading, UnreadableError, read_boards, read_engine
from millicent.pricing import catalog
from millicent.warehouse import metered
from millicent.warehouse.deployments import Deployment, url_of
from millicent.warehouse.engine import EngineError
from millicent.warehouse.store import Warehouse

EVERY_S: Final = 15.0
TIMEOUT_S: Final = 5.0
COMMIT_EVERY_S: Final = 60.0
MOST_BYTES: Final = 8 << 20
AT_ONCE: Final = 16
DOWN: Final = frozenset({"refused", "unavailable"})
"""Reasons that tell that an engine is not there, also one that was never read."""
GONE: Final = frozenset({"timeout", "unreachable"})
"""Reasons that tell it of an engine that was read before."""
SEVERAL: Final = (
    "its counters fall again and again: declare every replica with a URL of its own, and start Millicent again"
)
_OK, _SERVER_ERROR = 200, 500
_ACCEPT: Final = "text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0;q=0.5, */*;q=0.1"

log = structlog.get_logger("millicent.scraping")


class Aim(NamedTuple):
    """A target, and the declaration that names it; `boards`: an exporter, not an engine."""

    target: Target
    deployment: Deployment
    boards: bool

    @property
    def pool(self) -> tuple[str, str]:
        """Whose accelerators these are; deployments of one pool share them."""
        return self.target.tenant, self.deployment.pool or self.deployment.name


class _Energy(NamedTuple):
    """What an exporter, or an engine that tells, says of accelerators."""

    aim: Aim
    boards: Mapping[str, int]
    complete: bool


class Scraper:
    """Reads the counters of all deployments that are declared now.

    Args:
        warehouse: Whose deployments, and where hours go.
        every_s: Time between two looks.
        commit_every_s: Time between two commits.

    Attributes:
        scrapes: Looks at single targets since the start.
        failures: How many of them failed, by reason (`meter_reading.REASONS`).
        targets: Targets by how the last look at them went: read, unavailable, failed.
    """

    def __init__(
        self, warehouse: Warehouse, every_s: float = EVERY_S, *, commit_every_s: float = COMMIT_EVERY_S
    ) -> None:
        self._warehouse = warehouse
        self._every_s = every_s
        self._commit_every_s = commit_every_s
        self._account: Account | None = None
        self._fronted: set[tuple[str, str]] = set()
        self._standing: dict[Target, _Standing] = {}
        self._stood: dict[Target, _Standing] = {}
        self._client = httpx.Client(
            timeout=TIMEOUT_S, follow_redirects=False, trust_env=False, verify=ssl.create_default_context(),
            headers={"accept": _ACCEPT, "user-agent": "millicent"}, limits=httpx.Limits(max_keepalive_connections=0),
        )  # fmt: skip
        self.scrapes = 0
        self.failures: Counter[str] = Counter()
        self.targets: Counter[str] = Counter()

    def run(self, stop: threading.Event) -> None:
        """Look and commit until told to stop, and once more then; failures are logged, counted and tried again."""
        committed = time.monotonic()
        while not stop.is_set():
            began = time.monotonic()
            try:
                self.look(datetime.now(UTC))
                if began - committed >= self._commit_every_s:
                    committed = began
                    self.commit()
            except Exception as error:
                log.exception("reading counters failed", error=repr(error))
            jitter = random.uniform(0.9, 1.1)  # noqa: S311 - not a secret
            stop.wait(max(0.0, self._every_s * jitter - (time.monotonic() - began)))
        try:
            self.commit()
        except Exception as error:
            log.exception("counters read last are read again", error=repr(error))
        self._client.close()

    def look(self, at: datetime) -> None:
        """Ask every target once, all at the same time.

        Raises:
            EngineError: What was read before cannot be asked for.
        """
        account = self._opened()
        aims = self._aims(at)
        answers = self._fetched({aim.target.url for aim in aims})
        self._standing = {}
        outcomes, energy = list[Outcome](), list[_Energy]()
        read: dict[Target, tuple[Aim, Reading]] = {}
        for aim in aims:
            answer = answers[aim.target.url]
            try:
                if isinstance(answer, UnreadableError):
                    raise answer
                if aim.boards:
                    boards, refused = read_boards(answer)
                    energy.append(_Energy(aim, boards, not refused))
                else:
                    reading = read_engine(answer, aim.deployment.engine, at)
                    refused = reading.refused
                    read[aim.target] = aim, reading
                self._stands(aim, "bad_value" if refused else None, "; ".join(refused[:3]))
            except UnreadableError as error:
                outcomes.append(self._without(account, aim, error))
        outcomes += self._engines(account, list(read.values()), energy)
        outcomes += self._energy(account, energy, {aim.target: aim.pool for aim in aims})
        account.look(at, outcomes)
        self._tell()

    def commit(self) -> None:
        """Store what was read since the last time; what cannot be stored is kept for the next.

        Raises:
            EngineError: Nothing of it is known to be stored.
        """
        account = self._opened()
        hours, series = account.take()
        if hours.is_empty() and series.is_empty():
            return
        try:
            metered.add(self._warehouse.engine, hours, series)
        except EngineError:
            self._warehouse.engine.reopen()
            if not account.is_stored(metered.series(self._warehouse.engine)):
                raise
        account.stored()

    def _opened(self) -> Account:
        if self._account is None:
            self._account = Account(metered.series(self._warehouse.engine))
        return self._account

    # ---- who is asked

    def _aims(self, at: datetime) -> list[Aim]:
        """Targets of what is declared now; no two deployments name the same engine."""
        aims = list[Aim]()
        for tenant, one in self._warehouse.control.deployments():
            if at < one.effective_from or (one.effective_to is not None and one.effective_to <= at):
                continue
            for text in one.metrics:
                url = url_of(text)
                role = text.removesuffix(url).removesuffix("=") or None
                aims.append(Aim(Target(tenant, one.name, role, url), one, boards=False))
            aims += [Aim(Target(tenant, one.name, None, url), one, boards=True) for url in one.dcgm]
        return aims

    def _fetched(self, urls: Iterable[str]) -> dict[str, str | UnreadableError]:
        asked = sorted(urls)
        if not asked:
            return {}
        with ThreadPoolExecutor(min(AT_ONCE, len(asked)), "scraping") as pool:
            return dict(zip(asked, pool.map(self._fetch, asked), strict=True))

    def _fetch(self, url: str) -> str | UnreadableError:
        try:
            return fetch(self._client, url)
        except UnreadableError as error:
            return error

    # ---- what they say

    def _without(self, account: Account, aim: Aim, error: UnreadableError) -> Outcome:
        """The outcome of a look that failed: an engine that is not there is unavailable; else nobody knows."""
        if aim.boards:
            self._stands(aim, error.reason, str(error))
            return Outcome(aim.target, boards=True)
        down = error.reason in DOWN or (error.reason in GONE and account.was_read(aim.target))
        self._stands(aim, error.reason, str(error), down=down)
        return Outcome(aim.target, UNAVAILABLE if down else None, named=_named(aim.deployment))

    def _engines(
        self, account: Account, read: Sequence[tuple[Aim, Reading]], energy: list[_Energy]
    ) -> Iterator[Outcome]:
        """Outcomes of engines that answered; those behind a frontend do not tell of its requests a second time."""
        for aim, reading in read:
            whose = aim.target[:2]
            if reading.fronts or any(map(_fronts, {aim.deployment.engine, *account.sources(aim.target)})):
                self._fronted.add(whose)
            if reading.boards and not aim.deployment.dcgm:
                energy.append(_Energy(aim, reading.boards, not reading.refused))
        for aim, reading in read:
            behind = not reading.fronts and aim.target[:2] in self._fronted
            several = account.is_several(aim.target)
            if several:
                self._stands(aim, "several_processes", SEVERAL)
            yield Outcome(
                aim.target,
                ANSWERS if reading.running is None else "busy" if reading.running else "idle",
                None if several else reading.source,
                [one for one in reading.counters if not (behind and one.counter in TOKENS)],
                reading.started,
                complete=not reading.refused,
                named=_named(aim.deployment),
            )

    def _energy(
        self, account: Account, told: Sequence[_Energy], declared: Mapping[Target, tuple[str, str]]
    ) -> Iterator[Outcome]:
        """Every accelerator's energy once: of the deployment that it belongs to, from where it was read before."""
        claims: dict[tuple[str, str], dict[tuple[str, str], list[_Energy]]] = defaultdict(lambda: defaultdict(list))
        for one in told:
            mine = one.aim.deployment.gpus
            for board in one.boards:
                if not mine or board in mine:
                    claims[one.aim.target.tenant, board][one.aim.pool].append(one)
        counters: dict[Target, list[Counted]] = {one.aim.target: [] for one in told}
        for (tenant, board), by_pool in claims.items():
            named = {pool: its for pool, its in by_pool.items() if any(board in one.aim.deployment.gpus for one in its)}
            pools = list((named or by_pool).values())
            if len(pools) > 1:
                names = ", ".join(sorted(its[0].aim.pool[1] for its in pools))
                for its in pools:
                    self._stands(its[0].aim, "shared_board", f"{board} is claimed by {names}: tell them apart by gpus")
                continue
            claiming = pools[0]
            before = account.board_of(tenant, board)
            where = next((one for one in claiming if one.aim.target == before), None)
            silent = before is not None and before not in counters and declared.get(before) == claiming[0].aim.pool
            if where is None and not silent:  # else another place would tell of the same energy again
                where = claiming[0]
            if where is not None:
                counters[where.aim.target].append(Counted(ENERGY, board, where.boards[board]))
        for one in told:
            target = one.aim.target
            read = counters[target]
            yield Outcome(target, None, BOARDS if read else None, read, complete=one.complete, boards=True)

    # ---- how they stand

    def _stands(self, aim: Aim, reason: str | None, why: str = "", *, down: bool = False) -> None:
        if aim.target not in self._standing:
            self.scrapes += 1
        if reason is not None:
            self.failures[reason] += 1
        self._standing[aim.target] = _Standing(reason, why, down)

    def _tell(self) -> None:
        """Log what has changed since the look before, once."""
        for target, now in self._standing.items():
            before = self._stood.get(target)
            if now.reason == (before.reason if before else None):
                continue
            told = {"deployment": target.deployment, "url": target.url}
            if now.reason is None:
                log.info("counters are read again", **told)
            else:
                log.warning("counters not read", reason=now.reason, why=now.why, **told)
        self._stood = self._standing
        self.targets = Counter(dict.fromkeys(("read", "unavailable", "failed"), 0))
        self.targets.update(one.how for one in self._standing.values())


class _Standing(NamedTuple):
    reason: str | None
    why: str
    down: bool

    @property
    def how(self) -> str:
        if self.reason in {None, "bad_value", "shared_board"}:
            return "read"
        return "unavailable" if self.down else "failed"


def fetch(client: httpx.Client, url: str) -> str:
    """What a target answers, of `MOST_BYTES` at most and within `TIMEOUT_S`.

    Raises:
        UnreadableError: It cannot be had; for each of `meter_reading.REASONS`, why.
    """
    until = time.monotonic() + TIMEOUT_S
    try:
        with client.stream("GET", url) as answer:
            return _text(answer, until)
    except httpx.TimeoutException as error:
        raise UnreadableError("timeout", f"no answer within {TIMEOUT_S:g} s") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = "refused" if _is_refusal(error) else "unreachable"
        raise UnreadableError(reason, str(error) or repr(error)) from error


def _text(answer: httpx.Response, until: float) -> str:
    status = answer.status_code
    if status >= _SERVER_ERROR:
        raise UnreadableError("unavailable", f"it answers {status}")
    if status != _OK:
        to = answer.headers.get("location")
        raise UnreadableError(
            "status", f"it answers {status}" + (f" and points to {to}: declare that URL" if to else "")
        )
    parts, size = list[bytes](), 0
    for part in answer.iter_bytes():
        size += len(part)
        if size > MOST_BYTES:
            raise UnreadableError("too_large", f"it answers more than {MOST_BYTES >> 20} MiB")
        if time.monotonic() > until:
            raise UnreadableError("timeout", f"its answer did not end within {TIMEOUT_S:g} s")
        parts.append(part)
    return b"".join(parts).decode(errors="replace")


def _is_refusal(error: BaseException) -> bool:
    """Whether the other side was there and said no to the connection."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ConnectionRefusedError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _fronts(engine: str | None) -> bool:
    """Whether an engine stands in front of others that tell of the same requests."""
    try:
        return engine is not None and catalog.engine(engine).kind == "orchestrator"
    except LookupError:
        return False


def _named(deployment: Deployment) -> str:
    """What the source of a deployment's counters is called before any was read."""
    try:
        return catalog.engine(deployment.engine).id if deployment.engine else "engine"
    except LookupError:
        return deployment.engine or "engine"

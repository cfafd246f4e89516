"""Sending spans on to another tracing back end, each call with what it cost.

The forwarder reads the spool behind the loader, from a position of its own, so a call is stored and priced before its
span goes on, and a back end that is slow, down or full holds up nobody: segments wait for it as long as they are kept.
Each request is sent on as it came, with every field of its spans; only the attributes named `millicent.cost.…` and
`millicent.counted` are added. It goes at least once: after a crash the last request may come again, with the same ids.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple, Self

import httpx
import polars as pl
import structlog
from google.protobuf.message import DecodeError

from millicent.collector import otlp_pb2 as otlp
from millicent.collector.limits import Limits, decompress
from millicent.collector.reading import AHEAD, EARLIEST
from millicent.collector.refusals import RefusedError
from millicent.collector.spool import START, Damaged, Position, Record, SpoolReader
from millicent.warehouse import ledger
from millicent.warehouse.engine import Engine

FILE: Final = "forwarding.json"
PATH: Final = "/v1/traces"
COST: Final = "millicent.cost."
COUNTED: Final = "millicent.counted"
MOST_SPANS: Final = 2000
MOST_BYTES: Final = 4 << 20
"""Of spool records, expanded, that are sent on as one request; a record is never split."""
READ_BYTES: Final = 1 << 20
TIMEOUT_S: Final = 10.0
IDLE_S: Final = 0.2
RETRY_S: Final = 1.0
LONGEST_RETRY_S: Final = 60.0
DAMAGED, RETIRED, UNDECODABLE, REJECTED = "damaged", "retired", "undecodable", "rejected"
REASONS: Final = {
    DAMAGED: "the spool record was damaged on disk",
    RETIRED: "the back end was away for longer than segments are kept",
    UNDECODABLE: "the record could not be read",
    REJECTED: "the back end took the request and said that it rejected these spans",
    "http_400": "the back end answered with this status, as for any other 4xx but 408 and 429",
}
"""Why a span was not sent on, and that is final."""
_TRY_AGAIN: Final = frozenset({408, 429})
_ABOUT_ONE: Final = frozenset({400, 413, 422})
"""Statuses that may be the fault of one record among several."""

log = structlog.get_logger("millicent.forwarding")


@dataclass(slots=True)
class Progress:
    """How far forwarding is, and what became of spans since it was first switched on; kept in `FILE`.

    Attributes:
        segment: Everything before this segment and `offset` is done with.
        offset: Bytes.
        spans: Spans, data points and log records in all records before it, since the spool began.
        forwarded: Spans that the back end took, those sent again after a crash included.
        dropped: Spans that were not sent on, by reason.
    """

    segment: int = 0
    offset: int = 0
    spans: int = 0
    forwarded: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def position(self) -> Position:
        """Where to go on reading."""
        return Position(self.segment, self.offset)

    def drop(self, reason: str, spans: int) -> None:
        """Count spans that are not sent on."""
        self.dropped[reason] = self.dropped.get(reason, 0) + spans
        log.error("spans not forwarded", reason=reason, spans=spans)

    @classmethod
    def load(cls, file: Path) -> Self | None:
        """What was kept; None where nothing was, and the spool's beginning where it cannot be read."""
        try:
            return cls(**json.loads(file.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            log.exception("forwarding begins anew", file=str(file))
            return cls()

    def keep(self, file: Path) -> None:
        """Write it so that a crash leaves the old or the new."""
        draft = file.with_suffix(".draft")
        with draft.open("w") as open_file:
            json.dump(asdict(self), open_file)
            open_file.flush()
            os.fsync(open_file.fileno())
        draft.replace(file)


class Target(NamedTuple):
    """Where spans go: URL of an OTLP/HTTP receiver, with or without `/v1/traces`, and what every request carries."""

    endpoint: str
    headers: Mapping[str, str] = {}

    @property
    def url(self) -> str:
        """What is posted to."""
        base = self.endpoint.rstrip("/")
        return base if base.endswith(PATH) else base + PATH


@dataclass(slots=True)
class _Part:
    """Spool records that are sent on together: tenant and request of each, and the position behind them."""

    following: Position
    spans_through: int
    requests: list[tuple[str, otlp.ExportTraceServiceRequest]] = field(default_factory=list)
    lost: list[tuple[str, int]] = field(default_factory=list)
    spans: int = 0
    size: int = 0
    has_costs: bool = False

    def is_full_for(self, record: Record, size: int, most_spans: int) -> bool:
        """Whether another record would be too much."""
        return bool(self.requests) and (self.spans + record.spans > most_spans or self.size + size > MOST_BYTES)

    def add(self, record: Record, body: bytes) -> None:
        """Take a record in; one that cannot be read is lost."""
        try:
            request = otlp.ExportTraceServiceRequest.FromString(body)
        except DecodeError:
            self.lost.append((UNDECODABLE, record.spans))
            return
        self.requests.append((record.tenant, request))
        self.spans += record.spans
        self.size += len(body)
        self.has_costs |= COST.encode() in body or COUNTED.encode() in body


class Forwarder:
    """Sends the spans of one spool on to one back end.

    Args:
        engine: What the spool is loaded into.
        spool: Read without its lock.
        loaded: How far it is loaded; nothing behind that is read.
        target: Where spans go.
        directory: Where progress is kept. Without any, forwarding begins with what is not loaded yet.
        retry_s: First wait after a failure, doubled each time up to `LONGEST_RETRY_S`.
    """

    def __init__(
        self, engine: Engine, spool: SpoolReader, loaded: Callable[[], Position], target: Target, directory: Path,
        *, retry_s: float = RETRY_S,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._spool = spool
        self._loaded = loaded
        self._target = target
        self._retry_s = retry_s
        self._file = directory / FILE
        self._careful_until = START
        self._headers = {"content-type": "application/x-protobuf", "content-encoding": "gzip", **target.headers}
        kept = Progress.load(self._file)
        if kept is None:
            kept = self._from_now()
            kept.keep(self._file)
        self.progress = kept
        self.failures = 0
        self.last_error: str | None = None

    def _from_now(self) -> Progress:
        position = self._loaded()
        pending, _ = self._spool.pending(position)
        return Progress(*position, spans=self._spool.total_spans() - pending)

    def pending(self) -> int:
        """Spans, data points and log records between here and the end of the spool."""
        return self._spool.pending(self.progress.position)[0]

    def run(self, stop: threading.Event) -> None:
        """Send on whatever is loaded until told to stop; failures are logged, counted and tried again."""
        with httpx.Client(timeout=TIMEOUT_S, follow_redirects=False) as client:
            while not stop.is_set():
                try:
                    moved = self.step(client, stop)
                except Exception as error:
                    self._failed(repr(error))
                    log.exception("forwarding failed", position=tuple(self.progress.position))
                    stop.wait(self._retry_s)
                else:
                    if not moved:
                        stop.wait(IDLE_S)

    def step(self, client: httpx.Client, stop: threading.Event) -> bool:
        """Send one request on, waiting for the back end as long as it takes.

        Returns:
            Whether it got on: False when all that is loaded was sent on, or when told to stop.

        Raises:
            EngineError: The store cannot be asked now; nothing was sent.
        """
        part = self._next()
        if part is None:
            return False
        if part.spans and not self._delivered(client, self._priced(part), part, stop):
            return False
        for reason, spans in part.lost:
            self.progress.drop(reason, spans)
        self.progress.segment, self.progress.offset = part.following
        self.progress.spans = part.spans_through
        self.progress.keep(self._file)
        return True

    # ---- reading

    def _next(self) -> _Part | None:
        """The next records that are loaded, and what the spool has lost of them; None when there are none."""
        position, loaded = self.progress.position, self._loaded()
        if position >= loaded:
            return None
        found, following = self._spool.read(position, READ_BYTES)
        part = _Part(position, self.progress.spans)
        most_spans = 1 if position < self._careful_until else MOST_SPANS
        for item in found:
            if item.position >= loaded or (isinstance(item, Record) and not self._taken(item, part, most_spans)):
                part.following = item.position
                break
            if isinstance(item, Damaged):
                part.lost.append((DAMAGED, item.spans))
                part.spans_through += item.spans
        else:
            part.following = following
        return part if part.following > position else None

    def _taken(self, record: Record, part: _Part, most_spans: int) -> bool:
        """Whether a record went into a part, or need not; False when there is no room for it."""
        gone = record.spans_before - part.spans_through
        if record.signal == "traces":
            try:
                body = decompress(record.body, record.encoding, Limits())
            except RefusedError:
                part.lost.append((UNDECODABLE, record.spans))
            else:
                if part.is_full_for(record, len(body), most_spans):
                    return False
                part.add(record, body)
        if gone > 0:
            part.lost.append((RETIRED, gone))
        part.spans_through = record.spans_before + record.spans
        return True

    # ---- what it costs

    def _priced(self, part: _Part) -> bytes:
        """One request of all spans of a part, calls with their cost; compressed."""
        spans = [
            (tenant, span)
            for tenant, request in part.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        for span, amounts in self._amounts(spans):
            if part.has_costs:
                _without_costs(span)
            span.MergeFromString(_costs(amounts))
        whole = otlp.ExportTraceServiceRequest()
        for _, request in part.requests:
            whole.MergeFrom(request)
        return gzip.compress(whole.SerializeToString(), compresslevel=1)

    def _amounts(self, spans: Sequence[tuple[str, otlp.Span]]) -> list[tuple[otlp.Span, ledger.Amounts]]:
        """Those that are stored calls, with what they cost."""
        earliest, latest = _micros(EARLIEST), _micros(datetime.now(UTC) + AHEAD)
        asked = [
            (tenant, span)
            for tenant, span in spans
            if len(span.trace_id) == 16
            and len(span.span_id) == 8
            and earliest <= span.start_time_unix_nano // 1000 <= latest
        ]
        if not asked:
            return []
        keys = pl.DataFrame(
            {
                "tenant": [tenant for tenant, _ in asked],
                "started_at": [span.start_time_unix_nano // 1000 for _, span in asked],
                "trace_id": [span.trace_id for _, span in asked],
                "span_id": [int.from_bytes(span.span_id) for _, span in asked],
            },
            schema_overrides={"span_id": pl.UInt64},
        ).with_columns(pl.col("started_at").cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))
        return [(asked[one.row][1], one) for one in ledger.amounts(self._engine, keys)]

    # ---- sending

    def _delivered(self, client: httpx.Client, body: bytes, part: _Part, stop: threading.Event) -> bool:
        """Whether a part is done with: taken, or refused for good. False: told to stop, or to go record by record."""
        wait_s = self._retry_s
        while True:
            status, answer, after_s = self._post(client, body)
            if 200 <= status < 300:
                rejected = min(max(_rejected(answer), 0), part.spans)
                if rejected:
                    part.lost.append((REJECTED, rejected))
                self.progress.forwarded += part.spans - rejected
                self.last_error = None
                return True
            if 400 <= status < 500 and status not in _TRY_AGAIN:
                self._failed(f"status {status}")
                if status in _ABOUT_ONE and len(part.requests) > 1:
                    self._careful_until = part.following
                    return False
                part.lost.append((f"http_{status}", part.spans))
                return True
            self._failed(f"status {status}" if status else answer.decode(errors="replace"))
            jitter = random.uniform(0.8, 1.2)  # noqa: S311 - not a secret
            if stop.wait(min(max(after_s, wait_s), LONGEST_RETRY_S) * jitter):
                return False
            wait_s = min(2 * wait_s, LONGEST_RETRY_S)

    def _post(self, client: httpx.Client, body: bytes) -> tuple[int, bytes, float]:
        """Status (0: no answer), what was answered, and how long the back end asks to wait."""
        try:
            answer = client.post(self._target.url, content=body, headers=self._headers)
        except httpx.HTTPError as error:
            return 0, repr(error).encode(), 0.0
        return answer.status_code, answer.content, _retry_after_s(answer.headers.get("retry-after", ""))

    def _failed(self, why: str) -> None:
        self.failures += 1
        if why != self.last_error:
            log.warning("the back end does not take spans", url=self._target.url, why=why)
        self.last_error = why


def _costs(amounts: ledger.Amounts) -> bytes:
    """The attributes that tell what a call cost, as a piece of its span."""
    if not amounts.counted:
        return _NOT_COUNTED
    told = _in_words(amounts.price_status, amounts.price_entry, amounts.price_version)
    if amounts.list_cost_usd is not None:
        told += _LIST_USD + _DOUBLE.pack(float(amounts.list_cost_usd))
    if amounts.billed_cost_usd is not None:
        told += _BILLED_USD + _DOUBLE.pack(float(amounts.billed_cost_usd))
    return told


@lru_cache(maxsize=4096)
def _in_words(status: str, entry: str | None, version: str | None) -> bytes:
    told = {"currency": "USD", "price_status": status, "price_entry": entry, "price_version": version}
    return _piece({COST + name: otlp.AnyValue(string_value=text) for name, text in told.items() if text is not None})


def _piece(attributes: Mapping[str, otlp.AnyValue]) -> bytes:
    pairs = [otlp.KeyValue(key=key, value=value) for key, value in attributes.items()]
    return otlp.Span(attributes=pairs).SerializeToString()


_DOUBLE: Final = struct.Struct("<d")  # the last bytes of an attribute whose value is a double
_LIST_USD: Final = _piece({COST + "list_usd": otlp.AnyValue(double_value=1)})[: -_DOUBLE.size]
_BILLED_USD: Final = _piece({COST + "billed_usd": otlp.AnyValue(double_value=1)})[: -_DOUBLE.size]
_NOT_COUNTED: Final = _piece({COUNTED: otlp.AnyValue(bool_value=False)})


def _without_costs(span: otlp.Span) -> None:
    """Take away what somebody else wrote under these names."""
    kept = [one for one in span.attributes if not one.key.startswith(COST) and one.key != COUNTED]
    if len(kept) < len(span.attributes):
        del span.attributes[:]
        span.attributes.extend(kept)


def _rejected(answer: bytes) -> int:
    """Spans that a back end says it rejected, in a body of protobuf or JSON; 0 where it says nothing."""
    with suppress(DecodeError):
        return int(otlp.ExportServiceResponse.FromString(answer).partial_success.rejected)
    with suppress(ValueError, TypeError, AttributeError, LookupError):
        return int(json.loads(answer)["partialSuccess"].get("rejectedSpans", 0))
    return 0


def _retry_after_s(told: str) -> float:
    """Seconds, or until a date; 0 where nothing is told."""
    if told.isdecimal():
        return float(told[:9])
    with suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(told).timestamp() - time.time())
    return 0.0


def _micros(instant: datetime) -> int:
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)

"""Answers that are remembered while nothing changes in the days that they are about.

A question over days that are over and one over the hours since are asked apart and added up, so that new calls cost the
second alone. What is remembered is always what asking anew would tell: an answer goes by the revision of its days, and
two parts are added up only if nothing was committed to the first while the second was read.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Final, Literal, NamedTuple

import polars as pl

from millicent.warehouse.metrics import DICTIONARY
from millicent.warehouse.query import MAX_ROWS, Answer, BadQuery, Period, Query, added, concluded, rates_of, sums_of
from millicent.warehouse.revisions import Revisions

MOST_BYTES: Final = 48 * 1024 * 1024
SMALLEST: Final = 2_000
"""Bytes that an answer is taken to hold beside its rows."""
FEWEST: Final = 8
"""So many answers have room at least; a longer one is not remembered."""
SETTLED_AFTER: Final = timedelta(hours=2)
"""How long after a day most of what still comes of it has come."""
NOT_ADDED: Final = frozenset({"joules", "wh"})
"""Units whose sums are rounded, so that sums of parts need not be the sum of all."""


@dataclass(slots=True, eq=False)
class _Held:
    """What was asked at a stamp, and the answer, once it is there."""

    stamp: int
    answer: Future[Answer]
    size: int = 0


class _Parts(NamedTuple):
    """One question in two: over days that are over, and over what came since."""

    settled: Query
    since: Query


class Answers:
    """Asks, and remembers what was answered.

    Whoever asks what is being asked at this moment waits for that answer. Safe from any thread.

    Args:
        revisions: of the facts that are asked.
        ask: answers a question of a tenant from the facts; what else it depends on belongs to the question.
        most_bytes: of answers that are kept; those not asked for longest go first.
        clock: tells the present.
    """

    def __init__(
        self,
        revisions: Revisions,
        ask: Callable[[str, Query], Answer],
        *,
        most_bytes: int = MOST_BYTES,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._revisions = revisions
        self._ask = ask
        self._most_bytes = most_bytes
        self._clock = clock
        self._lock = Lock()
        self._held: OrderedDict[Hashable, _Held] = OrderedDict()
        self._bytes = 0

    def ask(self, tenant: str, question: Query) -> Answer:
        """Answer a question as `query.run` would.

        Raises:
            BadQuery: as `query.run`.
            EngineError: as `query.run`.
        """
        began = time.monotonic()
        answer = self._remembered(tenant, question)
        if answer is None and (parts := self._parts(question)) is not None and self._repeats(tenant, question, parts):
            answer = self._added(tenant, question, parts)
        if answer is None:
            answer = self._once(tenant, question)
        took = round((time.monotonic() - began) * 1000)
        return replace(answer, frame=answer.frame.clone(), elapsed_ms=took)

    @property
    def size(self) -> int:
        """Bytes of all answers that are remembered, as they are counted."""
        return self._bytes

    def _remembered(self, tenant: str, question: Query) -> Answer | None:
        """The answer, if it is known and still true."""
        stamp = self._stamp(question)
        with self._lock:
            held = self._held.get((tenant, question))
            if held is None or held.stamp != stamp:
                return None
            self._held.move_to_end((tenant, question))
        return _result(held.answer)

    def _repeats(self, tenant: str, question: Query, parts: _Parts) -> bool:
        """Whether it was asked before: a question that comes once is not worth asking in two."""
        with self._lock:
            return (tenant, question) in self._held or (tenant, parts.settled) in self._held

    def _parts(self, question: Query) -> _Parts | None:
        if any(DICTIONARY[name].unit in NOT_ADDED for name in sums_of(question)):
            return None
        period = question.period
        cut = (self._clock() - SETTLED_AFTER).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        if not period.start < cut < period.end:
            return None
        whole = replace(question, measures=tuple(sums_of(question)), order=(), limit=None, currency="USD")
        return _Parts(replace(whole, period=Period(period.start, cut)), replace(whole, period=Period(cut, period.end)))

    def _added(self, tenant: str, question: Query, parts: _Parts) -> Answer | None:
        """The answer from its two parts; None where they cannot be added up."""
        stamps = self._stamp(question), self._stamp(parts.settled)
        if stamps[1] is None:
            return None
        try:
            answers = [self._once(tenant, part) for part in parts]
        except BadQuery:  # all rows of a part may be too many where the first of them are asked for
            return None
        if self._stamp(parts.settled) != stamps[1]:
            return None
        frame = added(pl.concat([one.frame for one in answers]), question)
        if frame.height > MAX_ROWS:
            return None
        source: Literal["rollup", "calls"] = "calls" if any(one.source == "calls" for one in answers) else "rollup"
        answer = replace(answers[-1], frame=concluded(frame, question), source=source, rates=rates_of(question))
        if stamps[0] is not None and self._stamp(question) == stamps[0]:
            done = Future[Answer]()
            done.set_result(answer)
            self._keep((tenant, question), _Held(stamps[0], done))
        return answer

    def _once(self, tenant: str, question: Query) -> Answer:
        """The answer to a question in one, asked by the first of all who come for it at the same stamp."""
        key, stamp = (tenant, question), self._stamp(question)
        if stamp is None:  # what is committed right now may be seen or not
            return self._ask(tenant, question)
        with self._lock:
            held = self._held.get(key)
            if held is not None and held.stamp == stamp:
                self._held.move_to_end(key)
                mine = None
            else:
                mine = held = self._put(key, _Held(stamp, Future()))
        if mine is None:
            return _result(held.answer)
        try:
            mine.answer.set_result(self._ask(tenant, question))
        except BaseException as error:
            mine.answer.set_exception(error)
            if not isinstance(error, BadQuery):
                self._drop(key, mine)
                raise
        self._keep(key, mine)  # what was committed meanwhile has another stamp, by which nobody finds this
        return _result(mine.answer)

    def _stamp(self, question: Query) -> int | None:
        return self._revisions.stamp(question.period.start, question.period.end)

    def _put(self, key: Hashable, held: _Held, size: int = 0) -> _Held:
        old = self._held.pop(key, None)
        self._bytes += size - (old.size if old else 0)
        held.size = size
        self._held[key] = held
        return held

    def _drop(self, key: Hashable, held: _Held) -> None:
        with self._lock:
            if self._held.get(key) is held:
                self._bytes -= self._held.pop(key).size

    def _keep(self, key: Hashable, held: _Held) -> None:
        """Remember what is answered now, for as long as there is room."""
        size = SMALLEST + (0 if held.answer.exception() else int(held.answer.result().frame.estimated_size()))
        if size * FEWEST > self._most_bytes:
            self._drop(key, held)
            return
        with self._lock:
            now = self._held.get(key)
            if now is not None and now is not held and now.stamp >= held.stamp:
                return
            self._put(key, held, size)
            while self._bytes > self._most_bytes:
                first = next(name for name, one in self._held.items() if one.answer.done())
                self._bytes -= self._held.pop(first).size


def _result(answer: Future[Answer]) -> Answer:
    error = answer.exception()
    if error is not None:
        raise error.with_traceback(None)  # every raise adds to it, and it may be kept for long
    return answer.result()

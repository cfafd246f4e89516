"""Answers that are remembered while nothing changes in the days that they are about.

A question over days that are over and one over the hours since are asked apart and added up, so that new calls cost the
second alone. What is remembered is always what asking anew would tell: an answer goes by the revision of its days, and
two parts are added up only if nothing was committed to the first while the second was read.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Lock
from typing import Any, Final, Literal, NamedTuple, TypeVar, cast

import polars as pl

from millicent.warehouse import wide
from millicent.warehouse.metrics import DICTIONARY
from millicent.warehouse.query import MAX_ROWS, Answer, BadQuery, Period, Query, added, concluded, rates_of, sums_of
from millicent.warehouse.revisions import Revisions
from millicent.warehouse.wide import NOT_ADDED, Piece

T = TypeVar("T")

MOST_BYTES: Final = 64 * 1024 * 1024
SMALLEST: Final = 2_000
"""Bytes that an answer is taken to hold beside its rows."""
FEWEST: Final = 8
"""So many answers have room at least; a longer one is not remembered."""
SETTLED_AFTER: Final = timedelta(hours=2)
"""How long after a day most of what still comes of it has come."""


@dataclass(slots=True, eq=False)
class _Held:
    """What was asked at a stamp, and the answer, once it is there."""

    stamp: int
    answer: Future[Any]
    size: int = 0


class Memory:
    """What was read of the facts of a period, until anything in it changes. Safe from any thread.

    Args:
        revisions: of the facts that are read.
        most_bytes: of all that is kept; what was not asked for longest goes first.
    """

    def __init__(self, revisions: Revisions, most_bytes: int = MOST_BYTES) -> None:
        self._revisions = revisions
        self._most_bytes = most_bytes
        self._lock = Lock()
        self._held: OrderedDict[Hashable, _Held] = OrderedDict()
        self._bytes = 0

    @property
    def size(self) -> int:
        """Bytes of all that is kept, as they are counted."""
        return self._bytes

    def stamp(self, period: Period) -> int | None:
        """See `Revisions.stamp`."""
        return self._revisions.stamp(period.start, period.end)

    def knows(self, *keys: Hashable) -> bool:
        """Whether any of the keys was asked for not long ago, be it true still or not."""
        with self._lock:
            return any(key in self._held for key in keys)

    def true(self, key: Hashable, period: Period) -> Future[Any] | None:
        """What is known of a key, or will be soon, if it is true now."""
        stamp = self.stamp(period)
        with self._lock:
            held = self._held.get(key)
            if held is None or held.stamp != stamp:
                return None
            self._held.move_to_end(key)
            return held.answer

    def once(self, key: Hashable, period: Period, ask: Callable[[], T], size: Callable[[T], int]) -> T:
        """What `ask` answers, asked by the first of all who come with the key while nothing changes in the period.

        Args:
            key: everything that the answer depends on beside the facts, the tenant first.
            period: the days whose facts the answer is made of.
            ask: asks; what it raises is raised to all who wait for it, and only a `BadQuery` is remembered.
            size: bytes of an answer.
        """
        stamp = self.stamp(period)
        if stamp is None:  # what is committed right now may be seen or not
            return ask()
        with self._lock:
            held = self._held.get(key)
            if held is not None and held.stamp == stamp:
                self._held.move_to_end(key)
                mine = None
            else:
                mine = held = self._put(key, _Held(stamp, Future()), 0)
        if mine is None:
            return cast("T", result(held.answer))
        try:
            mine.answer.set_result(answer := ask())
        except BaseException as error:
            mine.answer.set_exception(error)
            if not isinstance(error, BadQuery):
                self._drop(key, mine)
                raise
            self._keep(key, mine, 0)
            raise
        self._keep(key, mine, size(answer))  # what was committed meanwhile has another stamp, and nobody finds this
        return answer

    def put(self, key: Hashable, stamp: int, answer: Any, size: int) -> None:
        """Keep what was answered at a stamp."""
        done = Future[Any]()
        done.set_result(answer)
        self._keep(key, _Held(stamp, done), size)

    def _put(self, key: Hashable, held: _Held, size: int) -> _Held:
        old = self._held.pop(key, None)
        self._bytes += size - (old.size if old else 0)
        held.size = size
        self._held[key] = held
        return held

    def _drop(self, key: Hashable, held: _Held) -> None:
        with self._lock:
            if self._held.get(key) is held:
                self._bytes -= self._held.pop(key).size

    def _keep(self, key: Hashable, held: _Held, size: int) -> None:
        """Remember what is answered now, for as long as there is room."""
        if (SMALLEST + size) * FEWEST > self._most_bytes:
            self._drop(key, held)
            return
        with self._lock:
            now = self._held.get(key)
            if now is not None and now is not held and now.stamp >= held.stamp:
                return
            self._put(key, held, SMALLEST + size)
            while self._bytes > self._most_bytes:
                first = next(name for name, one in self._held.items() if one.answer.done())
                self._bytes -= self._held.pop(first).size


def result(answer: Future[Any]) -> Any:
    """What was answered, raised where it was an error."""
    error = answer.exception()
    if error is not None:
        raise error.with_traceback(None)  # every raise adds to it, and it may be kept for long
    return answer.result()


class _TooWideError(BadQuery):
    """A wide answer that has too many rows to be of use."""


class _Parts(NamedTuple):
    """One question in two: over days that are over, and over what came since."""

    settled: Query
    since: Query


class Answers:
    """Asks, and remembers what was answered. Whoever asks what is being asked at this moment waits for that answer.

    Args:
        memory: where it is remembered.
        ask: answers a question of a tenant from the facts; what else it depends on belongs to the question.
        clock: tells the present.
    """

    def __init__(
        self, memory: Memory, ask: Callable[[str, Query], Answer],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        self._memory = memory
        self._ask = ask
        self._clock = clock

    def ask(self, tenant: str, question: Query) -> Answer:
        """Answer a question as `query.run` would.

        Raises:
            BadQuery: as `query.run`.
            EngineError: as `query.run`.
        """
        began = time.monotonic()
        found = self._memory.true((tenant, question), question.period)
        answer: Answer | None = self._from_wide(tenant, question) if found is None else result(found)
        if answer is None and (parts := self._parts(question)) is not None:
            answer = self._added(tenant, question, parts)
        if answer is None:
            answer = self._once(tenant, question)
        took = round((time.monotonic() - began) * 1000)
        return replace(answer, frame=answer.frame.clone(), elapsed_ms=took)

    def _from_wide(self, tenant: str, question: Query) -> Answer | None:
        """The answer from wide ones.

        None where they cannot tell it, too many would have to be asked, or what is over changes meanwhile.
        """
        pieces = wide.pieces(question, self._clock() - SETTLED_AFTER)
        if pieces is None:
            return None
        whole, over = self._memory.stamp(question.period), pieces.settled_period
        settled = self._memory.stamp(over) if over else None
        if over and settled is None:
            return None
        asked = [*pieces.settled, *([pieces.live] if pieces.live else [])]
        known = (self._memory.true((tenant, one.question), one.question.period) for one in asked)
        if sum(one is None for one in known) > wide.MOST_NEW:
            return None
        try:
            answers = [self._wide(tenant, one) for one in asked]
        except _TooWideError:
            return None
        if over and self._memory.stamp(over) != settled:
            return None
        frame = wide.answered(zip(asked, (one.frame for one in answers), strict=True), question)
        return self._made(tenant, question, whole, frame, answers)

    def _wide(self, tenant: str, piece: Piece) -> Answer:
        """The answer to a wide question.

        Raises:
            _TooWideError: it has too many rows, as is remembered, too.
        """

        def ask() -> Answer:
            answer = self._ask(tenant, piece.question)
            if answer.frame.height > wide.MOST_ROWS:
                raise _TooWideError(f"more than {wide.MOST_ROWS:,} rows: ask for fewer dimensions")
            return answer

        return self._memory.once((tenant, piece.question), piece.question.period, ask, _size)

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
        """The answer from its two parts; None where they cannot be added up, or are not worth it yet.

        A question that comes once is not worth asking in two.
        """
        whole, settled = self._memory.stamp(question.period), self._memory.stamp(parts.settled.period)
        if settled is None or not self._memory.knows((tenant, question), (tenant, parts.settled)):
            return None
        try:
            answers = [self._once(tenant, part) for part in parts]
        except BadQuery:  # all rows of a part may be too many where the first of them are asked for
            return None
        if self._memory.stamp(parts.settled.period) != settled:
            return None
        frame = added(pl.concat([one.frame for one in answers]), question)
        return None if frame.height > MAX_ROWS else self._made(tenant, question, whole, frame, answers)

    def _made(
        self, tenant: str, question: Query, whole: int | None, frame: pl.DataFrame, answers: Sequence[Answer]
    ) -> Answer:
        """The answer of which `frame` has all rows, made of others, remembered if its days have the same stamp yet."""
        source: Literal["rollup", "calls"] = "calls" if any(one.source == "calls" for one in answers) else "rollup"
        answer = replace(answers[-1], frame=concluded(frame, question), source=source, rates=rates_of(question))
        if whole is not None and self._memory.stamp(question.period) == whole:
            self._memory.put((tenant, question), whole, answer, _size(answer))
        return answer

    def _once(self, tenant: str, question: Query) -> Answer:
        """The answer to a question in one."""
        asking = partial(self._ask, tenant, question)
        return self._memory.once((tenant, question), question.period, asking, _size)


def _size(answer: Answer) -> int:
    return int(answer.frame.estimated_size())

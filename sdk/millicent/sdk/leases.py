"""Asking whether calls may be made, for many callers at once: leases of calls, kept here and used up here.

Callers wait for a bounded time, and only where no lease is at hand. A few threads of our own talk to the server: names
are looked up, connections made and answers awaited there, however long that takes. A server that does not answer costs
callers one wait; after that they are told at once that it does not, until it does.
"""

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from opentelemetry.context import attach, set_value

from millicent.sdk import faults
from millicent.sdk.budget_api import BudgetApi, RefusedError

MOST_CALLS: Final = 64
"""Calls that one lease is asked for at most."""
WORKERS: Final = 4
AGAIN_S: Final = 1.0
"""How long after a failure the server is asked anew."""
REFUSED_S: Final = 1.0
"""How long a no holds at most, be staleness what it may: money may be free again soon."""
SWEEP_S: Final = 1.0
SETTLE_S: Final = 0.1
"""How long the end of a call waits for company."""
BATCH: Final = 512
MOST_WAITING: Final = 8_192
"""Ends of calls, and questions, that wait; what comes when as many do is dropped, and expires at the server."""
_SUPPRESS: Final = "suppress_instrumentation"

_log = logging.getLogger("millicent.sdk")


class Question(NamedTuple):
    """What is asked of calls that are alike: their tags by dimension, and what is told of the cost of one."""

    tags: tuple[tuple[str, str], ...]
    estimate_usd: str | None
    input_tokens: int | None
    output_tokens: int | None
    strict: bool


class Answer(NamedTuple):
    """What was answered. `told` is the server's own answer; where there was none, `decision` is `unchecked`."""

    decision: str
    reason: str | None
    lease: str | None
    told: dict[str, Any]


class _Waiting:
    """A caller that waits; `wake` is called once, by any thread, after `answer` is set."""

    __slots__ = ("answer", "gone", "wake")

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self.gone = False
        self.wake: Callable[[], object] = _nothing


class _Kind:
    """Calls that are alike: their lease, and who waits for it."""

    __slots__ = ("answer", "asked", "fresh_until", "left", "used", "waiting", "want")

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self.fresh_until = 0.0
        self.left = 0
        self.used = 0
        self.want = 1
        self.asked = False
        self.waiting: deque[_Waiting] = deque()


class Leases:
    """Safe from any thread, and across fork: a child asks for leases of its own."""

    def __init__(
        self, reach: Callable[[], tuple[str, str | None]], *, staleness_s: float, timeout_s: float, hold_s: float
    ) -> None:
        """Start nothing yet; `dimensions` becomes what budgets look at, as far as is known.

        Args:
            reach: Tells the base URL of the server and the key, once it is needed.
            staleness_s: How long an answer is taken to hold.
            timeout_s: How long a caller waits.
            hold_s: How long the server sets money aside for a call that it does not hear of again.
        """
        self._reach = reach
        self._staleness_s, self._timeout_s, self._hold_s = staleness_s, timeout_s, hold_s
        self.dimensions: frozenset[str] | None = None
        self._reset()
        if hasattr(os, "register_at_fork"):
            reset = weakref.WeakMethod(self._reset)
            os.register_at_fork(after_in_child=lambda: (again := reset()) and again())

    def _reset(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._kinds: dict[Question, _Kind] = {}
        self._questions: deque[Question] = deque()
        self._ended: deque[dict[str, Any]] = deque()
        self._ended_since = 0.0
        self._settling = 0
        self._is_urgent = False
        self._down: str | None = None
        self._down_until = 0.0
        self._threads = self._idle = 0
        self._swept = 0.0

    def ask(self, question: Question) -> Answer:
        """Take one call of a lease, waiting for one if need be."""
        waiting = _Waiting()
        answer = self._take(question, waiting)
        if answer is not None:
            return answer
        gate = threading.Lock()
        gate.acquire()
        try:
            if self._join(waiting, gate.release):
                gate.acquire(timeout=self._timeout_s)
        except BaseException:
            self._leave(waiting)
            raise
        return self._outcome(waiting)

    async def ask_async(self, question: Question) -> Answer:
        """The same, and other tasks run while it waits."""
        waiting = _Waiting()
        answer = self._take(question, waiting)
        if answer is not None:
            return answer
        import asyncio  # noqa: PLC0415  # importing it costs every app

        try:
            loop = asyncio.get_running_loop()
            arrived = loop.create_future()
            wake = lambda: loop.call_soon_threadsafe(_arrive, arrived)  # noqa: E731  # of this loop alone
            if self._join(waiting, wake):
                await asyncio.wait({arrived}, timeout=self._timeout_s)
        except BaseException:
            self._leave(waiting)
            raise
        return self._outcome(waiting)

    def settle(self, lease: str, **told: Any) -> None:
        """Tell the server, later, that a call of a lease has ended. Never raises, never waits for it."""
        with self._changed:
            self._settle(lease, told)

    def flush(self, timeout_s: float) -> bool:
        """Give back what is not used and tell of all that has ended, waiting for at most `timeout_s`.

        Returns:
            Whether all was told in time.
        """
        with self._changed:
            for kind in self._kinds.values():
                self._return(kind)
            if self._ended:
                self._is_urgent = True
                self._call_worker()
            return self._changed.wait_for(lambda: not (self._ended or self._settling), timeout_s)

    # ---- the callers' side

    def _take(self, question: Question, waiting: _Waiting) -> Answer | None:
        """What is known already; None where the caller waits from now on."""
        now = time.monotonic()
        with self._changed:
            kind = self._kinds.get(question)
            if kind is None:
                kind = self._kinds[question] = _Kind()
            if kind.answer is not None and now < kind.fresh_until:
                if kind.answer.lease is None:
                    return kind.answer
                if kind.left:
                    kind.left -= 1
                    kind.used += 1
                    return kind.answer
            self._want(question, kind)
            if self._down is not None:
                return Answer("unchecked", self._down, None, {})
            kind.waiting.append(waiting)
        return None

    def _want(self, question: Question, kind: _Kind) -> None:
        if not kind.asked and len(self._questions) < MOST_WAITING:
            kind.asked = True
            self._questions.append(question)
            self._call_worker()
        elif not self._threads:  # none could be started
            self._call_worker()

    def _join(self, waiting: _Waiting, wake: Callable[[], object]) -> bool:
        """Have the caller woken; False where it need not wait any more."""
        with self._changed:
            waiting.wake = wake
            return waiting.answer is None

    def _outcome(self, waiting: _Waiting) -> Answer:
        with self._changed:
            waiting.gone = True
            if waiting.answer is not None:
                return waiting.answer
            words = f"no answer within {self._timeout_s:g} s"
            self._down = words  # nobody else waits until there is one
        return Answer("unchecked", words, None, {})

    def _leave(self, waiting: _Waiting) -> None:
        """A caller that was interrupted does not make its call."""
        with self._changed:
            waiting.gone = True
            if waiting.answer is not None and waiting.answer.lease is not None:
                self._settle(waiting.answer.lease, {"unused": True})

    # ---- ends of calls

    def _settle(self, lease: str, told: dict[str, Any]) -> None:
        if len(self._ended) < MOST_WAITING:
            self._ended.append({"id": lease, **told})
            if len(self._ended) == 1:
                self._ended_since = time.monotonic()
            if len(self._ended) in (1, BATCH):
                self._call_worker()

    def _return(self, kind: _Kind) -> None:
        if kind.left and kind.answer is not None and kind.answer.lease is not None:
            self._settle(kind.answer.lease, {"calls": kind.left, "unused": True})
        kind.left, kind.fresh_until = 0, 0.0

    def _sweep(self, now: float) -> None:
        """Give back what is stale, and forget kinds that nobody asks for."""
        self._swept = now
        for question, kind in list(self._kinds.items()):
            if now < kind.fresh_until or kind.asked or kind.waiting:
                continue
            if kind.answer is not None:
                self._return(kind)
                kind.want, kind.answer = max(1, kind.used), None
            else:
                del self._kinds[question]

    # ---- our threads

    def _call_worker(self) -> None:
        """Have a thread look; every caller of this holds the lock."""
        if self._idle > len(self._questions) or self._threads >= WORKERS:
            self._changed.notify_all()
            return
        self._threads += 1
        try:
            threading.Thread(name="millicent-budgets", target=self._run, daemon=True).start()
        except RuntimeError as error:  # the interpreter ends, or there are too many threads
            self._threads -= 1
            faults.note(error)

    def _run(self) -> None:
        attach(set_value(_SUPPRESS, value=True))
        changed, server = self._changed, BudgetApi(self._reach)
        while changed is self._changed:  # else this is a fork's copy
            question, number, ended = self._next()
            if question is None:
                self._tell(server, ended)
                continue
            answer = self._asked(server, question, number, ended)
            self._told(ended, ended if isinstance(answer, str) else [])
            self._answer(question, answer)

    def _next(self) -> tuple[Question | None, int, list[dict[str, Any]]]:
        """Wait for something to do: a question and how many calls to ask for, or ends of calls.

        Whatever has ended is told with the next question, and none is asked while that is under way: what is granted
        then goes by what calls cost, and not by what they were expected to.
        """
        with self._changed:
            self._idle += 1
            try:
                while True:
                    now = time.monotonic()
                    if now - self._swept >= max(self._staleness_s, SWEEP_S):
                        self._sweep(now)
                    if self._down is not None and now < self._down_until:
                        self._changed.wait(self._down_until - now)
                        continue
                    is_full = len(self._ended) >= BATCH or self._is_urgent
                    company_until = self._ended_since + SETTLE_S
                    while self._questions and not self._settling:
                        question = self._questions.popleft()
                        if number := self._number(question, now):
                            return question, number, self._taken(now)
                    if self._ended and not self._settling and (is_full or now >= company_until):
                        return None, 0, self._taken(now)
                    rest = max(self._staleness_s, SWEEP_S)
                    self._changed.wait(max(company_until - now, SETTLE_S / 10) if self._ended else rest)
            finally:
                self._idle -= 1

    def _taken(self, now: float) -> list[dict[str, Any]]:
        taken = [self._ended.popleft() for _ in range(min(BATCH, len(self._ended)))]
        self._ended_since = now
        self._settling += len(taken)
        return taken

    def _number(self, question: Question, now: float) -> int:
        """How many calls a question is asked for; none where nobody waits for it any more."""
        kind = self._kinds[question]
        alive = sum(not one.gone for one in kind.waiting)
        if not alive and self._down is None:
            kind.asked = False
            kind.waiting.clear()
            return 0
        if kind.answer is not None:  # used up while it was fresh: more the next time
            kind.want = 2 * kind.used if now < kind.fresh_until else kind.used
        self._return(kind)
        return min(MOST_CALLS, max(1, alive, kind.want if self._staleness_s else 1))

    def _asked(self, server: BudgetApi, question: Question, number: int, ended: list[dict[str, Any]]) -> Answer | str:
        """The server's answer, or why there is none."""
        body: dict[str, Any] = {
            "tags": dict(question.tags),
            "calls": number,
            "hold_s": self._hold_s,
            "on_failure": "closed" if question.strict else "open",
        }
        for name in ("estimate_usd", "input_tokens", "output_tokens"):
            if (value := getattr(question, name)) is not None:
                body[name] = value
        try:
            try:
                told = server.post("check", {**body, "settlements": ended} if ended else body)
            except RefusedError:
                if not ended:
                    raise
                told = server.post("check", {**body, "settlements": [_without_usage(one) for one in ended]})
            return Answer(str(told["decision"]), told.get("reason"), told.get("reservation"), told)
        except Exception as error:  # noqa: BLE001  # whatever a network, or what is not our server, comes up with
            return _words(error)

    def _answer(self, question: Question, answer: Answer | str) -> None:
        """Hand out what was answered to those who wait, in their order."""
        now = time.monotonic()
        with self._changed:
            kind = self._kinds[question]
            kind.asked = False
            waiting, kind.waiting = kind.waiting, deque()
            if isinstance(answer, str):
                if self._down != answer:
                    _log.warning("Budgets cannot be checked: %s. Asking again every %g s.", answer, AGAIN_S)
                self._down, self._down_until = answer, now + AGAIN_S
                failed = Answer("unchecked", answer, None, {})
                for one in waiting:
                    _hand(one, failed)
                return
            self._down = None
            if isinstance(looked_at := answer.told.get("dimensions"), list):
                self.dimensions = frozenset(looked_at)  # calls that are alike in these are asked about together
            holds_s = min(self._staleness_s, REFUSED_S) if answer.decision == "deny" else self._staleness_s
            kind.answer, kind.used, kind.fresh_until = answer, 0, now + holds_s
            kind.left = int(answer.told.get("calls") or 0) if answer.lease is not None else 0
            kind.waiting = _handed_out(kind, answer, waiting)
            if kind.waiting:  # fewer calls were granted than there are callers
                self._want(question, kind)
            elif not self._staleness_s:
                self._return(kind)

    def _tell(self, server: BudgetApi, ended: list[dict[str, Any]]) -> None:
        """Settle at the server. What it does not take now is told later, without usage if that may be why."""
        down, again = None, list[dict[str, Any]]()
        try:
            server.post("settle", {"settlements": ended})
        except RefusedError:
            again = [_without_usage(one) for one in ended if "usage" in one]
        except Exception as error:  # noqa: BLE001  # as above
            down, again = _words(error), ended
        with self._changed:
            self._down = down
            if down is not None:
                self._down_until = time.monotonic() + AGAIN_S
        self._told(ended, again)

    def _told(self, ended: list[dict[str, Any]], again: list[dict[str, Any]]) -> None:
        """Ends of calls are settled, but for those that are to be told again."""
        if ended:
            with self._changed:
                self._settling -= len(ended)
                self._ended.extendleft(reversed(again[: MOST_WAITING - len(self._ended)]))
                self._is_urgent = self._is_urgent and bool(self._ended)
                self._changed.notify_all()


def _without_usage(ended: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in ended.items() if name != "usage"}


def _handed_out(kind: _Kind, answer: Answer, waiting: deque[_Waiting]) -> deque[_Waiting]:
    """Tell those who wait, in their order, one call of the lease each; returns those for whom there is none."""
    while waiting and (kind.left or answer.lease is None):
        one = waiting.popleft()
        if one.gone:
            continue
        if answer.lease is not None:
            kind.left -= 1
            kind.used += 1
        _hand(one, answer)
    return waiting


def _hand(waiting: _Waiting, answer: Answer) -> None:
    waiting.answer = answer
    try:
        waiting.wake()
    except Exception as error:  # noqa: BLE001  # its event loop is closed
        faults.note(error)


def _arrive(arrived: Any) -> None:
    if not arrived.done():
        arrived.set_result(None)


def _nothing() -> None:
    """Wake nobody: the caller has not begun to wait."""


def _words(error: Exception) -> str:
    """What went wrong, without what an app may have put into it."""
    return str(error) if isinstance(error, RefusedError) else f"{type(error).__name__}: {error}"[:200]

"""Stopping at a budget: whether a call may be made is asked before it is, and money is set aside for it.

`BudgetExceeded` is all that an app ever sees of it, and only where it asked to. Waiting is bounded; what happens when
nobody answers is the app's own choice.
"""

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal

from opentelemetry.context import get_current

from millicent.sdk import attributes, faults
from millicent.sdk.attribution import Tags, carried
from millicent.sdk.leases import Answer, Leases, Question

if TYPE_CHECKING:  # an app that is not refused anything needs none of it
    from datetime import datetime
    from decimal import Decimal

    from millicent.sdk.usage import TokenUsage

Mode = Literal["warn", "block"]
OnFailure = Literal["open", "closed"]

DEFAULT_ENDPOINT: Final = "http://127.0.0.1:8050"
STALENESS_S: Final = 5.0
TIMEOUT_S: Final = 0.25
HOLD_S: Final = 300.0
EXIT_S: Final = 0.5  # what the exit of a process may wait until unused money is given back
AGAIN_S: Final = 60.0  # how often the same warning is logged

_DIMENSIONS: Final = {
    **{f"{attributes.TAG_PREFIX}{name}": name for name in (
        "team", "project", "feature", "customer", "environment", "region", "deployment", "engine", "precision",
    )},
    attributes.USER_ID: "user_id",
    attributes.SESSION_ID: "session_id",
}  # fmt: skip
"""What budgets may look at, by the attribute that tells it."""
_USAGE: Final = {
    attributes.INPUT: "input_tokens",
    attributes.OUTPUT: "output_tokens",
    attributes.CACHE_READ: "cache_read_tokens",
    attributes.CACHE_WRITE: "cache_write_tokens",
    attributes.CACHE_WRITE_5M: "cache_write_5m_tokens",
    attributes.CACHE_WRITE_30M: "cache_write_30m_tokens",
    attributes.CACHE_WRITE_1H: "cache_write_1h_tokens",
    attributes.CACHE_WRITE_12H: "cache_write_12h_tokens",
    attributes.REASONING: "reasoning_tokens",
    attributes.INPUT_AUDIO: "input_audio_tokens",
    attributes.OUTPUT_AUDIO: "output_audio_tokens",
    attributes.INPUT_IMAGE: "input_image_tokens",
}
_MOST: Final = 10**12

_log = logging.getLogger("millicent.sdk")


class BudgetExceeded(Exception):  # noqa: N818  # it says what is so, as KeyboardInterrupt does
    """A call was not made, because a budget says no.

    Attributes:
        budget: Its name; None where no budget could be asked and the guard is closed then.
        spend: What was spent of it in this period, in `currency`; None where that is not known.
        reserved: What is set aside for other calls.
        limit: What the period may come to.
        currency: ISO 4217 code of these amounts.
        resets_at: When its next period begins; None for a rolling one.
    """

    def __init__(
        self,
        message: str,
        budget: str | None = None,
        spend: "Decimal | None" = None,
        reserved: "Decimal | None" = None,
        limit: "Decimal | None" = None,
        currency: str | None = None,
        resets_at: "datetime | None" = None,
    ) -> None:
        super().__init__(message, budget, spend, reserved, limit, currency, resets_at)
        self.budget, self.spend, self.reserved, self.limit = budget, spend, reserved, limit
        self.currency, self.resets_at = currency, resets_at

    def __str__(self) -> str:
        return str(self.args[0])


class Held:
    """A call that may be made, and the money that is set aside for it.

    Attributes:
        decision: `allow`; `warn` or `deny` where a budget is reached and the guard only warns; `unchecked` where nobody
            answered.
        reason: What to look at, in words; None where nothing is.
    """

    __slots__ = ("_leases", "_told", "decision", "reason")

    def __init__(self, answer: Answer, leases: Leases) -> None:
        """Hold what was answered; one of the leases has been taken."""
        self.decision = answer.decision
        self.reason = answer.reason
        self._leases: tuple[Leases, str] | None = (leases, answer.lease) if answer.lease is not None else None
        self._told: dict[str, Any] = {}

    def used(self, usage: "TokenUsage", model: str | None = None, provider: str | None = None) -> None:
        """Tell what the call used, so that what is set aside for it becomes what it costs. Never raises."""
        with faults.noted():
            counts = {name: getattr(usage, name) for name in _USAGE.values()}
            self._told = _settled(counts, usage.units, {"model": model, "provider": provider})

    def cost(self, usd: "Decimal | str | float") -> None:
        """Tell what the call cost, in USD. Never raises."""
        with faults.noted():
            self._told = {"cost_usd": _amount(usd)}

    def settle(self, **told: Any) -> None:
        """Tell that the call has ended; once. Never raises."""
        leases, self._leases = self._leases, None
        if leases is not None:
            with faults.noted():
                leases[0].settle(leases[1], **(told or self._told))

    def settle_read(self, told: Mapping[str, Any], model: str | None, **more: Any) -> None:
        """The same, by the attributes of the call's span, and what else its price depends on."""
        if self._leases is None:
            return
        with faults.noted():
            counts = {name: told[key] for key, name in _USAGE.items() if key in told}
            prefix = attributes.UNITS_PREFIX
            units = {key.removeprefix(prefix): value for key, value in told.items() if key.startswith(prefix)}
            self.settle(**_settled(counts, units, {"model": model, **more}))


class BudgetGuard:
    """Asks the budgets that a call counts for, before it is made.

    Use it around one call, as a context manager in synchronous and asynchronous code alike, or tell it to
    `track_tokens(budget=…)`; one may serve many calls at once. The call's tags are those of `attribution`, of
    `track_tokens` and of `instrument`. How much may be spent beyond a limit at most: what the calls under way cost
    beyond what was set aside for them, so an `estimate_usd` that no call passes makes it nothing.
    """

    __slots__ = ("_known", "_leases", "_limits", "_mode", "_strict")

    def __init__(
        self,
        mode: Mode = "block",
        *,
        on_failure: OnFailure | None = None,
        endpoint: str | None = None,
        key: str | None = None,
        estimate_usd: "Decimal | str | float | None" = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        model: str | None = None,
        provider: str | None = None,
        staleness_s: float = STALENESS_S,
        timeout_s: float = TIMEOUT_S,
        hold_s: float = HOLD_S,
    ) -> None:
        """Ask nothing yet.

        Args:
            mode: `block` raises `BudgetExceeded` where a budget that blocks is reached; `warn` only logs it.
            on_failure: What `block` does where the server does not answer, or cannot tell what is left: `open` makes
                the call, `closed` raises. By default as `MILLICENT_BUDGET_ON_FAILURE` says, else `open`.
            endpoint: Base URL of the server, which is that of its pages; by default `MILLICENT_BUDGET_ENDPOINT`, else
                http://127.0.0.1:8050.
            key: Ingest key; by default the one that `instrument` was told, or `MILLICENT_KEY`.
            estimate_usd: What a call costs at most. By default what calls like it cost lately, on average.
            input_tokens: Else: how many tokens a call sends at most, priced by the price book.
            output_tokens: And how many it gets back at most.
            model: The model, where `track_tokens` does not tell it.
            provider: Whose model it is, likewise.
            staleness_s: How long an answer is taken to hold: money is set aside for several calls at once, and these
                need not ask. 0 has every call ask.
            timeout_s: How long a call waits for an answer at most; only the first one does if there is none.
            hold_s: How long money is set aside for a call that takes longer than that.

        Raises:
            ValueError: One of them cannot be.
        """
        if mode not in ("warn", "block"):
            raise ValueError(f"budget mode {mode!r} is unknown: write warn or block")
        told = on_failure or os.environ.get("MILLICENT_BUDGET_ON_FAILURE", "").strip().lower() or "open"
        if told not in ("open", "closed"):
            if on_failure is not None:
                raise ValueError(f"on_failure {on_failure!r} is unknown: write open or closed")
            _log.warning("MILLICENT_BUDGET_ON_FAILURE is %r: write open or closed; it is taken for closed.", told)
        for name, value in (("staleness_s", staleness_s), ("timeout_s", timeout_s)):
            if not 0 <= value <= 3600:
                raise ValueError(f"{name} {value!r} is not 0 to 3600: write seconds")
        if not 1 <= hold_s <= 3600:
            raise ValueError(f"hold_s {hold_s!r} is not 1 to 3600: write seconds")
        self._mode = mode
        self._strict = mode == "block" and told != "open"
        self._known = {name: value for name, value in (("model", model), ("provider", provider)) if value}
        self._limits = (None if estimate_usd is None else _amount(estimate_usd), input_tokens, output_tokens)
        self._leases = _leases(endpoint, key, staleness_s, timeout_s, hold_s)

    def enter(self, tags: Tags | None = None, model: str | None = None, provider: str | None = None) -> Held:
        """Ask, and wait for the answer.

        Raises:
            BudgetExceeded: The call may not be made.
        """
        try:
            answer = self._leases.ask(self._question(tags, model, provider))
        except Exception as error:  # noqa: BLE001  # ours, not the app's
            faults.note(error)
            return self._judged(_broken(error))
        return self._judged(answer)

    async def enter_async(
        self, tags: Tags | None = None, model: str | None = None, provider: str | None = None
    ) -> Held:
        """Ask, and let other tasks run meanwhile.

        Raises:
            BudgetExceeded: The call may not be made.
        """
        try:
            answer = await self._leases.ask_async(self._question(tags, model, provider))
        except Exception as error:  # noqa: BLE001  # ours, not the app's
            faults.note(error)
            return self._judged(_broken(error))
        return self._judged(answer)

    def __enter__(self) -> Held:
        return _entered(self.enter())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _left()

    async def __aenter__(self) -> Held:
        return _entered(await self.enter_async())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _left()

    def flush(self, timeout_s: float = EXIT_S) -> bool:
        """Give back what is set aside and not used, and tell of calls that have ended.

        Returns:
            Whether all was told in time. At exit this is done by itself.
        """
        return self._leases.flush(timeout_s)

    def _question(self, tags: Tags | None, model: str | None, provider: str | None) -> Question:
        known: dict[str, object] = {**_instrumented, **carried(get_current()), **(tags or {})}
        told = {name: str(known[key]) for key, name in _DIMENSIONS.items() if key in known}
        looked_at = self._leases.dimensions
        if looked_at is not None:
            told = {name: value for name, value in told.items() if name in looked_at}
        told |= self._known
        told |= {name: value for name, value in (("model", model), ("provider", provider)) if value}
        return Question(tuple(sorted(told.items())), *self._limits, self._strict)

    def _judged(self, answer: Answer) -> Held:
        if answer.decision == "unchecked":
            faults.count("budget_unchecked")
            if self._strict:
                raise BudgetExceeded(
                    f"no budget could be asked ({answer.reason}), and calls are not made then: on_failure is closed"
                )
        elif answer.decision == "deny":
            faults.count("budget_denied")
            if self._mode == "block":
                raise _exceeded(answer)
        if answer.decision in ("deny", "warn"):
            _warn(answer.reason)
        return Held(answer, self._leases)


def guard_of(budget: "Mode | BudgetGuard") -> BudgetGuard:
    """The guard that `track_tokens(budget=…)` means.

    Raises:
        ValueError: There is none of that name.
    """
    return budget if isinstance(budget, BudgetGuard) else BudgetGuard(budget)


def instrumented(tags: Tags, key: str | None) -> None:
    """Take the tags and the key that the app told `instrument`."""
    global _instrumented, _instrument_key  # one connection per process
    _instrumented, _instrument_key = tags, key


# ---- shared by all guards: a guard made for a single call must not cost a thread

_instrumented: Tags = {}
_instrument_key: str | None = None
_shared: dict[tuple[object, ...], Leases] = {}
_lock = threading.Lock()
_inside: ContextVar[tuple[Held, ...]] = ContextVar("millicent-budgets", default=())
_warned: dict[str, float] = {}


def _leases(endpoint: str | None, key: str | None, staleness_s: float, timeout_s: float, hold_s: float) -> Leases:
    told = (endpoint, key, staleness_s, timeout_s, hold_s)
    with _lock:
        if told not in _shared:
            if not _shared:
                atexit.register(_at_exit)
            reach = _reach(endpoint, key)
            _shared[told] = Leases(reach, staleness_s=staleness_s, timeout_s=timeout_s, hold_s=hold_s)
        return _shared[told]


def _reach(endpoint: str | None, key: str | None) -> Callable[[], tuple[str, str | None]]:
    def reach() -> tuple[str, str | None]:
        url = endpoint or os.environ.get("MILLICENT_BUDGET_ENDPOINT") or DEFAULT_ENDPOINT
        told = key or _instrument_key or os.environ.get("MILLICENT_KEY")
        return (url if "://" in url else f"http://{url}"), told

    return reach


def _at_exit() -> None:
    until = time.monotonic() + EXIT_S
    for leases in list(_shared.values()):
        leases.flush(max(0.0, until - time.monotonic()))


def _after_fork() -> None:
    global _lock  # noqa: PLW0603  # the old one may never be released
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _entered(held: Held) -> Held:
    _inside.set((*_inside.get(), held))
    return held


def _left() -> None:
    """End the innermost block; one that is left in another task than it was entered in is left to expire."""
    around = _inside.get()
    if around:
        _inside.set(around[:-1])
        around[-1].settle()


def _settled(counts: Mapping[str, Any], units: Mapping[str, Any] | None, more: Mapping[str, Any]) -> dict[str, Any]:
    """What a call used as the server takes it; nothing where it is no usage."""
    whole: dict[str, Any] = {name: value for name, value in counts.items() if value is not None}
    if units:
        whole["units"] = dict(units)
    numbers = [*(value for name, value in whole.items() if name != "units"), *(units or {}).values()]
    if not numbers or not all(type(one) is int and 0 <= one < _MOST for one in numbers):
        return {}
    return {"usage": {**whole, **{name: value for name, value in more.items() if value}}}


def _amount(usd: object) -> str:
    """An amount as text.

    Raises:
        ValueError: It is none.
    """
    from decimal import Decimal, InvalidOperation  # noqa: PLC0415  # only those who tell one pay for it

    try:
        told = Decimal(str(usd))
    except InvalidOperation:
        told = Decimal("NaN")
    if not told.is_finite() or not 0 <= told <= 10**9:
        raise ValueError(f"{usd!r} is no amount in USD from 0 on: write 0.02")
    return f"{told:f}"


def _exceeded(answer: Answer) -> BudgetExceeded:
    from datetime import datetime  # noqa: PLC0415  # only those who are refused pay for it
    from decimal import Decimal  # noqa: PLC0415  # as above

    message = f"not called: {answer.reason}"
    try:
        told = next(one for one in answer.told["budgets"] if one["decision"] == "deny")
        spend, reserved, limit = (
            None if told[name] is None else Decimal(told[name]) for name in ("spent", "reserved", "limit")
        )
        again = told["resets_at"]
        resets_at = None if again is None else datetime.fromisoformat(again)
        return BudgetExceeded(message, told["name"], spend, reserved, limit, told["currency"], resets_at)
    except Exception as error:  # noqa: BLE001  # a server of another version: no is no
        faults.note(error)
        return BudgetExceeded(message)


def _broken(error: Exception) -> Answer:
    return Answer("unchecked", f"the check failed: {type(error).__name__}", None, {})


def _warn(reason: str | None) -> None:
    """Log a warning, the same one once a minute."""
    about, now = (reason or "").partition(":")[0], time.monotonic()
    if now - _warned.get(about, -AGAIN_S) >= AGAIN_S and len(_warned) < 1000:
        _warned[about] = now
        _log.warning("A budget is reached: %s", reason)

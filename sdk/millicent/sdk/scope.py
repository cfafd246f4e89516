"""Running someone else's function inside a context of ours, whatever kind of function it is.

A wrapped function is still what it was: a coroutine function, a generator function and so on; its results,
exceptions, `send`, `throw`, `close` and return values pass through untouched. The context is attached around
each step of a generator and detached at each `yield`, so that it never leaks to whoever consumes the items.
"""

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextvars import Token
from typing import Any, Protocol, TypeVar, cast

from opentelemetry.context import Context, attach, get_current

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class Scope:
    """One run of a function in `context`. Subclasses listen to how it goes; no listener may raise."""

    __slots__ = ("context", "held")

    def __init__(self, context: Context) -> None:
        self.context = context
        self.held: Any = None

    def begin(self, stream: object) -> None:
        """Hear of the stream that the function returned, or that what it returned has opened."""

    def observe(self, item: object) -> None:
        """Hear of an item that the function yielded."""

    def hides(self, item: object) -> bool:  # noqa: ARG002  # subclasses look at it
        """Tell whether an item of a returned stream is there only because the scope asked for it."""
        return False

    def settle(self, result: T) -> T:
        """Hear of the result; return it, or a stand-in that behaves like it."""
        return result

    def end(self, result: object) -> None:
        """Hear that a stream came to its end, with the value that it returned."""

    def fail(self, error: BaseException) -> None:
        """Hear of the exception that the function raised."""

    def cancel(self) -> None:
        """Hear that the consumer of a stream stopped early."""


Opener = Callable[[tuple[Any, ...], dict[str, Any]], Scope]
"""Makes the scope of one run from the arguments of the call. Never raises."""


class Gate(Protocol):
    """Asked before each run; what it raises is raised instead of running. What it returns is `held` by the scope."""

    def enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        """Let a run begin, or raise."""

    def enter_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[object]:
        """The same without holding up an event loop."""


def leave(token: Token[Context]) -> None:
    """Restore the context that `token` replaced.

    A coroutine or generator may be finalised in another context than it ran in; ours is not current there and
    there is nothing to restore. OpenTelemetry's `detach` would log an error.
    """
    try:
        token.var.reset(token)
    except ValueError:
        return


def step(scope: Scope, advance: Callable[..., T], *args: object) -> T:
    """Advance a generator once in its scope's context, keeping what it attached for its next step."""
    token = attach(scope.context)
    try:
        return advance(*args)
    finally:
        scope.context = get_current()
        leave(token)


async def async_step(scope: Scope, advance: Callable[..., Any], *args: object) -> Any:
    """Advance an asynchronous generator once; as `step`."""
    token = attach(scope.context)
    try:
        return await advance(*args)
    finally:
        scope.context = get_current()
        leave(token)


async def run_coroutine(body: Coroutine[Any, Any, T], scope: Scope) -> T:
    """Await a coroutine in its scope."""
    token = attach(scope.context)
    try:
        result = await body
    except BaseException as error:
        leave(token)
        scope.fail(error)
        raise
    leave(token)
    return scope.settle(result)


def wrap(func: F, opener: Opener, gate: Gate | None = None) -> F:
    """Return `func` such that each run happens in a scope made by `opener`, its kind and signature kept.

    Args:
        func: What is run.
        opener: Makes the scope of a run.
        gate: Decides before it whether there is one.
    """
    kinds = (
        (inspect.isgeneratorfunction, _generator),
        (inspect.isasyncgenfunction, _async_generator),
        (inspect.iscoroutinefunction, _coroutine),
    )
    maker = next((maker for is_kind, maker in kinds if is_kind(func)), _function)
    return cast("F", functools.wraps(func)(maker(func, opener, gate)))


def _open(opener: Opener, held: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Scope:
    scope = opener(args, kwargs)
    scope.held = held
    return scope


def _function(func: Callable[..., Any], opener: Opener, gate: Gate | None) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        scope = opener(args, kwargs) if gate is None else _open(opener, gate.enter(args, kwargs), args, kwargs)
        token = attach(scope.context)
        try:
            result = func(*args, **kwargs)
        except BaseException as error:
            leave(token)
            scope.fail(error)
            raise
        leave(token)
        return scope.settle(result)

    return function


def _coroutine(func: Callable[..., Any], opener: Opener, gate: Gate | None) -> Callable[..., Any]:
    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        body = func(*args, **kwargs)  # bad arguments raise here, before a scope is open
        if gate is None:
            return await run_coroutine(body, opener(args, kwargs))
        try:
            held = await gate.enter_async(args, kwargs)
        except BaseException:
            body.close()  # else Python warns that it was never awaited
            raise
        return await run_coroutine(body, _open(opener, held, args, kwargs))

    return coroutine


def _generator(func: Callable[..., Any], opener: Opener, gate: Gate | None) -> Callable[..., Any]:
    def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        body = func(*args, **kwargs)
        scope = opener(args, kwargs) if gate is None else _open(opener, gate.enter(args, kwargs), args, kwargs)
        resume: Callable[..., Any] = body.send
        given: Any = None
        while True:
            try:
                item = step(scope, resume, given)
            except StopIteration as stop:
                _conclude(scope, given, stop.value)
                return stop.value
            except BaseException as error:
                scope.fail(error)
                raise
            scope.observe(item)
            try:
                given = yield item
                resume = body.send
            except BaseException as error:  # noqa: BLE001  # thrown in by the consumer: the body's to handle
                resume, given = body.throw, error

    return generator


def _async_generator(func: Callable[..., Any], opener: Opener, gate: Gate | None) -> Callable[..., Any]:
    async def async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        body = func(*args, **kwargs)
        held = None if gate is None else await gate.enter_async(args, kwargs)
        scope = _open(opener, held, args, kwargs)
        resume: Callable[..., Any] = body.asend
        given: Any = None
        while True:
            try:
                item = await async_step(scope, resume, given)
            except StopAsyncIteration:
                _conclude(scope, given, None)
                return
            except BaseException as error:
                scope.fail(error)
                raise
            scope.observe(item)
            try:
                given = yield item
                resume = body.asend
            except BaseException as error:  # noqa: BLE001  # as above
                resume, given = body.athrow, error

    return async_generator


def _conclude(scope: Scope, given: object, value: object) -> None:
    if issubclass(type(given), GeneratorExit):  # the body took its consumer's leaving calmly
        scope.cancel()
    else:
        scope.end(value)

"""Stand-ins for the streams that tracked functions return, and for what opens such a stream.

A stand-in has the attributes, methods, special methods and `__class__` of the stream behind it; what passes
through it is observed, and its end, its closing or its disappearance ends the scope.
"""

import functools
from collections.abc import Callable
from types import CoroutineType
from typing import Any, Final

from millicent.sdk.scope import Scope, async_step, run_coroutine, step

_AMAZON: Final = "botocore.eventstream"  # an iterable that is no iterator, inside the dict that is returned
_IN_A_DICT: Final = ("stream", "body")


@functools.lru_cache(maxsize=256)
def is_stream(kind: type) -> bool:
    """Tell whether a result of this class is only a beginning: an iterator, asynchronous or not, or a coroutine.

    Or a context manager that will open a stream, which is known by its name: `MessageStreamManager` and the like.
    """
    is_iterator = hasattr(kind, "__next__") or hasattr(kind, "__anext__")
    return is_iterator or kind is CoroutineType or kind.__module__ == _AMAZON or _is_manager(kind)


def _is_manager(kind: type) -> bool:
    is_one = kind.__name__.endswith(("StreamManager", "GeneratorContextManager"))
    return is_one and (hasattr(kind, "__enter__") or hasattr(kind, "__aenter__")) and not hasattr(kind, "__next__")


def watch(result: Any, scope: Scope) -> Any:
    """Return a stand-in for a stream, for what opens one, or for a coroutine, that keeps `scope` informed."""
    kind: type = type(result)
    return run_coroutine(result, scope) if kind is CoroutineType else _watched(kind)(result, scope)


def watch_inside(result: dict[Any, Any], scope: Scope) -> bool:
    """Put a stand-in in the place of the event stream that Amazon's client returns in a dict, if it is one."""
    for name in _IN_A_DICT:
        stream = result.get(name)
        if type(stream).__module__ == _AMAZON:
            result[name] = watch(stream, scope)
            return True
    return False


class _Watched:
    """What every stand-in shares; `_watched` adds the special methods that its stream has."""

    __slots__ = ("__weakref__", "_millicent_owner", "_millicent_scope", "_millicent_stream")

    _millicent_scope: Scope
    _millicent_stream: Any
    _millicent_owner: object

    def __init__(self, stream: object, scope: Scope, owner: object = None) -> None:
        object.__setattr__(self, "_millicent_stream", stream)
        object.__setattr__(self, "_millicent_scope", scope)
        object.__setattr__(self, "_millicent_owner", owner)  # lives as long as its iterator

    def __getattr__(self, name: str) -> Any:
        return getattr(self._millicent_stream, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._millicent_stream, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._millicent_stream, name)

    def __dir__(self) -> list[str]:
        return dir(self._millicent_stream)

    def __del__(self) -> None:
        self._millicent_scope.cancel()


def _advance(name: str) -> Callable[..., Any]:
    def advance(self: _Watched, *args: object) -> Any:
        scope = self._millicent_scope
        while True:
            try:
                item = step(scope, getattr(self._millicent_stream, name), *args)
            except StopIteration as stop:
                scope.end(stop.value)
                raise
            except BaseException as error:
                scope.fail(error)
                raise
            scope.observe(item)
            if not scope.hides(item):
                return item

    return advance


def _async_advance(name: str) -> Callable[..., Any]:
    async def advance(self: _Watched, *args: object) -> Any:
        scope = self._millicent_scope
        while True:
            try:
                item = await async_step(scope, getattr(self._millicent_stream, name), *args)
            except StopAsyncIteration:
                scope.end(None)
                raise
            except BaseException as error:
                scope.fail(error)
                raise
            scope.observe(item)
            if not scope.hides(item):
                return item

    return advance


def _stop(name: str) -> Callable[..., Any]:
    def stop(self: _Watched, *args: object) -> Any:
        try:
            return step(self._millicent_scope, getattr(self._millicent_stream, name), *args)
        finally:
            self._millicent_scope.cancel()

    return stop


def _async_stop(name: str) -> Callable[..., Any]:
    async def stop(self: _Watched, *args: object) -> Any:
        try:
            return await async_step(self._millicent_scope, getattr(self._millicent_stream, name), *args)
        finally:
            self._millicent_scope.cancel()

    return stop


def _itself(self: _Watched) -> _Watched:
    return self


def _iterate(self: _Watched) -> Any:
    iterator = iter(self._millicent_stream)
    kind: type = type(iterator)
    return _watched(kind)(iterator, self._millicent_scope, self)


def _enter(self: _Watched) -> Any:
    entered = self._millicent_stream.__enter__()
    return self if entered is self._millicent_stream else entered


async def _async_enter(self: _Watched) -> Any:
    entered = await self._millicent_stream.__aenter__()
    return self if entered is self._millicent_stream else entered


def _open(self: _Watched) -> Any:
    """Enter a manager: the request is made here, and the stream begins."""
    try:
        return _opened(self, step(self._millicent_scope, self._millicent_stream.__enter__))
    except BaseException as error:
        self._millicent_scope.fail(error)
        raise


async def _async_open(self: _Watched) -> Any:
    try:
        return _opened(self, await async_step(self._millicent_scope, self._millicent_stream.__aenter__))
    except BaseException as error:
        self._millicent_scope.fail(error)
        raise


def _opened(self: _Watched, entered: Any) -> Any:
    kind: type = type(entered)
    if not is_stream(kind):
        return entered
    self._millicent_scope.begin(entered)
    object.__setattr__(self, "_millicent_owner", kind)  # something to be cancelled
    return _watched(kind)(entered, self._millicent_scope, self)


def _close(self: _Watched, *args: object) -> Any:
    try:
        return step(self._millicent_scope, self._millicent_stream.__exit__, *args)
    finally:
        _closed(self)


async def _async_close(self: _Watched, *args: object) -> Any:
    try:
        return await async_step(self._millicent_scope, self._millicent_stream.__aexit__, *args)
    finally:
        _closed(self)


def _closed(self: _Watched) -> None:
    if self._millicent_owner is None:
        self._millicent_scope.end(None)  # what was opened is no stream: the call is over, and told nothing
    else:
        self._millicent_scope.cancel()


def _forget(_: _Watched) -> None:
    """Let go of a manager. One that was never entered made no request; one that was has its stream to tell."""


def _as_itself(name: str) -> Callable[..., Any]:
    """Run a method that consumes its own stream on the stand-in, which then sees what is consumed."""

    def method(self: _Watched, *args: object, **kwargs: object) -> Any:
        return getattr(type(self._millicent_stream), name)(self, *args, **kwargs)

    return method


def _forward(name: str) -> Callable[..., Any]:
    def forward(self: _Watched, *args: object) -> Any:
        return getattr(self._millicent_stream, name)(*args)

    return forward


_HOOKS: dict[str, Callable[..., Any]] = {
    "__iter__": _itself,
    "__aiter__": _itself,
    "__next__": _advance("__next__"),
    "send": _advance("send"),
    "throw": _advance("throw"),
    "__anext__": _async_advance("__anext__"),
    "asend": _async_advance("asend"),
    "athrow": _async_advance("athrow"),
    "close": _stop("close"),
    "aclose": _async_stop("aclose"),
    "__enter__": _enter,
    "__exit__": _stop("__exit__"),
    "__aenter__": _async_enter,
    "__aexit__": _async_stop("__aexit__"),
} | {
    name: _forward(name)
    for name in (
        *("__repr__", "__str__", "__format__", "__bool__", "__hash__", "__eq__", "__ne__", "__lt__", "__le__"),
        *("__gt__", "__ge__", "__len__", "__length_hint__", "__getitem__", "__contains__", "__reversed__"),
        *("__call__", "__await__", "__index__", "__int__", "__reduce_ex__", "__copy__", "__deepcopy__"),
    )
}


_CONSUMERS: Final = ("until_done", "get_final_message", "get_final_text", "get_final_completion", "get_final_response")
"""Methods of OpenAI's and Anthropic's stream helpers that iterate over themselves."""

_TEXT_STREAM: Final = "__stream_text__"  # Anthropic's generator behind the attribute `text_stream`, which does too

_MANAGER_HOOKS: Final = {
    "__enter__": _open,
    "__exit__": _close,
    "__aenter__": _async_open,
    "__aexit__": _async_close,
}


@functools.lru_cache(maxsize=256)
def _watched(kind: type) -> type[_Watched]:
    """Make the class of stand-ins for streams, or for managers, of one class."""
    hooks = _HOOKS | {name: _as_itself(name) for name in _CONSUMERS}
    if not hasattr(kind, "__next__"):
        hooks["__iter__"] = _iterate
    if _is_manager(kind):
        hooks |= _MANAGER_HOOKS
    here = {name: hook for name, hook in hooks.items() if getattr(kind, name, None) is not None}
    if _is_manager(kind):
        here["__del__"] = _forget
    if hasattr(kind, _TEXT_STREAM):
        here["text_stream"] = property(_as_itself(_TEXT_STREAM))  # type: ignore[assignment]  # read like an attribute
    here["__class__"] = property(lambda _: kind)  # type: ignore[assignment]  # isinstance() asks for it
    return type(kind.__name__, (_Watched,), {**here, "__slots__": (), "__doc__": kind.__doc__})

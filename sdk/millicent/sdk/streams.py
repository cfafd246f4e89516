"""Stand-ins for the streams that tracked functions return.

A stand-in has the attributes, methods, special methods and `__class__` of the stream behind it; what passes
through it is observed, and its end, its closing or its disappearance ends the scope.
"""

import functools
from collections.abc import Callable
from types import CoroutineType
from typing import Any

from millicent.sdk.scope import Scope, async_step, run_coroutine, step


@functools.lru_cache(maxsize=256)
def is_stream(kind: type) -> bool:
    """Tell whether a result of this class is only a beginning: an iterator, asynchronous or not, or a coroutine."""
    return hasattr(kind, "__next__") or hasattr(kind, "__anext__") or kind is CoroutineType


def watch(result: Any, scope: Scope) -> Any:
    """Return a stand-in for a stream, or for a coroutine, that keeps `scope` informed."""
    kind: type = type(result)
    return run_coroutine(result, scope) if kind is CoroutineType else _watched(kind)(result, scope)


class _Watched:
    """What every stand-in shares; `_watched` adds the special methods that its stream has."""

    __slots__ = ("__weakref__", "_millicent_scope", "_millicent_stream")

    _millicent_scope: Scope
    _millicent_stream: Any

    def __init__(self, stream: object, scope: Scope) -> None:
        object.__setattr__(self, "_millicent_stream", stream)
        object.__setattr__(self, "_millicent_scope", scope)

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
        try:
            item = step(scope, getattr(self._millicent_stream, name), *args)
        except StopIteration as stop:
            scope.end(stop.value)
            raise
        except BaseException as error:
            scope.fail(error)
            raise
        scope.observe(item)
        return item

    return advance


def _async_advance(name: str) -> Callable[..., Any]:
    async def advance(self: _Watched, *args: object) -> Any:
        scope = self._millicent_scope
        try:
            item = await async_step(scope, getattr(self._millicent_stream, name), *args)
        except StopAsyncIteration:
            scope.end(None)
            raise
        except BaseException as error:
            scope.fail(error)
            raise
        scope.observe(item)
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


def _enter(self: _Watched) -> Any:
    entered = self._millicent_stream.__enter__()
    return self if entered is self._millicent_stream else entered


async def _async_enter(self: _Watched) -> Any:
    entered = await self._millicent_stream.__aenter__()
    return self if entered is self._millicent_stream else entered


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


@functools.lru_cache(maxsize=256)
def _watched(kind: type) -> type[_Watched]:
    """Make the class of stand-ins for streams of one class."""
    here = {name: hook for name, hook in _HOOKS.items() if getattr(kind, name, None) is not None}
    here["__class__"] = property(lambda _: kind)  # type: ignore[assignment]  # isinstance() asks for it
    return type(kind.__name__, (_Watched,), {**here, "__slots__": (), "__doc__": kind.__doc__})

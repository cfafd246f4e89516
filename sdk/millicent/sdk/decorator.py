import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, overload

from millicent.sdk import attributes
from millicent.sdk.attribution import clean_tags
from millicent.sdk.call import Plan, start
from millicent.sdk.scope import wrap

F = TypeVar("F", bound=Callable[..., Any])


class Tracker(Protocol):
    """Decorates a function without changing its type."""

    def __call__(self, func: F, /) -> F:
        """Return `func`, tracked."""


@overload
def track_tokens(func: F, /) -> F: ...


@overload
def track_tokens(
    *,
    team: str | None = None,
    project: str | None = None,
    feature: str | None = None,
    customer: str | None = None,
    model: str | None = None,
    provider: str | None = None,
    operation: str | None = None,
    deployment: str | None = None,
    engine: str | None = None,
    accelerator: str | None = None,
    accelerator_count: int | None = None,
    precision: str | None = None,
    region: str | None = None,
    environment: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> Tracker: ...


def track_tokens(
    func: Callable[..., Any] | None = None,
    /,
    *,
    team: str | None = None,
    project: str | None = None,
    feature: str | None = None,
    customer: str | None = None,
    model: str | None = None,
    provider: str | None = None,
    operation: str | None = None,
    deployment: str | None = None,
    engine: str | None = None,
    accelerator: str | None = None,
    accelerator_count: int | None = None,
    precision: str | None = None,
    region: str | None = None,
    environment: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> Any:
    """Record every call of a function that calls a model: tokens, model, time, and the tags given here.

    Decorates functions, coroutine functions, generators and asynchronous generators, and functions that return a
    stream; usage is read from what they return or yield. The function behaves as before in every respect: same
    result, same exceptions; a returned stream is replaced by a stand-in that behaves like it. Failures of the
    tracking itself are counted in `sdk_stats()` and never reach the app. No prompt or answer text is recorded.

    Args:
        func: The function, where the decorator is used bare.
        team: Who pays.
        project: For which project.
        feature: For which feature of the product.
        customer: On behalf of which customer.
        model: The model asked for; by default the call's `model` argument, else the response tells.
        provider: openai, anthropic, aws.bedrock, …; by default as far as the response is unmistakable.
        operation: chat, text_completion, embeddings or generate_content; by default the response tells, else chat.
        deployment: Which of our own deployments served it.
        engine: vllm, sglang, tensorrt-llm, …
        accelerator: Name of the accelerator behind the deployment.
        accelerator_count: Number of accelerators behind the deployment.
        precision: bf16, fp8, …
        region: Where the model runs.
        environment: production, staging, …
        labels: Any other tags.

    Raises:
        TypeError: At decoration, if what is decorated cannot be called.
    """
    named = {
        attributes.TEAM: team,
        attributes.PROJECT: project,
        attributes.FEATURE: feature,
        attributes.CUSTOMER: customer,
        attributes.DEPLOYMENT: deployment,
        attributes.ENGINE: engine,
        attributes.ACCELERATOR: accelerator,
        attributes.ACCELERATOR_COUNT: accelerator_count,
        attributes.PRECISION: precision,
        attributes.REGION: region,
        attributes.ENVIRONMENT: environment,
    }
    plan = functools.partial(Plan, model=model, provider=provider, operation=operation, tags=clean_tags(named, labels))
    return _tracker(plan) if func is None else _tracker(plan)(func)


def _tracker(plan: Callable[..., Plan]) -> Callable[[Any], Any]:
    def track(func: Any) -> Any:
        if isinstance(func, staticmethod | classmethod):
            return type(func)(track(func.__func__))
        if not callable(func):
            raise TypeError(
                f"track_tokens decorates a function, got {func!r}; name its arguments: @track_tokens(team='search')"
            )
        position, default = _model_parameter(func)
        return wrap(func, functools.partial(start, plan(model_position=position, model_default=default)))

    return track


def _model_parameter(func: Callable[..., Any]) -> tuple[int | None, str | None]:
    """Return where `func` takes its `model` argument by position, and its default."""
    try:
        parameters = inspect.signature(func).parameters
    except (TypeError, ValueError):  # builtins without a signature
        return None, None
    parameter = parameters.get("model")
    if parameter is None:
        return None, None
    is_positional = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    default = parameter.default if isinstance(parameter.default, str) else None
    return list(parameters).index("model") if is_positional else None, default

"""Providers with shapes of their own and a page each: Cohere and Ollama."""

from typing import Any, Final

from millicent.sdk import attributes as key
from millicent.sdk.readers.wire import Counts, Look, Reading, look_into, text, whole

_COHERE_PARTS: Final = ("billed_units", "tokens")


def cohere(_: Any, look: Look, __: Counts) -> Reading | None:
    """Chat and embed, both versions of the API, whole and streamed.

    `billed_units` is what the bill says; `tokens` adds Cohere's own words around the prompt, which are not billed
    (https://docs.cohere.com/reference/chat). Counts come as 12.0.
    """
    inside = look
    for wrapper in ("delta", "response"):  # the last event of a stream, of version 2 and of version 1
        if (wrapped := look(wrapper)) is not None and _event(look) in ("message-end", "stream-end"):
            inside = look_into(wrapped)
    used = inside("usage")
    usage = look_into(inside("meta") if used is None else used)
    parts = {name: look_into(usage(name)) for name in _COHERE_PARTS if usage(name) is not None}
    if not parts:
        return None
    counted: Counts = {}
    for part in parts.values():
        for name, attribute in (("input_tokens", key.INPUT), ("output_tokens", key.OUTPUT)):
            if attribute not in counted and (tokens := whole(part(name))) is not None:
                counted[attribute] = tokens
    if key.INPUT in counted and (images := whole(look_into(usage("billed_units"))("image_tokens"))):
        counted[key.INPUT_IMAGE] = images
        counted[key.INPUT] += images  # billed beside the text
    if (cached := whole(usage("cached_tokens"))) is not None and cached <= counted.get(key.INPUT, 0):
        counted[key.CACHE_READ] = cached
    return Reading(
        counted or None,
        text(inside, "model"),
        text(inside, "response_id") or text(inside, "id"),
        "cohere",
        "chat" if look("embeddings") is None else "embeddings",
    )


def _event(look: Look) -> str | None:
    return text(look, "type") or text(look, "event_type")


def ollama(_: Any, look: Look, __: Counts) -> Reading | None:
    """Chat, generate and embed; the last event of a stream has the counts.

    Where the prompt was still in its cache, some versions leave `prompt_eval_count` out: unknown, not none
    (https://docs.ollama.com/api/usage).
    """
    counted = {
        attribute: tokens
        for name, attribute in (("prompt_eval_count", key.INPUT), ("eval_count", key.OUTPUT))
        if (tokens := whole(look(name))) is not None
    }
    if not counted and (look("created_at") is None or not isinstance(look("done"), bool)):
        return None
    operation = "chat" if look("message") is not None else "text_completion"
    return Reading(
        counted or None,
        text(look, "model"),
        provider="ollama",
        operation=operation if look("embeddings") is None else "embeddings",
    )

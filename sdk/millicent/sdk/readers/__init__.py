"""What a response tells about its cost: one small reader per provider shape, tried in order.

Readers look at shapes and never import a provider's package, so objects, dicts and stream events read alike. All bring
the provider's counters to one form: totals that include their parts, and nothing for what is unknown.
"""

import json
from typing import Any, Final

from millicent.sdk.readers.anthropic import messages
from millicent.sdk.readers.bedrock import converse, event_of_chunk, invoke
from millicent.sdk.readers.google import generate_content
from millicent.sdk.readers.langchain import langchain
from millicent.sdk.readers.openai import completions, responses
from millicent.sdk.readers.others import cohere, ollama
from millicent.sdk.readers.plain import plain
from millicent.sdk.readers.wire import Counts, Look, Reader, Reading, look_into

READERS: Final[tuple[Reader, ...]] = (
    completions,
    responses,
    messages,
    langchain,
    generate_content,
    converse,
    invoke,
    cohere,
    ollama,
    plain,
)
"""Tried in order; the first that recognises the shape is right. A new provider is a new function here."""

NOTHING: Final = Reading()

_LONGEST_LINE: Final = 1 << 20
_WRAPPERS: Final = ("data", "chunk")  # Mistral's events; those of OpenAI's stream helper


def read(answer: object, so_far: Reading = NOTHING) -> Reading:
    """Read a response or a chunk.

    Args:
        answer: Whatever a tracked function returned or yielded.
        so_far: What the earlier chunks of the same stream told.

    Returns:
        `so_far` completed by `answer`; `so_far` itself where no reader recognises it.
    """
    if isinstance(answer, (str, bytes)):
        answer = _event_of_line(answer)
    if answer is None:
        return so_far
    look, earlier = look_into(answer), so_far.usage or {}
    told = completions(answer, look, earlier)  # the first of the readers, without the loop
    if told is None and (told := _first(answer, look, earlier)) is None:
        for inner in _inside(answer):
            told = _first(inner, look_into(inner), earlier)
            if told is not None:
                break
        else:
            return so_far
    return told if so_far is NOTHING else so_far.then(told)


def _first(answer: object, look: Look, earlier: Counts) -> Reading | None:
    for reader in READERS:
        told = reader(answer, look, earlier)
        if told is not None:
            return told
    return None


def _inside(answer: object) -> list[Any]:
    """Return what may be the answer inside what was returned: a pair's first, an event's data, a chunk's bytes."""
    if isinstance(answer, tuple):
        return [part for part in answer[:2] if part is not None and not isinstance(part, str | bytes)]
    look = look_into(answer)
    wrapped = [event_of_chunk(look), *(look(name) for name in _WRAPPERS)]
    return [part for part in wrapped if part is not None and not isinstance(part, str | list)]


def _event_of_line(line: str | bytes) -> Any:
    """Return the event in a raw line of a server-sent event stream, parsed only where it has a usage; else None."""
    text = line if isinstance(line, bytes) else line[:_LONGEST_LINE].encode(errors="replace")
    if not text.startswith(b"data:") or b'"usage' not in text or len(text) > _LONGEST_LINE:
        return None
    try:
        return json.loads(text[len(b"data:") :])
    except ValueError:
        return None

"""An estimate of tokens where no provider tells, by the tokenizer of the model itself, in this process.

Needs the extra `millicent-sdk[estimate]`, whose vocabularies come inside the package: nothing is fetched, no text goes
anywhere. What the text does not show is not counted: tool definitions, images, hidden reasoning.
"""

import functools
import importlib
import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final

from millicent.sdk import attributes as key
from millicent.sdk.readers.wire import Counts, Look, items, look_into, text

VOCABULARIES: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("o200k_harmony", ("gpt-oss",)),
    ("o200k_base", ("gpt-4o", "gpt-4.1", "gpt-4.5", "gpt-5", "o1", "o3", "o4", "chatgpt-4o")),
    ("cl100k_base", ("gpt-4", "gpt-3.5", "text-embedding-3", "text-embedding-ada")),
    ("llama3", ("llama-3", "llama3", "meta-llama-3", "deepseek-r1-distill-llama")),
    ("qwen3", ("qwen3-", "qwen2", "qwq", "deepseek-r1-distill-qwen")),
    ("deepseek_v3", ("deepseek-v3", "deepseek-r1", "deepseek-chat", "deepseek-reasoner")),
    ("gemma3", ("gemma-3", "gemini-2")),  # Gemini 2's tokenizer, by Google's word
    ("gemma2", ("gemma-2",)),
    ("glm4", ("glm-4",)),
    ("kimi_k2", ("kimi-k2",)),
    ("phi4", ("phi-4",)),
    ("olmo2", ("olmo-2",)),
    ("mistral_v2", ("mixtral-8x22b", "mistral-7b-instruct-v0.3", "open-mixtral-8x22b")),
    ("mistral_v1", ("mixtral", "mistral-7b", "open-mistral-7b", "open-mixtral")),
    ("mistral_v3", ("mistral-", "ministral", "magistral", "devstral", "pixtral", "open-mistral-nemo")),
)
"""Vocabulary → how the names of its models begin, the first match holds. A model that is not here stays unknown."""

_ASKED: Final = ("system", "instructions", "messages", "prompt", "input", "contents")
_IN_A_MESSAGE: Final = ("role", "name", "content", "text", "parts")  # never images, files or the like
_ANSWERED: Final = tuple(
    tuple(path.split("."))
    for path in (
        *("choices.delta.content", "choices.delta.reasoning_content", "choices.delta.tool_calls.function.arguments"),
        *("choices.message.content", "choices.message.reasoning_content", "choices.text"),
        "choices.message.tool_calls.function.arguments",
        *("delta", "output.content.text", "output.arguments"),  # the Responses API
        *("delta.text", "delta.thinking", "delta.partial_json", "content.text", "content.thinking"),  # Anthropic
        "candidates.content.parts.text",  # Google
        *("contentBlockDelta.delta.text", "output.message.content.text"),  # Bedrock
        *("delta.message.content.text", "message.content.text"),  # Cohere
        *("message.content", "message.thinking", "response"),  # Ollama
        "content",  # LangChain
    )
)
"""Where answers and their chunks keep text."""

_PER_MESSAGE, _PER_ANSWER = 3, 3  # what OpenAI's chat format puts around each message, and before the answer
_LONGEST: Final = 1 << 22  # characters; a longer text is not counted: that would take the app's time

_log = logging.getLogger("millicent.sdk")


class Estimate:
    """Listens to one call. Holds its texts until the call ends, and counts them only if nobody else did."""

    __slots__ = ("_asked", "_heard", "_length")

    def __init__(self, asked: Mapping[str, Any]) -> None:
        """Remember what was asked.

        Args:
            asked: The arguments of the call by name; `messages`, `prompt`, `input` and the like are read.
        """
        self._asked = {name: asked[name] for name in _ASKED if asked.get(name) is not None}
        self._heard: list[str] = []
        self._length = 0

    def hear(self, item: object) -> None:
        """Take the text out of an answer, or out of a chunk of one."""
        if self._length <= _LONGEST:
            for words in _texts_of(item):
                self._heard.append(words)
                self._length += len(words)

    def counts(self, model: str | None, known: Counts, operation: str) -> Counts:
        """Return the totals that are not known yet. Empty where the model's vocabulary is not at hand."""
        vocabulary = vocabulary_of(model)
        tokenizer = None if vocabulary is None else _tokenizer(vocabulary)
        if tokenizer is None:
            return {}
        found: Counts = {}
        if key.INPUT not in known and self._asked:
            asked = [_strings(value) for value in self._asked.values()]
            messages = [look_into(message) for message in items(self._asked.get("messages"))]
            framing = sum(_PER_MESSAGE + (message("name") is not None) for message in messages)
            found |= _counted(key.INPUT, tokenizer, [words for texts in asked for words in texts], framing)
            if framing and found:
                found[key.INPUT] += _PER_ANSWER
        if key.OUTPUT not in known and self._heard and operation != "embeddings":
            found |= _counted(key.OUTPUT, tokenizer, ["".join(self._heard)], 0)
        return found


def prepare() -> None:
    """Import the tokenizers before the first call; say so once where they are not installed."""
    _library()


def vocabulary_of(model: str | None) -> str | None:
    """Return the vocabulary of a model by the last part of its name; None where it is not at hand."""
    name = (model or "").rpartition("/")[2].lower()
    return next((vocabulary for vocabulary, starts in VOCABULARIES if name.startswith(starts)), None)


@functools.cache
def _tokenizer(vocabulary: str) -> Any:
    library = _library()
    return library and library.Tokenizer.from_pretrained(vocabulary)


@functools.cache
def _library() -> Any:
    try:
        return importlib.import_module("splintr")
    except ImportError:
        _log.warning("Tokens cannot be estimated: install millicent-sdk[estimate]. Calls without usage stay unknown.")
        return None


def _counted(attribute: str, tokenizer: Any, texts: list[str], framing: int) -> Counts:
    if sum(map(len, texts)) > _LONGEST:
        return {}
    return {attribute: framing + sum(len(tokenizer.encode_ordinary(words)) for words in texts)}


def _strings(asked: Any) -> Iterator[str]:
    """Yield the texts in messages, or in whatever else a prompt may be."""
    if isinstance(asked, str):
        yield asked
    elif isinstance(asked, list | tuple):
        for part in asked:
            yield from _strings(part)
    else:
        look = look_into(asked)
        for name in _IN_A_MESSAGE:
            yield from _strings(look(name)) if look(name) is not None else ()


def _texts_of(item: object) -> Iterator[str]:
    if isinstance(item, str):
        if not item.startswith("data:"):
            yield item
            return
        try:
            item = json.loads(item[len("data:") :])
        except ValueError:
            return
    look = look_into(item)
    if "audio" in (text(look, "type") or ""):
        return  # sound, in letters
    for path in _ANSWERED:
        yield from _along(look, path)


def _along(look: Look, path: tuple[str, ...]) -> Iterator[str]:
    value = look(path[0])
    if value is None:
        return
    for part in items(value) or (value,):
        if len(path) > 1:
            yield from _along(look_into(part), path[1:])
        elif isinstance(part, str):
            yield part

"""The providers' own packages: their objects, made from the JSON of the wire, read as that JSON does."""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from millicent.sdk import attributes as key
from millicent.sdk import track_tokens
from millicent.sdk.readers import NOTHING, read

CASES = json.loads((Path(__file__).parents[1] / "fixtures" / "sdk" / "usages.json").read_text("utf-8"))


def package(name):
    return pytest.importorskip(name, reason=f"{name} is not among the development packages")


def anthropic(answer):
    types = package("anthropic.types")
    return types.Message.model_validate(
        {"role": "assistant", "content": [], "stop_reason": "end_turn", "stop_sequence": None, **answer}
    )


def google(answer):
    return package("google.genai.types").GenerateContentResponse.model_validate(answer)


def google_embeddings(answer):
    return package("google.genai.types").EmbedContentResponse.model_validate(answer)


def mistral(answer):
    client = package("mistralai.client.models")
    message = {"role": "assistant", "content": "…"}
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    return client.ChatCompletionResponse.model_validate({"created": 1, "choices": choices, **answer})


def cohere(answer):
    package("cohere")
    construct = importlib.import_module("cohere.core.unchecked_base_model").construct_type
    kind = "V2ChatResponse" if "usage" in answer else "NonStreamedChatResponse"
    kind = "EmbedByTypeResponse" if "embeddings" in answer else kind
    return construct(type_=getattr(importlib.import_module("cohere"), kind), object_=answer)


def ollama(answer):
    message = {"role": "assistant", "content": "…"}
    return package("ollama").ChatResponse.model_validate({**answer, "message": message})


def langchain(answer):
    about = {name: part for name, part in answer.items() if name != "type"}
    return package("langchain_core.messages").AIMessage(content="…", **about)


def litellm(answer):
    types = package("litellm.types.utils")
    return types.ModelResponse(model=answer["model"], usage=types.Usage(**answer["usage"]))


def openai_chat(answer):
    return package("openai.types.chat").ChatCompletion.model_validate({"created": 1, **answer})


def openai_images(answer):
    return package("openai.types").ImagesResponse.model_validate(answer)


def openai_transcription(answer):
    return package("openai.types.audio").Transcription.model_validate(answer)


def xai(answer):
    usage = package("xai_sdk.proto").usage_pb2.SamplingUsage(**answer["usage"])
    return SimpleNamespace(id=answer["id"], usage=usage)


OBJECTS = {
    "openai with audio and images": openai_chat,
    "xai leaves reasoning out": openai_chat,
    "deepseek": openai_chat,
    "moonshot": openai_chat,
    "vllm without details": openai_chat,
    "sglang": openai_chat,
    "openai images": openai_images,
    "openai transcription": openai_transcription,
    "anthropic on bedrock's invoke": anthropic,
    "gemini that thinks and uses tools": google,
    "gemini whose total has more than its parts": google,
    "gemini that ran out of tokens while thinking": google,
    "gemini embeddings on vertex": google_embeddings,
    "mistral": mistral,
    "cohere bills less than it reads": cohere,
    "cohere, version 1": cohere,
    "cohere embeddings": cohere,
    "ollama": ollama,
    "langchain's message": langchain,
    "langchain's cache writes by lifetime": langchain,
    "langchain's message of old": langchain,
    "litellm, of anthropic": litellm,
    "xai's package": xai,
}


@pytest.mark.filterwarnings("ignore")  # of the packages, at their import
@pytest.mark.parametrize("name", OBJECTS)
def test_a_packages_object_reads_as_the_wire_does(name):
    case = CASES[name]
    reading = read(OBJECTS[name](case["answer"]))
    assert reading.usage == case["tokens"]
    assert reading.model == read(case["answer"]).model


@pytest.mark.filterwarnings("ignore")
def test_langchain_adds_its_own_chunks_up_as_we_do():
    messages = package("langchain_core.messages")
    chunks = [
        messages.AIMessageChunk(content="a", usage_metadata={"input_tokens": 9, "output_tokens": 0, "total_tokens": 9}),
        messages.AIMessageChunk(content="b"),
        messages.AIMessageChunk(content="", usage_metadata={"input_tokens": 0, "output_tokens": 5, "total_tokens": 5}),
    ]
    reading = NOTHING
    for chunk in chunks:
        reading = read(chunk, reading)
    summed = (chunks[0] + chunks[1] + chunks[2]).usage_metadata
    assert reading.usage == {key.INPUT: summed["input_tokens"], key.OUTPUT: summed["output_tokens"]}


@pytest.mark.filterwarnings("ignore")
def test_litellm_names_the_provider_behind_it():
    types = package("litellm.types.utils")
    answer = types.ModelResponse(model="gpt-4o", usage=types.Usage(prompt_tokens=1, completion_tokens=1))
    answer._hidden_params["custom_llm_provider"] = "azure"
    assert read(answer).provider == "azure.ai.openai"


@pytest.mark.filterwarnings("ignore")
def test_amazons_own_event_stream_is_heard(spans):
    EventStream = package("botocore.eventstream").EventStream  # noqa: N806  # a class

    class Fed(EventStream):
        """Without the bytes: what the parser would have made of them."""

        def __init__(self):
            self._raw_stream = SimpleNamespace(close=lambda: None)

        def _create_raw_event_generator(self):
            yield from ({"messageStart": {}}, {"metadata": {"usage": {"inputTokens": 3, "outputTokens": 4}}})

        def _parse_event(self, event):
            return event

        def __iter__(self):
            for event in self._create_raw_event_generator():
                yield self._parse_event(event)

    Fed.__module__ = EventStream.__module__
    for _ in track_tokens(lambda: {"stream": Fed(), "ResponseMetadata": {}})()["stream"]:
        pass
    assert (spans.only.attributes[key.INPUT], spans.only.attributes[key.OUTPUT]) == (3, 4)

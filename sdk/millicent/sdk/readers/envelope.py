"""What stands around an answer: the provider's identifier of the request, in headers or on an exception."""

from collections.abc import Mapping
from typing import Final

from millicent.sdk import attributes as key
from millicent.sdk.readers.wire import Reading, look_into, text

_HEADERS: Final = {
    "request-id": key.ANTHROPIC_REQUEST_ID,
    "x-amzn-requestid": key.AWS_REQUEST_ID,
    "x-request-id": key.REQUEST_ID,
}


def of_stream(stream: object) -> Reading:
    """Read the headers that a provider's stream came with."""
    headers = getattr(getattr(stream, "response", None), "headers", None)
    if isinstance(headers, Mapping):
        for name, attribute in _HEADERS.items():
            value = headers.get(name)
            if isinstance(value, str) and value:
                return Reading(request_id=value, request_attribute=attribute)
    return Reading()


def of_error(error: BaseException) -> Reading:
    """Read the identifier that the exceptions of OpenAI's, Anthropic's and Amazon's packages carry."""
    attribute = key.REQUEST_ID
    request_id = text(look_into(error), "request_id")
    if type(error).__module__.startswith("anthropic"):
        attribute = key.ANTHROPIC_REQUEST_ID
    elif request_id is None and isinstance(answer := getattr(error, "response", None), dict):
        attribute, request_id = key.AWS_REQUEST_ID, text(look_into(answer.get("ResponseMetadata")), "RequestId")
    return Reading(request_id=request_id, request_attribute=request_id and attribute)

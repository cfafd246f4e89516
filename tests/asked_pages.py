"""Pages without a screen: what their callbacks answer, and what is in it."""

import json
from typing import Any

from starlette.testclient import TestClient

Response = dict[str, dict[str, Any]]
"""By id, its properties."""


def callback(site: TestClient, output: str, /, most_bytes: int | None = None, **told: Any) -> Response:
    """What the one callback that has an output answers.

    Args:
        site: the application.
        output: an output, or what its name holds.
        most_bytes: what the answer has to be smaller than.
        told: inputs and states by the end of their ids, behind the last hyphen; what is not told is nothing.
    """
    known = site.get("/_dash-dependencies").json()
    (found,) = (one for one in known if output in one["output"] and not one.get("clientside_function"))
    names = [part.rsplit(".", 1) for part in found["output"].strip(".").split("...")]
    outputs = [{"id": name, "property": prop} for name, prop in names]
    given = {kind: [{**one, "value": told.get(one["id"].rpartition("-")[2])} for one in found[kind]]
             for kind in ("inputs", "state")}  # fmt: skip
    first = given["inputs"][0]
    body = {"output": found["output"], "outputs": outputs if found["output"].startswith("..") else outputs[0],
            "changedPropIds": [f"{first['id']}.{first['property']}"], **given}  # fmt: skip
    headers = {"sec-fetch-site": "same-origin", "content-type": "application/json"}
    answer = site.post("/_dash-update-component", content=json.dumps(body), headers=headers)
    assert answer.status_code == 200, answer.text
    assert most_bytes is None or len(answer.content) < most_bytes
    response: Response = answer.json()["response"]
    return response


def flat(response: Response) -> dict[str, Any]:
    """By `id.property`, its value."""
    return {f"{name}.{prop}": value for name, of in response.items() for prop, value in of.items()}


def words(component: Any) -> str:
    """All text of a component or of its JSON, in order."""
    if isinstance(component, str | int):
        return str(component)
    if isinstance(component, list | tuple):
        return " ".join(filter(None, map(words, component)))
    if isinstance(component, dict):
        return words(component.get("props", {}).get("children"))
    return words(getattr(component, "children", None)) if component is not None else ""


def every(component: Any, name: str) -> list[Any]:
    """The values of a property of everything inside the JSON of a component."""
    if isinstance(component, list):
        return [value for one in component for value in every(one, name)]
    if not isinstance(component, dict):
        return []
    props = component.get("props", {})
    return ([props[name]] if name in props else []) + every(props.get("children"), name)

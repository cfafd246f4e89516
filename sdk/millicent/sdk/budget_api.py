"""The two addresses of the server that budgets need, over one connection that is kept open."""

import json
from collections.abc import Callable
from typing import Any, Final

ANSWER_S: Final = 5.0
"""How long the server is waited for; what comes too late for one caller serves the next."""


class RefusedError(Exception):
    """The server answered, and not with what was asked for."""


class BudgetApi:
    """One connection to the server, of one thread."""

    def __init__(self, reach: Callable[[], tuple[str, str | None]]) -> None:
        self._reach = reach
        self._connection: Any = None

    def post(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send JSON to `/api/v1/budgets/<what>` and return the JSON that comes back.

        Raises:
            RefusedError: It answered with another status.
            Exception: Whatever else kept it from answering.
        """
        url, key = self._reach()
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        is_new = self._connection is None
        path = self._connect(url)
        try:
            answer = self._send(f"{path}/api/v1/budgets/{what}", json.dumps(body), headers)
        except ConnectionError:
            if is_new:
                raise
            self._connect(url)  # the server has closed the idle one
            answer = self._send(f"{path}/api/v1/budgets/{what}", json.dumps(body), headers)
        status, content = answer
        if status != 200:
            raise RefusedError(f"{status} {_detail(content)}")
        told = json.loads(content)
        if not isinstance(told, dict):
            raise TypeError(f"{url} does not answer as Millicent does")
        return told

    def _connect(self, url: str) -> str:
        import http.client  # noqa: PLC0415  # only those who ask for it pay for it
        from urllib.parse import urlsplit  # noqa: PLC0415  # as above

        parts = urlsplit(url)
        if self._connection is None:
            kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            self._connection = kind(parts.hostname or "", parts.port, timeout=ANSWER_S)
        return parts.path.rstrip("/")

    def _send(self, path: str, body: str, headers: dict[str, str]) -> tuple[int, bytes]:
        try:
            self._connection.request("POST", path, body, headers)
            answer = self._connection.getresponse()
            content = answer.read(1 << 20)
            if answer.will_close or not answer.isclosed():
                self._close()
        except BaseException:
            self._close()
            raise
        return answer.status, content

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _detail(content: bytes) -> str:
    try:
        return str(json.loads(content)["detail"])[:200]
    except Exception:  # noqa: BLE001  # another server's page
        return "and no reason"

"""The whole product as a user runs it: `millicent up` in a process tree of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

PATIENCE_S = 60


def wait_for(what: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """Ask until there is an answer."""
    until = time.monotonic() + patience_s
    while not (found := what()):
        assert time.monotonic() < until, f"waited {patience_s} s in vain"
        time.sleep(0.02)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Instance:
    """One installation; it may be killed and started again on the same data and ports, or is a demo on its own."""

    data: Path
    flags: tuple[str, ...] = ("--insecure-local",)
    port: int = field(default_factory=free_port)
    otlp_port: int = field(default_factory=free_port)
    grpc_port: int = field(default_factory=free_port)
    headers: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    command: str = "up"
    process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def otlp(self) -> str:
        return f"http://127.0.0.1:{self.otlp_port}"

    @property
    def words(self) -> tuple[str, ...]:
        return ("demo",) if self.command == "demo" else ("up", "--data", str(self.data), *self.flags)

    @property
    def log(self) -> str:
        return self.data.with_suffix(".log").read_text()

    def start(self) -> "Instance":
        with self.data.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "millicent.dashboard.cli", *self.words, "--port", str(self.port),
                 "--otlp-port", str(self.otlp_port), "--grpc-port", str(self.grpc_port)],
                stdout=log, stderr=log, start_new_session=True, env=os.environ | self.environment,
            )  # fmt: skip
        return self

    def wait_ready(self) -> "Instance":
        wait_for(lambda: self.answers(self.otlp + "/readyz") and self.answers(self.url + "/readyz"))
        return self

    def answers(self, url: str) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        try:
            return httpx.get(url, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def get(self, path: str, **params: Any) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=params, headers=self.headers, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def kill(self) -> None:
        """SIGKILL to the whole tree, as a power cut would."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        assert self.process.wait(timeout=PATIENCE_S) in (0, -signal.SIGTERM), self.log


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Instance]:
    """Not started yet."""
    instance = Instance(tmp_path / "data")
    yield instance
    if instance.process is not None and instance.process.poll() is None:
        instance.kill()


@pytest.fixture
def running(installation: Instance) -> Instance:
    return installation.start().wait_ready()


@pytest.fixture(name="wait_for")
def wait_for_fixture() -> Callable[..., Any]:
    return wait_for


@pytest.fixture(scope="session")
def make_instance() -> type[Instance]:
    return Instance

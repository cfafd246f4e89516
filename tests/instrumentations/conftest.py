"""Real packages in processes of their own, between a provider that keeps books and the running product."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("program.py")
INSTALL_S, RUN_S = 600, 180


def load(path: Path) -> ModuleType:
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def python(venv: str) -> Path:
    """The interpreter of one of .venvs, made where it is not there yet."""
    stamp = Path(".venvs", venv, ".installed")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    make = ["make", "--silent", str(stamp), f"PYTHON={sys.executable}"]
    done = subprocess.run(make, cwd=ROOT, env=env, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    assert done.returncode == 0, f"make {stamp} failed: {done.stdout}{done.stderr}"
    return ROOT / stamp.with_name("bin") / "python"


@pytest.fixture(scope="module")
def provider() -> Iterator[Any]:
    with load(PROGRAM.with_name("provider.py")).Provider() as serving:
        yield serving


@pytest.fixture(scope="session")
def system() -> ModuleType:
    """How the product is run and waited for, as tests of the whole system do."""
    return load(ROOT / "tests" / "system" / "conftest.py")


@pytest.fixture(scope="session")
def wait_for(system) -> Any:
    return system.wait_for


@pytest.fixture(scope="module")
def instance(system, tmp_path_factory) -> Iterator[Any]:
    """One installation for all programs: each has a service.name of its own."""
    running = system.Instance(tmp_path_factory.mktemp("instrumentations") / "data").start().wait_ready()
    yield running
    running.kill()


@pytest.fixture(scope="module")
def runs(request, provider, instance) -> Iterator[dict[str, Future]]:
    """Programs that the chosen tests ask for, by name: each started as soon as a core is free."""
    asked = {
        item.callspec.params["program"].name: item.callspec.params["program"]
        for item in request.session.items
        if item.path == request.path and hasattr(item, "callspec")
    }
    with ThreadPoolExecutor(os.cpu_count()) as cores:
        pythons = {venv: cores.submit(python, venv) for venv in sorted({program.venv for program in asked.values()})}
        yield {
            name: cores.submit(run, program, pythons[program.venv], provider, instance)
            for name, program in asked.items()
        }


@pytest.fixture
def ended(program, runs, instance, wait_for) -> Any:
    """The program under test, after it ended well and all that it sent is loaded."""
    done = runs[program.name].result()
    assert done.returncode == 0, done.stderr[-4000:]
    wait_for(lambda: instance.get("balance")["in_spool"] == 0)
    return program


def run(program: Any, interpreter: Future[Path], provider: Any, instance: Any) -> subprocess.CompletedProcess[str]:
    inherited = {name: os.environ[name] for name in ("HOME", "LD_LIBRARY_PATH", "PATH", "TMPDIR") if name in os.environ}
    through = {name: provider.url for name in ("HTTP_PROXY", "http_proxy")}
    beside = dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1")
    keys = dict.fromkeys(("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"), program.name)
    environment = {
        "OPENAI_BASE_URL": "http://api.openai.com/v1",
        "ANTHROPIC_BASE_URL": "http://api.anthropic.com",
        "GEMINI_BASE_URL": "http://generativelanguage.googleapis.com",
        "OTEL_EXPORTER_OTLP_ENDPOINT": instance.otlp,
        "OTEL_RESOURCE_ATTRIBUTES": f"service.name={program.name},millicent.team=Team {program.name}",
        "MILLICENT_ENDPOINT": instance.otlp,
        "LANGFUSE_BASE_URL": instance.otlp,
        "LANGFUSE_HOST": instance.otlp,
        "LANGFUSE_PUBLIC_KEY": "public",
        "LANGFUSE_SECRET_KEY": "secret",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "OTEL_EXPORTER": "otlp_http",  # LiteLLM's own
        "OTEL_ENDPOINT": f"{instance.otlp}/v1/traces",  # likewise
        "PYTHONPATH": str(ROOT / "sdk"),
    }
    return subprocess.run(
        [interpreter.result(), PROGRAM, ",".join(program.instrumentations), ",".join(program.calls)],
        env=inherited | through | beside | keys | environment | dict(program.environment),
        timeout=RUN_S, capture_output=True, text=True, check=False,
    )  # fmt: skip

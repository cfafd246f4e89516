"""What every test may use, and the one mistake that would hide half of the packages."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parent.parent

# A busy machine is no reason to fail: nothing is timed in tests.
settings.register_profile("millicent", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("millicent")


def pytest_configure() -> None:
    found = [str(path.relative_to(ROOT)) for path in ROOT.glob("*/millicent/__init__.py")]
    if found:
        raise pytest.UsageError(f"{found[0]}: delete it; `millicent` is a namespace shared by several folders")


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fake_openai_module() -> ModuleType:
    return _load("fake_openai")


@pytest.fixture
def fake_openai(fake_openai_module) -> Iterator:
    """A running OpenAI-compatible server on a free port; see tests/fake_openai.py for what can be set."""
    with fake_openai_module.FakeOpenAI() as server:
        yield server


@pytest.fixture(scope="session")
def fake_nvml_module() -> ModuleType:
    """Stand-ins for the libraries of accelerators; see tests/fake_nvml.py."""
    return _load("fake_nvml")


@pytest.fixture(scope="session")
def fake_engine_module() -> ModuleType:
    return _load("fake_engine")


@pytest.fixture
def fake_engine(fake_engine_module) -> Iterator[Callable]:
    """Makes running engines and exporters by their names; see tests/fake_engine.py for what can be set."""
    with ExitStack() as running:
        yield lambda *told, **more: running.enter_context(fake_engine_module.FakeEngine(*told, **more))


@pytest.fixture(scope="session")
def make_backend() -> type:
    """See tests/fake_backend.py."""
    made: type = _load("fake_backend").Backend
    return made


@pytest.fixture
def backend(make_backend) -> Iterator:
    """A running back end on a free port."""
    server = make_backend()
    yield server
    server.close()

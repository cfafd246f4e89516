"""Documentation under test: the reference is what the code says, everything has words, links and commands are real."""

import ast
import re
import shlex
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from millicent.collector import receiver
from millicent.collector.loader import Loader
from millicent.collector.spool import SpoolReader
from millicent.collector.telemetry import METRICS
from millicent.dashboard import demo, reference, reference_api, serve
from millicent.dashboard.settings import Settings
from millicent.warehouse import record, rules
from millicent.warehouse.metrics import DICTIONARY
from millicent.warehouse.store import Warehouse

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "sdk").glob("*.md")])
COMMANDS = dict(reference.walk())
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(*languages: str) -> list:
    """Fenced blocks of every page in these languages."""
    return [
        pytest.param(text, id=f"{page.relative_to(ROOT)}:{at}")
        for page in PAGES
        for at, (language, text) in enumerate(FENCE.findall(page.read_text("utf-8")))
        if language in languages
    ]


# ---- the reference is written from the code


@pytest.mark.parametrize("name", reference.PAGES)
def test_a_reference_page_is_what_the_code_says(name):
    assert (REFERENCE / name).read_text("utf-8") == reference.PAGES[name](), "run make docs"


def test_no_reference_page_is_left_of_what_is_gone():
    assert {path.name for path in REFERENCE.iterdir()} == set(reference.PAGES)


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """The real application over a day of example calls."""
    folder = tmp_path_factory.mktemp("docs")
    warehouse = Warehouse.embedded(folder)
    demo.declare(warehouse, datetime.now(UTC))
    next(demo.history(warehouse, datetime.now(UTC)))
    rule = {"when": [{"field": "service", "is": "x"}], "sets": {"team": "y"}}
    warehouse.control.add_rule(rules.read(rule))
    loader = Loader(warehouse, SpoolReader(folder / "spool"))
    server = serve.application(warehouse, loader.spool, loader, insecure_local=True)
    client = TestClient(server, base_url="http://127.0.0.1:8050")
    (call,) = client.get("/api/v1/calls", params={"limit": 1}).json()["calls"]

    def get(path: str):
        if path.endswith(("/suggest", "/simulate")):
            budget = {"period": "day"} | ({"amount": "100"} if path.endswith("/simulate") else {})
            return client.post(path, json={"budget": budget}, headers={"sec-fetch-site": "same-origin"}).json()
        asked = {"measures": "calls", "period": "9w"} if path.endswith("/query") else {}
        if path.endswith(("/check", "/changes", "/reread")):
            asked = {"start": call["started_at"], "end": datetime.now(UTC).isoformat()}
        return client.get(path.format(**call, rule_id=1, budget_id=1), params=asked).json()

    yield get
    warehouse.close()


@pytest.mark.parametrize("path", reference_api.ANSWERS)
def test_an_answer_has_the_keys_that_the_reference_lists(answers, path):
    answer = answers(path)
    for under, listed in reference_api.ANSWERS[path].items():
        part = answer[under] if under else answer
        told = part[0] if isinstance(part, list) and part else part
        names = {name for name in listed if " " not in name}
        if reference_api.CALL[0] in listed:
            names |= {column.name for column in record.CALLS}
        if told and names:
            assert set(told) == names, under


def test_every_path_of_the_api_is_described():
    paths = reference_api.described().openapi()["paths"]
    by_schema = {
        path for path, methods in paths.items() if all(reference_api.schema_of(one) for one in methods.values())
    }
    assert set(paths) == by_schema | reference_api.ANSWERS.keys()
    assert not by_schema & reference_api.ANSWERS.keys()


# ---- everything has words


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_and_its_options_have_help(words):
    assert COMMANDS[words].help
    for given in COMMANDS[words].params:
        assert given.name == "help" or given.help, given.name


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_setting_has_a_description(name):
    assert Settings.model_fields[name].description


def test_measures_columns_metrics_and_attributes_have_words():
    for measure in DICTIONARY.values():
        assert measure.words.endswith("."), measure.name
        assert measure.label, measure.name
    for column in record.CALLS:
        assert column.meaning, column.name
    for metric in METRICS:
        assert metric.help, metric.name
    for family in reference.platform_metrics():
        assert family.documentation, family.name
    for rows in reference.written(reference.SOURCES / reference.ATTRIBUTES).values():
        for key, meaning in rows:
            assert meaning, key


def test_every_route_of_the_receiver_is_in_the_reference():
    page = reference_api.api()
    assert [route.path for route in receiver.ROUTES if f"`{route.method} {route.path}`" not in page] == []


# ---- what pages say can be followed

LINK = re.compile(r"(?<!\\)\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    text = FENCE.sub("", page.read_text("utf-8"))
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("text", blocks("sh", "bash"))
def test_commands_exist(text):
    for line in text.replace("\\\n", " ").splitlines():
        for call in re.findall(r"\$\((.*?)\)", line):
            check(shlex.split(call))
        check(shlex.split(line, comments=True))


def check(words: list[str]) -> None:
    """One shell command: what it names must be there."""
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    if not words:
        return
    program = words[0].removeprefix(".venv/bin/")
    if program == "make":
        targets = re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert set(words[1:]) <= set(targets), words
    elif program == "python" and words[1] != "app.py":
        assert (ROOT / words[1]).exists(), words
    elif program == "millicent":
        length = next((n for n in (3, 2, 1) if tuple(words[1 : n + 1]) in COMMANDS), 0)
        assert length, f"{words}: no such command"
        options = {name for given in COMMANDS[tuple(words[1 : length + 1])].params for name in given.opts}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options, words


@pytest.mark.parametrize("text", blocks("python"))
def test_python_compiles(text):
    ast.parse(text)


# ---- each dependency is accounted for


def test_the_table_of_libraries_is_complete():
    page = (ROOT / "docs" / "decisions" / "0002-libraries.md").read_text("utf-8")
    told = re.findall(r"^\| `([a-z0-9-]+)` \| .+ \|$", page, re.MULTILINE)
    declared = []
    for project in ("pyproject.toml", "sdk/pyproject.toml"):
        settings = tomllib.loads((ROOT / project).read_text("utf-8"))["project"]
        extras = settings.get("optional-dependencies", {}).values()
        wanted = [*settings["dependencies"], *(one for extra in extras for one in extra)]
        declared += [re.match(r"[a-z0-9-]+", one)[0] for one in wanted]
    assert sorted(told) == sorted(declared)

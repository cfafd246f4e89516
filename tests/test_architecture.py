"""The rules of the house that a machine can hold: where imports point, where SQL and money live, what is not named."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import get_args

import pytest

from millicent.collector import receiver
from millicent.dashboard import access

ROOT = Path(__file__).parents[1]
PLATFORM = ("pricing", "warehouse", "collector", "dashboard")
FOLDERS = (*PLATFORM, "sdk", "tests", "examples", "benchmarks", "docs", "locks", ".ci")
MADE = {"__pycache__", "vendor", ".hypothesis", ".pytest_cache"}
"""Folders that hold what tools made, not what anybody wrote."""
TEXT = {".py", ".pyi", ".md", ".toml", ".txt", ".csv", ".sql", ".css", ".js", ".svg", ".proto", ".yml", ".json", ""}
CODE = {".py", ".pyi", ".sql", ".css", ".js", ".proto"}
LONGEST = 500
LONGEST_TEST = 650  # cases in rows


def files(*folders: str, suffixes: set[str]) -> list[Path]:
    top = [path for path in ROOT.iterdir() if path.is_file() and path.name != ".git"] if folders == FOLDERS else []
    below = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return sorted(p for p in (*top, *below) if p.suffix in suffixes and not MADE.intersection(p.parts))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def project(file: str) -> dict:
    return tomllib.loads((ROOT / file).read_text("utf-8"))["project"]


# ---- the two distributions


def test_both_distributions_and_the_sdk_itself_have_one_version():
    attributes = (ROOT / "sdk" / "millicent" / "sdk" / "attributes.py").read_text("utf-8")
    (written,) = re.findall(r'^VERSION: Final = "(.+?)"', attributes, re.MULTILINE)
    assert project("pyproject.toml")["version"] == project("sdk/pyproject.toml")["version"] == written


def test_the_namespace_belongs_to_nobody():
    assert [name(path) for path in ROOT.glob("*/millicent/__init__.py")] == []


def test_imports_point_one_way():
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


BY_ANOTHER_NAME = {
    "httptools": "the receiver extends uvicorn's protocol over it",
    "plotly": "Dash serves its bundle",
    "uvloop": "uvicorn takes it where it is installed",
}
"""Dependencies that no import of ours names."""
BROUGHT_ALONG = {"pydantic": "settings are its models: pydantic-settings cannot be without it"}
"""Imports that no dependency of ours names."""
STANDARD_LATER = {"compression"}
"""In the standard library of a later Python than the oldest that we run on."""


def imported(*folders: str) -> set[str]:
    """Distributions that are imported, by name."""
    modules = set()
    for path in files(*folders, suffixes={".py"}):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules.add(str(node.module))
    known = packages_distributions()
    inside = {"google": "protobuf", "opentelemetry": "opentelemetry-proto"}  # shared by many distributions
    tops = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - STANDARD_LATER - {"millicent"}
    return {inside.get(top) or re.sub(r"[_.]", "-", known[top][0].lower()) for top in tops}


def test_the_platform_declares_what_it_imports_and_imports_what_it_declares():
    declared = {re.match(r"[a-z0-9-]+", one)[0] for one in project("pyproject.toml")["dependencies"]}
    used = imported(*PLATFORM)
    assert used - declared == BROUGHT_ALONG.keys()
    assert declared - used == BY_ANOTHER_NAME.keys()


# ---- files


def test_no_file_is_longer_than_one_can_hold_in_mind():
    lengths = {name(path): len(path.read_text("utf-8").splitlines()) for path in files(*FOLDERS, suffixes=CODE)}
    longest = {path: LONGEST_TEST if path.startswith("tests/") else LONGEST for path in lengths}
    assert {path: lines for path, lines in lengths.items() if lines > longest[path]} == {}


# Written in pieces, so that this file does not hold what it looks for.
ELSEWHERE = {
    "a registry of packages": re.compile("py" + "pi[.]org|python" + "hosted|npm" + "js[.]|npm" + "mirror"),
    "a path of one machine": re.compile(r"(?<![\w.~*/-])/(wo" + r"rk|ro" + r"ot|home/\w+|Users/\w+)(?![\w.-])"),
    "a folder beside the repository": re.compile(r"\.\./" + "sha" + "red"),
}


@pytest.mark.parametrize("what", ELSEWHERE)
def test_nothing_is_named_that_a_reader_does_not_have(what):
    texts = ((name(path), path.read_text("utf-8", "replace")) for path in files(*FOLDERS, suffixes=TEXT))
    assert {path: found.group() for path, text in texts if (found := ELSEWHERE[what].search(text))} == {}


# ---- SQL

STATEMENT = re.compile(
    r"\b(SELECT .+ FROM|INSERT INTO|UPDATE .+ SET|DELETE FROM|CREATE TABLE|ALTER|DROP|PRAGMA|WHERE)\b"
)
SQL_BY_HAND = {
    ("warehouse/millicent/warehouse/control.py", "text"): "Alembic's own table, read without importing Alembic",
    ("warehouse/millicent/warehouse/control.py", "f-string"): "pragmas take no parameters; the names are literals",
    ("warehouse/millicent/warehouse/query.py", "literal_column"): "date_trunc's grain, out of a closed list",
}  # fmt: skip
"""Outside embedded.py, where statements meet DuckDB."""


def sql_by_hand(path: Path) -> Iterator[str]:
    """Ways in which a module makes SQL out of text."""
    for node in ast.walk(tree(path)):
        match node:
            case ast.JoinedStr(values=parts):
                if STATEMENT.search(" ".join(str(part.value) for part in parts if isinstance(part, ast.Constant))):
                    yield "f-string"
            case ast.Call(func=ast.Name(id="text"), args=[ast.Constant(value=str(sql)), *_]) if STATEMENT.search(sql):
                yield "text"
            case ast.Call(func=ast.Name(id="text" | "literal_column" as how), args=[ast.JoinedStr(), *_]):
                yield how
            case ast.Call(func=ast.Attribute(attr="execute"), args=[ast.Constant(), *_]):
                yield "execute"


def test_statements_are_values_not_text():
    found = {
        (name(path), how)
        for path in files(*PLATFORM, suffixes={".py"})
        if path.name != "embedded.py"
        for how in sql_by_hand(path)
    }
    assert found == SQL_BY_HAND.keys()


# ---- money

MONEY = (
    *(
        f"pricing/millicent/pricing/{m}.py"
        for m in (
            "rates",
            "tables",
            "layers",
            "explanation",
            "charges",
            "snapshot",
            "hardware",
            "hourly",
            "profiles",
            "allocation",
            "idle",
            "meters",
        )
    ),
    *(
        f"warehouse/millicent/warehouse/{m}.py"
        for m in (
            "query",
            "sums",
            "capacity",
            "rollups",
            "ledger",
            "explain",
            "amending",
            "prices",
        )
    ),
    *(f"collector/millicent/collector/{m}.py" for m in ("charging", "pipeline")),
)
BINARY = re.compile(r"^(float\d*|Float\d*|double|DOUBLE|Double|REAL)$")


@pytest.mark.parametrize("module", MONEY)
def test_money_is_never_a_binary_float(module):
    found = []
    for node in ast.walk(tree(ROOT / module)):
        literal = isinstance(node, ast.Constant) and isinstance(node.value, float)
        named = isinstance(node, ast.Name) and BINARY.match(node.id)
        typed = isinstance(node, ast.Attribute) and BINARY.match(node.attr)
        if literal or named or typed:
            found.append(f"{module}:{node.lineno}: {ast.unparse(node)}")
    assert found == []


# ---- who may come in


def test_every_route_of_the_receiver_has_a_policy():
    assert {route.policy for route in receiver.ROUTES} <= set(get_args(receiver.Policy))
    assert {route.path for route in receiver.ROUTES if route.policy == "public"} == {"/healthz", "/readyz"}


def test_every_policy_of_the_dashboard_is_a_known_one():
    assert {policy for _, policy in access.POLICIES} <= set(get_args(access.Policy))
    assert access.policy("/api/v1/anything") == "read"

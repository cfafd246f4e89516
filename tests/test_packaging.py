"""What `pip install .` brings: both distributions, built as a user's pip would build them."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("pricing", "warehouse", "collector", "dashboard")


@pytest.fixture(scope="module")
def contents(tmp_path_factory) -> dict[str, set[str]]:
    """Files in the wheel of each distribution."""
    out = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    for project in (ROOT, ROOT / "sdk"):
        subprocess.run(command, cwd=project, check=True, capture_output=True)
    return {wheel.name.split("-")[0]: set(zipfile.ZipFile(wheel).namelist()) for wheel in out.glob("*.whl")}


def test_the_platform_carries_all_its_folders_and_every_file_it_reads(contents):
    ours = contents["millicent"]
    for folder in FOLDERS:
        sources = {str(p.relative_to(ROOT / folder)) for p in (ROOT / folder / "millicent").rglob("*") if p.is_file()}
        expected = {name for name in sources if "__pycache__" not in name and "/vendor/" not in name}
        assert expected - ours == set(), folder
    assert not any(name.startswith(("millicent/sdk", "tests", "millicent/__init__")) for name in ours)


def test_the_sdk_carries_itself_alone(contents):
    ours = {name for name in contents["millicent_sdk"] if not name.startswith("millicent_sdk-")}
    assert "millicent/sdk/py.typed" in ours
    assert {name.split("/")[1] for name in ours} == {"sdk"}

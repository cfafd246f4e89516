"""Declaring a deployment on the Accelerators page in a real browser, against the product that runs."""

import shutil
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

PICTURES = Path(__file__).parents[2] / "artefacts"
HOSTILE = "<img src=x onerror=alert(1)>"
COMPUTED_MS = 180_000
TEXTS = (
    ".declaring :is(legend, label > span, summary, button)", ".declaring .effect :is(h3, p, li)",
    ".declaring .effect :is(dt, dd, th, td, small)", ".drawer-head :is(h2, p)", ".undeclared :is(p, b, a)",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(data, tmp_path_factory) -> Path:
    """The same two months, for this file alone: what is declared here stays here."""
    return Path(shutil.copytree(data, tmp_path_factory.mktemp("declaring") / "data"))


def settle(seen):
    expect(seen.page.locator("#accelerators-kpis .kpi strong")).to_have_count(6)
    expect(seen.page.locator(".homes tfoot tr")).to_have_count(1)
    expect(seen.page.locator("#accelerators-declare a")).to_have_count(1)
    return seen.quiet()


def form(seen):
    found = seen.page.get_by_role("dialog").locator("form")
    expect(found).to_be_visible()
    return found


def field(seen, name: str):
    return form(seen).locator(f"[name='{name}']")


def noticed(seen):
    """The notice of what is not declared, unfolded."""
    notice = seen.page.locator(".undeclared")
    notice.locator("summary").click()
    return notice


def declared(product) -> dict[str, dict]:
    told = httpx.get(f"{product.url}api/v1/deployments", timeout=30).json()
    return {one["name"]: one for one in told["deployments"]}


def press(seen, name: str) -> None:
    form(seen).get_by_role("button", name=name, exact=True).click()


def focused(seen) -> str:
    return seen.page.evaluate("document.activeElement.innerText")


def fits(seen) -> bool:
    return seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


# ---- before anything is declared here


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_form_can_be_read_and_tells_an_hour_with_its_sources(visit, contrast, theme):
    seen = settle(visit("accelerators", theme=theme))
    noticed(seen).get_by_role("link", name="Declare lab-l40s").click()
    field(seen, "accelerator").fill("L40S")
    press(seen, "Check")
    expect(form(seen).locator(".problems li")).to_have_count(1)
    for text in TEXTS[:2]:
        assert contrast(seen, text) >= 4.5, text
    field(seen, "rented.usd_per_hour").fill("0.80")
    press(seen, "Check")
    expect(form(seen).locator(".costs dd").first).to_have_text("$0.800")
    expect(form(seen).locator(".effect .lines")).to_contain_text("contract")
    assert focused(seen) == "Check"
    PICTURES.mkdir(exist_ok=True)
    seen.quiet().page.screenshot(path=PICTURES / f"declaring-{theme}-1440x900.png")
    for text in TEXTS:
        assert contrast(seen, text) >= 4.5, text
    assert seen.said == []
    assert seen.foreign == []


def test_every_way_of_paying_shows_its_fields_and_keeps_those_of_the_others(visit):
    seen = settle(visit("accelerators"))
    seen.page.get_by_role("link", name="Declare a deployment").click()
    field(seen, "rented.usd_per_hour").fill("1.25")
    shown = {
        "owned": ["Price, USD each", "Life, years", "Cost of capital", "Residual, USD each"],
        "reserved": ["Contract", "Starts", "Months", "Accelerators *"], "spot": ["Prices: instant"],
        "preset": ["Survey", "Tier"], "rented": ["USD per accelerator-hour"],
    }  # fmt: skip
    for kind, labels in shown.items():
        field(seen, "kind").select_option(kind)
        expect(form(seen).locator("fieldset.paid:visible")).to_have_count(1)
        for label in labels:
            expect(form(seen).locator("fieldset.paid:visible").get_by_label(label)).to_be_visible()
    assert field(seen, "rented.usd_per_hour").input_value() == "1.25"
    unnamed = (
        "[...document.querySelectorAll('.declaring :is(input, select, textarea)')].filter(one => !one.labels.length)"
    )
    assert seen.page.evaluate(f"{unnamed}.length") == 0
    assert seen.said == []


def test_keys_alone_open_it_and_close_it_and_focus_comes_back(visit):
    seen = settle(visit("accelerators"))
    seen.page.get_by_role("link", name="Declare a deployment").focus()
    seen.page.keyboard.press("Enter")
    expect(field(seen, "name")).to_be_visible()
    expect(seen.page.get_by_role("dialog")).to_be_focused()
    seen.page.keyboard.press("Tab")
    seen.page.keyboard.press("Tab")
    seen.page.keyboard.type("typed")
    assert field(seen, "name").input_value() == "typed"
    seen.page.keyboard.press("Enter")  # checks, and stores nothing
    expect(form(seen).locator(".problems")).to_be_visible()
    seen.page.keyboard.press("Escape")
    expect(seen.page.get_by_role("dialog")).to_have_count(0)
    assert focused(seen) == "Declare a deployment"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_a_telephone(visit, theme):
    seen = settle(visit("accelerators?v=1&open=declare%3Fname%3Dx", theme=theme, width=390, height=844))
    assert field(seen, "name").input_value() == "x"
    for kind in ("owned", "reserved", "spot", "preset"):
        field(seen, "kind").select_option(kind)
        assert fits(seen)
    press(seen, "Check")
    expect(form(seen).locator(".problems")).to_be_in_viewport()
    seen.quiet().page.screenshot(path=PICTURES / f"declaring-{theme}-390x844.png")
    assert seen.page.evaluate("document.querySelector('.drawer section').scrollWidth") <= 390
    assert fits(seen)


# ---- and from the notice to its costs


def test_an_undeclared_deployment_is_declared_from_the_notice(visit, product, wait_for):
    seen = settle(visit("accelerators?v=1&order=-idle"))
    noticed(seen).get_by_role("link", name="Declare lab-l40s").click()
    assert field(seen, "name").input_value() == "lab-l40s"
    assert field(seen, "model").input_value() == "llama-3.3-70b"
    typed = {"accelerator": "H9000", "count": "two", "owner": HOSTILE, "metrics": "ftp://x"}
    for name, text in typed.items():
        field(seen, name).fill(text)
    press(seen, "Declare")
    expect(form(seen).locator(".problems li")).to_have_count(4)
    expect(seen.page.locator(".toast.bad")).to_contain_text("4 things are wrong")
    expect(form(seen).get_by_role("button", name="Declare", exact=True)).to_be_enabled()
    assert {name: field(seen, name).input_value() for name in typed} == typed
    assert "lab-l40s" not in declared(product)

    seen.page.locator("#accelerators-range input[value='7d']").check()  # filters leave the form as it is
    seen.quiet()
    assert field(seen, "count").input_value() == "two"
    right = {"accelerator": "L40S", "count": "2", "metrics": "", "rented.usd_per_hour": "0.80"}
    for name, text in right.items():
        field(seen, name).fill(text)
    press(seen, "Declare")
    expect(seen.page.get_by_role("dialog")).to_have_count(0)
    expect(seen.page.locator(".toast.good")).to_contain_text("lab-l40s is declared from")
    expect(seen.page.locator(".undeclared")).to_have_count(0)
    asked = parse_qs(urlsplit(seen.page.url).query)
    assert asked == {"v": ["1"], "p": ["7d"], "order": ["-idle"]}

    kept = declared(product)["lab-l40s"]
    assert (kept["accelerator"], kept["accelerator_count"], kept["owner"]) == ("nvidia-l40s", 2, HOSTILE)
    assert kept["profile"] == {"kind": "rented", "usd_per_hour": "0.80"}
    wait_for(lambda: httpx.get(f"{product.url}api/v1/deployments/lab-l40s/hours", timeout=30).json()["hours"])
    expect(seen.page.locator("#idlest")).to_contain_text("lab-l40s", timeout=COMPUTED_MS)
    expect(seen.page.locator(".homes tbody")).to_contain_text("L40S", timeout=COMPUTED_MS)
    assert focused(seen) == "Declare a deployment"
    assert seen.page.locator("img[src=x]").count() == 0
    assert seen.said == []

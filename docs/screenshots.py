"""Take the pictures of the documentation from a running demo: `python docs/screenshots.py http://127.0.0.1:8050`."""

import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
PAGES = {
    "overview": ("", (".js-plotly-plot .bars path", ".teams tfoot tr", ".limits li")),
    "explore": ("explore", (".js-plotly-plot .bars path", "tfoot tr")),
    "teams": ("teams?v=1&team=Code%20Copilot", ("#main tfoot tr >> nth=1",)),
    "budgets": ("budgets", ("#main tbody tr >> nth=4",)),
    "alerts": ("alerts", ("#main li, #main tbody tr",)),
    "units": ("units", (".js-plotly-plot .bars path", "tbody tr >> nth=8")),
    "accelerators": (
        "accelerators",
        (".compare tbody tr >> nth=6", ".homes tfoot tr", ".energy tfoot tr", "#kpi-energy_wh"),
    ),
    "efficiency": ("efficiency", (".flow .busy", ".hourly tbody tr >> nth=6", ".wasteful tfoot tr")),
    "requests": ("requests?v=1&p=7d", (".calls tbody tr >> nth=20",)),
    "quality": ("quality", (".trust-sources tbody tr", ".trust-own tbody tr")),
    "prices": ("prices", ("#find-body tbody tr >> nth=3", "#entries-body tbody tr", "#pricedata-body dl")),
}
"""Address of each page, and what is there when its numbers are."""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]


def main(url: str) -> None:
    found = subprocess.run([HERE.parent / "tests/browser/chromium"], capture_output=True, text=True, check=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found.stdout.strip(), args=FLAGS)
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme=scheme)
            for name, (path, there) in PAGES.items():
                page.goto(f"{url.rstrip('/')}/{path}")
                for selector in there:
                    page.wait_for_selector(selector)
                page.wait_for_load_state("networkidle")
                page.screenshot(path=HERE / "img" / f"{name}-{scheme}.png", animations="disabled")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])

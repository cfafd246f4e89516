"""Take the pictures of the documentation from a running demo: `python docs/screenshots.py http://127.0.0.1:8050`."""

import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]


def main(url: str) -> None:
    found = subprocess.run([HERE.parent / "tests/browser/chromium"], capture_output=True, text=True, check=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found.stdout.strip(), args=FLAGS)
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme=scheme)
            page.goto(url)
            page.wait_for_selector(".js-plotly-plot .bars path")
            page.wait_for_selector("table tr >> nth=6")
            page.wait_for_load_state("networkidle")
            page.screenshot(path=HERE / "img" / f"overview-{scheme}.png", animations="disabled")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])

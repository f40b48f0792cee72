"""Opens reports in a real browser: report_page.py CHROMIUM PICTURES FILE...

Held against each file: nothing is asked of a network, the console stays silent, no page is wider than its window, charts can be seen in light
and dark, everything can be reached by keyboard, axe-core finds no violation, and all figures are on paper. Pictures are kept in PICTURES.
"""

import sys
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

WIDTHS = {"wide": 1280, "narrow": 390}


def check(is_so: bool, what: str) -> None:
    if not is_so:
        sys.exit(f"error: {what}")


def look(browser, file: Path, pictures: Path) -> int:
    """Opens one report in every way; returns the number of its charts."""
    said, asked = [], []
    url = file.resolve().as_uri()
    charts = 0
    for size, width in WIDTHS.items():
        for scheme in ["light", "dark"]:
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("request", lambda request: asked.append(request.url))
            page.goto(url)
            where = f"{file.name}, {size}, {scheme}"
            overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            check(overflow <= 0, f"{where}: the page is {overflow} pixels wider than its window")
            charts = page.locator("figure").count()
            check(charts > 10, f"{where}: {charts} charts")
            empty = page.evaluate(
                "[...document.querySelectorAll('figure [role=img] svg')].filter(s => s.getBoundingClientRect().height < 50).length"
            )
            check(empty == 0, f"{where}: {empty} charts cannot be seen")
            ink, paper = page.evaluate(
                "(() => { const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]; })()"
            )
            check((sum(map(int, paper[4:-1].split(","))) < 200) == (scheme == "dark"), f"{where}: ink {ink} on {paper}")
            drawn = page.evaluate("getComputedStyle(document.querySelector('figure polyline[stroke=\"#0072B2\"]')).stroke")
            check((drawn == "rgb(0, 114, 178)") == (scheme == "light"), f"{where}: the first series is drawn in {drawn}")
            page.screenshot(path=pictures / f"{file.stem}-{size}-{scheme}.png", full_page=True)
            violations = Axe().run(page).response["violations"]
            check(not violations, f"{where}: axe finds " + "; ".join(f"{v['id']}: {v['nodes'][0]['html'][:120]}" for v in violations))
            # What axe brought is not the page's own.
            page.close()
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(url)
    by_keyboard(page, file.name)
    page.emulate_media(media="print")
    heights = page.evaluate("[...document.querySelectorAll('details table')].map(t => t.getBoundingClientRect().height)")
    check(len(heights) == charts and min(heights) > 20, f"{file.name}: figures of charts are missing on paper: {heights}")
    page.pdf(path=pictures / f"{file.stem}.pdf", format="A4")
    page.close()
    check(not said, f"{file.name}: the console says {said}")
    check(set(asked) == {url}, f"{file.name}: asked for {sorted(set(asked) - {url})}")
    return charts


def by_keyboard(page, name: str) -> None:
    """The first stop is the way past the menu; every table and every chart's figures have a stop of their own."""
    page.keyboard.press("Tab")
    check(page.evaluate("document.activeElement.className") == "skip", f"{name}: the first stop is not the way to the figures")
    page.keyboard.press("Enter")
    check(page.url.endswith("#glance"), f"{name}: the way to the figures leads to {page.url}")
    wanted = page.locator("summary").count() + page.locator(".scroll").evaluate_all(
        "tables => tables.filter(table => !table.closest('details')).length"
    )
    seen = opened = 0
    for _ in range(4 * wanted):
        page.keyboard.press("Tab")
        kind = page.evaluate("document.activeElement.tagName + ' ' + document.activeElement.className")
        if kind.startswith("BODY"):
            break
        in_details = page.evaluate("!!document.activeElement.closest('details') && document.activeElement.tagName != 'SUMMARY'")
        seen += (kind.startswith("SUMMARY") or "scroll" in kind) and not in_details
        if kind.startswith("SUMMARY") and not opened:
            page.keyboard.press("Enter")
            opened = page.locator("details[open]").count()
    check(seen == wanted, f"{name}: {seen} of {wanted} tables and figures can be reached by keyboard")
    check(opened == 1, f"{name}: the figures of a chart do not open by keyboard")


def main() -> None:
    chromium, pictures, *files = sys.argv[1:]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for file in map(Path, files):
            charts = look(browser, file, Path(pictures))
            print(f"{file.name}: {charts} charts at widths {', '.join(map(str, WIDTHS.values()))}, light, dark and on paper: nothing amiss")
        browser.close()


main()

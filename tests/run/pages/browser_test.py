"""Pages as a browser has them: nothing is asked for, nothing sticks out."""

import shutil

import pytest

from meta_pseudo_labels.run.pages.compare import write_comparison
from meta_pseudo_labels.run.pages.report import write_report
from tests.run.pages.synthetic import whole_run

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"There is none of {', '.join(BROWSERS)} here.")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=path, args=["--no-sandbox"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    root = tmp_path_factory.mktemp("pages")
    folders = [
        whole_run(root / f"{method}-{seed}", method=method, seed=seed)
        for method in ("mpl", "uda")
        for seed in range(2)
    ]
    comparison = root / "compare.html"
    write_comparison(folders, comparison)
    return {"report": write_report(folders[0]), "compare": str(comparison)}


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("name", ["report", "compare"])
def test_a_page_is_whole_by_itself(browser, pages, name, width, scheme):
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 800}
    )
    page = context.new_page()
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"file://{pages[name]}")
    asked = [url for url in asked if not url.startswith("data:")]
    assert asked == [f"file://{pages[name]}"] and said == []
    # Wide tables scroll within the page, not the page itself.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    is_dark = sum(map(int, back.strip("rgb()").split(","))) < 3 * 128
    assert is_dark == (scheme == "dark")
    page.keyboard.press("Tab")  # To the first link, which leads to a section.
    page.keyboard.press("Enter")
    assert "#" in page.url
    context.close()

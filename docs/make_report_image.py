"""Makes the README's picture: the top of a report's page, from the store of a real search.

    uv run python docs/make_report_image.py --store cifar_tune_store quickstart

It needs Debian's chromium. The picture has 64 colours, so that the repository stays small.
"""

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

WIDTH, HEIGHT = 1280, 1500  # pixels of the page that are shown
IMAGE = Path(__file__).parent / "images" / "report.png"


def main() -> None:
    """Render the page with the command line, take its picture with a browser, and reduce the colours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("search")
    parser.add_argument("--store", type=Path, default=Path("cifar_tune_store"))
    parser.add_argument("--output", type=Path, default=IMAGE)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        command = ["report", options.search, "--store", options.store, "--format", "html", "--output", page]
        subprocess.run([sys.executable, "-m", "cifar_tune", *map(str, command)], check=True)
        picture = Image.open(io.BytesIO(photograph(page)))
    options.output.parent.mkdir(exist_ok=True)
    picture.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(options.output, optimize=True)
    print(f"{options.output}: {options.output.stat().st_size / 1024:,.0f} KiB")


def photograph(page: Path) -> bytes:
    """The top of the page as a PNG, as a browser with a light scheme draws it."""
    browser_path = shutil.which("chromium")
    if browser_path is None:
        sys.exit("There is no chromium here; on Debian: apt-get install chromium.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        opened.goto(page.as_uri())
        opened.wait_for_load_state("networkidle")
        return opened.screenshot()


if __name__ == "__main__":
    main()

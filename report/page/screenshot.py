"""Take the README's picture of the page with headless Chromium."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parents[1]
PAGE, PICTURE = HERE / "report.html", HERE / "figures" / "page.png"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH, HEIGHT = 1280, 800  # of the first screen
COLORS = 256  # with these a third of the bytes
BAR = 200  # pixels that a window may lose to a bar which no picture shows


def main() -> None:
    browser = next((found for name in NAMES if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit("make page-picture needs Chromium (Debian: apt-get install chromium)")
    if not PAGE.is_file():
        sys.exit(f"make page-picture needs report/{PAGE.name}: make study writes it")
    with tempfile.TemporaryDirectory() as scratch:
        shot = Path(scratch) / "page.png"
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=8000")
        options = (f"--user-data-dir={scratch}/profile", f"--window-size={WIDTH},{HEIGHT + BAR}", f"--screenshot={shot}")
        subprocess.run([browser, *flags, *options, PAGE.as_uri()], check=True, capture_output=True, timeout=120)
        picture = Image.open(shot).convert("RGB").crop((0, 0, WIDTH, HEIGHT))
        picture.quantize(COLORS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    print(f"written: report/figures/{PICTURE.name} ({PICTURE.stat().st_size // 1000} kB)")


if __name__ == "__main__":
    main()

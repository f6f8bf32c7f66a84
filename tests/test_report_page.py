"""The page as a browser shows it, opened from disk: nothing is asked for, everything works, hostile texts stay texts."""

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

import report.build
from tests.study import save_study

BROWSER = shutil.which("chromium")
NEEDS_BROWSER = pytest.mark.skipif(BROWSER is None, reason="no chromium here (Debian's package of that name)")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required", "--enable-logging=stderr"),
    *("--virtual-time-budget=8000", "--dump-dom", "--host-resolver-rules=MAP * ~NOTFOUND"),
)
HOSTILE = """</script><script>window.hit=1</script><img src=x onerror="window.hit=2">[x](javascript:window.hit=3) `|"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page")
    study = save_study(out / "study", texts=2, pairs=40)
    report.build.main(["--lens", str(study / "lens"), "--patching", str(study / "patching"), "--out", str(out / "report")])
    return out / "report"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a report of clips whose texts, ids, speakers, sources, paths and one label are markup and script."""
    out = tmp_path_factory.mktemp("hostile")
    labels = ("happy", "sad", HOSTILE)
    study = save_study(out / "study", labels=labels, texts=2, pairs=20, mark=HOSTILE.replace("|", ""), name=HOSTILE)
    for run in ("lens", "patching"):
        record = json.loads((study / run / "run.json").read_text())
        (study / run / "run.json").write_text(json.dumps(record | {"warnings": [HOSTILE], "prompt_text": HOSTILE}))
    report.build.main(["--lens", str(study / "lens"), "--patching", str(study / "patching"), "--out", str(out / "report")])
    return out / "report"


def opened(page: Path, script: str, scratch: Path, *, width: int = 1280) -> tuple[Any, list[str], list[str]]:
    """Open a page with a script at its end; return what the script does, the console's lines and the addresses asked for.

    The page stands in a frame of that width, as a window is never narrower than 500.
    """
    probe = f"<script>addEventListener('load', async () => {{ const found = {{found: await (async () => {{ {script} }})()}}; "
    probe += "found.asked = performance.getEntriesByType('resource').map((e) => e.name).filter((n) => !n.startsWith('data:')); "
    probe += "console.info('FOUND ' + encodeURIComponent(JSON.stringify(found))); });</script></body>"
    copy, frame = scratch / "page.html", scratch / "frame.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", probe), encoding="utf-8")
    frame.write_text(f'<iframe src="page.html" style="width:{width}px;height:900px" allow="autoplay"></iframe>')
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={scratch / 'profile'}", f"file://{frame}"]
    environment = {**os.environ, "HOME": str(scratch)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    lines = re.findall(r"CONSOLE[:(]\d*[)\]]+ \"(.*)\", source", done.stderr)
    found = [line.removeprefix("FOUND ") for line in lines if line.startswith("FOUND ")]
    assert found, done.stderr[-2000:]
    told = json.loads(unquote(found[0]))
    return told["found"], [line for line in lines if not line.startswith("FOUND ")], told["asked"]


LOOK = """
const fills = () => [...document.querySelectorAll('svg.heat rect')].map((r) => r.style.fill).join();
const list = document.getElementById('list');
const key = (name) => list.dispatchEvent(new KeyboardEvent('keydown', {key: name, bubbles: true}));
const chosen = () => list.querySelector('[aria-selected=true] span').textContent;
const $id = (id) => document.getElementById(id);
const set = (id, value) => { $id(id).value = value; $id(id).dispatchEvent(new Event('change')); };
const drawn = (what) => document.querySelectorAll(what).length;
const count = () => list.children.length;
"""


@NEEDS_BROWSER
@pytest.mark.parametrize("name", ["report.html", "report.zh.html"])
def test_the_page_opens_from_disk_and_works(name: str, folder: Path, tmp_path: Path) -> None:
    script = f"""{LOOK}
    const first = [chosen(), fills(), count()];
    key('ArrowDown');
    const second = [chosen(), fills(), drawn('svg.heat rect'), drawn('svg.curve')];
    document.querySelector('#cells button[data-words="1"][data-voice="3"]').click();
    const cell = [count(), [...list.querySelectorAll('small')].every((s) => s.textContent.startsWith('happy / angry'))];
    set('by-words', ''); set('by-voice', ''); set('by-outcome', 'semantic');
    const semantic = count();
    set('by-outcome', ''); set('sort', 'down');
    const margins = [...list.querySelectorAll('small')].map((s) => Number(s.textContent.split(' ').pop()));
    set('mode', 'prosody');
    const pair = [count(), document.querySelectorAll('#detail audio').length, fills() !== first[1]];
    const sound = document.querySelector('#detail audio');
    const bytes = Uint8Array.from(atob(sound.src.split(',')[1]), (c) => c.charCodeAt(0)).buffer;
    const heard = await new OfflineAudioContext(1, 1, 16000).decodeAudioData(bytes);
    const loud = Math.max(...heard.getChannelData(0).map(Math.abs));
    const played = await sound.play().then(() => true, (e) => String(e));
    const link = document.querySelector('article a[title^="l = "]');
    link.click();
    return {{first, second, cell, semantic, margins, pair, seconds: heard.duration, loud, played,
      marked: document.querySelectorAll('tr.found').length,
      figures: [...document.images].map((i) => i.complete && i.naturalWidth)}};"""
    found, console, asked = opened(folder / name, script, tmp_path)
    assert console == [] and asked == []
    assert found["first"][0] != found["second"][0] and found["first"][1] != found["second"][1]
    assert found["first"][2] == 100 and found["second"][2:] == [5 * 7, 1]
    assert found["cell"] == [4, True] and found["semantic"] == 0
    assert found["margins"] == sorted(found["margins"], reverse=True) and len(found["margins"]) == 100
    assert found["pair"] == [40, 2, True]
    assert 0.2 < found["seconds"] < 0.5 and found["loud"] > 0.1 and found["played"] is True
    assert found["marked"] == 1 and len(found["figures"]) == 2 and min(found["figures"]) > 1400


@NEEDS_BROWSER
def test_the_page_fits_a_phone(folder: Path, tmp_path: Path) -> None:
    script = """return [document.documentElement.scrollWidth, innerWidth, document.querySelector('svg.heat').clientWidth,
      getComputedStyle(document.querySelector('.columns')).gridTemplateColumns.split(' ').length];"""
    (wide, window, heat, columns), console, _ = opened(folder / "report.html", script, tmp_path, width=390)
    assert wide <= window <= 390 and 300 <= heat <= 390 and columns == 1 and console == []


@NEEDS_BROWSER
def test_no_text_of_a_manifest_is_run(hostile: Path, tmp_path: Path) -> None:
    script = f"""{LOOK}
    key('ArrowDown'); set('mode', 'prosody'); key('End');
    document.querySelectorAll('a').forEach((a) => a.href.startsWith('javascript:') && a.click());
    await new Promise((done) => setTimeout(done, 500));
    return [typeof window.hit, document.scripts.length, document.body.textContent.includes('onerror="window.hit=2"'),
      [...document.images].filter((i) => !i.src.startsWith('data:image/png')).length];"""
    for name in ("report.html", "report.zh.html"):
        (hit, scripts, shown, strangers), console, asked = opened(hostile / name, script, tmp_path)
        assert (hit, scripts, shown, strangers) == ("undefined", 3, True, 0) and console == [] and asked == []
        shutil.rmtree(tmp_path / "profile")


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_hostile_texts_make_no_tags_and_no_links(hostile: Path) -> None:
    for name in ("report.html", "report.zh.html"):
        tags = Tags()
        tags.feed((hostile / name).read_text(encoding="utf-8"))
        assert [a.get("type") for tag, a in tags.found if tag == "script"] == ["application/json", None]
        assert all(str(a["src"]).startswith("data:image/png;base64,") for tag, a in tags.found if tag == "img")
        assert not [a for _, a in tags.found if any(k.startswith("on") for k in a)]
        assert all(str(a["href"]).startswith("#") for tag, a in tags.found if tag == "a")
    for end in ("", ".zh"):
        text = (hostile / f"report{end}.md").read_text(encoding="utf-8")
        outside = re.sub(r"^```.*?^```|(`+) ?.*?\1", "", text.replace("\\`", ""), flags=re.M | re.S)
        assert "<script" not in outside and "<img" not in outside and not re.search(r"(?<!\\)\]\(javascript", outside)
        assert "Clips not found" not in text and "找不到样本" not in text


def test_the_page_is_one_small_file_that_asks_for_nothing(folder: Path) -> None:
    for name in ("report.html", "report.zh.html"):
        page = (folder / name).read_text(encoding="utf-8")
        assert len(page) < 10_000_000 and "default-src 'none'" in page
        assert not re.findall(r"(?:src|href)=\"(?!#|data:)[^\"]*\"", page) and "@import" not in page and "fetch(" not in page

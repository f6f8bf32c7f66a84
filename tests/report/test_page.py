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

import pandas as pd
import pytest
from PIL import Image

import report.page.html
from common import plotting
from report.page import screenshot
from report.page.html import PAGE
from report.page.inspector import closer_look, picked
from report.page.svg import inline
from report.runs import read_studies
from tests.helpers.study import Truth, build_report, change_record, save_study

ROOT = Path(__file__).resolve().parents[2]
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
    study = save_study(out / "study", Truth(words=3.5, voice=4.0), texts=2, pairs=40)
    build_report(study, out / "report", audio=True, drawn=True)
    return out / "report"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a report of clips whose texts, ids, speakers, sources, paths and one label are markup and script."""
    out = tmp_path_factory.mktemp("hostile")
    labels = ("happy", "sad", HOSTILE)
    study = save_study(out / "study", labels=labels, texts=2, pairs=20, mark=HOSTILE.replace("|", ""), name=HOSTILE)
    for run in ("lens", "patching"):
        change_record(study / run, warnings=[HOSTILE], prompt_text=HOSTILE)
    build_report(study, out / "report", audio=True)
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
const chosen = () => list.querySelector('[aria-selected=true]').title;
const $id = (id) => document.getElementById(id);
const set = (id, value) => { $id(id).value = value; $id(id).dispatchEvent(new Event('change')); };
const drawn = (what) => document.querySelectorAll(what).length;
const count = () => list.children.length;
"""


@NEEDS_BROWSER
@pytest.mark.parametrize("name", ["report.html", "report.zh.html"])
def test_the_page_opens_from_disk_and_works(name: str, folder: Path, tmp_path: Path) -> None:
    script = f"""{LOOK}
    const cards = [...document.querySelectorAll('.card')].map((c) => c.querySelectorAll('audio, svg.heat').length);
    document.querySelector('.card button').click();
    const opened = chosen() === page.studies[0].picks[0].id;
    set('sort', 'none');
    const first = [chosen(), fills(), count()];
    key('ArrowDown');
    const second = [chosen(), fills(), drawn('#detail svg.heat rect'), drawn('svg.curve')];
    document.querySelector('#cells button[data-words="1"][data-voice="3"]').click();
    const cell = [count(), [...list.querySelectorAll('small')].every((s) => s.textContent.startsWith('happy / angry'))];
    set('by-words', ''); set('by-voice', ''); set('by-outcome', 'semantic');
    const semantic = count();
    set('by-outcome', ''); set('sort', 'down');
    const margins = [...list.querySelectorAll('small')].map((s) => Number(s.textContent.split(' ').pop()));
    set('sort', 'up'); set('mode', 'prosody');
    const flips = [...list.querySelectorAll('small')].map((s) => Number(s.textContent.split(/[ ：]/).pop()));
    const named = [...list.querySelectorAll('span')].every((s) => /^\\w+ → \\w+: “a text”$/.test(s.textContent));
    const pair = [count(), document.querySelectorAll('#detail audio').length, fills() !== first[1]];
    const sound = document.querySelector('#detail audio');
    const bytes = Uint8Array.from(atob(sound.src.split(',')[1]), (c) => c.charCodeAt(0)).buffer;
    const heard = await new OfflineAudioContext(1, 1, 16000).decodeAudioData(bytes);
    const loud = Math.max(...heard.getChannelData(0).map(Math.abs));
    const played = await sound.play().then(() => true, (e) => String(e));
    document.getElementById('contents').open = true;
    const link = document.querySelector('article a[title^="l = "]');
    link.click();
    await new Promise((done) => setTimeout(done, 100));
    const closed = !document.getElementById('contents').open;
    const [shown, marked] = [document.querySelector('tr.found').checkVisibility(), drawn('tr.found')];
    document.getElementById('back').click();
    const back = document.activeElement === link && document.getElementById('back').hidden;
    return {{cards, opened, flips, named, closed, shown, back, first, second, cell, semantic, margins, pair, loud, played, marked,
      seconds: heard.duration, figures: [...document.querySelectorAll('svg.plot')].map((s) => s.clientWidth)}};"""
    found, console, asked = opened(folder / name, script, tmp_path)
    assert console == [] and asked == []
    assert found["cards"] in ([2, 2], [2, 2, 2]) and found["opened"]
    assert found["first"][0] != found["second"][0] and found["first"][1] != found["second"][1]
    assert found["first"][2] == 100 and found["second"][2:] == [5 * 7, 1]
    assert found["cell"] == [4, True] and 0 < found["semantic"] < 80
    assert found["margins"] == sorted(found["margins"], reverse=True) and len(found["margins"]) == 100
    assert found["pair"] == [40, 2, True] and found["named"]
    assert found["flips"] == sorted(found["flips"], reverse=True) and found["flips"][0] > found["flips"][-1]
    assert 0.2 < found["seconds"] < 0.5 and found["loud"] > 0.1 and found["played"] is True
    assert found["marked"] == 1 and found["shown"] and found["back"] and found["closed"]
    assert len(found["figures"]) == 2 and min(found["figures"]) > 300


@NEEDS_BROWSER
def test_the_page_fits_a_phone(folder: Path, tmp_path: Path) -> None:
    script = """return [document.documentElement.scrollWidth, innerWidth, document.querySelector('#detail svg.heat').clientWidth,
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
      document.images.length];"""
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
        assert not [a for tag, a in tags.found if tag in ("img", "iframe", "object", "link") and a.get("rel") != "icon"]
        assert all(str(a["href"]).startswith("#plot") for tag, a in tags.found if tag == "use")
        assert not [a for _, a in tags.found if any(k.startswith("on") for k in a)]
        assert all(str(a["href"]).startswith("#") for tag, a in tags.found if tag == "a")
    for end in ("", ".zh"):
        text = (hostile / f"report{end}.md").read_text(encoding="utf-8")
        outside = re.sub(r"^```.*?^```|(`+) ?.*?\1", "", text.replace("\\`", ""), flags=re.M | re.S)
        assert "<script" not in outside and "<img" not in outside and not re.search(r"(?<!\\)\]\(javascript", outside)
        assert "Clips not found" not in text and "找不到样本" not in text


def tags_of(page: Path) -> list[tuple[str, dict[str, str | None]]]:
    tags = Tags()
    tags.feed(page.read_text(encoding="utf-8"))
    return tags.found


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="closer-data">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert found
    return dict(json.loads(found[1]))


def test_the_page_is_one_small_file_that_asks_for_nothing(folder: Path) -> None:
    for name in ("report.html", "report.zh.html"):
        page = (folder / name).read_text(encoding="utf-8")
        assert len(page.encode()) < PAGE and "default-src 'none'" in page
        assert not re.findall(r"(?:src|href)=\"(?!#|data:)[^\"]*\"", page) and "@import" not in page and "fetch(" not in page
        assert not re.findall(r"url\((?!#plot)", page)
        ids = [a["id"] for _, a in tags_of(folder / name) if "id" in a]
        assert len(ids) == len(set(ids)) > 20


def test_audio_takes_what_the_rest_of_the_page_leaves(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_figures = re.sub(r"<svg viewBox.*?</svg>", "", (folder / "report.html").read_text(encoding="utf-8"))
    sounds = next(iter(data_of(folder / "report.html")["sets"].values()))["audio"]
    smaller = len(without_figures.encode()) - sum(map(len, sounds.values())) // 2
    monkeypatch.setattr(report.page.html, "PAGE", smaller)
    build_report(folder.parent / "study", tmp_path, audio=True)
    data = data_of(tmp_path / "report.html")
    kept = next(iter(data["sets"].values()))["audio"]
    assert 0 < len(kept) < len(sounds) and (tmp_path / "report.html").stat().st_size <= smaller
    assert list(kept)[: len(data["studies"][0]["picks"])] == [pick["id"] for pick in data["studies"][0]["picks"]]


def test_what_a_reader_wants_comes_first(folder: Path) -> None:
    for name in ("report.html", "report.zh.html"):
        tags = tags_of(folder / name)
        first = {k: next(i for i, (tag, a) in enumerate(tags) if k in (tag, a.get("id"), a.get("class"))) for k in ORDER}
        assert list(first.values()) == sorted(first.values())
        text = (folder / name).read_text(encoding="utf-8")
        assert (
            text.count("<details id=") == text.count("<summary>") == len(re.findall("^#### ", tables_of(name, folder), re.M)) + 1
        )
        figures = [a["aria-label"] for tag, a in tags if a.get("class") == "plot"]
        captions = re.findall(r"<figcaption>(?:<em>)?(.*?)(?:</em>)?</figcaption>", text)
        assert len(figures) == len(captions) == 2 and all(figures)
        assert not any(str(alt) in caption or caption in str(alt) for alt in figures for caption in captions)


ORDER = ("h1", "picks", "svg", "table", "closer", "chapters", "all-tables")


def tables_of(page: str, folder: Path) -> str:
    return (folder / page.replace("report", "tables").replace("html", "md")).read_text(encoding="utf-8")


def test_the_clip_to_hear_is_the_median_of_its_outcome() -> None:
    margins = {"semantic": (-3.0, -9.0, -1.0), "prosody": (2.0, 8.0), "both": (0.0,)}
    rows = [
        {"sample_id": f"{o}{m}", "layer": layer, "outcome": o if layer else "other", "margin": m if layer else 0.0}
        | {"semantic_label": "sad", "prosody_label": "sad" if o == "both" else "happy"}
        for o, some in margins.items()
        for m in some
        for layer in (0, 1)
    ]
    found = [(pick["outcome"], pick["id"], pick["n"], pick["all"]) for pick in picked(pd.DataFrame(rows))]
    assert found == [("semantic", "semantic-3.0", 3, 5), ("prosody", "prosody2.0", 2, 5)]


def test_many_layers_leave_fewer_clips_and_keep_those_to_hear(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (study,), _ = read_studies([folder.parent / "study" / "lens"], [folder.parent / "study" / "patching"])
    monkeypatch.setattr("report.page.inspector.LOGITS", 2 * 7 * 5 * 10)
    style = closer_look(study, "")
    assert 10 <= len(style["clips"]["ids"]) <= 13 and style["clips"]["all"] == 100
    assert {pick["id"] for pick in style["picks"]} <= set(style["clips"]["ids"]) and len(style["pairs"]["ids"]) == 20


def test_a_warning_is_a_box(hostile: Path) -> None:
    page = (hostile / "report.html").read_text(encoding="utf-8")
    assert (
        '<aside class="box caution"><strong>Caution</strong>' in page and "[!CAUTION]" not in page and "<blockquote" not in page
    )
    assert "<strong>注意</strong>" in (hostile / "report.zh.html").read_text(encoding="utf-8")


@pytest.mark.draws
def test_a_figure_takes_the_inks_of_the_page_and_keeps_its_ids_apart(tmp_path: Path) -> None:
    with plotting.figure(tmp_path / "a.png", plotting.FigureStyle(formats=("svg",))) as (axes,):
        axes.imshow([[0, 1]])
        axes.plot([0, 1], [0, 1], color=plotting.COLORS["semantic"], marker="o")
        axes.set_title("<b>&")
    first, second = (inline(tmp_path / "a.svg", '"<i>', prefix) for prefix in ("x", "y"))
    assert first.count("<svg") == 1 and "<style" not in first and "<metadata" not in first and "xlink" not in first
    assert "var(--words)" in first and "currentColor" in first and not re.search("#0072b2|#000000|#ffffff", first)
    assert 'aria-label="&quot;&lt;i&gt;"' in first and 'href="data:image/png' in first
    ids = [set(re.findall(r' id="([^"]+)"', of)) for of in (first, second)]
    assert (
        ids[0]
        and not ids[0] & ids[1]
        and set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', first)) <= {(i, "") for i in ids[0]} | {("", i) for i in ids[0]}
    )


def test_a_picture_needs_chromium_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="needs Chromium"):
        screenshot.main()
    assert re.search("^page-picture:.*\n.*report/page/screenshot.py$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)


@NEEDS_BROWSER
def test_a_picture_of_the_page_is_small(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screenshot, "HERE", tmp_path)
    monkeypatch.setattr(screenshot, "PAGE", folder / "report.html")
    monkeypatch.setattr(screenshot, "PICTURE", tmp_path / "page.png")
    screenshot.main()
    assert (tmp_path / "page.png").stat().st_size < 300_000
    with Image.open(tmp_path / "page.png") as taken:
        assert taken.size == (1280, 800) and len(taken.getcolors() or []) > 20

"""The report says what is true of models whose truth is known, with the tables' numbers, briefly, the same in both languages."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

import report.build
from report.language import LANGUAGES, texts
from report.markdown import slug
from report.runs import read_studies
from tests.helpers.study import Truth, build_report, change_record, nothing_drawn, save_exchange, save_study

TRUTHS = {"voice": Truth(), "words": Truth(words=4, voice=0), "both": Truth(words=3, voice=3), "deaf": Truth(deaf=True)}
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save_study(tmp_path_factory.mktemp(name), truth) for name, truth in TRUTHS.items()}


@pytest.fixture(scope="module")
def built(studies: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of all studies; that of the voice has every chapter."""
    out = {name: tmp_path_factory.mktemp(f"report_{name}") for name in studies}
    full = tmp_path_factory.mktemp("full") / "study"
    shutil.copytree(studies["voice"], full)
    for name in ("transcript", "described", "tuned"):
        shutil.copytree(studies["words" if name == "transcript" else "voice"] / "lens", full / "lens" / name)
        data = str(studies["voice"] / "clips" / "manifest.csv")
        asked = {"identity__input": name} if name != "tuned" else {"identity__lens": "tuned"}
        change_record(full / "lens" / name, identity__data=data, **asked)
    for name in ("splice", "crop", "stretch"):
        shutil.copytree(studies["voice"] / "patching", full / "patching" / "align" / name)
    save_exchange(full)
    rows = [("answer is the words' label", 0.2, "share of clips"), ("effect of the voice", 0.4, "effect (share of pairs)")]
    table = pd.DataFrame(rows, columns=["what", "value", "unit"]).assign(lo=0.1, hi=0.5, kind="other", n=40)
    both = pd.concat([table.assign(prompt=p) for p in ("speaker", "speaker-2")])
    for experiment in ("lens", "patching"):
        both.to_csv(full / experiment / "prompts.csv", index=False)
    change_record(full / "lens", parameters=171e6, command="python logit_lens/run.py --probe")
    for name, study in (studies | {"voice": full}).items():
        build_report(study, out[name])
    return out


def text_of(built: Path, end: str = "") -> str:
    return (built / f"report{end}.md").read_text(encoding="utf-8").replace("\u00a0", " ")


def test_what_it_says_is_true_of_planted_models(built: dict[str, Path], studies: dict[str, Path]) -> None:
    said = {name: text_of(out) for name, out in built.items()}
    verdicts = {"voice": "**It answers with the voice.**", "words": "**It answers with the words.**"}
    for name, text in said.items():
        assert verdicts.get(name, "**That words or voice are ahead is not shown.**") in text
        summary = pd.read_csv(studies[name] / "patching" / "summary.csv").set_index("kind")
        for kind, cue in (("semantic", "words"), ("prosody", "voice")):
            shown = summary.effect_lo[kind] > 0
            assert f"- **{'The' if shown else 'That the'} audio span carries the {cue}" in text, (name, kind)
            assert shown == (name == cue) or name == "both"
    assert "**The voice leads at every layer that the lens can read.** Before layer 4" in said["voice"]
    assert "Half of the voice's effect on the logit is gone by layer 3.5.**" in said["voice"]
    assert "**The lens cannot tell where this is decided.**" in said["deaf"] and "cannot be told" in said["deaf"]
    assert (
        "change fewer answers than donors of another voice label" in said["voice"]
        and "changes fewer is not shown" in said["words"]
    )


def test_the_first_numbers_are_those_of_the_rows(built: dict[str, Path], studies: dict[str, Path]) -> None:
    rows = pd.read_csv(studies["voice"] / "lens" / "lens.csv")
    last = rows[(rows.layer == rows.layer.max()) & (rows.semantic_label != rows.prosody_label)]
    share = {who: (last.winner == last[f"{who}_label"]).mean() for who in ("prosody", "semantic")}
    patches = pd.read_csv(studies["voice"] / "patching" / "patches.csv")
    inner = patches[(patches.kind == "prosody") & (patches.control == "none") & patches.layer.between(1, 5)]
    summary = pd.read_csv(studies["voice"] / "patching" / "summary.csv").set_index("kind").loc["prosody"]
    assert summary.to_target == pytest.approx(inner.flip_to_target.mean(), abs=1e-6)
    for end, voice in (
        ("", f"the voice's in {100 * share['prosody']:.0f} %"),
        (".zh", f"{100 * share['prosody']:.0f}% 是韵律情绪"),
    ):
        text = text_of(built["voice"], end)
        assert voice in text and re.search(rf"\b{100 * summary.to_target:.0f} ?% ", text)
        assert f"| {share['semantic']:.2f} | " in text and f" | {len(last)} " in text
        effect = f"| {summary.effect:.2f} | {summary.effect_lo:.2f}–{summary.effect_hi:.2f} | 120 "
        assert effect in text and f"| {summary.half_effect_layer:.1f} | " in text


@pytest.mark.parametrize("which", ["built", "committed"])
def test_it_is_short(which: str, built: dict[str, Path]) -> None:
    """Words count as a reader counts them: captions and alt texts too; code, numbers of tables and addresses do not."""
    text = text_of(built["voice"] if which == "built" else ROOT / "report")
    before_tables = re.sub(r"^\|[^\n]*$|```.*?```", "", text, flags=re.M | re.S)
    assert len(re.sub(r"\]\([^)]*\)", "]", before_tables).split()) <= 1500
    prose = re.sub(r"`[^`]*`|\]\([^)]*\)|[*#>!\[]|^- |\[|\]", "", before_tables.replace(" %", "%"), flags=re.M)
    sentences = [s for line in prose.splitlines() if "·" not in line for s in re.split(r"(?<=[.?])\s+", line) if s.strip()]
    assert len(sentences) > 60 and not [s for s in sentences if len(s.split()) > 25]
    first = before_tables[: before_tables.index("\n## ")]
    assert len(first.split()) <= 300 and first.count("\n- **") == 4


def test_both_languages_have_all_chapters_figures_tables_and_numbers(built: dict[str, Path]) -> None:
    out, numbers = built["voice"], []
    for end in ("", ".zh"):
        text, tables = text_of(out, end), (out / f"tables{end}.md").read_text(encoding="utf-8")
        shown = re.findall(r"!\[[^\]]+\]\((figures/[^)]+)\)", text)
        assert len(shown) == len(set(shown)) == 7 and all((out / name).is_file() for name in shown)
        assert len(re.findall(r"^## ", text, re.M)) == 9 and "[!CAUTION]" not in text
        anchors = {slug(heading) for heading in re.findall(r"^#+ (.*)$", tables, re.M)}
        linked = re.findall(rf"\(tables{end}\.md#([^ )]+)", text)
        assert len(linked) == 5 and {*linked} <= {a.replace("\\", "") for a in anchors}
        assert not re.search(r"\n\n\n|\bnan\b|None|{{|Estimate\(", text + tables) and "python logit_lens/run.py --probe" in text
        said = re.sub(r"\]\([^)]*\)|`[^`]*`|^#.*$", "", text, flags=re.M)
        numbers.append(sorted(re.findall(r"\d+(?:\.\d+)?", said)))
    assert numbers[0] == numbers[1] and "A 171 M model, asked “How?”" in text_of(out)
    assert len(re.findall(r"[\u4e00-\u9fff]", text_of(out, ".zh"))) > 800


def test_nothing_short_stays_english_in_chinese() -> None:
    """Figures, tables and page: each text that code or a template names is in the catalogue; figures stop at one that is not."""
    known = texts("zh") or {}
    assert texts("en") is None and len(known) > 150 and all(known.values())
    for english, chinese in known.items():
        assert sorted(re.findall(r"{\w+}", english)) == sorted(re.findall(r"{\w+}", chinese)), english
    templates, code = [ROOT / "report/templates"], [ROOT / p for p in ("report", "logit_lens", "activation_patching", "common")]
    for pattern, folders in ((r"""(?<![.\w])_\((["'])(.+?)\1[,)]""", templates), (r"""\bsay\((")([^"$]+)\"""", code)):
        files = [f for folder in folders for f in folder.rglob("*.*") if f.suffix in (".py", ".js", ".html", ".jinja")]
        named = {found[1] for f in files for found in re.findall(pattern, f.read_text(encoding="utf-8"))}
        assert len(named) > 20
        assert not {n for n in named if n.replace("\\n", "\n").replace("\\\\", "\\") not in known}


def test_several_runs_stand_side_by_side(studies: dict[str, Path], tmp_path: Path) -> None:
    both = [studies["voice"], studies["words"]]  # the same model and prompt, other clips
    folders = {e: [str(s / e) for s in both] for e in ("lens", "patching")}
    with nothing_drawn():
        report.build.main(["--lens", *folders["lens"], "--patching", *folders["patching"], "--out", str(tmp_path), "--no-audio"])
    for end, heading in (("", "### Details: "), (".zh", "### 细节：")):
        text = (tmp_path / f"report{end}.md").read_text(encoding="utf-8")
        assert len(re.findall(r"^\| \w+/lens \| [−\d]", text, re.M)) == 2 and text.count(heading) == 2
        assert text.count("/side_by_side.png)") == 1 and text.count("/panel.png)") == 2
        assert len(re.findall(r"^## (Method|方法)", text, re.M)) == 1
    assert "It answers with the voice" in (tmp_path / "report.md").read_text() and len(LANGUAGES) == 2


def test_a_test_weight_gets_a_banner_and_no_verdict(studies: dict[str, Path], tmp_path: Path) -> None:
    for experiment in ("lens", "patching"):
        shutil.copytree(studies["voice"] / experiment, tmp_path / "study" / experiment)
        change_record(tmp_path / "study" / experiment, test_weight=True)
    text, _ = build_report(tmp_path / "study", tmp_path / "out")
    assert "**A test weight.**" in text and "It answers with" not in text and "carries the" not in text
    page = (tmp_path / "out" / "report.zh.html").read_text(encoding="utf-8")
    assert "测试权重" in page and "模型按" not in page and "[!NOTE]" not in page


def test_variants_of_a_prompt_are_studies_with_the_asked_one_first(studies: dict[str, Path], tmp_path: Path) -> None:
    for prompt in ("speaker", "speaker-2", "speaker-reversed"):
        for experiment in ("lens", "patching"):
            shutil.copytree(studies["voice"] / experiment, tmp_path / experiment / "prompts" / prompt)
    found, troubles = read_studies([tmp_path / "lens"], [tmp_path / "patching"])
    assert len(found) == 3 and all(s.patching for s in found) and not troubles
    assert found[0].lens and found[0].lens.folder.name == "speaker"

"""The report says what is true of models whose truth is known, with the tables' numbers, the same in both languages."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import report.build
from common.clips.pairs import KINDS
from common.stats.facts import Fact
from report import statements
from report.chapters import all_lens_facts, all_patching_facts, wording_of
from report.inputs import Outputs, read_outputs, read_studies
from report.wording.words import FIGURES, PAGE, TEXTS, known
from tests.study import Truth, save_study

TRUTHS = {
    "voice": Truth(),
    "words": Truth(words=4, voice=0),
    "both": Truth(words=3, voice=3),
    "deaf": Truth(deaf=True),
}
ROOT = Path(__file__).resolve().parents[1]
NUMBER = re.compile(r"[+-]?\d*\.?\d+")


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save_study(tmp_path_factory.mktemp(name), truth) for name, truth in TRUTHS.items()}


@pytest.fixture(scope="module")
def built(studies: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    build(studies["voice"], out)
    return out


def build(study: Path, out: Path, *more: str) -> str:
    options = ["--lens", str(study / "lens"), "--patching", str(study / "patching"), "--out", str(out)]
    report.build.main([*options, *more])
    return (out / "report.md").read_text(encoding="utf-8") if (out / "report.md").exists() else ""


def run(study: Path, experiment: str) -> Outputs:
    found = read_outputs(experiment, study / experiment)
    assert isinstance(found, Outputs)
    return found


def facts_of(study: Path) -> list[tuple[str, dict[str, Fact]]]:
    """Return the findings of a study: of the lens, of each kind of pair."""
    return [("lens", all_lens_facts(run(study, "lens"))), *all_patching_facts(run(study, "patching")).items()]


def sentences(study: Path, language: str) -> dict[tuple[str, str], str]:
    wording = wording_of(language)
    found = {}
    for of, facts in facts_of(study):
        said = statements.lens_sentences(facts, wording) if of == "lens" else statements.patching_sentences(of, facts, wording)
        found |= {(of, name): text for name, text in said.items()}
    return found


@pytest.mark.parametrize("name", TRUTHS)
def test_both_languages_have_a_sentence_for_every_finding_with_the_same_numbers(name: str, studies: dict[str, Path]) -> None:
    for of, facts in facts_of(studies[name]):
        assert not statements.unsaid(list(facts), statements.LENS if of == "lens" else statements.PATCHING)
    english, chinese = (sentences(studies[name], language) for language in ("en", "zh"))
    assert english.keys() == chinese.keys() and len(english) > 15
    for key, text in english.items():
        here, there = (sorted(NUMBER.findall(re.sub("[–、]", " ", t))) for t in (text, chinese[key]))
        assert here == there, (text, chinese[key])


def test_the_languages_know_the_same_findings_troubles_and_figures() -> None:
    english, chinese = wording_of("en"), wording_of("zh")
    for name in ("LENS", "PATCHING", "TROUBLES", "CAPTIONS"):
        assert getattr(english, name).keys() == getattr(chinese, name).keys(), name
    assert {*english.LENS} == {*statements.LENS} and {*english.PATCHING} == {*statements.PATCHING}
    for name, text in english.TROUBLES.items():
        assert {*re.findall(r"{\w+}", text)} == {*re.findall(r"{\w+}", chinese.TROUBLES[name])}, name
    for words in (FIGURES, TEXTS, PAGE):
        for text, there in words.items():
            assert sorted(re.findall(r"{\w+}", text)) == sorted(re.findall(r"{\w+}", there)), text
    templates = [(ROOT / f"report/templates/report.{end}.md").read_text(encoding="utf-8") for end in ("en", "zh")]
    says = [re.findall(r"{[{%].*?[%}]}", re.sub(r"join\('.*?'\)|\"[,:，：] ?\"", "", text)) for text in templates]
    headings = [re.findall(r"^#+ ", text, re.M) for text in templates]
    assert says[0] == says[1] and headings[0] == headings[1] and len(headings[0]) > 20


@pytest.mark.parametrize("name", TRUTHS)
def test_nothing_that_a_finding_tells_stays_english_in_the_chinese_report(name: str, studies: dict[str, Path]) -> None:
    for _, facts in facts_of(studies[name]):
        for fact in facts.values():
            places = (*fact.over.split(" and "), *fact.fixed.split(", "), *fact.row.split(", ", 1))
            tested = fact.test if fact.name not in ("mass",) else ""
            control = fact.control if fact.control.startswith("answers") else ""
            reason = fact.verdict.removeprefix("none: ") if fact.name == "crossing" and np.isnan(fact.value) else ""
            assert all(known(t) is not None for t in (*places, tested, control, reason) if t), fact


def test_the_statements_are_true_of_planted_models(studies: dict[str, Path]) -> None:
    said = {name: sentences(study, "en") for name, study in studies.items()}
    voice, words, both, deaf = (said[name] for name in TRUTHS)
    lens = ("lens", "voice_lead")
    assert "the answer follows the voice more often than the words" in voice[lens]
    assert "the answer follows the words more often than the voice" in words[lens]
    assert "neither cue is shown to be ahead" in deaf[lens] and "leaves room for 0.27 at most" in deaf[lens]
    assert "label of the voice is the most frequent" in voice["lens", "crossing"] and "[1.8, 2.2]" in voice["lens", "crossing"]
    assert "label of the words is the most frequent" in words["lens", "crossing"]
    assert all("At no layer is one cue decided for" in of["lens", "crossing"] for of in (both, deaf))
    for kind in KINDS:
        shows = f"the answer depends on the {'words' if kind == 'semantic' else 'voice'}"
        told = [name for name, of in said.items() if shows in of["lens", f"win_{kind}_excess"]]
        carried = [name for name, of in said.items() if "the audio span carries the donor's" in of[kind, "flips"]]
        assert told == carried == [name for name in TRUTHS if name in ("both", "words" if kind == "semantic" else "voice")]
    assert "exceed those of a donor with the recipient's own labels at l = 1 to 3" in voice["prosody", "layers"]
    assert "at no layer" in voice["semantic", "layers"] and "at no layer" in deaf["prosody", "layers"]
    assert "from l = 3.5 [3.5, 3.5] on" in voice["prosody", "crossing"] and "no layer to name" in deaf["prosody", "crossing"]
    assert "l = 2 to 6: above 0, the voice leads" in voice["lens", "margin_excess: stretch 0"]
    assert "l = 2 to 6: below 0, the words lead" in words["lens", "margin_excess: stretch 0"]
    assert "l = 1 to 6: the band holds 0" in deaf["lens", "margin_excess: stretch 0"]
    for language, none in (("en", "neither cue is ahead"), ("zh", "两种线索都不占优")):
        (_, facts), *kinds = facts_of(studies["deaf"])
        assert none in wording_of(language).together(facts, dict(kinds))


def admissible(row: pd.Series) -> set[str]:
    """Return every way in which a sentence may write a number of a table's row: as it is, and the largest effect it allows."""
    values = [float(v) for v in row.to_numpy() if isinstance(v, int | float | np.number) and not pd.isna(v)]
    ends = [f.removesuffix("_lo") for f in row.index if f.endswith("_lo")]
    values += [max(abs(row[f"{c}_lo"]), abs(row[f"{c}_hi"])) for c in ends if not pd.isna(row[f"{c}_lo"])]
    return {f"{v:{form}}" for v in values for form in (".0f", ".1f", ".2f", "+.1f", "+.2f", ".3f")}


def test_every_number_in_a_sentence_is_in_the_rows_that_it_links_to(built: Path, studies: dict[str, Path]) -> None:
    """Recompute what every sentence says from the CSVs alone: no number of the text may come from anywhere else."""
    text = (built / "report.md").read_text(encoding="utf-8")
    found = [line for line in text.splitlines() if re.match(r"- \*\*.*\.csv", line)]
    assert len(found) > 25
    always = {"95", "0", "0.05", ".001"}  # levels, l = 0, the bound of equivalence, p < .001
    for line in found:
        links = re.findall(r'\[([\w.]+csv)[^\]]*\]\(#(\w+)-\S+ "([^"]*)"\)', line)
        said = re.sub(r" \(\[.*$", "", line)
        allowed = set(always)
        for csv, script, title in links:
            folder = studies["voice"] / ("lens" if script == "logit_lens" else "patching")
            table = pd.read_csv(folder / csv, keep_default_na=False, na_values=[""])
            if kind := next((k for k in KINDS if k in title), None):
                table = table[table.kind == kind]
            layers = [int(n) for n in re.findall(r"\d+", title.rpartition("l = ")[2])] if "l = " in title else []
            allowed |= {str(n) for n in layers}
            if "layer" in table and layers:
                table = table[table.layer.between(layers[0], layers[-1])]
            rows = [row for _, row in table.iterrows()]
            allowed |= set.union(*map(admissible, rows)) | {str(len(rows))}
            if csv == "labels.csv":
                allowed.add(str((table.semantic_label != table.prosody_label).sum()))
            if csv == "paired.csv":
                tested = table[table.p_holm.notna() & (table.outcome == "flips")]
                allowed.add(str(tested.layer.nunique()))
            if csv == "layers.csv" and len(layers) > 1:  # means over stretches of layers
                firsts = [(a, b) for a in range(len(table)) for b in range(a + 1, len(table) + 1)]
                allowed |= {f"{table.margin_excess.iloc[a:b].mean():+.2f}" for a, b in firsts}
        numbers = [n for n in NUMBER.findall(re.sub(r"(?<=\w)-|~", " ", said)) if n.rstrip(".")]
        strange = [n for n in numbers if n not in allowed and n.lstrip("+") not in allowed]
        assert not strange, (strange, line)


def test_the_first_numbers_are_those_of_the_rows(built: Path, studies: dict[str, Path]) -> None:
    rows = pd.read_csv(studies["voice"] / "lens" / "lens.csv")
    last = rows[(rows.layer == rows.layer.max()) & (rows.semantic_label != rows.prosody_label)]
    shares = {who: (last.winner == last[f"{who}_label"]).mean() for who in ("prosody", "semantic")}
    text = (built / "report.md").read_text(encoding="utf-8")
    assert f"On {len(last)} conflict clips the answer is the voice's label in {shares['prosody']:.2f} [" in text
    assert f"the words' in {shares['semantic']:.2f} [" in text and f"The margin is {last.margin.mean():+.2f} [" in text
    patches = pd.read_csv(studies["voice"] / "patching" / "patches.csv")
    inner = patches[(patches.kind == "prosody") & patches.layer.between(1, patches.layer.max() - 1)]
    means = inner.groupby("control").flip_to_target.mean()
    assert f"{means['none']:.2f} against {means['same_labels_donor']:.2f}, difference" in text


def test_both_reports_have_all_sections_figures_tables_and_commands(built: Path) -> None:
    english, chinese = ((built / f"report{end}.md").read_text(encoding="utf-8") for end in ("", ".zh"))
    for heading in (
        "研究问题",
        "实验一：Logit Lens",
        "方法细节",
        "结果图",
        "主要观察",
        "总结",
        "实验二：激活修补",
        "对照与自检",
        "局限",
    ):
        assert re.search(rf"^#+ {heading}", chinese, re.M), heading
    assert "目标翻转率" in chinese and "基线翻转率" in chinese and "[!CAUTION]" not in english
    for text in (english, chinese):
        shown = re.findall(r"\]\((figures/[^)]+)\)", text)
        assert len(shown) == 14 and all((built / name).stat().st_size > 10_000 for name in shown)
        assert text.count("#### ") == 12
        anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.M)}
        assert {*re.findall(r"\(#([^ )]+)", text)} <= anchors
        for script in ("logit_lens", "activation_patching"):  # the command that was given, to the letter
            assert f"\npython {script}/run.py --data 'a b.csv' --x '`|'\n" in text
        assert not re.search(r"\n\n\n|nan|None|{{|Fact\(", text)


def test_several_runs_stand_side_by_side(studies: dict[str, Path], tmp_path: Path) -> None:
    both = [studies["voice"], studies["words"]]  # the same model and prompt, other clips
    folders = {e: [str(s / e) for s in both] for e in ("lens", "patching")}
    report.build.main(
        ["--lens", *folders["lens"], "--patching", *folders["patching"], "--out", str(tmp_path), "--lang", "zh", "--no-audio"]
    )
    text = (tmp_path / "report.zh.md").read_text(encoding="utf-8")
    assert "## 并列比较" in text and {f.name for f in (tmp_path / "figures" / "zh").glob("side_by_side_*.png")} == {
        *("side_by_side_lens.png", "side_by_side_semantic.png", "side_by_side_prosody.png")
    }
    assert len(re.findall(r"^\| \w+/lens \|", text, re.M)) == 2 and text.count("### 主要观察：") == 2


def test_how_far_prompts_move_a_number_stands_beside_it(studies: dict[str, Path], tmp_path: Path) -> None:
    for prompt in ("speaker", "speaker-2", "speaker-reversed"):
        for experiment in ("lens", "patching"):
            shutil.copytree(studies["voice"] / experiment, tmp_path / experiment / "prompts" / prompt)
    rows = [("voice_lead at l = L", v, p) for v, p in ((0.1, "speaker"), (0.9, "speaker-2"), (0.2, "speaker-reversed"))]
    rows += [("crossing", v, p) for v, p in ((2.0, "speaker"), (float("nan"), "speaker-2"), (3.0, "speaker-reversed"))]
    table = pd.DataFrame(rows, columns=["what", "value", "prompt"]).assign(unit="share", lo=0, hi=1, kind="other", n=9)
    table.to_csv(tmp_path / "lens" / "prompts.csv", index=False)
    found, troubles = read_studies([tmp_path / "lens"], [tmp_path / "patching"])
    assert len(found) == 3 and all(s.patching for s in found) and not troubles
    assert found[0].lens and found[0].lens.folder.name == "speaker"  # the prompt itself before its variants
    facts = all_lens_facts(found[0].lens)
    english, chinese = (statements.lens_sentences(facts, wording_of(language)) for language in ("en", "zh"))
    moves = "Over 3 prompts (n = 9) it is +0.10 to +0.90 (2 wordings +0.10 to +0.90; 2 orders +0.10 to +0.20)."
    assert english["voice_lead"].endswith(moves) and "在 3 个提示（n = 9）下为 +0.10 至 +0.90" in chinese["voice_lead"]
    assert (
        "Over 3 prompts (n = 9) it is 2.0 to 3.0, none in 1" in english["crossing"]
        and "其中 1 个提示下没有" in chinese["crossing"]
    )

"""Each sentence of the report, in every branch and both languages: what its interval excludes, in its record's numbers."""

import re
from typing import Any

import pytest

from activation_patching.components.findings import ComponentEffect, HeadsAblated, HeadsTogether
from activation_patching.knockout.findings import Routes
from activation_patching.scale.findings import Erased
from activation_patching.span.findings import ExchangeEffect, SpanEffect
from common.stats.findings import NAN, Count, Estimate, Spread
from logit_lens.findings import Answers, Decoding, Reading
from report.language import LANGUAGES
from report.render import environment
from report.sections.ladder import Ladder

SENTENCES: dict[str, Any] = {x: environment(x).get_template(f"sentences.{x}.jinja").module for x in LANGUAGES}
UP, NONE, DOWN = (Estimate(value, value - 0.05, value + 0.05, 300, (Count(50, "texts"),)) for value in (0.37, 0.01, -0.37))
UNKNOWN = Estimate(0.37, n=300)
MANY, FEW = (Estimate(value, value - 0.02, value + 0.02, 400) for value in (0.734, 0.034))
PLACE = Estimate(23.84, 23.6, 23.9, 300)


def say(macro: str, *findings: Any, **named: Any) -> dict[str, str]:
    """Return what a macro says of findings, by language."""
    said = {}
    for language in LANGUAGES:
        said[language] = " ".join(str(getattr(SENTENCES[language], macro)(*findings, **named)).split())
    return said


def span(effect: Estimate = UP, *, kind: str = "semantic", **changes: Any) -> SpanEffect:
    record = {"kind": kind, "baseline": "third labels", "kept": 0.97, "to_target": MANY, "to_third": FEW, "donor": 0.88}
    record |= {
        "effect": effect,
        "effect_logit": UP,
        "from_base": MANY,
        "half_effect_layer": PLACE,
        "beyond_label": None,
        "layers": (1, 29),
    }
    return SpanEffect(**(record | changes))


def exchange(minus_random: Estimate, of_whole: Estimate | None = None) -> ExchangeEffect:
    return ExchangeEffect("prosody", MANY, FEW, minus_random, of_whole, (1, 29))


def erased(minus_random: Estimate) -> Erased:
    return Erased("prosody", FEW, MANY, minus_random, (1, 29))


def ladder(reads: Estimate, read: Estimate, named: Estimate | None) -> Ladder:
    shares = {(rung, o): MANY for rung in ("audio", "transcript", "described") for o in ("semantic", "prosody", "other")}
    return Ladder(shares, reads, read, named, 0.2)


def reading(first: int | None, side: str, lead: Estimate | None, mass: float = 0.021) -> Reading:
    return Reading(first, 30, mass if first else NAN, side, lead)


def decoding(permuted: Estimate, unanswered: Estimate, weights: Estimate | None, duration: Estimate | None) -> Decoding:
    return Decoding("prosody", MANY, unanswered, permuted, weights, duration)


def route(
    direct: Estimate, through: Estimate, minus: Estimate = NONE, kind: str = "semantic", on_logit: Estimate | None = None
) -> Routes:
    return Routes(kind, 1.0, MANY, direct, through, minus, MANY, MANY, on_logit or minus, PLACE)


def ablated(minus_random: Estimate) -> HeadsAblated:
    return HeadsAblated("semantic", "semantic", 8, DOWN, minus_random)


def carrier(part: str, effect: Estimate) -> ComponentEffect:
    return ComponentEffect("prosody", part, 23, 2, effect, None)


VERDICT = {"words": MANY, "voice": Estimate(0.236, 0.2, 0.3, 400), "neither": FEW}
CASES: list[tuple[str, tuple[Any, ...], str, str, list[str]]] = [  # macro, findings, English and Chinese parts, all its numbers
    ("verdict", (Answers(**VERDICT, lead=DOWN),), "**It answers with the words.**", "**模型按语义回答。**", ["73", "24", "3"]),
    ("verdict", (Answers(**VERDICT, lead=UP),), "**It answers with the voice.**", "**模型按韵律回答。**", ["73", "24", "3"]),
    ("verdict", (Answers(**VERDICT, lead=NONE),), "are ahead is not shown", "无法判断模型偏向", ["73", "24", "3"]),
    ("verdict", (Answers(**VERDICT, lead=UNKNOWN),), "are ahead is not shown", "无法判断模型偏向", ["73", "24", "3"]),
    ("reading", (reading(None, "none", None),), "At no layer can it read", "任何一层都读不出", []),
    (
        "reading",
        (reading(30, "semantic", None),),
        "last layer.** Before it, the labels together have",
        "只在最后一层",
        ["2"],
    ),
    ("reading", (reading(30, "semantic", None, 0.8),), "improbable or all clips get one answer", "得到同一个回答", []),
    ("reading", (reading(12, "none", None),), "neither cue is shown", "也无法判断哪一方领先", ["12"]),
    ("reading", (reading(12, "semantic", PLACE),), "The words lead from layer", "语义从第 23.8 层起领先", ["23.8", "12", "2"]),
    ("reading", (reading(12, "prosody", None),), "The voice leads at every layer that", "可读的每一层，韵律都领先", ["12", "2"]),
    ("reading", (reading(0, "prosody", PLACE),), "reads the labels at every layer", "每一层都可以读出", ["23.8"]),
    ("tuned", (reading(3, "semantic", PLACE),), "what can be decoded there, not what", "而不是模型用了什么", ["23.8"]),
    ("tuned", (reading(3, "none", None),), "shows no lead either", "同样未显示", []),
    ("tuned", (reading(3, "prosody", None),), "voice's label is ahead at every layer", "韵律标签在可读的每一层都领先", []),
    ("span", (span(),), "**The audio span carries the words.**", "**音频区域携带语义信息。**", ["73", "88", "3"]),
    ("span", (span(kind="prosody"),), "**The audio span carries the voice.**", "**音频区域携带韵律信息。**", ["73", "88", "3"]),
    ("span", (span(NONE),), "carries the words is not shown", "无法判断音频区域是否携带语义", ["73", "88", "3"]),
    ("span", (span(UNKNOWN),), "carries the words is not shown", "无法判断音频区域是否携带语义", ["73", "88", "3"]),
    ("span", (span(DOWN, kind="prosody"),), "brings its emotion less often", "反而比其他标签更少", ["73", "88", "3"]),
    ("span", (span(kept=0.42),), "cannot be told", "无法判断", ["42"]),
    (
        "span",
        (span(baseline="same-labels donors"),),
        "A donor with the recipient's own labels",
        "与受体标签相同的供体",
        ["73", "88", "3"],
    ),
    (
        "half",
        (span(), span(kind="prosody")),
        "Half of the words' effect on the logit",
        "语义对 logit 的效应已减半",
        ["23.8", "23.8"],
    ),
    (
        "half",
        (span(half_effect_layer=None), span(kind="prosody")),
        "Half of the voice's effect on the logit",
        "韵律对 logit 的效应已减半",
        ["23.8"],
    ),
    ("half", (span(half_effect_layer=None), None), "cannot be told", "无法判断", []),
    (
        "decoding",
        (decoding(UP, UP, UP, UP),),
        "more often than it is answered and than with random weights.",
        "高于模型以其作答的比例，也高于随机权重",
        ["37", "73"],
    ),
    (
        "decoding",
        (decoding(UP, NONE, UP, UP),),
        "in 73 % of the clips, more often than with random weights.",
        "，高于随机权重。",
        ["37", "73"],
    ),
    ("decoding", (decoding(UP, NONE, None, None),), "label in 73 % of the clips.", "准确率为 73%。", ["73"]),
    (
        "decoding",
        (decoding(UP, NONE, NONE, NONE),),
        "more than duration and level is not shown",
        "没有证据表明它超出时长与响度",
        ["73"],
    ),
    ("decoding", (decoding(NONE, UP, UP, UP),), "can be decoded is not shown", "没有证据表明可以", []),
    ("ladder", (ladder(UP, DOWN, DOWN),), "Heard, it comes less often.", "以音频给出时更少", ["73", "73"]),
    ("ladder", (ladder(UP, UP, UP),), "so reading is no ceiling", "因此读文本并不是上限", ["73", "73"]),
    ("ladder", (ladder(UP, NONE, NONE),), "That hearing differs from reading is not shown", "未显示听与读有差别", ["73", "73"]),
    ("ladder", (ladder(UP, NONE, None),), "That hearing differs from reading is not shown", "未显示听与读有差别", ["73"]),
    ("ladder", (ladder(NONE, DOWN, DOWN),), "transcripts measure nothing", "不能作为尺度", []),
    (
        "erased",
        (erased(DOWN),),
        "rather than a random one, 37 percentage points fewer answers are its label",
        "低 37 个百分点",
        ["37"],
    ),
    ("erased", (erased(NONE),), "need the part of the voice is not shown", "没有证据表明回答需要韵律", []),
    ("erased", (erased(UP),), "more answers are the voice's label", "高于抹除随机子空间", []),
    ("exchanged", (exchange(UP),), "37 percentage points more answers become its label, beyond", "多 37 个百分点", ["37"]),
    ("exchanged", (exchange(NONE),), "to the answer is not shown", "没有证据表明韵律子空间把", []),
    ("exchanged", (exchange(DOWN),), "fewer answers become its label", "少于随机子空间", []),
    (
        "of_whole",
        ([exchange(UP, MANY)],),
        "the subspace has 73 % (voice) of the effect of the whole state",
        "整个状态的 73%",
        ["73"],
    ),
    (
        "wordings",
        ([Spread("answer is the words' label", 0.61, 0.83, 5, 5, 400)],),
        "in 61 % to 83 %",
        "61% 至 83%",
        ["5", "61", "83"],
    ),
    (
        "wordings",
        ([Spread("effect of the voice", 0.0, 0.1, 2, 5, 40)],),
        "shown under 2 of 5",
        "5 种措辞中的 2 种",
        ["2", "5", "40"],
    ),
    ("wordings", ([Spread("words: half-effect layer", 20, 24, 5, 5, 40)],), "", "", []),
    ("route", (route(UP, UP),), "Either route alone carries the words.", "单凭任一条通路都能传递语义。", []),
    ("route", (route(UP, UP, UP),), "carries the words; the direct one carries more.", "直接通路传递得更多。", []),
    ("route", (route(UP, UP, UP, on_logit=NONE),), "Either route alone carries the words.", "都能传递语义。", []),
    ("route", (route(UP, UP, DOWN, "prosody"),), "carries the voice; the one through the question", "问题的通路传递得更多。", []),
    ("route", (route(UP, NONE),), "The direct route alone carries the words; that the other", "没有证据表明另一条也能。", []),
    ("route", (route(NONE, UP),), "through the question alone carries the words; that the", "没有证据表明直接通路也能。", []),
    ("route", (route(NONE, DOWN),), "That one route alone carries the words is not shown", "没有证据表明单凭一条", []),
    ("without", (ablated(DOWN),), "their 8 heads, dependence on the words falls 37 points", "多降 37 个百分点", ["8", "37"]),
    ("without", (ablated(NONE),), "That the words need their 8 heads is not shown", "没有证据表明语义需要", ["8"]),
    ("carrier", (carrier("head_3", UP),), "is head 3 of block 23. It adds 0.37", "第 23 块的注意力头 3", ["3", "23", "0.37"]),
    ("carrier", (carrier("attention", UP),), "is the attention of block 23", "第 23 块的注意力", ["23", "0.37"]),
    ("carrier", (carrier("mlp", NONE),), "by itself carries the voice is not shown", "没有证据表明有哪个部件", []),
    (
        "halves",
        ([HeadsTogether("prosody", 8, 270, UP, UP, True)],),
        "Of 270 heads, the strongest 8 (voice) do at least half",
        "最强的 8 个（韵律）",
        ["8", "270"],
    ),
    ("alignment", ("semantic", 200, 0.05), "differ by 5 % at most", "至多相差 5%", ["200", "5"]),
]


@pytest.mark.parametrize("macro, findings, english, chinese, numbers", CASES)
def test_sentences(macro: str, findings: tuple[Any, ...], english: str, chinese: str, numbers: list[str]) -> None:
    said = say(macro, *findings)
    assert english in said["en"] and chinese in said["zh"]
    for text in said.values():
        assert sorted(re.findall(r"\d+(?:\.\d+)?", text)) == sorted(numbers), text
        assert not re.search(r"None|nan|\{|\}|  ", text)
    assert not re.search(r"[,.] *[\u4e00-\u9fff]|[\u4e00-\u9fff] *[,.;:()](?! )", said["zh"]), "half-width marks in Chinese"


def test_rounding_keeps_halves_up_and_signs_off_zero() -> None:
    filters = environment("en").filters
    assert [filters["percent"](x) for x in (0.0049, 0.005, 0.995, 1.0)] == [f"{n}\u00a0%" for n in (0, 1, 100, 100)]
    assert [filters["decimals"](x) for x in (0.045, -0.425)] == ["0.05", "−0.43"] and filters["points"](Estimate(-0.425)) == "43"
    assert filters["decimals"](Estimate(-0.001)) == "0.00" and filters["decimals"](Estimate(-0.037)) == "−0.04"
    assert filters["interval"](Estimate(0.1, -0.05, 0.2)) == "−0.05 – 0.20" and filters["interval"](Estimate(0.1)) == "–"
    assert [filters["size"](n) for n in (5.8e6, 171e6, 8.4e9)] == ["5.8 M", "171 M", "8.4 B"]


def test_both_languages_have_the_same_macros_with_the_same_arguments() -> None:
    sources = [environment("en").loader.get_source(environment("en"), f"sentences.{x}.jinja")[0] for x in LANGUAGES]  # type: ignore[union-attr]
    assert re.findall(r"macro (.*?) -?%}", sources[0]) == re.findall(r"macro (.*?) -?%}", sources[1])

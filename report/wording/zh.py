"""The report's sentences in Chinese, equal in content to those in English."""

from collections.abc import Mapping

import pandas as pd
from common.stats.facts import Fact, shown

from report.markdown import plain
from report.wording.words import chinese

Facts = Mapping[str, Fact]
CUES = {"prosody": "韵律", "semantic": "语义"}
DONORS = {"same_labels_donor": "与受体标签相同的供体", "random_donor": "随机供体", "silence": "与供体等长的静音"}
TROUBLES = {
    "missing": "**缺少输入**：{why}。该实验的结果不在本报告中。",
    "other experiment": "**输入混淆**：{folder}：{why}。该结果未被采用。",
    "partial": "**未完成**：{folder}：{why}。其中的数字一律不列出。",
    "tables": "**无法读取**：{why}。带 --redraw 运行 {script} 可重新生成表格。该结果未被采用。",
    "mixed up": "**输入混淆**：{folder} 与 {other} 不属于同一研究，差异在于 {differs}。本报告不会把二者放在一起下结论。",
    "check missing": "**缺少自检**（{folder}）：运行记录中没有“{check}”一项的结果。",
    "check failed": "**自检未通过**（{folder}）：“{check}”为 {value}，超过容差 {tolerance}。",
    "no controls": "**没有对照供体**（{folder}）：除扰动受体之外，补丁是否传递了信息，无从得知。",
    "warning": "**警告**（{folder}）：{text}",
    "other input": "**未采用**：{folder}：{why}。以文本给出的运行放在音频运行的子文件夹中，与其并列显示。",
    "no manifest": "**找不到样本**：{why}。下文缺少文本与音频。",
    "other clips": "**样本不符**：{folder}：其中 {n} 个样本不在 {manifest} 中，或标签不同。",
}


CAPTIONS = {
    "winrate_curve_conflict.png": "逐层读出的回答是谁的标签：语义的、韵律的，或两者皆非。打乱：把回答在语义标签相同的样本间重新分配时，韵律标签的胜率。",
    "margin_curve_conflict.png": "平均 margin：韵律标签的 logit 减语义标签的 logit。标签先验：仅由标签偏好造成的部分。",
    "congruent_curve.png": "一致样本（语义与韵律相同）逐层读出的正确率，与冲突样本并列。",
    "lens_health.png": "标签词是否已有意义：它们在整个词表概率中的占比、其中最高者的名次，以及该层分布与末层分布的距离。",
    "probe_curve.png": "线性探针在未见过的文本和说话人上读出标签的占比（取自音频片段的均值与末位），以及逐层读出的回答为该标签的占比。灰色细线：随机权重的同一架构、仅用时长与响度、标签重新分配。",
    "flip_rate_curve_kind.png": "修补后的回答成为供体标签的样本对占比（目标翻转率），以及回答不再是受体自身回答的占比（基线翻转率）；灰色细线：换成对照供体时的目标翻转率。",
    "paired_curve_kind.png": "目标翻转率减去对照供体的目标翻转率，逐对比较；灰色细线：减去其他对照。",
    "delta_logit_curve_kind.png": "修补给目标 logit 带来的增量；灰色细线：换成对照供体时。",
    "span_and_tail_curve_kind.png": "混合体给出的是谁的回答：提供音频片段的样本的，还是从第 l 层起提供尾部（问题与回答开头）的样本的。",
    "contrast_curve.png": "目标翻转率：语义对减韵律对。",
    "side_by_side_lens.png": "各次 Logit Lens 放在同一深度尺度上：韵律 − 语义。",
    "side_by_side_semantic.png": "各次激活修补放在同一深度尺度上：语义对的目标翻转率。",
    "side_by_side_prosody.png": "各次激活修补放在同一深度尺度上：韵律对的目标翻转率。",
}


def say(fact: Fact, form: str = ".2f") -> str:
    return shown(fact.value, fact.lo, fact.hi, form)


def p_value(p: float) -> str:
    return "未给出 p 值" if pd.isna(p) else "p < .001" if p < 0.001 else f"p = {p:.3f}"


def allowed(fact: Fact) -> str:
    return f"区间允许的最大效应为 {max(abs(fact.lo), abs(fact.hi)):.2f}" if not pd.isna(fact.lo) else "没有可供判断的区间"


def scope(fact: Fact) -> str:
    if not fact.over:
        return "无区间：文本和说话人太少，无法重抽样"
    return f"95% 区间针对 {chinese(fact.over)}" + (f"，仅对这 {chinese(fact.fixed)}成立" if fact.fixed else "")


def layers(text: str) -> str:
    """Return "1 to 4, 6" as it is written in Chinese."""
    return text.replace(" to ", "–").replace(", ", "、")


def moved(facts: Facts, what: str, form: str = "+.2f") -> str:
    if f"{what}: prompts" not in facts:
        return ""

    def ends(fact: Fact) -> str:
        none = f"，其中 {fact.verdict.removeprefix('none in ')} 个提示下没有" if fact.verdict else ""
        return f"{fact.lo:{form}} 至 {fact.hi:{form}}{none}"

    names = {"wordings": "种措辞", "orders": "种选项顺序"}
    parts = [
        f"{facts[f'{what}: {p}'].n} {name}：{ends(facts[f'{what}: {p}'])}" for p, name in names.items() if f"{what}: {p}" in facts
    ]
    whole = facts[f"{what}: prompts"]
    each = f"（{whole.test}）" if whole.test else ""
    return f"在 {whole.n} 个提示{each}下为 {ends(whole)}" + (f"（{'；'.join(parts)}）。" if parts else "。")


def _voice_lead(facts: Facts) -> str:
    lead = facts["voice_lead"]
    goes = {"prosody": "回答更多地跟随韵律而不是语义", "semantic": "回答更多地跟随语义而不是韵律"}.get(
        lead.verdict, f"没有显示出哪一种线索占优；{allowed(lead)}"
    )
    prior = facts.get("margin_excess")
    beyond = f"，扣除标签偏好后为 {say(prior, '+.2f')}" if prior else ""
    return (
        f"**回答跟随哪种线索**（主要指标：l = L 处韵律胜率减语义胜率）。在 {lead.n} 个冲突样本上，回答为韵律标签的占 {say(facts['win_prosody'])}，"
        f"为语义标签的占 {say(facts['win_semantic'])}，两者皆非的占 {say(facts['win_other'])}。韵律减语义为 {say(lead, '+.2f')}：{goes}。"
        f"margin 为 {say(facts['margin'], '+.2f')} logits{beyond}。检验：{chinese(lead.test)}；{scope(lead)}。"
        f"{moved(facts, 'voice_lead at l = L')}"
    )


def _excess(facts: Facts, kind: str) -> str:
    excess, cue = facts[f"win_{kind}_excess"], CUES[kind]
    shows = {"more": f"回答依赖于{cue}", "less": f"回答回避{cue}标签"}.get(
        excess.verdict, f"没有显示出{cue}的影响；{allowed(excess)}"
    )
    return (
        f"**{cue}是否起作用**。{chinese(excess.control)}，{cue}标签的胜率应为 {facts[f'win_{kind}_null'].value:.2f}；"
        f"实际高出 {say(excess, '+.2f')}：{shows}。检验：{chinese(excess.test)}；{scope(excess)}。"
    )


def _decided(facts: Facts) -> str:
    place, detected = facts["crossing"], facts["decision_layer"]
    over_prompts = moved(facts, "crossing", ".1f")
    if pd.isna(place.value):
        return f"**在何处决定**。没有任何一层可以说已决定跟随某一线索：{chinese(place.verdict.removeprefix('none: '))}。{over_prompts}"
    seen = f"数据从 l = {detected.value:.0f} 起足以显示这一点" if not pd.isna(detected.value) else "没有一层的数据足以显示这一点"
    return (
        f"**在何处决定**。从 l = {say(place, '.1f')} 起，{CUES[place.verdict]}标签一直是最常见的结果（{chinese(place.test)}；{scope(place)}）；"
        f"{seen}（{chinese(detected.test)}）。l = 0 处所有样本的状态相同，不计在内。{over_prompts}"
    )


def _margin(facts: Facts) -> str:
    found = [f for name, f in facts.items() if name.startswith("margin_excess: stretch")]
    names = {"more": "高于 0，偏向韵律", "less": "低于 0，偏向语义", "none": "区间带含 0，没有可声称的偏向"}
    text = "；".join(
        (f"第 {f.lo:.0f} 层" if f.lo == f.hi else f"第 {f.lo:.0f}–{f.hi:.0f} 层") + f"{names[f.verdict]}（均值 {f.value:+.2f}）"
        for f in found
    )
    return f"**逐层来看**，扣除标签先验后的 margin：{text}。检验：{chinese(found[0].test)}；{scope(found[0])}。"


def _mass(facts: Facts) -> str:
    fact = facts["mass"]
    if pd.isna(fact.value):
        return f"**模型会不会说出标签词**。几乎不会：即使在 l = L，各标签合计也只有 {fact.test} 的概率。"
    return (
        f"**模型会不会说出标签词**。从 l = {fact.value:.0f} 起，各标签合计占整个词表概率的一半以上（l = L 处为 {fact.test}）；在此之前，"
        "曲线只是一些不会被说出的词之间的排序。"
    )


def _accuracy(facts: Facts) -> str:
    fact = facts["accuracy"]
    return f"**语义与韵律一致时**，在 {fact.n} 个一致样本上，回答即为该标签的占 {say(fact)}（{scope(fact)}）。"


def _cells(facts: Facts) -> str:
    fact = facts["cells"]
    low, _, high = (plain(cell) for cell in fact.verdict.partition("\n"))
    return (
        f"**逐格来看**（语义 / 韵律），{fact.n} 个格中韵律标签的胜率从 {fact.lo:.2f}（{low}）到 {fact.hi:.2f}（{high}）；"
        "这两格是因为处于两端才被选出的，表中它们的区间应视为偏窄。"
    )


def _agreement(facts: Facts) -> str:
    fact = facts["agreement"]
    return (
        f"**自由作答时**，另有 {fact.n} 个样本以自己的话回答：最先说出的标签与首个 token 读出的标签一致的占 {say(fact)}，"
        f"没有说出任何标签的占 {say(facts['no_label'])}。检验：{chinese(fact.test)}；{scope(fact)}。"
    )


def _probed(facts: Facts, kind: str) -> str:
    unsaid, cue = facts[f"unsaid: {kind}"], CUES[kind]
    _, position, layer = unsaid.row.split(", ")
    where = f"{layer}（{'音频片段的均值' if position == 'span' else '末位'}）"
    controls = {
        "beyond_permuted": "标签重新分配",
        "beyond_random_weights": "随机权重",
        "beyond_duration_and_level": "仅用时长与响度",
    }
    beyond = "，".join(
        f"比{than}高 {say(facts[f'{name}: {kind}'], '+.2f')}" for name, than in controls.items() if f"{name}: {kind}" in facts
    )
    says = {
        "more": f"{cue}标签可以被线性读出，却不是所答",
        "none": "没有一层显示出能读出的多于所答并超出猜测",
    }[unsaid.verdict]
    return (
        f"**{cue}是否在状态之中而未被说出**。在 {where}处，未见过其{chinese(unsaid.control)}的线性探针在 {unsaid.n} 个冲突样本上读出{cue}标签的占 "
        f"{say(facts[f'accuracy: {kind}'])}（猜测为 {facts[f'chance: {kind}'].value:.2f}），回答为该标签的占 "
        f"{facts[f'answered: {kind}'].value:.2f}。差值在所有层和两种位置中最大，为 {say(unsaid, '+.2f')}：{says}。探针的正确率{beyond}。"
        f"探针说明能读出什么，而不是模型用了什么。检验：{chinese(unsaid.test)}，已计入对位置的挑选；{scope(unsaid)}。"
    )


def _one_label(facts: Facts, name: str, primary: str) -> str:
    fact, same = facts[name], facts[name].verdict == "same"
    if facts[primary].verdict == "none":
        stays = "去掉哪一个都没有显示出来" if same else f"只有去掉 {plain(fact.verdict)} 时才显示出来"
    else:
        stays = "去掉哪一个都仍然显示出来，因此并非由某一个标签造成" if same else f"去掉 {plain(fact.verdict)} 后就没有显示出来"
    return f"**是否由某一个标签造成**。{chinese(fact.test)}，主要指标在 {fact.lo:+.2f} 至 {fact.hi:+.2f} 之间：{stays}。"


def _flips(facts: Facts, kind: str) -> str:
    flips, cue = facts["flips"], CUES[kind]
    says = {
        "more": f"音频片段把供体的{cue}传到了回答，超出对照",
        "less": "对照供体使更多回答翻转到该标签",
    }.get(flips.verdict, f"没有显示出音频片段把它传到回答；{allowed(flips)}")
    others = [
        f"相对于{DONORS[f.control]}为 {say(f, '+.2f')}（{p_value(f.p)}）"
        for name, f in facts.items()
        if name.startswith("flips, ") and ":" not in name
    ]
    return (
        f"**供体的{cue}能否传到回答**（主要指标：目标翻转率减去{DONORS[flips.control]}的目标翻转率，{chinese(flips.row.partition(', ')[2])}，"
        f"在 {facts['pairs'].n} 个{cue}对中的 {flips.n} 个上逐对比较）。{facts['flips: real'].value:.2f} 对 "
        f"{facts['flips: control'].value:.2f}，差值 {say(flips, '+.2f')}，{p_value(flips.p)}：{says}。"
        + (f"同样的差值，{'，'.join(others)}。" if others else "")
        + f"检验：{chinese(flips.test)}；{scope(flips)}。{moved(facts, f'{kind} pairs: flips over control, mean of inner layers')}"
    )


def _layers(facts: Facts, kind: str) -> str:
    fact = facts["layers"]
    at = f"在 l = {layers(fact.verdict)} 处" if fact.verdict else "没有一层"
    return f"**在哪些层**。{at}目标翻转率高于{DONORS[fact.control]}（{chinese(fact.test)}；{fact.n} 对）。"


def _delta(facts: Facts, kind: str) -> str:
    fact = facts["delta"]
    says = {"more": "补丁使其升高", "less": "补丁使其降低"}.get(fact.verdict, f"没有显示出效应；{allowed(fact)}（logits）")
    return (
        f"**目标 logit** 变化 {facts['delta: real'].value:+.2f}，换成{DONORS[fact.control]}时变化 {facts['delta: control'].value:+.2f}；"
        f"差值 {say(fact, '+.2f')}，{p_value(fact.p)}：{says}。检验：{chinese(fact.test)}；{scope(fact)}。"
        f"{moved(facts, f'{kind} pairs: delta over control, mean of inner layers')}"
    )


def _directedness(facts: Facts, kind: str) -> str:
    fact = facts["directedness"]
    if pd.isna(fact.value):
        return "**定向还是扰动**。没有回答在两种补丁下都从目标以外的标签发生改变，无从判断。"
    says = {"more": "补丁具有定向作用", "less": "对照更常到达目标"}.get(
        fact.verdict, f"没有显示出补丁不止于扰动；{allowed(fact)}"
    )
    return (
        f"**定向还是扰动**。在从目标以外的标签发生改变的回答中，到达目标的占 {facts['directedness: real'].value:.2f}，换成{DONORS[fact.control]}"
        f"时占 {facts['directedness: control'].value:.2f}；差值 {say(fact, '+.2f')}，{p_value(fact.p)}：{says}。"
        f"检验：{chinese(fact.test)}；{scope(fact)}。"
    )


def _half(facts: Facts, kind: str) -> str:
    half, over_prompts = facts["crossing"], moved(facts, f"{kind} pairs: below half from", ".1f")
    if pd.isna(half.value):
        return f"**持续到哪一层**。无法给出效应降到一半以下的层：{chinese(half.verdict)}。{over_prompts}"
    changed = facts["flip_from_base"]
    return (
        f"**持续到哪一层**。补丁给目标 logit 的增量从 l = {say(half, '.1f')} 起低于 l = 0 处的一半（{chinese(half.test)}；{scope(half)}）。"
        f"低于一半不等于消失：在 {changed.row.partition(', ')[2]} 处仍有 {say(changed)} 的回答改变。{over_prompts}"
    )


def _left(facts: Facts, kind: str) -> str:
    fact = facts["nothing_left"]
    bound, test = fact.test.rpartition(" ")[2], chinese(fact.test)
    if pd.isna(fact.value):
        return f"**从哪一层起不再有影响**。在 L 之前没有一层能够显示改变的回答少于 {bound}（{test}）。"
    return f"**从哪一层起不再有影响**。从 l = {fact.value:.0f} 起，改变的回答少于 {bound}（{test}）。"


LENS = {
    "voice_lead": _voice_lead,
    "win_prosody_excess": lambda facts: _excess(facts, "prosody"),
    "win_semantic_excess": lambda facts: _excess(facts, "semantic"),
    "crossing": _decided,
    "margin_excess: stretch 0": _margin,
    "mass": _mass,
    "accuracy": _accuracy,
    "cells": _cells,
    "agreement": _agreement,
    "unsaid: prosody": lambda facts: _probed(facts, "prosody"),
    "unsaid: semantic": lambda facts: _probed(facts, "semantic"),
    "voice_lead without a label": lambda facts: _one_label(facts, "voice_lead without a label", "voice_lead"),
}
PATCHING = {
    "flips": _flips,
    "layers": _layers,
    "delta": _delta,
    "directedness": _directedness,
    "crossing": _half,
    "nothing_left": _left,
    "flips without a label": lambda facts, kind: _one_label(facts, "flips without a label", "flips"),
}


def edit_sentences(kind: str, facts: Facts) -> list[str]:
    """Return the sentences on what erasing or exchanging a label's subspace does."""
    pairs, cue = facts["pairs"], CUES[kind]
    erased, where = pairs.verdict == "erase", {"span": "音频片段", "last": "最后位置"}[pairs.test]
    first = facts.get("changed" if erased else "flips")
    what = f"**在{where}{'抹除' if erased else '交换'}{cue}**"
    if first is None:
        return [f"{what}（{pairs.n}）：没有运行对照（--controls）：超出随机子空间的作用无从得知。"]
    says = {
        "more": f"回答用到了该处状态中的{cue}信息" if erased else f"子空间承载{cue}",
        "less": "随机子空间的作用更大",
        "none": f"未能显示改变的回答更多；{allowed(first)}" if erased else f"未能显示子空间承载它；{allowed(first)}",
    }[first.verdict]
    at = f"l = {layers(facts['layers'].verdict)}" if facts["layers"].verdict else "没有任何一层"
    outcome = "回答改变的占比" if erased else "目标翻转率"
    sentences = [
        f"{what}（主要指标：{outcome}减去秩与范数相同的随机子空间的，{chinese(first.row.partition(', ')[2])}，"
        f"{pairs.n} {'个样本' if erased else '对'}中的 {first.n} {'个' if erased else '对'}逐一比较）：{facts[f'{first.name}: real'].value:.2f} 对 "
        f"{facts[f'{first.name}: control'].value:.2f}，差值 {say(first, '+.2f')}，{p_value(first.p)}：{says}。逐层看，有此效应的层：{at}"
        f"（{chinese(facts['layers'].test)}）。检验：{chinese(first.test)}；{scope(first)}。"
    ]
    names = {"flips": "回答仍为该标签", "delta": "标签的 logit", "margin": "margin"} if erased else {}
    names |= {} if erased else {"delta": "标签的 logit", "changed": "回答改变"}
    said = "；".join(f"{name} {say(facts[o], '+.2f')}（{p_value(facts[o].p)}）" for o, name in names.items())
    sentences.append(f"**超出随机子空间的部分**，同样计算：{said}。")
    shares = [
        f"{name}的 {say(facts[f'carried: {o}'])}"
        for o, name in (("flips", "翻转"), ("delta", "logit 增量"))
        if f"carried: {o}" in facts and not pd.isna(facts[f"carried: {o}"].value) and facts[o].verdict == "more"
    ]
    if not erased:
        share = f"子空间占{'、'.join(shares)}（同样的样本对）" if shares else "无法给出占比：二者没有可比的效应"
        sentences.append(f"**相对于整个状态**：{share}。")
    told = facts["told"]
    known = f"l = {layers(told.verdict)}" if told.verdict else "没有任何一层"
    sentences.append(
        f"**子空间知道{cue}吗？** 它由其他文本与说话人学得，最好时辨出 {say(told)} 的标签（{chinese(told.row.partition(', ')[2])}）；"
        f"高于随机水平（{told.control}）的层：{known}；在其他层，没有效应不说明什么。"
    )
    return sentences


def lens_summary(facts: Facts) -> str:
    cue, place = CUES.get(facts["voice_lead"].verdict), facts.get("crossing")
    if cue is None:
        return "Logit Lens 没有显示出回答更多地跟随某一种线索。"
    if place is None or pd.isna(place.value):
        return f"回答更多地跟随{cue}；但无法给出从哪一层起已经决定。"
    return f"回答更多地跟随{cue}，并且从 l = {say(place, '.1f')} 起即是如此。"


def ladder(facts: Facts) -> list[str]:
    heard, read, prior = facts["audio: semantic"], facts["transcript: semantic"], facts["transcript: excess"]
    words, voice = facts["audio - transcript: semantic"], facts["audio - transcript: prosody"]
    reads = {"more": "回答依赖于文本", "less": "回答回避语义标签"}.get(
        prior.verdict, f"没有显示出模型从文本中读出了什么（{allowed(prior)}），因此它对文本的回答不能作为尺度"
    )
    listens = {
        "less": "读文本比听音频更多地得到语义标签",
        "more": "听音频比读文本更多地得到语义标签，因此读文本在这里不是上限",
    }.get(words.verdict, f"没有显示出差别；{allowed(words)}")
    brings = {
        "more": "听到音频时它出现得更多",
        "less": "听到音频时它出现得更少",
    }.get(voice.verdict, f"没有显示出差别；{allowed(voice)}")
    sentences = [
        f"**只有文本**。在 {read.n} 个冲突样本上，回答为语义标签的占 {say(read)}；{chinese(prior.control)}，则为 "
        f"{read.value - prior.value:.2f}，差值 {say(prior, '+.2f')}：{reads}。检验：{chinese(prior.test)}；{scope(prior)}。",
        f"**听与读**。同样的样本以音频给出时，语义标签占 {say(heard)}；音频减文本为 {say(words, '+.2f')}：{listens}。文本中没有韵律，"
        f"韵律标签仍占 {say(facts['transcript: prosody'])}；以音频给出时占 {say(facts['audio: prosody'])}，音频减文本为 "
        f"{say(voice, '+.2f')}：{brings}。没有听清的词也会带来其他标签：两者皆非，音频减文本为 "
        f"{say(facts['audio - transcript: other'], '+.2f')}。检验：{chinese(words.test)}；{scope(words)}。",
    ]
    if prior.verdict != "more":  # of a model that makes nothing of texts no comparison with them says anything
        return sentences[:1]
    if (named := facts.get("audio - told: prosody")) is not None:
        follows = {
            "less": "写明的语气比听到的语气更多地被跟随",
            "more": "听到的语气比写明的语气更多地被跟随",
        }.get(named.verdict, f"没有显示出差别；{allowed(named)}")
        sentences.append(
            f"**写明语气**。文本后写明语气时，回答为该语气的占 {say(facts['told: prosody'])}，为语义标签的占 {say(facts['told: semantic'])}。"
            f"韵律标签的占比，文本与语气减文本为 {say(facts['told - transcript: prosody'], '+.2f')}。"
            f"韵律标签的占比，音频减文本与语气为 {say(named, '+.2f')}：{follows}。检验：{chinese(named.test)}；{scope(named)}。"
        )
    return sentences


def patching_summary(kinds: Mapping[str, Facts]) -> str:
    clauses = []
    for kind, facts in kinds.items():
        if "flips" not in facts:
            clauses.append(f"{CUES[kind]}对：没有对照供体，不作任何结论")
            continue
        known = {"more": "音频片段把供体的标签传到了回答，超出对照供体", "less": "对照供体使更多回答翻转到供体的标签"}
        said = known.get(facts["flips"].verdict, f"没有显示出超出对照供体的传递（{allowed(facts['flips'])}）")
        half = facts["crossing"]
        until = f"；对 logit 的作用从 l = {say(half, '.1f')} 起低于一半" if not pd.isna(half.value) else ""
        clauses.append(f"{CUES[kind]}对：{said}{until if facts['flips'].verdict == 'more' else ''}")
    return "。".join(clauses) + "。"


def together(lens: Facts, kinds: Mapping[str, Facts]) -> str:
    cue = lens["voice_lead"].verdict
    carried = [kind for kind, facts in kinds.items() if "flips" in facts and facts["flips"].verdict == "more"]
    shown_of = (
        "显示出超出对照供体的传递的是" + "和".join(CUES[k] for k in carried)
        if carried
        else "两种线索都没有显示出超出对照供体的传递"
    )
    start = f"由 Logit Lens 看，回答跟随{CUES[cue]}" if cue in CUES else "由 Logit Lens 看，两种线索都不占优"
    return f"{start}；由激活修补看，{shown_of}。"

"""Make the tables of check_manifest.py: labels, pairs, contradictions, confounds."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.clips.manifest import Sample
from common.clips.pair_sampling import blocks_of, count_pairs
from data.confounds import confound


@dataclass(frozen=True)
class Heard:
    """What a clip's file is like: length in s, level in dB of full scale, and what kind of file it is."""

    seconds: float
    level: float
    rate: int
    channels: int
    format: str
    digest: str

    @property
    def kind(self) -> str:
        return f"{self.format}, {self.rate} Hz, {self.channels} channel{'s' * (self.channels > 1)}"


@dataclass(frozen=True)
class Manifest:
    """A manifest read to its end: the good rows with what was heard, the number of rows, and what is wrong with the others.

    `left_out` counts rows of labels that are not asked for, which are not wrong.
    """

    path: Path
    labels: tuple[str, ...]
    rows: int
    left_out: Counter[str]
    clips: list[tuple[Sample, Heard]]
    wrong: list[str]

    @property
    def samples(self) -> list[Sample]:
        return [sample for sample, _ in self.clips]


@dataclass(frozen=True)
class Section:
    """One table of the findings; `lines` stand under it."""

    title: str
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    lines: tuple[str, ...] = ()


def findings(manifest: Manifest, *, permutations: int, seed: int) -> list[Section]:
    """Return all that is to be said of a manifest."""
    usable = f"{len(manifest.clips)} of {manifest.rows} rows can be used"
    sections = [Section(f"{manifest.path.name}: {usable}")]
    if manifest.clips:
        sections += [label_table(manifest), overview(manifest), pair_table(manifest), contradictions(manifest)]
        sections.append(confound_table(manifest, permutations=permutations, seed=seed))
    return [*sections, Section("What is wrong", lines=tuple(manifest.wrong) or ("nothing",))]


def label_table(manifest: Manifest) -> Section:
    counts = Counter((s.semantic_label, s.prosody_label) for s in manifest.samples)
    conflict = sum(s.conflict for s in manifest.samples)
    rows = tuple((words, *(str(counts[words, voice]) for voice in manifest.labels)) for words in manifest.labels)
    lines = [f"{conflict} conflict clips, {len(manifest.clips) - conflict} congruent"]
    lines += [f"left out: {n} labelled {label}" for label, n in manifest.left_out.most_common()]
    return Section("Labels", ("words \\ voice", *manifest.labels), rows, tuple(lines))


def overview(manifest: Manifest) -> Section:
    samples, heard = manifest.samples, [h for _, h in manifest.clips]

    def listed(values: Iterable[str]) -> tuple[str, str]:
        counts = Counter(v or "(not given)" for v in values)
        names = ", ".join(f"{name} {n}" for name, n in counts.most_common(8))
        return str(len(counts)), names + ", ..." * (len(counts) > 8)

    def spread(values: Sequence[float]) -> tuple[str, str]:
        low, middle, high = np.quantile(values, (0, 0.5, 1))
        return f"{middle:.2f}", f"from {low:.2f} to {high:.2f}"

    texts = Counter(s.text_id for s in samples)
    per_text = spread([float(n) for n in texts.values()])
    rows = (
        ("speakers", *listed(s.speaker for s in samples)),
        ("texts", str(len(texts)), f"{per_text[0]} clips each, {per_text[1]}"),
        ("languages", *listed(s.language for s in samples)),
        ("sources", *listed(s.source for s in samples)),
        ("kinds of file", *listed(h.kind for h in heard)),
        ("length, s (median)", *spread([h.seconds for h in heard])),
        ("level, dB of full scale (median)", *spread([h.level for h in heard])),
    )
    return Section("What is there", ("", "", ""), rows)


PAIR_RULES = {  # what pairs share beside the label of their kind
    "any": (),
    "--same-speaker": ("speaker",),
    "--same-text": ("text_id",),
    "--same-speaker --same-text": ("speaker", "text_id"),
}


def pair_table(manifest: Manifest) -> Section:
    """Count the pairs of each kind under each rule; semantic pairs never share a text."""
    rows = []
    for pool, clips in (("conflict", [c for c in manifest.clips if c[0].conflict]), ("all", manifest.clips)):
        samples, seconds = [s for s, _ in clips], [h.seconds for _, h in clips]
        for rule, shared in PAIR_RULES.items():
            for length in ("", " --equal-length"):
                counts = []
                for same, other in (("prosody_label", "semantic_label"), ("semantic_label", "prosody_label")):
                    if same == "prosody_label" and "text_id" in shared:
                        counts.append("-")
                    elif length:
                        counts.append(
                            str(sum(int(b.counts.sum()) for b in blocks_of(samples, (same, *shared), other, seconds, 0)))
                        )
                    else:
                        counts.append(str(count_pairs(samples, (same, *shared), other)))
                rows.append((pool, f"{rule}{length}".replace("any --", "--"), *counts))
    line = "an ordered pair counts once; the same labels, speakers and texts as activation_patching/run.py asks for"
    return Section("Pairs", ("--pool", "rule", "semantic", "prosody"), tuple(rows), (line,))


def contradictions(manifest: Manifest) -> Section:
    return Section("What contradicts itself, or may not be meant", lines=tuple(_contradictions(manifest)) or ("nothing",))


def _contradictions(manifest: Manifest) -> Iterator[str]:
    samples = manifest.samples

    def several(name: str, of: str, groups: Iterable[tuple[str, str]]) -> Iterator[str]:
        values: dict[str, set[str]] = defaultdict(set)
        for key, value in groups:
            if key:
                values[key].add(value)
        odd = {key: found for key, found in values.items() if len(found) > 1}
        if odd:
            key, found = next(iter(odd.items()))
            yield f"{len(odd)} {name} with several {of}, such as {key!r}: {', '.join(repr(f) for f in sorted(found)[:3])}"

    yield from several("text_id", "texts", ((s.text_id, " ".join(s.text.split())) for s in samples))
    yield from several("texts", "text_id", ((" ".join(s.text.split()), s.text_id) for s in samples))
    yield from several("text_id", "semantic labels", ((s.text_id, s.semantic_label) for s in samples))
    yield from several("text_id", "languages", ((s.text_id, s.language) for s in samples))
    yield from several("speakers", "spellings", ((s.speaker.casefold().replace(" ", ""), s.speaker) for s in samples))
    yield from several("audio files", "rows", ((str(s.audio.resolve()), s.sample_id) for s in samples))
    recordings = {h.digest: str(s.audio.resolve()) for s, h in manifest.clips}
    yield from several("recordings", "files", ((recordings[h.digest], str(s.audio.resolve())) for s, h in manifest.clips))
    if nobody := sum(not s.speaker for s in samples):
        yield f"{nobody} clips without a speaker, which are in no pair of one speaker"
    voices: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        voices[sample.text_id].add(sample.prosody_label)
    if alone := sum(len(v) == 1 for v in voices.values()):
        yield f"{alone} of {len(voices)} texts with one prosody only, in no prosody pair of one text"


def confound_table(manifest: Manifest, *, permutations: int, seed: int) -> Section:
    """Return how well each cue that a model could use instead of listening tells each label."""
    samples, heard = manifest.samples, [h for _, h in manifest.clips]
    cues = {
        "length": np.array([h.seconds for h in heard]),
        "level": np.array([h.level for h in heard]),
        "speaker": np.array([s.speaker for s in samples]),
        "kind of file": np.array([h.kind for h in heard]),
    }
    labels = {"words": [s.semantic_label for s in samples], "voice": [s.prosody_label for s in samples]}
    texts = [s.text_id for s in samples]
    rows = []
    for (cue, values), (label, of_label) in ((c, k) for c in cues.items() for k in labels.items()):
        found = confound(cue, values, label, of_label, texts, permutations=permutations, seed=seed)
        if found is None:
            rows.append((cue, label, "-", "-", "-", "one value, label or text only"))
            continue
        said = "tells it" if found.tells else ""
        rows.append(
            (cue, label, f"{found.recall:.2f}", f"{found.chance:.2f}", f"{found.null:.2f}", f"{said} (p {found.p:.3f})".strip())
        )
    line = "recall: mean over labels, on texts left out; null: 95 % of permuted labels are below it"
    return Section("Does something else tell the label?", ("cue", "label", "recall", "chance", "null", ""), tuple(rows), (line,))

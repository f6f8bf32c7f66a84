"""From Python: load a model, read clips, read off its layers, patch pairs, draw. All else here is what both experiments share.

The scripts make their rows with the same functions. Nothing is imported before it is called, so that `import common` stays cheap.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from common.clips.manifest import Sample
    from common.clips.pairs import Pair
    from common.compute.session import Session

DEMO = Path(__file__).resolve().parents[1] / "data" / "demo" / "manifest.csv"
_CHECKED_ON = 8  # clips of the demo


def read_clips(
    manifest: str | Path = DEMO,
    *,
    labels: Sequence[str] | None = None,
    conflict: bool = True,
    limit: int | None = None,
    seed: int = 0,
) -> "list[Sample]":
    """Return the conflict clips of a manifest, or all; at most `limit` of them, drawn with the seed, in the manifest's order.

    With `labels` given, clips of others are left out. Raises InputError, naming file, row and column, as the scripts do.
    """
    from common.clips import manifest as clips

    found, _ = clips.read_clips(Path(manifest).expanduser().absolute(), labels)
    return clips.draw(clips.conflict_clips(found)[0] if conflict else found, limit, seed=seed)


def pairs(clips: "Sequence[Sample]", kind: str = "semantic", *, limit: int | None = None, seed: int = 0) -> "list[Pair]":
    """Return pairs of clips, at most `limit` drawn with the seed: `kind` "semantic" differs in the words, "prosody" in the voice.

    Raises InputError where the clips make no such pair.
    """
    from common.clips.pairs import KINDS, PairRules, build_pairs
    from common.errors import InputError

    if kind not in KINDS:
        raise InputError(f"kind {kind!r}; allowed: {', '.join(KINDS)}")
    return build_pairs(clips, kind, PairRules(max_pairs=limit), seed=seed)[0]


def load_model(
    name: str | Path | None = None,
    *,
    prompt: str = "speaker",
    labels: Sequence[str] | None = None,
    words: Sequence[str] | None = None,
    clips: "Sequence[Sample] | None" = None,
    **choice: Any,
) -> "Session":
    """Return a folder's or hub id's model (None: the small model), ready to be asked `prompt`, once its self-check has passed.

    It is checked, and the form of its answer measured, on `clips`: one is enough, and by default some of the demo's are taken.
    `choice`: device, dtype and the other fields of ModelChoice. Raises InputError or CheckFailed as the scripts do.
    """
    from common.clips.manifest import LABELS
    from common.compute.session import open_session
    from common.default_model import default_model
    from common.model import ModelChoice
    from common.model.prompts import ask
    from common.patching import ENGINES
    from common.paths import path_or_name

    question = ask(prompt, labels=labels or LABELS, words=words)
    clips = read_clips(limit=_CHECKED_ON) if clips is None else list(clips)
    model = ModelChoice(path_or_name(str(default_model() if name is None else name)), **choice)
    return open_session(model, question, clips, engines=ENGINES)


def lens(model: "Session", *clips: "Sample") -> "pd.DataFrame":
    """Return a row for each clip and layer: logits of the labels, `winner`, `margin`; the columns of lens.csv (lens_rows)."""
    import pandas as pd

    from logit_lens.rows import layers_of

    model.check_clips(*clips)
    return pd.DataFrame([row for rows in layers_of(model, [[clip] for clip in clips]) for row in rows])


def patch(model: "Session", *pairs: "Pair") -> "pd.DataFrame":
    """Return a row for each pair and layer at which the donor's audio is put in: logits of the labels, the answer
    `pred_patch`, `flip_to_target`; the columns of patches.csv (pair_rows).
    """
    import pandas as pd

    from activation_patching.choose import groups_of
    from activation_patching.span.alignment import check_spans
    from activation_patching.span.rows import patch_pairs

    model.check_clips(*(clip for pair in pairs for clip in (pair.recipient, pair.donor)))
    check_spans(model, pairs, "splice")
    return pd.DataFrame([row for rows in patch_pairs(model, groups_of(list(pairs))) for row in rows])


def plot(table: "pd.DataFrame", path: str | Path | None = None) -> "Axes":
    """Draw the labels' logits over the layers, the mean of all clips or pairs of a table; written to `path`, if there is one."""
    from common.plotting import FigureStyle, figure, label_logits

    file = Path(path or "unwritten.png")
    with figure(file, FigureStyle(formats=(file.suffix[1:],) if path else ())) as (axes,):
        label_logits(axes, table, FigureStyle())
    return axes

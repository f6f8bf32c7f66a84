"""What others have found with the same clips, beside one's own figures."""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from common.clips.csvfile import read_table
from common.stats.facts import stated
from report.markdown import Say, code, plain, table
from report.wording.words import english

PUBLISHED = Path(__file__).resolve().parents[1] / "data" / "published.csv"


def published_beside(layers: pd.DataFrame, record: dict[str, Any], say: Say = english) -> str:
    """Return a section with the published figures of the same clips, of the same model where there are any; "" if there are none.

    `layers` and `record` are those of the lens. Clips are known by the `source` of their rows, models by their name.
    """
    found = read_table(PUBLISHED)
    sources, model = record["counts"].get("sources", []), record["identity"]["model"]
    found = found[[any(source.startswith(clips) for source in sources) for clips in found.clips]]
    if found.empty:
        return ""
    alike = found[[_plain(name) in _plain(Path(model).name) for name in found.model]]
    own = layers.iloc[-1]
    rows = [[say("this run"), f"{own.n:.0f}", stated(own, "win_prosody"), stated(own, "win_semantic"), code(model)]]
    for r in (alike if len(alike) else found).itertuples():
        rows.append(
            [plain(r.model), str(r.n), f"{r.voice:.3f}", f"{r.words:.3f}", plain(f"{say('labels')} {r.labels}; {r.source}")]
        )
    text = (
        "Share of conflict clips answered with the voice's label and with the words'. The others asked and scored in ways of "
        "their own; this run reads the answer from its first token."
    )
    header = ("", "n", say("voice"), say("words"), say("from"))
    return "\n\n".join([f"### {say('Beside what is published')}", say(text), table(header, rows)])


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())

"""Compare a run with published results on the same clips."""

import re
from pathlib import Path

import pandas as pd

from common.clips.csvfile import read_table
from report.language import Say
from report.markdown import code, plain, stated, table
from report.runs import Outputs

PUBLISHED = Path(__file__).resolve().parents[2] / "data" / "published.csv"


def published_beside(run: Outputs, say: Say) -> str:
    """Return a table of published figures of the same clips beside a lens run's, of the same model where there are any.

    It is empty where there are none.
    """
    found, alike = published_figures(run)
    if found.empty:
        return ""
    own = run.tables["layers"].iloc[-1]
    rows = [
        [say("this run"), f"{own.n:.0f}", stated(own, "win_prosody"), stated(own, "win_semantic"), code(run.identity["model"])]
    ]
    for r in (alike if len(alike) else found).itertuples():
        where = plain(f"{say('labels')} {r.labels}; {r.source}")
        rows.append([plain(r.model), str(r.n), f"{r.voice:.3f}", f"{r.words:.3f}", where])
    return table(("", "n", say("voice"), say("words"), say("from")), rows)


def published_figures(run: Outputs) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of published.csv of a lens run's clips, known by their `source`, and those of them of its model.

    A model is known by its name, which begins with the published one, word by word: DeSTA2.5 is not DeSTA2.
    """
    found, sources = read_table(PUBLISHED), run.record["counts"].get("sources", [])
    found = found[[any(_begins(source, clips) for source in sources) for clips in found.clips]]
    model = Path(run.identity["model"]).name
    return found, found[[_begins(model, name) for name in found.model]]


def _begins(name: str, with_: str) -> bool:
    words, first = (re.findall(r"[a-z0-9.]+", text.lower()) for text in (name, with_))
    return words[: len(first)] == first

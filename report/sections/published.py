"""Compare a run with published results on the same clips."""

import re
from pathlib import Path

from common.clips.csvfile import read_table
from report.language import Say
from report.markdown import code, plain, stated, table
from report.runs import Outputs

PUBLISHED = Path(__file__).resolve().parents[2] / "data" / "published.csv"


def published_beside(run: Outputs, say: Say) -> str:
    """Return a table of published figures of the same clips beside a lens run's, of the same model where there are any.

    It is empty where there are none. Clips are known by the `source` of their rows, models by their name.
    """
    found = read_table(PUBLISHED)
    sources, model = run.record["counts"].get("sources", []), run.identity["model"]
    found = found[[any(source.startswith(clips) for source in sources) for clips in found.clips]]
    if found.empty:
        return ""
    alike = found[[_letters(name) in _letters(Path(model).name) for name in found.model]]
    own = run.tables["layers"].iloc[-1]
    rows = [[say("this run"), f"{own.n:.0f}", stated(own, "win_prosody"), stated(own, "win_semantic"), code(model)]]
    for r in (alike if len(alike) else found).itertuples():
        where = plain(f"{say('labels')} {r.labels}; {r.source}")
        rows.append([plain(r.model), str(r.n), f"{r.voice:.3f}", f"{r.words:.3f}", where])
    return table(("", "n", say("voice"), say("words"), say("from")), rows)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())

"""Write the results of check_manifest.py as an HTML page."""

import base64
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jinja2 import Environment
from matplotlib.figure import Figure

from common.errors import InputError
from common.files import in_one_step
from common.plotting import drawing, save
from data.manifest_checks import Manifest, Section

PAGE = """<!doctype html>
<!-- written by data/check_manifest.py, which writes over its own pages alone -->
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ name }}</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
  table { border-collapse: collapse; margin: .5rem 0; }
  th, td { padding: .2rem .8rem .2rem 0; text-align: left; border-bottom: 1px solid #ddd; vertical-align: top; }
  td { overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
  img { max-width: 100%; }
  p { margin: .2rem 0; overflow-wrap: anywhere; }
</style>
{% for section in sections %}
<h2>{{ section.title }}</h2>
{% if section.header %}
<table>
  <tr>{% for cell in section.header %}<th>{{ cell }}</th>{% endfor %}</tr>
  {% for row in section.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
  {% endfor %}
</table>
{% endif %}
{% for line in section.lines %}<p>{{ line }}</p>
{% endfor %}
{% if loop.first and picture %}<img alt="Clips by label of words and voice; length and level by label of the voice"
 src="data:image/png;base64,{{ picture }}">{% endif %}
{% endfor %}
</html>
"""
_MARK = PAGE.splitlines()[1]


def check_page(path: Path) -> None:
    """Raise InputError where something is there that is no page of this program."""
    if not path.exists() and not path.is_symlink():
        return
    try:
        with open(path, encoding="utf-8") as file:
            ours = file.read(200).splitlines()[1:2] == [_MARK]
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise InputError(f"--html {path}: is there, and is no page of this program: it is left as it is; give another name")


def write_page(path: Path, manifest: Manifest, sections: Sequence[Section]) -> None:
    """Write the page. Raises InputError as `check_page` does, and where it cannot be written."""
    check_page(path)
    picture = base64.b64encode(draw(manifest)).decode() if manifest.clips else ""
    page = Environment(autoescape=True).from_string(PAGE)
    text = page.render(name=manifest.path.name, sections=sections, picture=picture)
    try:
        with in_one_step(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--html {path}: cannot be written ({error.strerror})") from None


def draw(manifest: Manifest) -> bytes:
    """Return a PNG: how many clips there are of each pair of labels, and how long and how loud each voice is."""
    labels, counts = manifest.labels, Counter((s.semantic_label, s.prosody_label) for s in manifest.samples)
    grid = np.array([[counts[words, voice] for voice in labels] for words in labels])
    with drawing(**{"font.size": 11, "axes.labelsize": 11}):
        sheet = Figure(figsize=(13, 4.2), layout="constrained")
        cells, lengths, levels = sheet.subplots(1, 3)
        cells.imshow(grid, cmap="Blues", vmin=0, vmax=1.4 * max(1, grid.max()))
        for (row, column), count in np.ndenumerate(grid):
            cells.text(column, row, str(count), ha="center", va="center")
        cells.set_xticks(range(len(labels)), labels, rotation=30)
        cells.set_yticks(range(len(labels)), labels)
        cells.set(xlabel="voice", ylabel="words", title="clips")
        shown = [label for label in labels if any(s.prosody_label == label for s in manifest.samples)]
        for axes, name, title in ((lengths, "seconds", "length, s"), (levels, "level", "level, dB of full scale")):
            values = [[getattr(h, name) for s, h in manifest.clips if s.prosody_label == label] for label in shown]
            axes.boxplot(values, tick_labels=shown, medianprops={"color": "#D55E00"})
            axes.tick_params(axis="x", rotation=30)
            axes.set(title=title, xlabel="voice")
        file = io.BytesIO()
        save(sheet, file, dpi=110)
    return file.getvalue()

"""Put matplotlib's SVG figures into the page, in its colours."""

import re
from pathlib import Path
from xml.etree import ElementTree

SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
COLORS = {  # of common.plotting: of the page
    **dict.fromkeys(("#000000", "#222222"), "currentColor"),
    **dict.fromkeys(("#7f7f7f", "#8a8a8a", "#555555"), "var(--soft)"),
    **dict.fromkeys(("#c4c4c4", "#ebebeb"), "var(--line)"),
    **{"#ffffff": "var(--ground)", "#0072b2": "var(--words)", "#d55e00": "var(--voice)", "#b00020": "var(--alarm)"},
}


def inline(file: Path, alt: str, prefix: str) -> str:
    """Return an SVG of matplotlib as an element of the page, `alt` its text; `prefix` keeps its ids apart from others'.

    It is never narrower than it was drawn, so that its letters can be read on a phone: there its box scrolls.
    """
    root = ElementTree.fromstring(file.read_bytes())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{SVG}metadata", f"{SVG}style"):  # which would be the style of the whole page
                parent.remove(child)
    text = ElementTree.tostring(root, encoding="unicode")
    used = set(re.findall(r"url\(#([^)]+)\)", text)) | {e.attrib[LINK].removeprefix("#") for e in root.iter() if LINK in e.attrib}
    for element in root.iter():
        element.tag = element.tag.removeprefix(SVG)
        element.text = element.tail = None
        attributes = element.attrib
        if (name := attributes.pop("id", None)) in used:
            attributes["id"] = f"{prefix}-{name}"
        if LINK in attributes:
            attributes["href"] = re.sub("^#", f"#{prefix}-", attributes.pop(LINK))  # of a shape, or a picture as data
        for key, value in attributes.items():
            attributes[key] = re.sub(r"url\(#", f"url(#{prefix}-", value)
        if "d" in attributes:
            attributes["d"] = " ".join(re.sub(r"(\.\d\d)\d+", r"\1", attributes["d"]).split())  # two decimals are enough
        if "style" in attributes:
            attributes["style"] = re.sub("#[0-9a-f]{6}", lambda found: COLORS.get(found[0], found[0]), attributes["style"])
    about = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": alt, "class": "plot"}
    root.attrib.clear()
    root.attrib.update(about | {"style": f"min-width: {about['viewBox'].split()[2]}pt"})
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)

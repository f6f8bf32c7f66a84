"""What a reader meets in a markdown file: its prose, the sentences and numbers in it, its commands and links."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    f
    for folder in ("", "common", "logit_lens", "activation_patching", "data", "tests")
    for f in sorted((ROOT / folder).glob("**/*.md" if folder else "*.md"))
    if not {"outputs", "assembled", "base", "wheels"} & {*f.relative_to(ROOT).parts}
]


def prose(text: str) -> str:
    """Return the text without code blocks, tables, images and the targets of links."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    text = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("|"))
    return re.sub(r"\]\([^)]*\)", "]", re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text))


def sentences(text: str) -> list[str]:
    """Return the sentences, each on one line; paragraphs, headings and items of lists end one too."""
    parts = re.split(r"(?<=[.!?:])[*)]*\s+|\n\s*\n|\n(?=- |\d\. |#)", prose(text))
    return [" ".join(part.split()) for part in parts]


def numbers(text: str) -> list[str]:
    return re.findall(r"(?<![A-Za-z0-9_.])[-+]?\d*\.?\d+", prose(text))


def headings(text: str) -> list[str]:
    return re.findall(r"^#+ .*", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), flags=re.M)


def commands(text: str) -> list[str]:
    """Return the lines of the code blocks that a user types; a block that starts otherwise is what comes out."""
    blocks = re.findall(r"^```\n((?:git|cd|make|pip|python|torchrun) .*?)^```", text, flags=re.S | re.M)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def inline(text: str) -> list[str]:
    """Return what stands in backticks within the prose."""
    return re.findall(r"`([^`\n]+)`", prose(text))


def links(text: str) -> list[str]:
    """Return the targets of links and images to files, without what they name in them."""
    return [t for t in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text) if "://" not in t]

"""Count word errors: where a transcript differs from what was said."""

import re

import jiwer

_CHARACTERS = "\u3040-\u30ff\u4e00-\u9fff"  # Chinese and Japanese, which have no spaces between words
_WORD = re.compile(rf"[{_CHARACTERS}]|[^\W_{_CHARACTERS}]+(?:['’][^\W_{_CHARACTERS}]+)*")


def word_errors(heard: str, said: str) -> tuple[int, int]:
    """Return the least number of words to insert, delete or replace in `heard`, and the number of words `said`.

    Case and punctuation do not count. Of Chinese and Japanese, characters are counted.
    """
    a, b = (_WORD.findall(text.lower()) for text in (heard, said))
    if not a or not b:
        return max(len(a), len(b)), len(b)
    found = jiwer.process_words(" ".join(b), " ".join(a))
    return found.substitutions + found.deletions + found.insertions, len(b)

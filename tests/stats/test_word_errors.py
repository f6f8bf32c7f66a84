"""Word errors of a transcript: the least edits, by words or Chinese characters."""

import pytest

from common.stats.word_errors import word_errors


@pytest.mark.parametrize(
    ("heard", "said", "errors"),
    [
        ("I saw a dog", "I saw the big dog.", (2, 5)),
        ("PUT the plates back!", "Put the plates back.", (0, 4)),
        ("", "two words", (2, 2)),
        ("it's me", "it is me", (2, 3)),
        ("今天很好", "今天，不好。", (1, 4)),
        ("OK今天", "ok 明天", (1, 3)),
        ("something", "...", (1, 0)),
    ],
)
def test_least_edits(heard: str, said: str, errors: tuple[int, int]) -> None:
    assert word_errors(heard, said) == errors

"""Generate the free text of an intervention from its next tokens; make the rows of generated.csv."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from activation_patching.free_text import FILE
from common.compute.session import Session
from common.model.generation import MOST_TOKENS, answer_kind, said
from common.model.lm import AudioLM
from common.model.readout import tokens_behind
from common.patching.free_text import NextToken, end_tokens, greedy, word_scores
from common.run.run_folder import Run, Work, make_rows

_READ = {  # what new tokens read, by intervention
    "span": "the recipient's audio in the blocks before l, the donor's from l on",
    **dict.fromkeys(("exchange", "scale"), "the prompt, whose positions `at` are edited; they are not edited themselves"),
    "knockout": "all but what is hidden from the last token, which stays hidden",
    "components": "the prompt, in which a part is patched; they are not patched themselves",
}


def speak(
    session: Session, this: Run, groups: Sequence[list[Any]], name: Callable[[Any], str], ask: Callable[[list[Any]], NextToken]
) -> dict[str, Any]:
    """Make the rows of groups of units, each group asked together; return what run.json says of them, nothing where none speak.

    `ask` returns what asks a group; its rows are units x layers.
    """
    if not groups:
        return {}

    def rows_of(groups: Sequence[list[Any]]) -> Iterator[list[dict[str, Any]]]:
        for group in groups:
            yield spoken(session, this.unit, [name(unit) for unit in group], ask(group))

    make_rows(replace(this, rows=this.out / FILE), Work(rows_of, groups, name, session.layers), overwrite=False)
    read = _READ[this.identity["intervention"]]
    return {"free_text": {"units": sum(map(len, groups)), "tokens_at_most": MOST_TOKENS, "new_tokens_read": read}}


def spoken(session: Session, unit: str, names: Sequence[str], next_token: NextToken) -> list[dict[str, Any]]:
    """Return a row for each unit and layer.

    `generated`: the greedy text. `said`: the label that it names first; `answer_kind`: label, hedge (it names more than one),
    refusal or none. `whole_word`: the label whose word, with an end behind it, is the likeliest answer.
    """
    readout, tokenizer, count = session.readout, session.lm.processor.tokenizer, len(session.layers)
    tail = session.first.tail_ids
    before = tail[: len(tail) - len(readout.lead)]
    words = [tokens_behind(tokenizer, before, word)[len(readout.lead) :] for word in readout.words]
    scores, likeliest = word_scores(next_token, len(names) * count, words, ends=end_tokens(session.lm))
    texts = texts_of(session.lm, next_token, len(names) * count, most=MOST_TOKENS, likeliest=likeliest)
    labels, bare_words = readout.labels, session.question.bare_words
    return [
        {
            unit: names[row // count],
            "layer": session.layers[row % count],
            "generated": text,
            "said": said(text, labels, bare_words),
            "answer_kind": answer_kind(text, labels, bare_words),
            "whole_word": readout.answer(of_words),
        }
        for row, (text, of_words) in enumerate(zip(texts, scores.cpu()))
    ]


def texts_of(lm: AudioLM, next_token: NextToken, rows: int, *, most: int, **known: Any) -> list[str]:
    """Return what each row says, in one line, in at most so many tokens; `known`: what `greedy` need not ask."""
    stops: Any = {*end_tokens(lm), lm.audio_token_id}  # no rerun could go on behind a token that stands for audio
    told = greedy(next_token, rows, ends=stops, most=most, **known)
    return [" ".join(lm.processor.tokenizer.decode(tokens, skip_special_tokens=True).split()) for tokens in told]

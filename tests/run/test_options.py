"""Options have ranges, which --help states, and which are checked before any work."""

import re
from pathlib import Path

import pytest

import activation_patching.run
import logit_lens.run
from common.clips.manifest import conflict_clips, read_manifest
from common.clips.pairs import Pair, control_pairs
from common.errors import InputError
from common.model.encoding import encode_clip
from common.model.lm import AudioLM
from common.model.prompts import ask
from common.model.readout import Readout, check_tokens
from data import check_manifest

BAD = {
    "--match-level": ("26", "-900", "nan", "inf", "-inf"),
    "--seed": ("-1", "4294967296", "1e3", "nan"),
    "--limit": ("0", "-3", "99999999999"),
}
OF_PATCHING = {
    "--cache-gb": ("-1", "nan", "inf"),
    "--equal-length": ("-1", "nan", "inf", "1e9"),
    "--rank": ("0", "10"),
    "--max-pairs": ("0",),
    "--pairs-per-recipient": ("0",),
}
SCRIPTS = {"lens": logit_lens.run.main, "patching": activation_patching.run.main, "check": check_manifest.main}
CASES = [("lens", o, v) for o, values in BAD.items() for v in values]
CASES += [("lens", "--generate", "-1"), ("check", "--permutations", "0"), ("check", "--seed", "-1")]
CASES += [("patching", o, v) for o, values in OF_PATCHING.items() for v in values]


@pytest.mark.parametrize(("script", "option", "value"), CASES)
def test_a_value_out_of_range_is_one_line_that_tells_the_range(
    script: str, option: str, value: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stopped:
        SCRIPTS[script]([f"{option}={value}", *(["m.csv"] if script == "check" else [])])
    said = capsys.readouterr().err.rstrip().splitlines()[-1]
    assert stopped.value.code == 2 and re.search(rf"argument {option}: invalid .*number from \S+ (to \S+|on) value: ", said)
    with pytest.raises(SystemExit):
        SCRIPTS[script](["--help"])
    entry = capsys.readouterr().out.partition(f"\n  {option} ")[2].partition("\n  --")[0]
    assert re.search(r"\d (to|or more)|to labels", " ".join(entry.split())), entry


def test_pairs_of_a_file_are_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--pairs-file does not go with --intervention scale"):
        activation_patching.run.main(
            ["--model", "x", "--intervention", "scale", "--pairs-file", "x.csv", "--out", str(tmp_path / "x")]
        )


def test_words_that_stand_for_something_else_are_refused() -> None:
    for word in ("{audio}", "x{labels}"):
        with pytest.raises(InputError, match="must not hold {audio} or {labels}"):
            ask("speaker", labels=("a", "b"), words=("x", word))


def test_a_clip_alone_has_no_other_donor_and_ends(manifest: Path) -> None:
    """The search for a random donor looked for ever."""
    clip = conflict_clips(read_manifest(manifest))[0][0]
    pair = Pair("semantic", clip, clip)
    assert not control_pairs([pair], [clip], "same_labels_donor", seed=0)


def test_a_token_that_the_model_does_not_know_is_one_line(lm: AudioLM, manifest: Path) -> None:
    clip = encode_clip(lm, read_manifest(manifest)[0].audio, ask("speaker").prompt)
    known = lm.model.get_input_embeddings().num_embeddings
    check_tokens(lm, clip, Readout(("a",), ("a",), (known - 1,), ("a",)))
    with pytest.raises(InputError, match=rf"is number {known}, and the model knows {known} tokens"):
        check_tokens(lm, clip, Readout(("a",), ("a",), (known,), ("a",)))

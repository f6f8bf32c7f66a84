"""Plant mistakes in a copy of the code, one at a time, and run the tests that should notice: `make mutants`.

Of modules whose mistakes are silent: numbers come out, and they are wrong. Ends with 1 where more than ALLOWED survive.
"""

import argparse
import importlib
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = ("common", "logit_lens", "activation_patching", "report", "data", "tests", "pyproject.toml")
NOT_CODE = shutil.ignore_patterns("__pycache__", "outputs", "demo", "base", "assembled", "*.safetensors", "*.png", "*.html")
SLOW_IMPORTS = (  # once for all: each mistake's tests run in a fork of this process
    *("torch", "pandas", "scipy.stats", "sklearn.model_selection", "matplotlib.pyplot", "accelerate", "soundfile", "PIL.Image"),
    *("transformers.models.qwen2_audio.modeling_qwen2_audio", "concept_erasure", "transformers.generation"),
)
ALLOWED, LIMIT = 2, 300  # seconds of a processor for the tests of one mistake: one that never ends is noticed


class Mutant(NamedTuple):
    file: str
    old: str
    new: str
    tests: str  # a file, or a test of it


TRACE, KEYS = (
    "tests/patching/test_trace.py",
    "tests/patching/test_trace.py::test_a_question_behind_a_front_is_answered_as_behind_audio",
)
LEACE, PAIRS = "tests/patching/test_leace.py", "tests/clips/test_pairs.py"
EFFECTS, INTERVALS = "tests/activation_patching/test_effects.py", "tests/stats/test_intervals.py"
READOUT, FORM, MODELS = "tests/model/test_readout.py", "tests/compute/test_answer_form.py", "tests/model/test_models.py"
TUNED, CROSSINGS = "tests/logit_lens/test_tuned_lens.py", "tests/stats/test_intervals.py"
KNOCKOUT = "tests/activation_patching/test_knockout.py"
FREE_TEXT, SCALE = "tests/activation_patching/test_free_text.py", "tests/activation_patching/test_scale.py"
SETTINGS = "tests/model/test_checkpoint_settings.py"
PROBE, LOOP = "tests/logit_lens/test_probe_run.py", "tests/patching/test_own_loop.py"

MUTANTS = (
    Mutant("common/patching/splice.py", "tails[inner.index(layer)]", "tails[inner.index(layer) - 1]", TRACE),
    Mutant("common/patching/splice.py", "torch.cat([h, tails[-1].to(h)]", "torch.cat([h, tails[-2].to(h)]", TRACE),
    Mutant("common/patching/splice.py", "entering = tails[0] if (tails[0] != first).any() else first", "entering = first", TRACE),
    Mutant("common/tracing/trace.py", "states[layer][..., -1, :] for", "states[layer][..., -2, :] for", TRACE),
    Mutant(
        "common/tracing/trace.py",
        "zip(maps, last)]",
        "zip([*maps[:-1], *([lambda h: h] if maps else [])], last)]",
        TRACE,
    ),
    Mutant(
        "common/tracing/trace.py",
        "wide.mean(dim=-2, keepdim=True)",
        "wide[..., :1, :]",
        f"{PROBE}::test_states_are_those_of_the_clips_own_run_in_the_order_of_the_rows",
    ),
    Mutant("common/tracing/trace.py", "max((i + 1 for", "max((i for", TRACE),
    Mutant("common/tracing/kv_cache.py", "    cache.activate_past_recording()\n", "", KEYS),
    Mutant("common/tracing/prefix_cache.py", "torch.arange(start, stop,", "torch.arange(start + 1, stop + 1,", KEYS),
    Mutant("common/patching/layer_batch.py", "h.narrow(-3, 0, 1)", "h.narrow(-3, h.shape[-3] - 1, 1)", TRACE),
    Mutant("common/patching/layer_batch.py", "align_corners=True", "align_corners=False", TRACE),
    Mutant(
        "common/patching/rerun.py",
        "extra_inputs[layer:], first=layer",
        "extra_inputs, first=0",
        f"{LOOP}::test_patches_are_those_of_a_loop_over_layers[shared keys]",
    ),
    Mutant(
        "common/patching/self_check.py",
        "moved[-1] >= clip.span.stop",
        "moved[-1] > clip.span.stop",
        f"{MODELS}::test_audio_that_does_not_reach_the_span_stops_the_run",
    ),
    Mutant("common/patching/leace.py", "* (len(along) - 1)", "* len(along)", LEACE),
    Mutant("common/patching/leace.py", "factor * subspace.part(h - subspace.mean)", "factor * subspace.part(h)", LEACE),
    Mutant("common/patching/leace.py", "drawn - own.T @ (own @ drawn)", "drawn", LEACE),
    Mutant("common/patching/leace.py", "matched(found[1], found[0])", "found[1]", LEACE),
    Mutant(
        "common/patching/knockout.py",
        "cut.start <= number < cut.stop",
        "cut.start <= number <= cut.stop",
        "tests/patching/test_components.py::test_rows_are_those_of_a_forward_for_each_window[grouped keys]",
    ),
    Mutant(
        "common/components/substitution.py",
        "x.shape[1] - behind",
        "x.shape[1]",
        f"{FREE_TEXT}::test_a_part_is_patched_in_the_prompt_alone",
    ),
    Mutant("activation_patching/scale/tables.py", "some.word_errors - some.word_errors_base", "some.word_errors", SCALE),
    Mutant(
        "activation_patching/scale/transcribed_rows.py",
        "word_errors(texts[-1], sample.text)",
        "word_errors(texts[0], sample.text)",
        SCALE,
    ),
    Mutant(
        "common/components/substitution.py",
        "(component.head + 1) * size)",
        "(component.head + 1) * size - 1)",
        "tests/patching/test_components.py::test_rows_are_those_of_a_forward_for_each_component[grouped keys]",
    ),
    Mutant(
        "common/components/attribution.py",
        "direction = scales[0] * direction",
        "pass",
        "tests/patching/test_components.py::test_what_is_added_sums_to_the_logits[scaled sums]",
    ),
    Mutant(
        "common/components/attribution.py",
        "None if block.mlp is None else scales[2] * direction",
        "None if block.mlp is None else direction",
        "tests/patching/test_components.py::test_what_is_added_sums_to_the_logits[scaled sums]",
    ),
    Mutant("common/model/readout.py", "start = max((i + 1 for", "start = 0 * max((i + 1 for", READOUT),
    Mutant("common/model/readout.py", "softmax(dim=-1)[..., list(self.ids)]", "[..., list(self.ids)].softmax(dim=-1)", READOUT),
    Mutant(
        "common/compute/answer_form.py",
        ".sum()]).prod()",
        ".sum()])[-1]",
        f"{FORM}::test_what_leads_to_the_labels_counts_and_half_is_enough",
    ),
    Mutant(
        "common/compute/answer_form.py",
        "self.probability >= 0.5",
        "self.probability >= 0.05",
        f"{FORM}::test_what_leads_to_the_labels_counts_and_half_is_enough",
    ),
    Mutant("common/model/load.py", "    _speak_plainly(model)\n", "", SETTINGS),
    Mutant("common/model/encoding.py", "            torch.manual_seed(0)\n", "", SETTINGS),
    Mutant("common/model/encoding.py", '{"add_special_tokens": False} if', '{"add_special_tokens": True} if', SETTINGS),
    Mutant(
        "common/model/encoding.py",
        "slice(positions[0], positions[-1] + 1)",
        "slice(positions[0], positions[-1])",
        f"{MODELS}::test_encode_puts_the_span_between_shared_prefix_and_tail",
    ),
    Mutant(
        "common/model/encoding.py",
        "if length > high + lm.rate // 20",
        "if length > high + lm.rate",
        f"{MODELS}::test_a_clip_beyond_the_models_window_is_refused",
    ),
    Mutant("common/clips/pairs.py", "        donor = self.true_donor or self.donor\n", "        donor = self.donor\n", PAIRS),
    Mutant("common/clips/pairs.py", "if s.speaker == recipient.speaker] or alike", "]", PAIRS),
    Mutant("common/clips/pairs.py", "            if control == SAME_TEXT:", "            if False:", PAIRS),
    Mutant("common/clips/pair_sampling.py", "most // (len(keys) - n)", "most // len(keys)", PAIRS),
    Mutant(
        "common/clips/pair_sampling.py",
        'quota, seed=int(rng.integers(2**32))), side="right")',
        "quota, seed=int(rng.integers(2**32))))",
        PAIRS,
    ),
    Mutant("activation_patching/span/effects.py", "len(alike) >= FEWEST", "len(alike) > FEWEST", EFFECTS),
    Mutant("activation_patching/span/effects.py", "(named != y).all(axis=1)", "(named[:, 0] != y)", EFFECTS),
    Mutant("activation_patching/span/effects.py", " * len(targets) / len(thirds)", "", EFFECTS),
    Mutant(
        "activation_patching/span/rows.py",
        "int(reach <= layer < last)",
        "int(reach < layer < last)",
        "tests/activation_patching/test_rows.py",
    ),
    Mutant(
        "activation_patching/span/rows.py",
        "int(pred_patch != pred_base)",
        "int(pred_patch != pred_donor)",
        "tests/activation_patching/test_rows.py",
    ),
    Mutant(
        "logit_lens/rows.py",
        "of_labels[prosody] - of_labels[semantic]",
        "of_labels[semantic] - of_labels[prosody]",
        "tests/logit_lens/test_rows.py",
    ),
    Mutant("logit_lens/fitted/tuned_lens.py", "names.index(sample.text_id) % 2", "(names.index(sample.text_id) + 1) % 2", TUNED),
    Mutant("logit_lens/fitted/tuned_lens.py", "(x - self.mean) @ self.states.T", "x @ self.states.T", TUNED),
    Mutant("common/stats/clustered_means.py", "np.maximum(components, LEAST * components.sum(axis=0))", "components", INTERVALS),
    Mutant(
        "common/stats/clustered_means.py",
        "residual = flat - fit @ (fit.T @ flat)",
        "residual = flat - flat.mean(axis=0)",
        INTERVALS,
    ),
    Mutant(
        "common/stats/clusters.py",
        "if n >= MIN_LEVELS]",
        "if n > MIN_LEVELS]",
        f"{INTERVALS}::test_fewer_than_five_speakers_or_texts_are_held_fixed_and_the_estimate_says_so",
    ),
    Mutant(
        "common/stats/clusters.py",
        "np.where(np.stack(repeats, axis=1), -1, codes)",
        "codes",
        f"{INTERVALS}::test_a_cluster_that_both_clips_of_a_pair_are_in_counts_once",
    ),
    Mutant(
        "common/stats/intervals.py",
        "reach_of(of)[:, None], share",
        "reach_of(of)[:1, None], share",
        f"{INTERVALS}::test_every_result_has_the_reach_of_its_own_degrees_of_freedom",
    ),
    Mutant(
        "common/stats/intervals.py", "reach**2 / (4 * units**2)", "reach**2 / (2 * units**2)", f"{INTERVALS}::test_wilson_by_hand"
    ),
    Mutant(
        "common/stats/intervals.py",
        "(p - p_low) * (q_high - q)",
        "(p - p_low) * (q - q_low)",
        f"{INTERVALS}::test_difference_of_shares_by_hand",
    ),
    Mutant(
        "common/stats/layer_tables.py",
        "np.clip(np.nan_to_num(shared), -1, 1)",
        "np.nan_to_num(shared)",
        f"{INTERVALS}::test_sides_are_never_more_than_wholly_related",
    ),
    Mutant(
        "common/stats/layer_tables.py",
        "(at + 2 * place + 1, at + 2 * place)",
        "(at + 2 * place, at + 2 * place + 1)",
        f"{INTERVALS}::test_a_side_without_a_single_unit_is_taken_to_cluster_like_the_other",
    ),
    Mutant("common/stats/crossings.py", "mean[first] / (mean[first] - mean[before])", "0.0", CROSSINGS),
    Mutant("common/stats/crossings.py", "of.mean[0, -1] - reach * of.se[0, -1] > 0", "of.mean[0, -1] > 0", CROSSINGS),
    Mutant("common/stats/splits.py", "& ((by_speaker != speaker) | (not several))", "", "tests/stats/test_splits.py"),
    Mutant(
        "activation_patching/exchange/edits.py",
        "edit(layer, h[..., :1, :]).to(h) for layer, h in _tail(trace).items()]",
        "edit(layer, h[..., -1:, :]).to(h) for layer, h in _tail(trace).items()]",
        FREE_TEXT,
    ),
    Mutant("activation_patching/knockout/rows.py", "len(said) if queries.stop == where.end else 0", "0", FREE_TEXT),
    Mutant("activation_patching/span/patch.py", "longer = donor.continued(said)", "longer = donor", FREE_TEXT),
    Mutant("activation_patching/knockout/tables.py", '"direct": "audio_to_question"', '"direct": "audio_to_last"', KNOCKOUT),
    Mutant("activation_patching/knockout/tables.py", "from_on.layer == from_on.layer.min()", "from_on.layer == 1", KNOCKOUT),
    Mutant(
        "activation_patching/knockout/tables.py", "Metric(lost + of.effect_logit, over=lost)", "Metric(lost, over=lost)", KNOCKOUT
    ),
    Mutant(
        "activation_patching/scale/tables.py",
        "at_end = rows[(rows.layer == rows.layer.max())",
        "at_end = rows[(rows.layer == 1)",
        SCALE,
    ),
    Mutant("common/patching/free_text.py", "log_probs[:, list(ends)].logsumexp(dim=-1)", "0 * log_probs[:, 0]", FREE_TEXT),
)


def passes(tree: Path, tests: Iterable[str], log: Path) -> bool:
    """Run tests in a tree, in a process of its own that has torch already; tell whether all pass within the limit."""
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1), os.dup2(out, 2)
        os.chdir(tree)
        sys.path[:] = [str(tree), *(p for p in sys.path if p and Path(p).resolve() != ROOT)]
        for name in [n for n in sys.modules if n.partition(".")[0] == "tests"]:
            del sys.modules[name]
        os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(tree), *tests]))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def caught(tree: Path, mutant: Mutant, log: Path) -> bool:
    """Tell whether the tests fail with the mutant in the tree, which it leaves as before.

    Raises ValueError where the mutant has no place.
    """
    file = tree / mutant.file
    before = file.read_text(encoding="utf-8")
    if before.count(mutant.old) != 1:
        raise ValueError(f"{mutant.file}: has {mutant.old!r} {before.count(mutant.old)} times, not once")
    file.write_text(before.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        return not passes(tree, [mutant.tests], log)
    finally:
        file.write_text(before, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="mutants of files with this in their name")
    chosen = [m for m in MUTANTS if parser.parse_args().only in m.file]
    os.environ["OMP_NUM_THREADS"], sys.dont_write_bytecode = "1", True
    for name in SLOW_IMPORTS:
        importlib.import_module(name)

    with tempfile.TemporaryDirectory() as folder:
        tree, log, survived = Path(folder) / "tree", Path(folder) / "log", 0
        for name in CODE:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            (tree / name).parent.mkdir(exist_ok=True)
            copy(ROOT / name, tree / name, **({"ignore": NOT_CODE} if (ROOT / name).is_dir() else {}))
        if not passes(tree, sorted({m.tests for m in chosen}), log):
            print(log.read_text()[-3000:] + "\nthe tests fail without any mutant")
            return 2
        for mutant in chosen:
            found = caught(tree, mutant, log)
            survived += not found
            print(
                f"{'caught  ' if found else 'SURVIVED'}  {mutant.file}: {mutant.old.strip()!r} -> {mutant.new.strip()!r}",
                flush=True,
            )
    print(f"{survived} of {len(chosen)} survived, {ALLOWED} may")
    return int(survived > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())

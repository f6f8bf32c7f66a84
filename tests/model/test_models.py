import errno
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from accelerate import cpu_offload, disk_offload
from transformers import LlamaConfig, LlamaForCausalLM

import logit_lens.run
from common.clips.manifest import read_clips
from common.compute import session
from common.compute.session import open_session
from common.errors import CheckFailed, InputError
from common.model import ModelChoice, device
from common.model.device import (
    choose_device,
    choose_dtype,
    quantised,
    quantization_config,
    read_device_map,
    read_quantization,
    spread_over,
    weight_bytes,
)
from common.model.encoding import EncodedClip, check_window, encode_clip
from common.model.lm import AudioLM
from common.model.load import load_model
from common.model.prompts import PROMPTS, ask
from common.patching import self_check as self_check_module
from common.patching.self_check import self_check
from common.patching.splice import splice
from common.run.command_line import argument_parser, settings
from common.run.record import identify
from common.tracing.trace import record, states_at
from tests.tiny_models.families import save_granite_speech, save_phi4
from tests.tiny_models.tiny import LAYERS

CPU = torch.device("cpu")


def test_load_finds_the_decoder(lm: AudioLM) -> None:
    assert len(lm.blocks) == LAYERS and lm.dtype == torch.float32 and not lm.model.training


def test_encode_puts_the_span_between_shared_prefix_and_tail(lm: AudioLM, manifest: Path) -> None:
    short, long = (
        encode_clip(lm, manifest.parent / f"{n}.wav", PROMPTS["words"]) for n in ("neutral_0_sad_a", "surprised_1_sad_a")
    )
    assert short.prefix_ids == long.prefix_ids and short.tail_ids == long.tail_ids
    text = lm.processor.tokenizer.decode(short.tail_ids)
    assert text.startswith("<|audio_eos|>\nWhich emotion is in the words?") and text.endswith("<|im_start|>assistant\n")
    assert set(short.ids[0, short.span].tolist()) == {lm.audio_token_id}
    assert long.span.start == short.span.start and long.span.stop > short.span.stop


def test_the_clip_reaches_the_extractor_unchanged(lm: AudioLM, manifest: Path) -> None:
    path = manifest.parent / "sad_1_angry_b.wav"
    wave, rate = soundfile.read(path, dtype="float32")
    expected = lm.processor.feature_extractor(wave, sampling_rate=rate, return_tensors="pt", padding="max_length").input_features
    torch.testing.assert_close(encode_clip(lm, path, PROMPTS["voice"]).inputs["input_features"], expected)


def test_a_clip_beyond_the_models_window_is_refused(lm: AudioLM, tmp_path: Path) -> None:
    for name, length in (("short", 8_000), ("full", 16_000), ("long", 24_000)):
        soundfile.write(tmp_path / f"{name}.wav", np.random.default_rng(0).uniform(-0.5, 0.5, length), 16_000)
    paths = [tmp_path / f"{n}.wav" for n in ("short", "full", "long")]
    with pytest.raises(InputError, match=r"long.wav: longer than the model hears: 1.50 s long; the model hears about 1.0 s"):
        check_window(lm, paths, [8_000, 16_000, 24_000], PROMPTS["voice"])
    check_window(lm, paths[:2], [8_000, 16_000], PROMPTS["voice"])


def test_what_is_not_an_audio_language_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--model .*gone: no model folder or hub id"):
        load_model(str(tmp_path / "gone"), device=CPU, dtype=torch.float32)
    config = LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=16)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "text")
    with pytest.raises(InputError, match="LlamaConfig is not an audio language model"):
        load_model(str(tmp_path / "text"), device=CPU, dtype=torch.float32)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text('{"model_type": "qwen2_audio"}')
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(str(tmp_path / "half"), device=CPU, dtype=torch.float32)


def test_devices_and_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("cpu") == CPU and choose_dtype("auto", CPU) == torch.float32
    for has, dtype in ((True, torch.bfloat16), (False, torch.float16)):  # emulated bfloat16 is none
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True, has=has: has or including_emulation)
        assert choose_dtype("auto", torch.device("cuda")) == dtype
    assert choose_dtype("float16", CPU) == torch.float16
    for name in ("cuda:99", "nonsense"):
        with pytest.raises(InputError, match=f"--device {name}: not usable here"):
            choose_device(name)


def test_weight_bytes_are_those_of_the_weights(lm: AudioLM) -> None:
    expected = sum(p.numel() * 2 for p in lm.model.parameters())
    assert weight_bytes(type(lm.model), lm.model.config, torch.bfloat16) == expected


@pytest.mark.parametrize("place", ["main memory", "disk", "disk, by a device map"])
def test_offloaded_blocks_give_the_same_numbers(
    place: str, lm: AudioLM, tiny_folder: Path, manifest: Path, tmp_path: Path
) -> None:
    """What device_map="auto" does where the GPU is too small: blocks whose weights come in only when they are run."""
    parts = ("lm_head", *(f"model.{p}" for p in ("audio_tower", "multi_modal_projector")))
    inner = ("embed_tokens", "norm", "rotary_emb", *(f"layers.{i}" for i in range(LAYERS)))
    by_map = dict.fromkeys((*parts, *(f"model.language_model.{p}" for p in inner)), "cpu")
    by_map |= dict.fromkeys(("model.language_model.layers.1", "model.language_model.layers.3"), "disk")
    away = load_model(str(tiny_folder), device=CPU, dtype=torch.float32, device_map=by_map if "map" in place else None)
    for number in (1, 3):
        if place == "main memory":
            cpu_offload(away.blocks[number], execution_device=CPU)
        elif place == "disk":
            disk_offload(away.blocks[number], str(tmp_path / str(number)), execution_device=CPU)
        assert {p.device.type for p in away.blocks[number].parameters()} == {"meta"}
    names = [manifest.parent / f"{n}.wav" for n in ("happy_0_sad_a", "surprised_1_sad_b")]
    near, far = ([record(m, encode_clip(m, name, PROMPTS["voice"])) for name in names] for m in (lm, away))
    for (_, lens), (_, other) in zip(near, far):
        assert torch.equal(lens, other)
    patched, other = splice(lm, near[0][0], [near[1][0]]), splice(away, far[0][0], [far[1][0]])
    torch.testing.assert_close(patched, other, atol=1e-5, rtol=0)  # weights mapped from a file lie otherwise in memory


def test_an_adapter_that_a_model_needs_and_has_not_is_refused(tmp_path: Path) -> None:
    folder = save_granite_speech(tmp_path)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(InputError, match="hears through a LoRA adapter, and none was found"):
        load_model(str(folder), device=CPU, dtype=torch.float32)
    phi4 = save_phi4(tmp_path / "phi4")
    shutil.rmtree(phi4 / "speech-lora")
    with pytest.raises(InputError, match="hears through a LoRA adapter, and none was found"):
        load_model(str(phi4), device=CPU, dtype=torch.float32)


def test_an_adapter_that_does_nothing_stops_the_run(tmp_path: Path, manifest: Path) -> None:
    lm = load_model(str(save_phi4(tmp_path)), device=CPU, dtype=torch.float32)
    clips = [encode_clip(lm, manifest.parent / f"happy_0_{p}_a.wav", PROMPTS["voice"]) for p in ("sad", "angry")]
    assert lm.adapters == ("speech",) and self_check(lm, clips[0], clips[1:], tokens=(1, 2)).adapters > 0.1
    for name, parameter in lm.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.zeros_(parameter)
    with pytest.raises(CheckFailed, match="the LoRA adapter speech .* changes nothing"):
        self_check(lm, clips[0], clips[1:], tokens=(1, 2))


def test_a_model_without_a_chat_template_is_refused(lm: AudioLM, tmp_path: Path, manifest: Path) -> None:
    folder = save_phi4(tmp_path)
    (folder / "chat_template.jinja").unlink()
    base = load_model(str(folder), device=CPU, dtype=torch.float32)
    with pytest.raises(InputError, match="Phi4MultimodalProcessor cannot put a clip into a question .*chat template"):
        encode_clip(base, manifest.parent / "happy_0_sad_a.wav", PROMPTS["voice"])


def test_a_model_larger_than_its_gpu_is_spread_by_one_process_and_refused_to_several(
    lm: AudioLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = (type(lm.model), lm.model.config, torch.bfloat16, torch.device("cuda"))
    needed = weight_bytes(*where[:3])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2 * needed, 80_000_000_000))
    assert spread_over(*where) == {"": "cuda:0"}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (needed, 80_000_000_000))
    assert spread_over(*where) == "auto" and spread_over(*where[:3], CPU) is None
    monkeypatch.setattr(device.processes, "count", lambda: 2)
    with pytest.raises(InputError, match="does not fit one GPU: start one process"):
        spread_over(*where)


def test_audio_that_does_not_reach_the_span_stops_the_run(lm: AudioLM, manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [encode_clip(lm, manifest.parent / f"happy_0_{p}_a.wav", PROMPTS["voice"]) for p in ("sad", "angry")]
    assert self_check(lm, clips[0], clips[1:], tokens=(1, 2)).moved_by_audio == clips[0].span_length
    span = clips[0].span
    for moved in ((), (span.start - 1,), (span.stop,)):  # nothing, or more than the span

        def states(lm: AudioLM, clip: EncodedClip, positions: slice, moved: tuple[int, ...] = moved) -> torch.Tensor:
            h = states_at(lm, clip if moved else clips[0], positions).clone()
            if positions == slice(None):
                h[..., list(moved), :] += float(clip.inputs["input_features"].any())
            return h

        monkeypatch.setattr(self_check_module, "states_at", states)
        count = len(moved) and len(moved) + clips[0].span_length
        with pytest.raises(CheckFailed, match=f"the audio moves {count} positions of the input, and they are not those of"):
            self_check_module._moved_by_audio(lm, clips[0])


def test_a_model_is_spread_as_the_command_line_says(
    tiny_folder: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run over main memory and disk has the rows of one in a single place; several processes are told apart in one line."""
    parts = ("lm_head", "model.audio_tower", "model.multi_modal_projector")
    inner = ("embed_tokens", "norm", "rotary_emb", *(f"layers.{i}" for i in range(LAYERS)))
    devices = dict.fromkeys((*parts, *(f"model.language_model.{p}" for p in inner)), "cpu")
    (tmp_path / "map.json").write_text(json.dumps(devices | {"model.language_model.layers.1": "disk"}))
    monkeypatch.setattr(logit_lens.run, "draw", lambda *_: None)
    more = ["--model", str(tiny_folder), "--data", str(manifest), "--device", "cpu", "--limit", "4"]
    for name, how in (("one", []), ("spread", ["--device-map", str(tmp_path / "map.json")]), ("auto", ["--device-map", "auto"])):
        logit_lens.run.main([*more, *how, "--out", str(tmp_path / name)])
    one, *others = (pd.read_csv(tmp_path / name / "lens.csv") for name in ("one", "spread", "auto"))
    for other in others:
        pd.testing.assert_frame_equal(one, other, atol=1e-5)
    assert json.loads((tmp_path / "auto" / "run.json").read_text())["identity"]["device_map"] == "auto"
    for wrong, reason in (("nonsense", "cannot be read"), (str(manifest), "cannot be read")):
        with pytest.raises(InputError, match=f"--device-map .*{reason}.*allowed: auto, balanced, balanced_low_0, sequential"):
            read_device_map(wrong)
    monkeypatch.setattr(device.processes, "count", lambda: 2)
    with pytest.raises(InputError, match="--device-map auto: spreads one model .* 2 processes were started"):
        read_device_map("auto")


@pytest.mark.parametrize("other", ["pytorch_model.bin", None])
def test_a_folder_without_safetensors_is_refused(other: str | None, tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    if other:
        (tmp_path / "model" / other).write_bytes(b"weights")
    with pytest.raises(InputError, match=f"no weights in safetensors, {'only ' + other if other else 'no weights at all'}"):
        load_model(str(tmp_path / "model"), device=CPU, dtype=torch.float32)


def test_a_disk_that_fills_up_meanwhile_is_told(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise ValueError("cannot find the file") from error

    monkeypatch.setattr("common.model.load.spread_over", full)
    with pytest.raises(InputError, match=r"cannot be loaded \(the disk is full: .*No space left on device"):
        load_model(str(tiny_folder), device=CPU, dtype=torch.float32)


def test_the_progress_of_loading_reaches_the_user(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_model(str(tiny_folder), device=CPU, dtype=torch.float32)
    assert "Loading weights: 100%" in capsys.readouterr().err


def test_quantisation_is_refused_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_quantization(None, CPU, torch.float32) is None
    for found, place, expected in (
        (None, "cuda", "--quantization 4bit: needs bitsandbytes, which is not installed"),
        (SimpleNamespace(), "cpu", "--quantization 4bit: needs a CUDA GPU, and this run is on cpu"),
    ):
        monkeypatch.setattr("importlib.util.find_spec", lambda name, found=found: found)
        with pytest.raises(InputError, match=f"^{expected}"):
            read_quantization("4bit", torch.device(place), torch.float32)
    settings = read_quantization("4bit", torch.device("cuda"), torch.bfloat16)
    assert settings and settings.load_in_4bit and settings.bnb_4bit_compute_dtype == torch.bfloat16


def test_quantised_weights_are_told_and_make_another_run(
    tiny_folder: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, question = read_clips(manifest, None)[0][:2], ask("speaker")
    for given in ([], ["--quantization", "4bit"], ["--quantization", "8bit"]):
        args = argument_parser("").parse_args(["--model", str(tiny_folder), "--data", str(manifest), *given])
        choice = settings(args, "").model
        known = identify("logit_lens", model=choice, question=question, data=manifest, clips=samples, options={})
        assert known["quantization"] == choice.quantization == (given[-1] if given else None)
    lm = load_model(str(tiny_folder), device=CPU, dtype=torch.float32)
    assert quantised(lm.model) == ""
    for kind in ("8bit", "4bit"):
        lm.model.config.quantization_config = quantization_config(kind, torch.float32)
        assert quantised(lm.model) == f"bitsandbytes, {kind[0]} bits"
    monkeypatch.setattr(session, "load", lambda model: lm)
    opened = open_session(ModelChoice(str(tiny_folder)), question, samples, engines=())
    assert opened.facts()["quantised"] == "bitsandbytes, 4 bits"
    assert any(w.startswith("the weights are quantised (bitsandbytes, 4 bits)") for w in opened.warnings)

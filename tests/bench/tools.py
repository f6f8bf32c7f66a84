"""The same job written for each tool: record a donor's states of the audio span at h_0..h_L-1, and give the last position's
logits of the recipient with its span of h_l replaced by the donor's, for each l of `layers`.

Each is written as the tool's documentation shows it. A package is imported where it is used: the tests need none of them.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from common.model.encoding import EncodedClip
from common.model.lm import AudioLM

Record = Callable[[EncodedClip], torch.Tensor]  # -> [layer, pos, d_model]
Patch = Callable[[EncodedClip, torch.Tensor, Sequence[int]], torch.Tensor]  # recipient, donor's states, layers -> [layer, vocab]


@dataclass(frozen=True)
class Tool:
    name: str
    record: Record
    patch: Patch


def _own_copy(model: torch.nn.Module) -> Any:
    """Return a copy that shares the weights: nnsight rewrites the forward of what it wraps, and others would be timed with it."""
    weights = {id(t): t for t in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, weights)


def hook_loop(lm: AudioLM) -> Tool:
    """Plain forward hooks and a run of the model for each layer: what one writes without a library."""

    @torch.inference_mode()
    def record(clip: EncodedClip) -> torch.Tensor:
        states: list[torch.Tensor] = []

        def keep(module: Any, args: tuple[Any, ...]) -> None:
            states.append(args[0][:, clip.span].clone())

        handles = [block.register_forward_pre_hook(keep) for block in lm.blocks]
        lm.model(**clip.inputs)
        for handle in handles:
            handle.remove()
        return torch.cat(states)

    @torch.inference_mode()
    def patch(recipient: EncodedClip, donated: torch.Tensor, layers: Sequence[int]) -> torch.Tensor:
        logits = []
        for layer in layers:

            def overwrite(module: Any, args: tuple[Any, ...], states: torch.Tensor = donated[layer]) -> tuple[Any, ...]:
                h = args[0].clone()
                h[:, recipient.span] = states
                return h, *args[1:]

            handle = lm.blocks[layer].register_forward_pre_hook(overwrite)
            logits.append(lm.model(**recipient.inputs).logits[0, -1])
            handle.remove()
        return torch.stack(logits)

    return Tool("hook loop", record, patch)


def hook_loop_on_embeddings(lm: AudioLM) -> Tool:
    """The hook loop of someone who saw that the audio tower is the same for all layers: once a clip, h_0 kept for all runs."""
    loop = hook_loop(lm)
    embedded: dict[int, torch.Tensor] = {}

    def record(clip: EncodedClip) -> torch.Tensor:
        def keep(module: Any, args: tuple[Any, ...]) -> None:
            embedded[id(clip)] = args[0].clone()

        handle = lm.blocks[0].register_forward_pre_hook(keep)
        states = loop.record(clip)
        handle.remove()
        return states

    def patch(recipient: EncodedClip, donated: torch.Tensor, layers: Sequence[int]) -> torch.Tensor:
        inputs = {"inputs_embeds": embedded[id(recipient)], "attention_mask": recipient.inputs["attention_mask"]}
        return loop.patch(EncodedClip(inputs, recipient.span), donated, layers)

    return Tool("hook loop, tower once a clip", record, patch)


def nnsight_traces(lm: AudioLM) -> Tool:
    """nnsight, a trace for each layer."""
    from nnsight import NNsight, save

    model = NNsight(_own_copy(lm.model))
    blocks = model.model.language_model.layers

    def record(clip: EncodedClip) -> torch.Tensor:
        with torch.inference_mode(), model.trace(**clip.inputs):
            states = save([])
            for block in blocks:
                states.append(block.input[:, clip.span].clone())
        return torch.cat(states)

    def patch(recipient: EncodedClip, donated: torch.Tensor, layers: Sequence[int]) -> torch.Tensor:
        logits = []
        for layer in layers:
            with torch.inference_mode(), model.trace(**recipient.inputs):
                blocks[layer].input[:, recipient.span] = donated[layer]
                answer = model.output.logits[0, -1].save()
            logits.append(answer)
        return torch.stack(logits)

    return Tool("nnsight, a trace a layer", record, patch)


def nnsight_invokes(lm: AudioLM, *, batch_size: int = 8) -> Tool:
    """nnsight, the layers as invokes of one batched trace, `batch_size` rows each."""
    from nnsight import NNsight, save

    class Batching(NNsight):
        """A model of one's own says how invokes make a batch; equally long clips need no padding."""

        def _batch(self, invokes: list[tuple[Any, dict[str, torch.Tensor]]], fn: Any) -> tuple[tuple[()], dict[str, Any]]:
            return (), {key: torch.cat([inputs[key] for _, inputs in invokes]) for key in invokes[0][1]}

    model = Batching(_own_copy(lm.model))
    blocks = model.model.language_model.layers

    def patch(recipient: EncodedClip, donated: torch.Tensor, layers: Sequence[int]) -> torch.Tensor:
        rows = []
        for start in range(0, len(layers), batch_size):
            with torch.inference_mode(), model.trace() as tracer:
                logits = save([])
                for layer in layers[start : start + batch_size]:
                    with tracer.invoke(**recipient.inputs):
                        blocks[layer].input[:, recipient.span] = donated[layer]
                        logits.append(model.output.logits[0, -1].clone())
            rows += logits
        return torch.stack(rows)

    return Tool(f"nnsight, {batch_size} layers a trace", nnsight_traces(lm).record, patch)


def pyvene_interventions(lm: AudioLM) -> Tool:
    """pyvene, an intervenable model for each layer; the donor's states, recorded with hooks, are its source representations."""
    import pyvene
    from pyvene.models.constants import CONST_INPUT_HOOK

    kind = type(lm.model)  # "Add New Model Type" of its tutorial: this class is not among the ones it knows
    pyvene.type_to_module_mapping[kind] = {"block_input": ("model.language_model.layers[%s]", CONST_INPUT_HOOK)}
    pyvene.type_to_dimension_mapping[kind] = {"block_input": ("text_config.hidden_size",)}

    def intervenable(layer: int) -> Any:
        part = pyvene.RepresentationConfig(layer=layer, component="block_input", intervention_type=pyvene.VanillaIntervention)
        return pyvene.IntervenableModel(pyvene.IntervenableConfig([part]), lm.model)

    patchers = [intervenable(layer) for layer in range(len(lm.blocks))]

    @torch.inference_mode()
    def patch(recipient: EncodedClip, donated: torch.Tensor, layers: Sequence[int]) -> torch.Tensor:
        positions = list(range(recipient.span.start, recipient.span.stop))
        logits = []
        for layer in layers:
            _, output = patchers[layer](
                base=recipient.inputs, unit_locations={"base": positions}, source_representations=donated[layer][None]
            )
            logits.append(output.logits[0, -1])
        return torch.stack(logits)

    return Tool("pyvene", hook_loop(lm).record, patch)


def transformer_lens_bridge(lm: AudioLM) -> Tool:
    """TransformerLens, its bridge around the model and a run with a hook for each layer."""
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    model = _own_copy(lm.model)  # the bridge replaces its modules, and its attention by the eager one
    bridge = build_bridge_from_module(model, type(model).__name__, hf_config=model.config)

    def run(clip: EncodedClip, hooks: list[tuple[str, Any]]) -> torch.Tensor:
        others = {name: tensor for name, tensor in clip.inputs.items() if name != "input_ids"}
        logits = bridge.run_with_hooks(clip.ids, return_type="logits", fwd_hooks=hooks, **others)
        return logits[0, -1]

    @torch.inference_mode()
    def record(clip: EncodedClip) -> torch.Tensor:
        states: list[torch.Tensor] = []

        def keep(h: torch.Tensor, hook: Any) -> None:
            states.append(h[:, clip.span].clone())

        run(clip, [(f"blocks.{layer}.hook_resid_pre", keep) for layer in range(len(lm.blocks))])
        return torch.cat(states)

    @torch.inference_mode()
    def patch(recipient: EncodedClip, donated: torch.Tensor, layers: Sequence[int]) -> torch.Tensor:
        logits = []
        for layer in layers:

            def overwrite(h: torch.Tensor, hook: Any, states: torch.Tensor = donated[layer]) -> torch.Tensor:
                h = h.clone()
                h[:, recipient.span] = states
                return h

            logits.append(run(recipient, [(f"blocks.{layer}.hook_resid_pre", overwrite)]))
        return torch.stack(logits)

    return Tool("TransformerLens, its bridge", record, patch)


TOOLS: tuple[Callable[[AudioLM], Tool], ...] = (
    hook_loop,
    hook_loop_on_embeddings,
    nnsight_traces,
    nnsight_invokes,
    pyvene_interventions,
    transformer_lens_bridge,
)

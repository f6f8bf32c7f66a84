"""Time knockout and components against a loop of one full forward for each window or component: `python -m tests.bench.routes`.

The loop is timed on some of the windows or components and scaled; its logits are compared with those of the rows.
"""

import argparse
import resource
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from common.components.submodules import Parts, find_parts, on_mlp, on_projection
from common.components.substitution import Activations, Component, activations, components_of, patch_components
from common.model.encoding import EncodedClip
from common.model.lm import AudioLM
from common.patching.knockout import Cut, knockout, knockout_rerun
from common.patching.tail_pass import last_of, tail_of
from common.tracing.hooks import hooks
from tests.bench.measure import timed
from tests.bench.subject import REAL, SMALL, build_model, make_clips

TOKENS = (1, 2, 3, 4, 5)
TIMED = 4  # windows or components of the loop that are timed
CHUNK = {False: 256, True: 2048}  # rows of a pass over the tail, and over the last token


def all_cuts(lm: AudioLM, clip: EncodedClip) -> dict[bool, list[Cut]]:
    """Return the cuts of a run, those of the last token alone apart: four edges, from l, up to l, and 1 and 5 blocks around l."""
    count, end = len(lm.blocks), clip.ids.shape[1]
    audio, question, last = range(clip.span.start, clip.span.stop), range(clip.span.stop, end - 1), range(end - 1, end)
    windows = [w for i in range(count) for w in ((i, count), (0, i + 1), (i, i + 1), (max(0, i - 2), min(count, i + 3)))]
    edges = {False: [(audio, question), (audio, range(clip.span.stop, end))], True: [(audio, last), (question, last)]}
    return {at_last: [Cut(*edge, *window) for edge in of_pass for window in windows] for at_last, of_pass in edges.items()}


def cut_rows(lm: AudioLM, clip: EncodedClip) -> torch.Tensor:
    tail, found = tail_of(lm, clip), []
    for at_last, cuts in all_cuts(lm, clip).items():
        reading = last_of(lm, tail) if at_last else tail
        for start in range(0, len(cuts), CHUNK[at_last]):
            found.append(knockout(lm, reading, cuts[start : start + CHUNK[at_last]], TOKENS)[1:])
    return torch.cat(found)


def component_rows(
    lm: AudioLM, parts: Sequence[Parts], clip: EncodedClip, donor: Activations, components: Sequence[Component]
) -> torch.Tensor:
    """Return the rows of a pair whose donor has been recorded; the recipient is recorded here."""
    last, found = last_of(lm, tail_of(lm, clip)), []
    for start in range(0, len(components), CHUNK[True]):
        some = [[c] for c in components[start : start + CHUNK[True]]]
        found.append(patch_components(lm, parts, last, donor, some, TOKENS)[1:])
    return torch.cat(found)


@torch.inference_mode()
def component_rerun(
    lm: AudioLM, parts: Sequence[Parts], clip: EncodedClip, donor: Activations, component: Component
) -> torch.Tensor:
    """Return the logits [token] of a full forward with one component of the donor's at the last position."""
    of_block, is_mlp = parts[component.block], component.part == "mlp"
    donated: Any = (donor.mlp if is_mlp else donor.heads)[component.block]
    size = donated.shape[-1] // of_block.heads
    whole = component.part != "head"
    numbers = slice(None) if whole else slice(component.head * size, (component.head + 1) * size)

    def change(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[:, -1, numbers] = donated[:, -1, numbers]
        return x

    with hooks(*(on_mlp if is_mlp else on_projection)(of_block, change)):
        return lm.model(**clip.inputs, use_cache=False).logits[0, -1, list(TOKENS)]


def compare(name: str, seconds: float, rows: tuple[float, torch.Tensor], loop: Callable[[int], torch.Tensor]) -> str:
    """Return a row of the table: what the rows took, what the loop would, and how far their logits are apart."""
    took, logits = rows
    places = [round(i * (len(logits) - 1) / (TIMED - 1)) for i in range(TIMED)]
    slow, expected = timed(lambda: torch.stack([loop(i) for i in places]))
    scaled, apart = slow / TIMED * len(logits), float((logits[places] - expected).abs().max())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    cells = (
        name,
        f"{seconds:g}",
        len(logits),
        f"{took:.1f}",
        f"{scaled:.0f}",
        f"{scaled / took:.0f}",
        f"{apart:.1e}",
        f"{peak:.1f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a model of 4 blocks, to try the script")
    parser.add_argument("--seconds", type=float, nargs="+", default=[3.0, 30.0], help="lengths of the clips")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lm = build_model(SMALL if args.small else REAL, device=torch.device("cpu"), dtype=torch.float32)
    print(
        "| intervention | clip, s | rows | rows of a clip or pair, s | loop, s | times faster | largest difference | peak, GB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for seconds in args.seconds:
        clip, other = make_clips(lm, 2, seconds=seconds)
        cuts = [cut for of_pass in all_cuts(lm, clip).values() for cut in of_pass]
        loop = partial(_at, [partial(knockout_rerun, lm, clip, cut, TOKENS) for cut in cuts])
        print(compare("knockout", seconds, timed(partial(cut_rows, lm, clip)), loop), flush=True)
        parts = find_parts(lm, clip, tail_of(lm, clip))
        donor = activations(lm, parts, tail_of(lm, other))[0]
        heads = [c for head in range(parts[0].heads) for c in components_of(parts, "head", head)]
        components = [*heads, *components_of(parts, "attention"), *components_of(parts, "mlp")]
        loop = partial(_at, [partial(component_rerun, lm, parts, clip, donor, c) for c in components])
        print(
            compare("components", seconds, timed(partial(component_rows, lm, parts, clip, donor, components)), loop), flush=True
        )


def _at(work: Sequence[Callable[[], torch.Tensor]], place: int) -> torch.Tensor:
    return work[place]()


if __name__ == "__main__":
    main()

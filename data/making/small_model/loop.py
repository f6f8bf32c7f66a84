"""The training loop of one stage, with checkpoints to resume from."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

Losses = dict[str, torch.Tensor]
Log = Callable[[dict[str, Any]], None]


def train_stage(
    stage: str,
    losses_of: Callable[[int], Losses],
    modules: dict[str, nn.Module],
    groups: list[dict[str, Any]],
    *,
    weights: dict[str, float],
    steps: int,
    warm_up: int,
    fall: float,
    checkpoint: Path,
    log: Log,
    evaluate: Callable[[], dict[str, Any]],
    evaluate_every: int,
) -> None:
    """Minimise the sum of the losses of each step, each times its weight (1 if it has none).

    `groups`: parameters with their `top` rate, which is reached after `warm_up` steps and falls to nothing over the last 1/`fall`
    of them. `modules` are kept at the checkpoint, as far as they are trained: two runs broken anywhere end alike if `losses_of`
    draws by the step alone.
    """
    parameters = [p for group in groups for p in group["params"]]
    for p in parameters:
        p.requires_grad_(True)
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, betas=(0.9, 0.98))
    start, began = 0, time.time()
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        for name, module in modules.items():
            module.load_state_dict(saved[name], strict=False)
        optimizer.load_state_dict(saved["optimizer"])
        start, began = saved["step"], began - saved["seconds"]
    smooth = dict[str, float]()
    for step in range(start + 1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = group["top"] * min(1, step / warm_up) * min(1, (1 - step / steps) * fall + 0.01)
        losses = losses_of(step)
        optimizer.zero_grad()
        torch.stack([weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum().backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        smooth |= {name: 0.9 * smooth.get(name, loss.item()) + 0.1 * loss.item() for name, loss in losses.items()}
        if step % 25 == 0:
            entry = {"stage": stage, "step": step, "seconds": round(time.time() - began)}
            log(entry | {name: round(value, 3) for name, value in smooth.items()})
        if step % evaluate_every == 0 or step == steps:
            log({"stage": stage, "step": step, "tests": evaluate()})
            kept = {name: _trained(module) for name, module in modules.items()}
            state = {"optimizer": optimizer.state_dict(), "step": step, "seconds": time.time() - began}
            torch.save(kept | state, checkpoint.with_suffix(".part"))  # an interruption leaves the last whole one
            checkpoint.with_suffix(".part").replace(checkpoint)


def _trained(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the state of a module without the frozen weights of the language model: LoRA alone is trained there."""
    frozen = "language_model", "lm_head"
    return {k: v for k, v in module.state_dict().items() if k.endswith((".a", ".b")) or not any(part in k for part in frozen)}

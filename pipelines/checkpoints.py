"""A training checkpoint: a folder that is a model as well.

    weights.safetensors, config.json    the model, as `dpt.save_model` writes and `dpt predict` reads it
    optimizer.safetensors               Adam's moments, by parameter name
    state.json                          the step to go on from, and what the run must still agree with

No pickle: loading a checkpoint runs no code.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

import dpt

OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"


@dataclass(frozen=True, slots=True)
class TrainingState:
    """Where a run is: `step` steps are done, on datasets whose manifests have these digests."""

    step: int
    manifest_digests: dict[str, str]


class CheckpointMismatch(ValueError):
    """A checkpoint that does not belong to this run; the message says what differs."""


def save_checkpoint(
    folder: Path, model: dpt.DPT, optimizer: torch.optim.Optimizer, state: TrainingState
) -> None:
    """Write a checkpoint into an empty folder."""
    dpt.save_model(model, folder)
    save_file(_named_moments(model, optimizer), folder / OPTIMIZER_FILE)
    (folder / STATE_FILE).write_text(json.dumps(asdict(state), indent=1))


def load_checkpoint(
    folder: Path, model: dpt.DPT, optimizer: torch.optim.Optimizer, manifest_digests: dict[str, str]
) -> int:
    """Restore model and optimiser from a checkpoint; returns the number of steps done.

    Raises:
        CheckpointMismatch: if it was trained on other data.
    """
    state = TrainingState(**json.loads((folder / STATE_FILE).read_text()))
    if state.manifest_digests != manifest_digests:
        different = sorted(
            name
            for name in state.manifest_digests.keys() | manifest_digests.keys()
            if state.manifest_digests.get(name) != manifest_digests.get(name)
        )
        raise CheckpointMismatch(
            f"checkpoint {folder} was trained on other data: {', '.join(different)} changed"
        )
    saved = dpt.load_model(folder)
    model.load_state_dict(saved.state_dict())
    _restore_moments(model, optimizer, load_file(folder / OPTIMIZER_FILE))
    return state.step


def _named_moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}|{key}": torch.as_tensor(value).detach().cpu().contiguous()
        for parameter, moments in optimizer.state.items()
        for key, value in moments.items()
    }


def _restore_moments(
    model: nn.Module, optimizer: torch.optim.Optimizer, saved: dict[str, torch.Tensor]
) -> None:
    parameters = dict(model.named_parameters())
    for key, value in saved.items():
        name, moment = key.rsplit("|", 1)
        parameter = parameters[name]
        # Adam keeps its step count on the CPU and its moments beside the parameter.
        device = parameter.device if value.dim() else torch.device("cpu")
        optimizer.state[parameter][moment] = value.to(device)

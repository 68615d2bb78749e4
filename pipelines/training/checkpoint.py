"""A training checkpoint: a folder that is a model as well.

    weights.safetensors, config.json    the model, as `dpt.save_model` writes and `dpt predict` reads it:
                                        the averaged weights where the run averages them
    trained.safetensors                 in that case the weights that training goes on from
    optimizer.safetensors               the optimiser's moments, by parameter name
    state.json                          where the run is, what it must still agree with, and the digests of
                                        the other files; written last, so a checkpoint without it is none

There is no state of random numbers, samplers or schedules in it: what is drawn in a step is a function of the
seed and the step alone. No pickle either: loading a checkpoint runs no code.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from dpt.ema import MovingAverage
from dpt.weights.folder import CONFIG, WEIGHTS

TRAINED_FILE = "trained.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"


class DamagedCheckpoint(ValueError):
    """A checkpoint that is not whole; the message names the file."""


@dataclass(slots=True)
class TrainingState:
    """Where a run is.

    Attributes:
        step: number of steps done.
        identity: what decides the run's curve: config and digests of the data.
        run: address of its MLflow run, which a restart goes on with.
        score: of the validation at this step, if there was one; lower is better. AbsRel, or the negative of
            a metric of which larger is better.
        skipped: how many steps were left out because their loss or gradient was no use.
        seen: dataset → number of its samples that were drawn.
        unlogged: sum and number of the losses of steps since metrics were last logged.
        unsent: metrics that the tracking server has not yet taken.
        files: digests of the checkpoint's other files.
    """

    step: int
    identity: dict[str, Any] = field(default_factory=dict)
    run: dict[str, str] = field(default_factory=dict)
    score: float | None = None
    skipped: int = 0
    seen: dict[str, int] = field(default_factory=dict)
    unlogged: tuple[float, int] = (0.0, 0)
    unsent: list[list[Any]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Snapshot:
    """A run at one step, copied out of the training processes' way: file → content, all on the CPU."""

    state: TrainingState
    model_config: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]


def take_snapshot(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: MovingAverage | None,
    model_config: dict[str, Any],
    state: TrainingState,
) -> Snapshot:
    """Copy a run's tensors to the CPU; where parameters are sharded, all ranks must take part.

    Of sharded parameters rank 0 alone gets them, whole; the other ranks' snapshots are empty.

    Args:
        model: bare or wrapped for data parallelism.
        average: moving average of its parameters, if the run keeps one.
    """
    with average.swapped_in() if average else nullcontext():
        tensors = {WEIGHTS: _copied(get_model_state_dict(model, options=_WHOLE))}
    if average:
        tensors[TRAINED_FILE] = _copied(get_model_state_dict(model, options=_WHOLE))
    moments: Any = get_optimizer_state_dict(model, optimizer, options=_WHOLE).get("state", {})
    tensors[OPTIMIZER_FILE] = _copied(
        {f"{name}|{key}": torch.as_tensor(v) for name, state in moments.items() for key, v in state.items()}
    )
    return Snapshot(state, model_config, tensors)


_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def _copied(tensors: dict[str, Any]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def write_file(snapshot: Snapshot, name: str, path: Path) -> None:
    """Write one of a snapshot's files to a local path."""
    if name == CONFIG:
        path.write_text(json.dumps(snapshot.model_config, indent=1))
    else:
        save_file(snapshot.tensors[name], path)


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    state = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            state.update(chunk)
    return state.hexdigest()


def read_state(text: str, where: str) -> TrainingState:
    """Parse `state.json`.

    Raises:
        DamagedCheckpoint: if it is none.
    """
    try:
        state = TrainingState(**json.loads(text))
        total, count = state.unlogged
        state.unlogged = (total, count)
        return state
    except (ValueError, TypeError) as error:
        raise DamagedCheckpoint(f"{where}: {STATE_FILE} is damaged: {error}") from error


def state_text(state: TrainingState) -> str:
    """A state as `state.json` holds it."""
    return json.dumps(asdict(state), indent=1)


def verify(folder: Path) -> TrainingState:
    """Check a local checkpoint's files against their digests.

    Raises:
        DamagedCheckpoint: naming the first file that is missing or differs.
    """
    if not (folder / STATE_FILE).is_file():
        raise DamagedCheckpoint(f"{folder.name}: {STATE_FILE} is missing")
    state = read_state((folder / STATE_FILE).read_text(errors="replace"), folder.name)
    for name, digest in state.files.items():
        if not (folder / name).is_file():
            raise DamagedCheckpoint(f"{folder.name}: {name} is missing")
        if digest_of(folder / name) != digest:
            raise DamagedCheckpoint(f"{folder.name}: {name} differs from its digest")
    return state


def restore(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: MovingAverage | None
) -> None:
    """Put a verified local checkpoint into a model, its optimiser and its moving average."""
    _load(model, folder / WEIGHTS)
    if average:
        average.restart()
        _load(model, folder / TRAINED_FILE)
    moments: dict[str, Any] = {}
    for key, value in load_file(folder / OPTIMIZER_FILE).items():
        name, moment = key.rsplit("|", 1)
        moments.setdefault(name, {})[moment] = value
    whole = get_optimizer_state_dict(model, optimizer, options=StateDictOptions(full_state_dict=True))
    set_optimizer_state_dict(
        model, optimizer, {**whole, "state": moments}, options=StateDictOptions(full_state_dict=True)
    )


def _load(model: nn.Module, path: Path) -> None:
    set_model_state_dict(model, dict(load_file(path)), options=StateDictOptions(full_state_dict=True))

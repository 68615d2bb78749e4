"""A training checkpoint: a folder that is also a model folder.

    weights.safetensors, config.json    the model, as `dpt.save_model` writes and `dpt predict` reads it;
                                        the averaged weights if the run keeps a moving average
    trained.safetensors                 in that case the weights that training resumes from
    optimizer.safetensors               the optimiser's moments, by parameter name
    state.json                          progress and identity of the run, and the digests of the other files;
                                        written last: a folder without it is not a checkpoint

It holds no state of random number generators, samplers or schedulers: what is drawn in a step is a function
of the seed and the step alone. No pickle either: loading a checkpoint runs no code.
"""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from datasets_prep.errors import one_line
from datasets_prep.storage.sealed import sealed, unsealed
from dpt.ema import MovingAverage
from dpt.weights.folder import CONFIG, WEIGHTS, config_text, save_safetensors

TRAINED_FILE = "trained.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"


class DamagedCheckpoint(ValueError):
    """A checkpoint with a missing or damaged file; the message names the file."""


@dataclass(slots=True)
class TrainingState:
    """Progress of a run.

    Attributes:
        step: number of steps done.
        identity: what decides the run's curve: config and digests of the data.
        run: fields of its `pipelines.tracking.runs.Run`, which a restart continues.
        score: of the validation at this step, if there was one; lower is better. AbsRel, or the negative of
            a metric of which larger is better.
        skipped: number of steps skipped because of their loss or gradient.
        seen: dataset → number of its samples that were drawn.
        unlogged: sum and number of the losses of steps since metrics were last logged.
        unsent: metrics that have not reached the tracking server.
        files: name → SHA-256 of the checkpoint's other files.
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
    """A run at one step, copied to the CPU so that training can continue while it is written.

    `state` is its progress, `model_config` the content of `config.json`, `tensors` file → tensors by name.
    """

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
    """Copy to the CPU the tensors of `model`, its `optimizer` and, if there is one, its moving `average`.

    If parameters are sharded, all ranks must call it: rank 0 gets whole tensors, the others empty snapshots.
    The model may be wrapped for data parallelism. `model_config` and `state` are as in `Snapshot`.
    """

    from torch.distributed.checkpoint import state_dict  # takes a second, after the first step

    whole_on_cpu = state_dict.StateDictOptions(full_state_dict=True, cpu_offload=True)

    def weights() -> dict[str, Tensor]:
        return _copied(state_dict.get_model_state_dict(model, options=whole_on_cpu))

    with average.swapped_in() if average else nullcontext():
        tensors = {WEIGHTS: weights()}
    if average:
        tensors[TRAINED_FILE] = weights()
    whole: Any = state_dict.get_optimizer_state_dict(model, optimizer, options=whole_on_cpu)
    moments = {f"{name}|{key}": v for name, one in whole.get("state", {}).items() for key, v in one.items()}
    tensors[OPTIMIZER_FILE] = _copied({name: torch.as_tensor(value) for name, value in moments.items()})
    return Snapshot(state, model_config, tensors)


def _copied(tensors: dict[str, Any]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def write_file(snapshot: Snapshot, name: str, path: Path) -> None:
    """Write the file `name` of a `snapshot` to a local `path`."""
    if name == CONFIG:
        path.write_text(config_text(snapshot.model_config))
    else:
        save_safetensors(snapshot.tensors[name], path)


def digest_of(path: Path) -> str:
    """SHA-256 of the file at `path`, in hexadecimal."""
    state = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            state.update(chunk)
    return state.hexdigest()


def read_state(text: str | bytes, where: str) -> TrainingState:
    """Parse the `text` of a `state.json`.

    Raises:
        DamagedCheckpoint: if it is not valid; the message names the checkpoint as `where`.
    """
    try:
        state = TrainingState(**unsealed(text, STATE_FILE))
        total, count = state.unlogged
        state.unlogged = (total, count)
        return state
    except (ValueError, TypeError) as error:
        raise DamagedCheckpoint(one_line(f"{where}: {error}")) from error


def state_text(state: TrainingState) -> str:
    """The content of `state.json` for a `state`."""
    return sealed(asdict(state))


def verify(folder: Path) -> TrainingState:
    """The state of the checkpoint in a local `folder`, whose files are checked against their digests.

    Raises:
        DamagedCheckpoint: naming the first file that is missing or differs.
    """
    if not (folder / STATE_FILE).is_file():
        raise DamagedCheckpoint(f"{folder.name}: {STATE_FILE} is missing")
    state = read_state((folder / STATE_FILE).read_bytes(), folder.name)
    for name, digest in state.files.items():
        if not (folder / name).is_file():
            raise DamagedCheckpoint(f"{folder.name}: {name} is missing")
        if digest_of(folder / name) != digest:
            raise DamagedCheckpoint(f"{folder.name}: {name} differs from its digest")
    return state


def restore(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: MovingAverage | None
) -> None:
    """Load the verified checkpoint in a local `folder` into `model`, `optimizer` and, if kept, `average`."""
    from torch.distributed.checkpoint import state_dict

    whole = state_dict.StateDictOptions(full_state_dict=True)

    def load(name: str) -> None:
        state_dict.set_model_state_dict(model, dict(load_file(folder / name)), options=whole)

    load(WEIGHTS)
    if average:
        average.restart()
        load(TRAINED_FILE)
    moments: dict[str, Any] = {}
    for key, value in load_file(folder / OPTIMIZER_FILE).items():
        name, moment = key.rsplit("|", 1)
        moments.setdefault(name, {})[moment] = value
    kept_by: dict[str, Any] = state_dict.get_optimizer_state_dict(model, optimizer, options=whole)
    state_dict.set_optimizer_state_dict(model, optimizer, {**kept_by, "state": moments}, options=whole)
    # In the parameters' own memory format: fused optimisers read both as rows of numbers.
    for parameter, kept in optimizer.state.items():
        for moment, value in kept.items():
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                kept[moment] = torch.empty_like(parameter).copy_(value)

"""The pool of Ray actors that compute RAFT flow: one per GPU, or one on the CPU."""

import os
from typing import Any

import ray

from datasets_prep.settings import StereoSettings
from datasets_prep.stereo.flow import RaftFlow
from datasets_prep.stereo.piece import measure


class RaftActor:
    """RAFT on one GPU, or on the CPU, with the weights and thresholds of `settings`."""

    def __init__(self, settings: StereoSettings) -> None:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._settings = settings
        self._flow = RaftFlow(settings.raft_weights, settings.raft_updates, device)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Replace the right views in `batch`, one piece, by the disparity of the left views."""
        measured = measure(batch["left"][0], batch["right"][0], self._flow, self._settings)
        kept = {key: values for key, values in batch.items() if key != "right"}
        maps = {key: measured[key][None] for key in ("values", "uncertainty")}
        return {**kept, **maps, "reasons": [measured["reasons"]]}


def with_absolute_weights(settings: StereoSettings) -> StereoSettings:
    """The `settings` with an absolute path of weights: actors have their own working directory."""
    path = settings.raft_weights
    return settings.model_copy(update={"raft_weights": path and os.path.abspath(path)})


def raft_pool() -> dict[str, Any]:
    """One actor per GPU, or one on the CPU. They reserve no CPU: decoding feeds them and must not starve."""
    gpus = int(ray.cluster_resources().get("GPU", 0))
    return {"compute": ray.data.ActorPoolStrategy(size=max(1, gpus)), "num_gpus": min(1, gpus), "num_cpus": 0}

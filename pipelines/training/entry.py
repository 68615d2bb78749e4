"""Ray Train's entry point in each training process.

Ray Train's controller, a process of its own, unpickles this function and its arguments, though only ranks
call it. So this module imports nothing, and the setup travels as bytes: the controller would otherwise import
PyTorch models and MLflow, for seconds, before it starts the ranks.
"""

from __future__ import annotations

import pickle
from typing import Any


def train_loop(arguments: dict[str, Any]) -> None:
    """Run one rank; `arguments` has `setup`, a pickled `loop.Setup`, and `board`, an actor handle."""
    from pipelines.training.loop import run_rank

    run_rank(pickle.loads(arguments["setup"]), arguments["board"])

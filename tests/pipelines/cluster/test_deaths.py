"""What is said of errors as Ray and PyTorch word them."""

import pytest
from ray.exceptions import ActorDiedError, NodeDiedError, OutOfMemoryError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError

from pipelines.cluster.deaths import any_died, what_died

KILLED = WorkerHealthCheckFailedError("A worker health check failed.", ActorDiedError())
PARTNER = RuntimeError("[../third_party/gloo/pair.cc:534] Connection closed by peer [127.0.0.1]:2")


class FromARank(Exception):
    """As Ray Train passes on what a rank raises."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"Traceback (most recent call last):\n  …\n{cause}")
        self.cause = cause


LOADER = FromARank(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "))


@pytest.mark.parametrize(("failures", "said"), [
    ({0: KILLED}, "rank 0 died: its process was killed"),
    ({0: FromARank(PARTNER), 1: KILLED}, "rank 1 died: its process was killed"),
    ({2: WorkerHealthCheckFailedError("failed", OutOfMemoryError("running low on memory"))},
     "rank 2 was killed: its machine ran out of memory"),
    ({0: WorkerHealthCheckFailedError("failed", NodeDiedError("its node (ID: 7) died"))},
     "rank 0 was lost with its machine"),
    ({1: WorkerHealthCheckTimeoutError("A worker health check has been hanging")}, "rank 1 did not answer"),
    ({0: LOADER}, "rank 0 lost a loading process"),
])  # fmt: skip
def test_a_death_is_named_with_its_rank(failures, said):
    assert what_died(failures).startswith(said)
    assert any_died(failures)


def test_an_error_of_the_program_is_no_death():
    failures = {0: FromARank(KeyError("a defect"))}
    assert what_died(failures) == "rank 0 failed with KeyError: 'a defect'"
    assert not any_died(failures)

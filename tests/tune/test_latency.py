"""Parameters and latency are those of the model that is asked for."""

import dpt
from pipelines.config import ModelSection
from tune.measurements import count_parameters, measure_latency, seconds_a_prediction


def test_parameters_and_latency_are_measured_in_a_task_of_their_own(ray_session):
    section = ModelSection(name="dpt_tiny", overrides={"features": 16})
    found = measure_latency(section, side=64, runs=3, use_gpu=False, threads=1)
    assert found.parameters_millions == count_parameters(dpt.create_model("dpt_tiny", features=16))
    assert found.milliseconds > 0
    assert found.device.endswith(", 1 threads")


def test_every_prediction_is_counted():
    calls = []
    model = dpt.create_model("dpt_tiny").eval()
    model.register_forward_hook(lambda *_: calls.append(1))
    assert seconds_a_prediction(model, side=64, runs=20) > 0
    assert len(calls) == 22

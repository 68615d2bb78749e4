"""The table that the demo prints."""

from rich.console import Console

from pipelines.demo import results_table


def test_models_stand_beside_the_mean_map_from_the_worst_to_the_best():
    baselines = {"hrwsi": 0.2, "redweb": 0.1}
    errors = {"trained": {"hrwsi": 0.1, "redweb": 0.12}, "untrained": {"hrwsi": 0.3, "redweb": 0.1}}
    models = {
        model: {
            name: {"abs_rel": e, "mean_map_abs_rel": baselines[name], "skill": 1 - e / baselines[name]}
            for name, e in found.items()
        }
        for model, found in errors.items()
    }
    console = Console(width=80)
    with console.capture() as capture:
        console.print(results_table(models))
    lines = [line.split() for line in capture.get().splitlines()]
    rows = [line for line in lines if line and line[0] in ("untrained", "trained", "mean")]
    assert rows[-3:] == [
        ["untrained", "0.3000", "-0.50", "0.1000", "+0.00", "0.2000", "-0.25"],
        ["mean", "map", "0.2000", "+0.00", "0.1000", "+0.00", "0.1500", "+0.00"],
        ["trained", "0.1000", "+0.50", "0.1200", "-0.20", "0.1100", "+0.15"],
    ]

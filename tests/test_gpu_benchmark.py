"""`benchmarks/gpu.py` as far as a CPU can run it: its parts on a tiny model, and what becomes of failures."""

import json
import re
import sys
import time
from contextlib import redirect_stdout
from io import StringIO
from types import SimpleNamespace

import pytest
import torch

from tests.support.paths import REPOSITORY

MODULES = ("gpu", "gpu_bench", "gpu_commands", "gpu_compiled", "gpu_inference", "gpu_kernels", "gpu_training")
MODULES += ("gpu_supervisor", "predict")


@pytest.fixture
def gpu(monkeypatch):
    """The scripts, imported as when one of them is run, and forgotten afterwards."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    before = set(sys.modules)
    yield SimpleNamespace(**{name: __import__(name) for name in MODULES})
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(REPOSITORY / "benchmarks")):
            del sys.modules[name]


@pytest.fixture
def bench(gpu):
    return gpu.gpu_bench.Bench(torch.device("cpu"), True, time.monotonic() + 60)


def rows_of(printed: str) -> dict[str, list[str]]:
    """First cell → the others, of all tables."""
    lines = [line for line in printed.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first: rest for first, *rest in cells}


@pytest.mark.heavy
def test_steps_and_their_sections_are_measured(gpu, capsys):
    gpu.gpu.main(["--tiny", "--parts", "sections,training"])
    rows = rows_of(capsys.readouterr().out)
    for variant in gpu.gpu_training.VARIANTS:
        ms, rate, *_, busy, _, kernels, memory = rows[f"dpt_tiny, {variant}, batch 4"]
        assert float(rate) == pytest.approx(4000 / float(ms), rel=0.01)
        assert busy == kernels == memory == "-"
    *parts, together = map(float, rows["dpt_tiny, batch 4"])
    assert len(parts) == 7
    assert sum(parts) == pytest.approx(together, abs=0.05)


@pytest.mark.heavy
def test_both_implementations_predict_in_every_precision(gpu, bench):
    rows = dict(gpu.gpu_inference.main_inference(bench))
    assert len(rows) == 4 + 5
    errors = []
    for title in ("dpt_tiny, bf16, ours", "dpt_tiny, tf32, ours", "dpt_tiny, bf16 autocast, transformers"):
        ms, graph, error, rate, best, _, ended = rows[title]()
        assert (graph, ended) == ("-", "")
        errors.append(error)
        assert best in ("1", "2")
        assert float(rate) >= 0.99 * 1000 / float(ms)
    assert 0 < float(errors[0]) < 0.02
    assert errors[1:] == ["0.0e+00", "-"]


def test_a_failing_row_is_a_line_and_a_failing_part_too(gpu, bench, capsys):
    def rows(bench):
        yield "bad", lambda: 1 / 0
        yield "good", lambda: ["fine"]
        raise OSError("no such | library\nmore")

    parts = [gpu.gpu.Part("first", ("reached",), rows), gpu.gpu.Part("second", ("reached",), rows)]
    gpu.gpu.measure(parts, bench)
    printed = capsys.readouterr().out
    assert printed.count("| bad | failed: ZeroDivisionError: division by zero |") == 2
    assert printed.count("| good | fine |") == 2
    assert printed.count("not measured: OSError: no such / library\n") == 2


def test_what_the_time_does_not_suffice_for_is_named(gpu, bench, capsys):
    def rows(bench):
        yield "one", lambda: [str(setattr(bench, "end", 0.0))]
        yield "two", lambda: ["never"]

    parts = [gpu.gpu.Part("first", ("reached",), rows), gpu.gpu.Part("second", ("reached",), rows)]
    gpu.gpu.measure(parts, bench)
    printed = capsys.readouterr().out
    assert "| one | None |" in printed
    assert "never" not in printed
    assert "not measured: two\n" in printed
    assert "second: skipped, the time is used up\n" in printed


def test_a_part_that_ends_the_process_does_not_end_the_others(gpu, tmp_path, capfd):
    """A script in place of `gpu.py`, which dies in the first of its two parts."""
    script = tmp_path / "script.py"
    script.write_text(
        "import json, os, sys, time\n"
        "*given, _, rest = sys.argv[1:]\n"
        "print('given', *given, flush=True)\n"
        "left = {} if '--parts' in given else {'parts': ['b', 'c'], 'end': time.monotonic() + 60}\n"
        "open(rest, 'w').write(json.dumps(left))\n"
        "os.kill(os.getpid(), 0 if '--parts' in given else 11)\n"
    )
    assert gpu.gpu_supervisor.supervise(script, ["--minutes", "6"]) == 0
    first, said, second = capfd.readouterr().out.splitlines()
    assert first == "given --minutes 6"
    assert said == "the process ended with status -11; another one measures the rest"
    assert second.startswith("given --minutes 6 --parts b,c --minutes ")


@pytest.mark.heavy
def test_a_process_that_has_lost_its_gpu_says_so_and_ends(gpu, bench, capsys, monkeypatch, tmp_path):
    def lost(device):
        raise RuntimeError("CUDA error: an illegal memory access")

    monkeypatch.setattr(gpu.gpu, "wait_for", lost)
    bench.device = torch.device("cuda")
    part = gpu.gpu.Part("first", ("reached",), lambda bench: iter([("bad", lambda: 1 / 0)]))
    with pytest.raises(SystemExit):
        gpu.gpu.measure([part, gpu.gpu.PARTS[0]], bench, tmp_path / "rest")
    assert json.loads((tmp_path / "rest").read_text())["parts"] == ["ceilings"]
    assert "this process has lost the GPU: RuntimeError: CUDA error" in capsys.readouterr().out


def test_wrong_arguments_are_one_line(gpu, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for arguments, reason in (
        (["--parts", "ceilings,trainign"], "there is no trainign; choose from ceilings, training"),
        (["--minutes", "0"], "--minutes: expected a positive number"),
        ([], "there is no CUDA device; --tiny"),
    ):
        with pytest.raises(SystemExit):
            gpu.gpu.main(arguments)
        assert reason in capsys.readouterr().err


def test_overlapping_kernels_are_busy_once_and_annotations_never(gpu):
    """0 to 10 and 5 to 12 overlap, 4 to 6 lies within, 20 to 21 is apart: 13 µs."""
    spans = [("kernel", 5, 7), ("kernel", 0, 10), ("gpu_memcpy", 4, 2), ("gpu_memset", 20, 1)]
    spans += [("gpu_user_annotation", 0, 100), ("cuda_runtime", 50, 9)]
    events = [{"cat": kind, "ts": start, "dur": length} for kind, start, length in spans]
    found = gpu.gpu_kernels.kernels_in([{"name": "no category"}, *events])
    assert (found.count, found.busy) == (4, pytest.approx(13e-6))


def test_a_profiler_that_sees_no_kernels_says_so_and_costs_nothing_else(gpu, bench, monkeypatch):
    """On the CPU the profiler is asked for the CPU's events, so that a real trace is read."""
    for name in ("DISABLE_CUPTI_LAZY_REINIT", "TEARDOWN_CUPTI"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *device: None)
    activity = SimpleNamespace(CUDA=torch.profiler.ProfilerActivity.CPU)
    monkeypatch.setattr(gpu.gpu_kernels, "ProfilerActivity", activity)
    bench.device = torch.device("cuda")
    assert gpu.gpu_training.busy_cells(bench, lambda: torch.ones(2) + 1, 1.0) == ["-"] * 3
    assert len(bench.notes) == 1
    assert "CUPTI" in bench.notes[0]


@pytest.mark.heavy
@pytest.mark.parametrize("what", ["average", "regions", "ours"])
def test_what_is_called_compiled_goes_through_the_compiler(gpu, bench, what):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    gpu.gpu_compiled.compiled_call(bench, "dpt_tiny", what, 2)()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1


def test_lines_of_a_command_have_their_times(gpu, tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    code = "import time; print('step 1/2'); time.sleep(0.3); print('done')"
    lines = gpu.gpu_commands.run([sys.executable, "-c", code], 60, tmp_path)
    (first, step), (second, done), (end, _) = lines
    assert (step, done) == ("step 1/2", "done")
    assert first + 0.2 < second <= end


def test_a_command_that_fails_or_takes_too_long_says_how(gpu, tmp_path):
    with pytest.raises(RuntimeError, match=r"exit status 3; its last line: oh"):
        gpu.gpu_commands.run([sys.executable, "-c", "print('oh'); raise SystemExit(3)"], 60, tmp_path)
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=re.escape("ended after 0 s")):
        gpu.gpu_commands.run([sys.executable, "-c", "import time; time.sleep(60)"], 0.3, tmp_path)
    assert time.monotonic() - start < 20


@pytest.mark.heavy
def test_a_folder_is_predicted_beside_the_bare_network(gpu, bench, monkeypatch):
    """The script in this process, on the tiny model; what it prints is read as the table's cells."""

    def run(command, *rest):
        monkeypatch.setattr(sys, "argv", command[1:])
        printed = StringIO()
        with redirect_stdout(printed):
            gpu.predict.main()
        return [(0.0, line) for line in printed.getvalue().splitlines()]

    monkeypatch.setattr(gpu.gpu_commands, "run", run)
    monkeypatch.setattr(gpu.predict, "SECONDS", 0.05)
    monkeypatch.setattr(gpu.predict, "SCENES", 1)
    titles, calls = zip(*gpu.gpu_commands.folders(bench), strict=True)
    assert titles == ("dpt_tiny, bfloat16", "dpt_tiny, float32")
    rate, limits, share = calls[1]()
    before, after = map(float, limits.split(", "))
    assert float(share) == pytest.approx(2 * float(rate) / (before + after), abs=0.02)


def test_every_command_of_the_whole_way_parses(gpu, bench, monkeypatch):
    from tests.test_docs import check_line

    said = []
    monkeypatch.setattr(gpu.gpu_commands, "run", lambda command, *rest: said.append(command) or [(0.0, "")])
    for _, call in gpu.gpu_commands.end_to_end(bench):
        call()
    assert [command[3] for command in said] == [
        "generate",
        "prepare",
        "train",
        "predict",
        "evaluate",
        "train",
    ]
    for command in said:
        check_line(["dpt", *command[3:]])

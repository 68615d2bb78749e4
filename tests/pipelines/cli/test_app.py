import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import typer
from rich.console import Console

from datasets_prep.errors import UserError
from datasets_prep.storage.folder import Folder
from dpt import create_model, save_model
from pipelines.cli import options
from pipelines.config_files import CONFIG_FOLDER
from tests.support.commands import dpt, said
from tune import cli

COMMANDS = [command.name or command.callback.__name__ for command in cli.app.registered_commands]


def test_the_jobs_of_the_readme_are_all_there():
    expected = {"generate", "prepare", "inspect", "train", "evaluate", "predict", "publish", "config", "demo"}
    assert expected <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    printed = said(command, "--help")
    assert "Usage" in printed
    assert "--help" in printed


def test_help_answers_without_loading_heavy_libraries():
    code = (
        "import sys; from pipelines import cli; "
        "sys.exit(', '.join(m for m in ('torch', 'ray', 'mlflow', 'pandas') if m in sys.modules) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_version_is_printed():
    assert said("--version").startswith("dpt 0.")


def test_config_prints_every_resolved_key():
    printed = said("config", "train", "steps=7")
    assert "steps: 7\n" in printed
    assert "decoder_lr: 0.0001\n" in printed


def test_the_help_of_config_lists_all_that_are_built_in():
    built_in = {path.stem for path in CONFIG_FOLDER.glob("*.yaml")}
    for command in ("train", "prepare", "evaluate", "predict", "finetune", "tune", "demo", "config"):
        assert built_in <= set(re.findall(r"\w+", said(command, "--help").partition("--config")[2])), command


@pytest.mark.parametrize(("words", "noted"), [
    (["-c", "demo", "--config", "nyu"], "--config is given 2 times: nyu is taken"),
    (["--config=demo", "-cnyu", "seed=1"], "--config is given 2 times: nyu is taken"),
    (["--help", "-h"], "--help is given 2 times: the last is taken"),
    (["-c", "nyu", "config=demo"], None),
])  # fmt: skip
def test_of_an_option_that_is_given_twice_the_value_that_is_taken_is_said(words, noted, recwarn):
    group = typer.main.get_command(cli.app)
    assert isinstance(group, typer.core.TyperGroup)
    context = group.make_context("dpt", ["config", "train", *words])
    assert group.resolve_command(context, ["config", "train", *words])[2] == ["train", *words]
    assert [str(warning.message) for warning in recwarn] == [noted] * (noted is not None)


def test_options_of_several_values_are_given_several_times(recwarn):
    group = typer.main.get_command(cli.app)
    assert isinstance(group, typer.core.TyperGroup)
    for words in (["train", "-d", "a", "-d", "b"], ["evaluate", "--on", "diw", "eth3d", "--on", "nyu"]):
        group.resolve_command(group.make_context("dpt", words), words)
    assert not recwarn.list


@pytest.mark.parametrize("terminal", [True, False])
def test_a_command_that_loads_says_so_in_a_terminal_only(terminal, monkeypatch, capsys):
    monkeypatch.setattr(options, "Console", partial(Console, force_terminal=terminal))
    with options.waiting("loading PyTorch") as stop:
        shown = options.after(stop)
        shown("one")
        shown("two")
    printed = capsys.readouterr()
    assert printed.out == "one\ntwo\n"
    assert ("loading PyTorch" in printed.err) == terminal
    assert terminal or printed.err == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_shows_that_a_command_is_at_work_until_it_prints(terminal, monkeypatch, capsys):
    monkeypatch.setattr("pipelines.cli.app.Console", partial(Console, force_terminal=terminal))
    at_work: list[str] = []
    monkeypatch.setattr(
        "pipelines.config_files.to_yaml", lambda _: at_work.append(capsys.readouterr().err) or "steps: 7\n"
    )
    assert dpt("config", "evaluate") == 0
    printed = capsys.readouterr()
    assert ("\x1b[?25l" in at_work[0]) == terminal, "a spinner hides the cursor"
    assert terminal or at_work == [""]
    assert printed.out == "steps: 7\n"
    assert ("\x1b[?25h" in printed.err) == terminal, "the cursor is back"


def test_no_table_is_cut_in_a_log():
    code = (
        "from pipelines.terminal import console; from rich.table import Table\n"
        "table = Table(*'abcdef'); table.add_row(*['0.123456789012345678901234'] * 6); console.print(table)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert any(line.count("0.123456789012345678901234") == 6 for line in done.stdout.splitlines())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_model(create_model("dpt_tiny", image_size=64), folder)
    return folder


DISTILL = ("distill", "--data", "{shards}")


@pytest.mark.parametrize(("arguments", "message"), [
    (["config", "trian"], "dpt: no job 'trian'; there are: stereo, prepare, train"),
    (["config", "train", "model.name=dpt_hybird"], "dpt: model: model: there is no 'dpt_hybird'; choose"),
    (["models"], "dpt: nothing is tracked in "),
    (["predict", "a.jpg", "framse=true", "--model", "{model}", "--out", "x"], "dpt: predict.framse: unkn"),
    (["predict", "frames=true", "--model", "{model}", "--out", "x"], "dpt: no images: give files"),
    (["prepare", "redweb", "--raw", "nowhere", "--out", "x"], "dpt: no such folder: nowhere"),
    (["generate", "redwebb", "--out", "x"], "dpt: unknown dataset 'redwebb'; there are: ade20k, "),
    (["prepare", "redwep", "--raw", ".", "--out", "x"], "dpt: unknown dataset 'redwep'; there are: "),
    (["prepare", "redweb", "--raw", ".", "--out", "x"], "dpt: no redweb sample in "),
    (["prepare", "redweb", "--raw", ".", "--out", "x", "syde=3"], "dpt: prepare.syde: unknown key"),
    (["train", "--data", "nowhere", "--name", "x"], "dpt: no prepared dataset at nowhere"),
    (["train", "--data", "{shards}", "--name", "x", "model.name=x"], "dpt: "),
    (["train", "--data", "{shards}", "--name", "x", "train_split=x"], "dpt: nothing in "),
    (["finetune", "nowhere", "--name", "x"], "dpt: nowhere is not kitti, nyu, a prepared dataset or"),
    (["finetune", "{shards}/redweb", "--name", "x"], "dpt: --model: missing, a model of relative depth"),
    (["finetune", "{shards}/redweb", "--name", "x", "-m", "y"], "dpt: redweb has no metric scale"),
    (["evaluate", "--model", "nowhere", "--data", "{shards}"], "dpt: no model at nowhere"),
    (["evaluate", "--model", "{model}", "--data", "{shards}", "split=x"], "dpt: nothing in "),
    (["evaluate", "-m", "{model}", "--data", "{shards}/redweb", "split=x"], "dpt: redweb has no split 'x'"),
    (["evaluate", "--model", "{model}", "--on", "diw"], "dpt: diw: no raw folder; give --raw diw=FOLDER"),
    (["predict", "missing.jpg", "--model", "{model}", "--out", "x"], "dpt: "),
    (["predict", "missing.jpg", "--out", "x"], "dpt: --model: missing; give a model's folder or file"),
    (["inspect", "nowhere"], "dpt: no prepared dataset at nowhere"),
    (["evaluate", "--model", "x"], "dpt: give either --data SHARDS or --on SET… with --raw FOLDER"),
    (["evaluate", "--model", "x", "--data", "y", "--raw", "z"], "dpt: --raw goes with --on, not with"),
    (["evaluate", "--model", "nowhere", "--on", "diw", "eth3d"], "dpt: no model at nowhere"),
    (["predict", "missing.jpg", "--model", "nowhere", "--out", "x"], "dpt: no model at nowhere"),
    (["prepare", "redweb", "--raw", "{raw}/redweb", "--out", "x", "lists.val=."], "dpt: lists.val: "),
    (["train", "--data", "{shards}", "--name", "new\nline"], "dpt: --name: expected the name of a folder"),
    (["train", "--data", "{shards}", "--name", "a/b"], "dpt: --name: expected the name of a folder"),
    (["train", "--data", "{shards}", "--name", "."], "dpt: --name: expected the name of a folder, printable"),
    (["train", "--data", "{shards}", "--name", "../x"], "dpt: --name: expected the name of a folder"),
    ([*DISTILL, "nowhere", "--model", "{model}", "--name", "n"], "dpt: no such folder: nowhere"),
    ([*DISTILL, "{raw}/redweb", "--model", "nowhere", "--name", "n"], "dpt: no model at nowhere"),
    ([*DISTILL, "{raw}/redweb", "--model", "{model}", "--name", "a/b"], "dpt: --name: expected 1 to"),
    (["config", "train", "--config", "{raw}"], "dpt: no config file "),
    (["predict", "x", "--model", "/dev/null", "--out", "x"], "dpt: /dev/null is not a readable "),
    (["predict", "x", "--model", "{raw}/redweb", "--out", "x"], "dpt: no model at "),
    (["generate", "redweb", "--out", "s3://bucket/x"], "dpt: s3://bucket/x: expected a folder"),
    (["stereo", "movies", "--videos", "nowhere", "--out", "x"], "dpt: no such folder: "),
    (["label", "nowhere", "--model", "{model}", "--name", "n", "--dry-run"], "dpt: no such folder: nowh"),
    (["tune", "skipp", "--data", "{shards}", "--name", "n"], "dpt: no table 'skipp'; there are: skip, "),
    (["tune", "no.yaml", "--data", "{shards}", "--name", "n"], "dpt: no ablation at no.yaml: No such file"),
    (["report", "x"], "dpt: nothing is tracked in "),
    (["promote", "x", "1"], "dpt: nothing is tracked in "),
    (["export", "{model}", "--to", "x"], "dpt: --to: there is no 'x'; choose from onnx, pt2"),
    (["convert", "{model}", "{model}"], "dpt: "),
    (["serve", "--model", "nowhere"], "dpt: no model at nowhere"),
    (["submit", "--", "trian"], "dpt: no command 'trian'; there are: "),
])  # fmt: skip
def test_what_a_user_can_mend_is_one_clear_line(
    arguments, message, model, shards_folder, raw_folder, tmp_path, monkeypatch, capsys
):
    arguments = [word.format(model=model, shards=shards_folder, raw=raw_folder) for word in arguments]
    monkeypatch.chdir(tmp_path)
    assert dpt(*arguments) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(message)
    assert printed.out == "", "no config before the error"
    assert len(printed.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


COMMANDS = sorted(typer.main.get_command(cli.app).commands)


@pytest.mark.parametrize(("arguments", "message"), [
    *(([name, "--nope"], "No such option: --nope") for name in COMMANDS),
    (["publish"], "Missing argument 'run'; `dpt publish -h` lists what there is"),
    (["train"], "Missing option '--data' / '-d'; `dpt train -h` lists what there is"),
    (["submit", "--", "train"], "Missing option '--data' / '-d'; `dpt train -h` lists what there is"),
    (["datasets", "x"], "Got unexpected extra argument(s) (x); `dpt datasets -h` lists what there is"),
    (["predict", "-photo.png"], "No such option: -p; a file of such a name is ./-…; `dpt predict"),
    (["predict", "--side", "x"], "Invalid value for '--side': "),
    (["generate", "redweb", "--out", "x", "--scenes", "0"], "Invalid value for '--scenes': "),
    (["generate", "redweb", "--out"], "Option '--out' requires an argument"),
    (["new\nline"], "No such command 'new\\nline'; `dpt -h` lists what there is"),
    (["predikt"], "No such command 'predikt'. Did you mean 'predict'?; `dpt -h` lists what there is"),
    (["train", "--data", "", "--name", "x"], "'': an argument is empty; is a variable of the shell unset?"),
    (["predict", "a.png", "--out="], "'--out=': an argument is empty; is a variable of the shell unset?"),
])  # fmt: skip
def test_mistaken_arguments_are_one_line_and_exit_with_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert dpt(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"dpt: {message}")
    assert (printed.out, len(printed.err.splitlines()), list(tmp_path.iterdir())) == ("", 1, [])


def test_no_arguments_are_a_call_for_help(capsys):
    assert dpt() == 2
    assert "prepare" in capsys.readouterr().out


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied", "/raw/a.png"), OSError(28, "full", b"/x")]
)
def test_an_error_of_the_operating_system_is_one_line_that_names_the_file(monkeypatch, capsys, error):
    def fail(**_):
        raise error

    monkeypatch.setattr("pipelines.cli.app.app", fail)
    monkeypatch.setattr(sys, "argv", ["dpt"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert capsys.readouterr().err == f"dpt: {os.fsdecode(error.filename)}: {error.strerror}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_half_written(number, tmp_path, monkeypatch, capsys):
    def write(**_: object) -> None:
        with Folder(str(tmp_path)).writing("a.npy") as path:
            path.write_bytes(b"half")
            os.kill(os.getpid(), number)
            time.sleep(5)

    monkeypatch.setattr("pipelines.cli.app.app", write)
    assert dpt() == 128 + number
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == f"dpt: stopped by {number.name}; what is finished is kept\n"


def test_passwords_of_uris_are_never_printed(monkeypatch, capsys):
    """Neither in what MLflow raises in the middle of a command, nor in a traceback."""
    from mlflow.exceptions import MlflowException

    def fail(error: Exception) -> None:
        raise error

    uri = "http://robot:s3cr:et@host:5000/api/2.0/mlflow/runs"
    lost = MlflowException(f"API request to {uri} failed with exception\nmore")
    monkeypatch.setattr("pipelines.cli.app.app", lambda **_: fail(lost))
    assert dpt() == 1
    expected = "API request to http://host:5000/api/2.0/mlflow/runs failed with exception"
    assert capsys.readouterr().err == f"dpt: MLflow failed: {expected}\n"
    monkeypatch.setattr("pipelines.cli.app.app", lambda **_: fail(KeyError(uri)))
    monkeypatch.setattr(sys, "argv", ["dpt"])
    with pytest.raises(KeyError) as caught:
        cli.main()
    sys.excepthook(caught.type, caught.value, caught.tb)
    printed = capsys.readouterr().err
    assert "KeyError: 'http://host:5000/api" in printed
    assert "s3cr" not in printed


def test_a_lost_process_of_ray_is_one_line_and_an_error_in_its_task_that_of_the_task(monkeypatch, capsys):
    import ray.exceptions as of_ray

    def fail(error: Exception) -> None:
        raise error

    lost = of_ray.OutOfMemoryError("2 worker(s) were killed due to the node running low on memory.\nMore")
    full = of_ray.RayTaskError("write", "Traceback …", UserError("disk full")).as_instanceof_cause()
    for error, line in (
        (lost, "Ray failed: 2 worker(s) were killed due to the node running low on memory."),
        (full, "disk full"),
    ):
        monkeypatch.setattr("pipelines.cli.app.app", lambda error=error, **_: fail(error))
        assert dpt() == 1
        assert capsys.readouterr().err == f"dpt: {line}\n"


def test_a_programming_error_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("pipelines.cli.app.app", lambda **_: {}["a defect"])
    monkeypatch.setattr(sys, "argv", ["dpt"])
    with pytest.raises(KeyError, match="a defect"):
        cli.main()


def test_an_unknown_model_or_override_is_refused_before_anything_starts(
    shards_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    common = ("train", "--data", shards_folder, "--name", "x", "model.pretrained=false", "crop=64")
    assert dpt(*common, "model.name=dpt_hubrid") == 1
    assert "dpt: model: " in (error := capsys.readouterr().err)
    assert "dpt_hybrid" in error
    assert dpt(*common, "model.name=dpt_tiny", "model.overrides.readuot=add") == 1
    assert "readuot" in (error := capsys.readouterr().err)
    assert "readout" in error
    assert dpt(*common, "model.name=dpt_tiny", "weights={redweb: 1}") == 1
    expected = "weights: given for ['redweb'], but the datasets are ['redweb', 'tartanair']"
    assert expected in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_dry_run_writes_nothing(raw_folder, tmp_path):
    arguments = ("prepare", "redweb", "--raw", raw_folder / "redweb", "--out", tmp_path / "out", "--dry-run")
    assert "redweb: 20 samples in 4 shards" in said(*arguments, "samples_per_shard=8")
    assert not (tmp_path / "out").exists()

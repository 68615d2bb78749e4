"""The console script `dpt`: every job of the project as a subcommand.

Heavy libraries are imported by the commands that need them, so that `dpt --help` answers at once. `tune.cli`
adds the commands that need sweeps; its `main` is the console script.
"""

from __future__ import annotations

import importlib.metadata
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Annotated, Any, NoReturn

import typer

from datasets_prep.errors import Note, UserError
from pipelines.cli import backbones, evaluate, options, predict, prepare, registry, train
from pipelines.cluster.credentials import without_credentials

app = typer.Typer(
    name="dpt",
    help="Train dense prediction transformers: raw depth datasets to a registered model, on Ray.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dpt {importlib.metadata.version('dpt-on-ray')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train dense prediction transformers: raw depth datasets to a registered model, on Ray."""


_COMMANDS: tuple[Callable[..., None], ...] = (
    *(prepare.generate, prepare.datasets, prepare.stereo, prepare.prepare, prepare.inspect),
    *(train.train, train.finetune, evaluate.evaluate, predict.predict, predict.serve),
    *(predict.convert, predict.export, backbones.backbones),
    *(registry.publish, registry.models, registry.promote, registry.rollback),
)
_OF_DATASETS = ("generate", "prepare", "stereo", "inspect")
_OPTIONAL = {
    *("OpenEXR", "blosc2", "grpc", "h5py", "matplotlib", "mlflow", "pandas", "psutil", "ray", "requests"),
    *("scipy", "sqlalchemy"),
}
"""Libraries, besides those of `dpt export`, that an installation without extras lacks."""

for command in _COMMANDS:
    app.command(cls=evaluate.SpreadOptions if command is evaluate.evaluate else None)(command)


@app.command(context_settings={"allow_interspersed_args": False})
def submit(
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND", help="E.g. train --data s3://bucket/shards.")
    ],
    address: Annotated[
        str | None, typer.Option(help="The cluster's job server.", show_default="RAY_API_SERVER_ADDRESS")
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY[=VALUE]",
            help="Environment of the job, which the cluster's users can see; MLFLOW_TRACKING_* are always in "
            "it. Repeat for more.",
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Files or folders to send that git does not track. Repeat for more.",
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Check first that the cluster reaches all it needs.")
    ] = True,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the job's log to its end.")] = True,
) -> None:
    """Run a command of dpt on a cluster, with the code that git tracks; follow its log, return its code."""
    from pipelines.submit import submit as run_there

    parameters = _parameters_of(command)
    write = partial(typer.echo, nl=False)
    raise typer.Exit(run_there(command, parameters, address, env or [], include or [], check, wait, write))


def _parameters_of(command: list[str]) -> dict[str, Any]:
    """A subcommand's parameters by name, parsed from the words of `command`; a mistake ends the program."""
    name, *arguments = command
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    if name not in group.commands:
        raise UserError(f"no command {name!r}; there are: {', '.join(sorted(group.commands))}")
    return group.commands[name].make_context(name, arguments).params


@app.command("config")
def show_config(
    job: Annotated[str, typer.Argument(help="stereo, prepare, train, evaluate, zero_shot, predict or tune.")],
    overrides: options.Overrides = None,
    config: options.Config = None,
) -> None:
    """Print a job's resolved config: every key with its value."""
    from pipelines.config import ConfigError, Experiment, TrainConfig
    from pipelines.config_files import load_section, to_yaml

    if job not in Experiment.model_fields:
        raise ConfigError(f"no job {job!r}; there are: {', '.join(Experiment.model_fields)}")
    settings = load_section(job, type(getattr(Experiment(), job)), config, overrides or [])
    if isinstance(settings, TrainConfig) and settings.model.start is None:
        from pipelines.training.start import model_without_weights

        model_without_weights(settings)
    typer.echo(to_yaml(settings), nl=False)


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A `Note` as its message alone, other warnings as Python prints them."""
    if issubclass(category, Note):
        return f"{message}\n"
    return _python_format(message, category, filename, lineno, line)


_python_format = warnings.formatwarning


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """As Python, but without the user names and passwords of URIs."""
    sys.stderr.write(without_credentials("".join(traceback.format_exception(kind, error, trace))))


def _is_of_mlflow(error: Exception) -> bool:
    """Whether MLflow or its server failed; a command that never imported it does not wait for that."""
    exceptions = sys.modules.get("mlflow.exceptions")
    return exceptions is not None and isinstance(error, exceptions.MlflowException)


def main() -> None:
    """Run the command line; errors of the user, the system or MLflow are one line, not a traceback."""
    # Ray gives workers their own working directory, but the user's paths are relative to this one.
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    warnings.formatwarning = _format_warning
    sys.excepthook = _print_traceback
    # By default a process ends where it is, and leaves what it has written half.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        app()
    except UserError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        _fail(_missing_extra(error, next(iter(sys.argv[1:]), "")))
    except OSError as error:
        if error.filename is None or error.strerror is None:
            raise
        _fail(f"{os.fsdecode(error.filename)}: {error.strerror}")
    except Exception as error:
        if not _is_of_mlflow(error):
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        _fail(without_credentials(f"MLflow failed: {reason}"))


def _missing_extra(error: ModuleNotFoundError, command: str) -> str:
    """How to install what `command` lacks; raises `error` if that is not a matter of extras."""
    library = str(error.name).partition(".")[0]
    if library.startswith("onnx"):
        extra = "export"
    elif library in _OPTIONAL:
        extra = "data" if command in _OF_DATASETS else "train"
    else:
        raise error
    return f"this use of dpt {command} needs {library}: pip install 'dpt-on-ray[{extra}]' (or [all])"


def _fail(reason: str) -> NoReturn:
    typer.echo(f"dpt: {reason}", err=True)
    sys.exit(1)

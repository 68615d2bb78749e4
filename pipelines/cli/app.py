"""The console script `dpt`: every job of the project as a subcommand.

Heavy libraries are imported by the commands that need them, so that `dpt --help` answers at once. `tune.cli`
adds the commands that need sweeps; its `main` is the console script.
"""

from __future__ import annotations

import gc
import importlib.metadata
import os
import re
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout, suppress
from functools import partial
from types import TracebackType
from typing import Annotated, Any, TextIO, cast

import typer
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from datasets_prep.errors import Note, UserError, one_line, printable
from pipelines.cli import backbones, evaluate, label, options, predict, prepare, registry, train
from pipelines.cluster import signals
from pipelines.cluster.credentials import WithoutCredentials, without_credentials
from pipelines.terminal import echo

_UsageError = cast(type[Exception], typer.BadParameter.__mro__[1])  # of click, which Typer has with it or not


class UsageMistake(UserError):
    """Arguments that a command does not take; the message names them."""


class _Commands(typer.core.TyperGroup):
    """The commands; mistakes in their arguments are one line as other errors are, not a box.

    `at_work` is shown from the start of a command on.
    """

    at_work: Live | None = None

    def make_context(self, info_name: Any, args: list[str], *rest: Any, **extra: Any) -> Any:
        """See `click.Command.make_context`. Without `args` the help is shown by an error of its own."""
        with _in_one_line() if args else nullcontext():
            return super().make_context(info_name, args, *rest, **extra)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See `click.Command.parse_args`. Raises UsageMistake if one of the `args` is empty."""
        for word in args:
            if re.fullmatch(r"(--[\w-]+=)?", word):
                raise UsageMistake(f"{word!r}: an argument is empty; is a variable of the shell unset?")
        return list(super().parse_args(ctx, args))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """See `click.Group.resolve_command`. Says which value is taken of an option that `args` repeat."""
        name, command, words = super().resolve_command(ctx, args)
        context: Any = cast(Any, command).context_class(command, info_name=name, parent=ctx)
        values, _, order = cast(Any, command).make_parser(context).parse_args(list(words))
        for option, times in Counter(order).items():
            if times > 1 and isinstance(option, typer.core.TyperOption) and not option.multiple:
                taken = "the last" if option.is_flag else values[option.name]
                note = f"{max(option.opts, key=len)} is given {times} times: {taken} is taken"
                warnings.warn(Note(note), stacklevel=2)
        return name, command, words

    def invoke(self, ctx: Any) -> Any:
        """See `click.Command.invoke` of a context `ctx`; commands parse their arguments in it."""
        if self.at_work is not None:
            self.at_work.start()
        with _in_one_line():
            return super().invoke(ctx)


@contextmanager
def _in_one_line() -> Iterator[None]:
    try:
        yield
    except _UsageError as error:
        mistake = cast(Any, error)
        text = mistake.format_message().rstrip(".")
        if re.match("No such option: -[^-]", text):
            text += "; a file of such a name is ./-…"
        if mistake.ctx is not None:
            command = "" if isinstance(mistake.ctx.command, _Commands) else f" {mistake.ctx.info_name}"
            text += f"; `dpt{command} -h` lists what there is"
        raise UsageMistake(text) from error


app = typer.Typer(
    name="dpt",
    cls=_Commands,
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
    *(label.label, label.distill),
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
            help="Files or folders to send that git does not track; paths from here. Repeat for more.",
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
    job: Annotated[
        str, typer.Argument(help="stereo, prepare, train, evaluate, zero_shot, predict, label, tune or demo.")
    ],
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
    typer.echo(printable(to_yaml(settings)), nl=False)


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A `Note` as its message alone, other warnings as Python prints them."""
    if issubclass(category, Note):
        return f"{one_line(str(message))}\n"
    return _python_format(message, category, filename, lineno, line)


_python_format = warnings.formatwarning


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """As Python, but without the user names and passwords of URIs."""
    text = "".join(traceback.format_exception(kind, error, trace))
    sys.stderr.write(printable(without_credentials(text)))


_LIBRARIES = {"MLflow": ("mlflow.exceptions", "MlflowException"), "Ray": ("ray.exceptions", "RayError")}


def _failed_library(error: BaseException) -> str | None:
    """Which library, its server or a process of it failed; a command that never imported it skips it."""
    for name, (module, base) in _LIBRARIES.items():
        if module in sys.modules and isinstance(error, getattr(sys.modules[module], base)):
            return name
    return None


def main() -> None:
    """Run the command line; errors of the user, the system or MLflow are one line, not a traceback."""
    # Imports make objects that last: to look for garbage among them takes a sixth of the time.
    gc.set_threshold(50_000, 20, 100)
    # Ray gives workers their own working directory, but the user's paths are relative to this one.
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    warnings.formatwarning = _format_warning
    sys.excepthook = _print_traceback
    signals.handle()
    # Loading PyTorch takes seconds: until a command prints something, a terminal shows that it is at work.
    at_work = Spinner("dots", Text(one_line(f"dpt {' '.join(sys.argv[1:2])}")))
    # By default Live replaces both streams by its own.
    screen = Console(file=sys.stderr)
    status = Live(at_work, console=screen, transient=True, redirect_stdout=False, redirect_stderr=False)
    streams = (WithoutCredentials(stream, status.stop) for stream in (sys.stdout, sys.stderr))
    out, errors = (cast(TextIO, stream) for stream in streams)
    with redirect_stdout(out), redirect_stderr(errors):
        try:
            _Commands.at_work = status
            _main()
        finally:
            _Commands.at_work = None
            status.stop()


def _main() -> None:
    try:
        app()
    except BaseException as error:
        lines, number = _lines(error), signals.received()
        if number is not None and not isinstance(error, (UserError, OSError)):
            lines = [signals.farewell(number)]  # libraries fail when they are interrupted
        if not lines:
            raise
        with suppress(OSError):  # the terminal may be gone
            for line in (f"dpt: {lines[0]}", *lines[1:]):
                echo(line, err=True)
        failed = 2 if isinstance(error, UsageMistake) else 1
        sys.exit(failed if number is None else 128 + number)


def _lines(error: BaseException) -> list[str]:
    """What is said of an `error` of the user, the system, MLflow or Ray; nothing of another."""
    error = getattr(error, "cause", None) or error  # of a Ray task, without its traceback
    if isinstance(error, UserError):
        return str(error).split("\n") if error.has_lines else [str(error)]
    if isinstance(error, ModuleNotFoundError):
        return _missing_extra(error, next(iter(sys.argv[1:]), ""))
    if isinstance(error, OSError):
        named = error.filename is not None and error.strerror is not None
        return [f"{os.fsdecode(error.filename)}: {error.strerror}" if named else str(error)]
    library = _failed_library(error)
    if library:
        return [f"{library} failed: {next(iter(str(error).splitlines()), type(error).__name__)}"]
    return []


def _missing_extra(error: ModuleNotFoundError, command: str) -> list[str]:
    """How to install what `command` lacks; nothing of an `error` that is not a matter of extras."""
    library = str(error.name).partition(".")[0]
    if library.startswith("onnx"):
        extra = "export"
    elif library in _OPTIONAL:
        extra = "data" if command in _OF_DATASETS else "train"
    else:
        return []
    return [f"this use of dpt {command} needs {library}: pip install 'dpt-on-ray[{extra}]' (or [all])"]

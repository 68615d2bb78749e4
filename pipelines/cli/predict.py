"""The commands of `dpt` that use a model as it is: predict, serve, convert and export."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from datasets_prep.errors import UserError
from pipelines.cli import options
from pipelines.terminal import echo


def predict(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES... [KEY=VALUE]...",
            help="Images, videos, folders of them, quoted patterns ('in/**/*.jpg'), or - for stdin. "
            "Config overrides, e.g. frames=true; `dpt config predict` lists the keys.",
        ),
    ],
    out: Annotated[
        str, typer.Option(help="Folder for the results (a path or s3://…), or - for one file on stdout.")
    ],
    model: options.OptionalModel = None,
    config: Annotated[
        str | None,
        typer.Option("--config", "-c", help=options.CONFIG_HELP, show_default="none"),
    ] = None,
    side: Annotated[
        int | None, typer.Option(help="Side in pixels of the network's input.", show_default="the model's")
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(help="minimal, lower_bound or upper_bound.", show_default="the model's"),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, or auto.", show_default="auto")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16.", show_default="float32")
    ] = None,
    exact: options.Exact = False,
    batch_size: Annotated[
        int | None, typer.Option(help="Images that are predicted at once.", show_default="1")
    ] = None,
    write: Annotated[
        str | None,
        typer.Option(
            metavar="npy,png,colour",
            help="What to write for each image.",
            show_default="all three; on stdout, colour",
        ),
    ] = None,
    colours: Annotated[
        str | None, typer.Option(help="Colour map of Matplotlib.", show_default="inferno")
    ] = None,
    ply: Annotated[
        float | None,
        typer.Option(
            metavar="DEGREES", help="Also a point cloud, for a camera of this horizontal field of view."
        ),
    ] = None,
    attention: Annotated[
        str | None,
        typer.Option(metavar="LAYER,…", help="Also attention maps of these layers, counted from 1."),
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROW,COLUMN",
            help="Token whose attention is drawn, in shares of height and width. Repeat for more.",
            show_default="upper left and lower right",
        ),
    ] = None,
    verbose: options.Verbose = False,
) -> None:
    """Predict images and videos: depth or classes, as .npy, PNG and colours; point clouds; attention maps."""
    from pipelines.config import PredictConfig
    from pipelines.config_files import load_section
    from pipelines.predict import STANDARD_OUTPUT, predict_one
    from pipelines.predict import predict as run_prediction
    from pipelines.tracking.model_reference import load_predictor

    if model is None:
        raise UserError(f"--model: missing; {_models_to_choose()}")
    to_stdout = out == STANDARD_OUTPUT
    forms = write or ("colour" if to_stdout else None)
    given: dict[str, object] = {"side": side, "rule": rule, "device": device, "dtype": dtype}
    given |= {"exact": exact or None, "batch_size": batch_size, "colours": colours, "ply": ply}
    given |= {"write": forms and _items(forms), "attention": attention and _items(attention)}
    given["references"] = reference and [_items(text) for text in reference]
    overrides = [word for word in images if _is_override(word)]
    settings = load_section("predict", PredictConfig, config, overrides, options=given)
    images = [word for word in images if word not in overrides]
    if not images:
        raise UserError("no images: give files, folders, quoted patterns, or - for stdin")
    loaded = load_predictor(model)
    if to_stdout:
        sys.stdout.buffer.write(predict_one(settings, loaded, images))
        return
    show = options.after(partial(options.show_config, settings, verbose))
    count, failed = 0, 0
    for outcome in run_prediction(settings, loaded, images, out, say=partial(echo, err=True)):
        count, failed = count + 1, failed + (outcome.problem is not None)
        written = ", ".join(f"{out.rstrip('/')}/{name}" for name in outcome.written)
        content = f" ({outcome.content})" if outcome.content else ""
        if written:
            show(f"{outcome.source.where} → {written}{content}")
        if outcome.problem:
            echo(outcome.problem, err=True)
    show(f"{count - failed} of {count} predicted: {loaded.config.meaning}")
    if failed:
        raise typer.Exit(1)


def serve(
    model: options.OptionalModel = None,
    overrides: options.Overrides = None,
    config: Annotated[
        str | None,
        typer.Option("--config", "-c", help=options.CONFIG_HELP, show_default="none"),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0 for any.")] = 8800,
) -> None:
    """Serve a page, to this machine only, that shows depth, point cloud and attention of a picture."""
    from pipelines.config import PredictConfig
    from pipelines.config_files import load_section

    if model is None:
        raise UserError(f"--model: missing; {_models_to_choose()}")
    settings = load_section("predict", PredictConfig, config, overrides or [])
    with options.waiting(f"loading {model}"):
        from pipelines.serve import LOOPBACK, server
        from pipelines.tracking.model_reference import load_predictor

        running = server(load_predictor(model), model, settings, port, partial(typer.echo, err=True))
    typer.echo(f"{model}: http://{LOOPBACK}:{running.server_port}/ (Ctrl-C ends it)")
    with running, suppress(KeyboardInterrupt):
        running.serve_forever()


def _models_to_choose() -> str:
    """What there is to give as `--model`; registered models only where MLflow is installed."""
    try:
        from pipelines.tracking.registry import models_to_choose
    except ModuleNotFoundError:
        return "give a model's folder or file, or hf-hub:OWNER/NAME (hf-hub:Intel/dpt-large)"
    return models_to_choose()


def _is_override(word: str) -> bool:
    """Whether a `word` among the images is `KEY=VALUE`: it is not if there is a file of that name."""
    return re.match(r"\w[\w.]*=", word) is not None and not Path(word).exists()


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def convert(
    source: Annotated[
        str,
        typer.Argument(help="Weights in any published layout: a checkpoint, a folder, hf-hub:OWNER/NAME."),
    ],
    destination: Annotated[str, typer.Argument(help="Folder to create; a path or s3://…")],
    to: Annotated[str, typer.Option(metavar="ours|huggingface", help="Layout to write.")] = "ours",
    name: Annotated[
        str | None,
        typer.Option(help="Name of the model, where the file does not tell it, e.g. dpt_hybrid_nyu."),
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="Also upload the folder to Hugging Face.", show_default="no"),
    ] = None,
) -> None:
    """Convert published weights to a model's folder, or to Hugging Face's layout."""
    from datasets_prep.storage.uploads import made_locally, require_local
    from dpt.weights.hugging_face import ignored_by_transformers
    from pipelines.convert import convert as run_conversion
    from pipelines.convert import push as upload

    if push is not None:
        require_local(destination)
    with made_locally(destination, new=True) as folder:
        model = run_conversion(source, folder, to, name)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    echo(
        f"{source} → {destination}: {model.config.backbone}, {parameters:,} parameters, "
        f"predicts {model.config.meaning}"
    )
    for difference in ignored_by_transformers(model.config) if to == "huggingface" else ():
        echo(f"{difference}; config.json keeps it for dpt", err=True)
    if push is not None:
        echo(f"{destination} → {upload(Path(destination), push)}")


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=options.MODEL_HELP)],
    to: Annotated[str, typer.Option(metavar="onnx|pt2", help="ONNX, or a program of torch.export.")],
    out: Annotated[
        str | None,
        typer.Option(help="File to create; a path or s3://…", show_default="MODEL's name, here"),
    ] = None,
    precision: Annotated[
        str, typer.Option(metavar="float32|float16|bfloat16", help="Of weights and arithmetic.")
    ] = "float32",
) -> None:
    """Export a model for other programs, for any batch and size, and compare the file with PyTorch."""
    from datasets_prep.storage.uploads import made_locally
    from pipelines.export import export as run_export
    from pipelines.export import file_name

    out = out or file_name(model, to)
    with made_locally(out, new=True) as path:
        exported = run_export(model, to, path, precision)
    echo(
        f"{model} → {out}: {precision}, predicts {exported.config.meaning}; "
        f"mean difference to PyTorch {exported.error:.1e}"
    )

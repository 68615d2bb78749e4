"""The commands of datasets: generate, datasets, stereo, prepare, inspect."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pipelines.cli import options
from pipelines.cli.options import require_durable_path, show_progress
from pipelines.terminal import console, echo

if TYPE_CHECKING:
    from datasets_prep.inspect.verify import Inspection
    from datasets_prep.manifest import PreparedDataset
    from datasets_prep.plan.shards import IngestPlan
    from datasets_prep.storage.listing_cache import CachedListing

_SHOWN_REASONS = 5
_WORTH_RAY = 100
"""From this number of scenes on several cores render them: starting Ray takes as long as about twenty."""


def generate(
    dataset: Annotated[str, typer.Argument(help="Dataset whose layout to write, e.g. tartanair.")],
    out: Annotated[str, typer.Option(help="Folder to write to.")],
    scenes: Annotated[int, typer.Option(min=1, help="How many scenes to render.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the scenes.")] = 0,
) -> None:
    """Render synthetic scenes in a dataset's published layout, to try dpt without the real data."""
    from datasets_prep.storage.uploads import require_local
    from datasets_prep.synthetic import WRITERS, writing_dataset

    folder = require_local(require_durable_path(out))
    if scenes < _WORTH_RAY or dataset not in WRITERS:
        writing = writing_dataset(dataset, folder, scenes, seed=seed)
    else:
        from datasets_prep.rendering import rendering_datasets
        from pipelines.cluster.session import connect

        connect()
        writing = rendering_datasets({dataset: (folder, scenes)}, seed)
    show_progress(dataset, ((done, scenes, "scenes") for done in writing))
    echo(f"{scenes} scenes in the layout of {dataset}: {out}")


def datasets() -> None:
    """List the datasets that can be prepared, with the expected layout of each."""
    from datasets_prep.sources import SOURCES

    table = Table("dataset", "ground truth", show_lines=True)
    table.add_column("expected files", overflow="fold")
    for name in sorted(SOURCES):
        table.add_row(name, SOURCES[name].target_kind, SOURCES[name].layout)
    console.print(table)


def prepare(
    dataset: Annotated[
        str, typer.Argument(help="Name of the dataset, e.g. redweb; `dpt datasets` lists all.")
    ],
    raw: Annotated[
        str,
        typer.Option(help="Dataset root, in the published layout, or a zip or tar of it; a path or s3://…"),
    ],
    out: Annotated[str, typer.Option(help="Folder to write DATASET/ to; a path or s3://…")],
    overrides: options.Overrides = None,
    config: options.Config = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="List the root again; ignore the cache.")
    ] = False,
    verbose: options.Verbose = False,
) -> None:
    """Turn a raw dataset into shards of image, inverse depth and validity."""
    from datasets_prep.settings import IngestSettings
    from pipelines.config_files import load_section

    raw, out = require_durable_path(raw), require_durable_path(out)
    settings = load_section("prepare", IngestSettings, config, overrides or [])
    with options.waiting(f"{dataset}: listing {raw}"):
        from datasets_prep.ingest.run import ingest, is_finished
        from datasets_prep.inspect.units import unit_hint
        from datasets_prep.manifest import open_dataset
        from datasets_prep.plan.shards import dataset_root, open_source, plan_ingest
        from datasets_prep.storage.folder import Folder
        from datasets_prep.storage.listing_cache import cache_listing, cached_listing
        from pipelines.cluster.session import connect

        root = dataset_root(dataset, raw)
        name = open_source(dataset, root.uri, settings).name
        listing = cached_listing(root, Folder(out) / name, refresh)
        plan = plan_ingest(dataset, root.uri, settings, listing.files)
    options.show_config(settings, verbose)
    _show_plan(plan, listing)
    if dry_run:
        _show_forecast(plan, out)
        return
    if listing.listed_at is None:
        cache_listing(listing.files, root, Folder(out) / name)

    def progress() -> Iterator[tuple[int, int | None, str]]:
        connect()
        start = time.perf_counter()
        yield 0, plan.samples, f"samples, 0.0 images/s, {len(plan.rejected)} quarantined"
        for state in ingest(plan, out):
            rate = state.done / (time.perf_counter() - start)
            yield state.done, plan.samples, f"samples, {rate:.1f} images/s, {state.rejected} quarantined"

    if is_finished(plan, out):
        list(ingest(plan, out))  # the manifest may need the mark of the newest version again
        echo(f"{plan.source}: prepared already, nothing to do")
    else:
        show_progress(plan.source, progress())
    done = open_dataset(f"{out.rstrip('/')}/{plan.dataset}")
    samples = ", ".join(f"{count} {split}" for split, count in done.manifest.samples.items())
    console.print(f"{dataset}: {samples}, {done.manifest.quarantined} quarantined", highlight=False)
    for note, count in done.manifest.notes.items():
        echo(f"{count} samples: {note}")
    echo(f"manifest: {done.folder.uri}/_manifest.json")
    if plan.source == "folder" and (hint := unit_hint(done)):
        echo(f"hint: {hint}")
    show_outcome(done)


def show_outcome(done: PreparedDataset) -> None:
    """The table at the end, of `done`: samples by split, and what was left out by reason."""
    from datasets_prep.inspect.verify import by_reason
    from datasets_prep.manifest import QUARANTINE_NAME

    reasons = by_reason(done.read_quarantine()) if done.manifest.quarantined else []
    table = Table("", "count", "such as", title=done.name, title_justify="left")
    for split, count in done.manifest.samples.items():
        table.add_row(split, str(count))
    for entry in reasons[:_SHOWN_REASONS]:
        table.add_row(f"left out: {entry.reason}", str(entry.count), entry.example)
    console.print(table)
    if reasons:
        more = f", and {len(reasons) - _SHOWN_REASONS} other reasons" * (len(reasons) > _SHOWN_REASONS)
        echo(f"all that was left out{more}: {done.folder.uri}/{QUARANTINE_NAME}")


def _show_plan(plan: IngestPlan, listing: CachedListing) -> None:
    if listing.listed_at is not None:
        age = timedelta(seconds=round((datetime.now(timezone.utc) - listing.listed_at).total_seconds()))
        echo(f"{plan.source}: files as listed {age} ago; --refresh lists them again")
    echo(
        f"{plan.source}: {plan.samples} samples in {len(plan.shards)} shards, "
        f"{len(plan.rejected)} left out while listing, version {plan.version}"
    )
    count, first = plan.unread
    if count:
        echo(f"{plan.source}: {count} other files are not read, such as {first}")


def _show_forecast(plan: IngestPlan, out: str) -> None:
    from datasets_prep.ingest.forecast import forecast
    from datasets_prep.ingest.run import is_finished

    samples, shards = Counter[str](), Counter(shard.split for shard in plan.shards)
    for shard in plan.shards:
        samples[shard.split] += shard.count
    for split in shards:
        echo(f"{split}: {samples[split]} samples in {shards[split]} shards")
    if is_finished(plan, out):
        echo("finished already: nothing would be done")
        return
    expected, cores = forecast(plan, out), os.cpu_count() or 1
    if expected.finished_shards:
        echo(f"{expected.finished_shards} shards are finished and would be kept")
    size = "an unknown size" if expected.bytes is None else f"about {expected.bytes / 2**20:.1f} MiB"
    duration = timedelta(seconds=round(expected.core_seconds / cores))
    echo(
        f"{expected.missing_samples} samples would be read: {size}, about {duration} on the {cores} cores of "
        f"this machine (from {expected.tried} samples, {expected.usable} of them usable)"
    )


def inspect(
    dataset: Annotated[
        str,
        typer.Argument(help="A prepared dataset, one version of it, or a folder of them; a path or s3://…"),
    ],
    out: Annotated[
        str, typer.Option(help="Folder for page and contact sheets; a path or s3://…")
    ] = "inspection",
    samples: Annotated[int, typer.Option(min=1, help="Number of random samples to show.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Seed of that choice.")] = 0,
) -> None:
    """Verify shards against their manifest, print statistics, draw contact sheets and an HTML page."""
    from datasets_prep.inspect.page import write_page
    from datasets_prep.inspect.verify import draw_contact_sheet, random_rows, verify
    from datasets_prep.manifest import open_datasets
    from datasets_prep.storage.uploads import made_locally

    shown = []
    with made_locally(out) as folder:
        for prepared in open_datasets([dataset]):
            report = verify(prepared)
            _print_report(report)
            rows = random_rows(report.sound, samples, seed)
            shown.append((report, rows))
            if rows:
                path = draw_contact_sheet(report.sound, folder / f"{report.name}.png", samples, seed)
                echo(f"contact sheet: {out.rstrip('/')}/{path.name}")
        page = write_page(folder / "inspection.html", shown)
    echo(f"page: {out.rstrip('/')}/{page.name}")
    if any(report.problems for report, _ in shown):
        raise typer.Exit(1)


def _print_report(report: Inspection) -> None:
    table = Table(title=report.dataset, title_justify="left")
    for column in ("", *report.columns):
        table.add_column(column, justify="right" if column else "left")
    for name, values in report.rows.items():
        table.add_row(name, *values)
    console.print(table)
    for entry in report.quarantine:
        echo(f"left out: {entry.count}, such as {entry.example}: {entry.reason}")
    for problem in report.problems:
        echo(f"damaged: {problem}", err=True)


def stereo(
    dataset: Annotated[str, typer.Argument(help="movies or wsvd.")],
    videos: Annotated[str, typer.Option(help="Folder of stereo videos; a path or s3://…")],
    out: Annotated[str, typer.Option(help="Folder to write the raw dataset to; a path or s3://…")],
    overrides: options.Overrides = None,
    config: options.Config = None,
    lists: Annotated[
        str | None,
        typer.Option(help="Folder of the authors' lists of frames; wsvd needs it.", show_default="all shots"),
    ] = None,
    sky: Annotated[
        str | None,
        typer.Option(help="Folder of sky masks, FRAME.png, nonzero in the sky.", show_default="none"),
    ] = None,
    verbose: options.Verbose = False,
) -> None:
    """Compute the ground truth of stereo videos: disparity of their left views, for `dpt prepare`."""
    from datasets_prep.settings import StereoSettings
    from datasets_prep.stereo.run import plan_stereo, read_report, run_stereo
    from datasets_prep.storage.folder import Folder
    from pipelines.cluster.actors import saying_which_actors_died
    from pipelines.cluster.session import connect
    from pipelines.config_files import load_section

    out = require_durable_path(out)
    settings = load_section("stereo", StereoSettings, config, overrides or [])
    plan = plan_stereo(dataset, videos, settings, lists, sky)
    options.show_config(plan.settings, verbose)
    Folder(out).require_writable()
    connect()
    states = ((s.done, s.total, f"frames, {s.rejected} left out") for s in run_stereo(plan, out))
    with saying_which_actors_died(echo):
        show_progress(dataset, states)
    report = read_report(out)
    echo(f"{dataset}: {report.frames} frames of {report.videos} videos, {len(report.missing)} videos missing")
    for reason, count in report.rejected.items():
        echo(f"left out: {count} frames: {reason}")
    echo(f"what was left out, and why: {out.rstrip('/')}/rejected.parquet")
    echo(f"next: dpt prepare {dataset} --raw {out} --out shards")

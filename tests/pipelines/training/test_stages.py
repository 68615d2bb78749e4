from dataclasses import replace
from pathlib import Path

import pytest

from datasets_prep.manifest import PreparedDataset, open_datasets
from pipelines.config import ConfigError, TrainConfig
from pipelines.config_files import load_section
from pipelines.sampling.plan import Stage
from pipelines.training.stages import run_stages

CURATED = "stages=[{steps: 30, datasets: [redweb]}]"


@pytest.fixture
def datasets(shards_folder: Path) -> list[PreparedDataset]:
    """redweb and tartanair, as if the second were three times as large."""
    redweb, tartanair = open_datasets([str(shards_folder)])
    sizes = {"train": 3 * redweb.manifest.samples["train"]}
    return [redweb, PreparedDataset(tartanair.folder, replace(tartanair.manifest, samples=sizes))]


def stages(datasets: list[PreparedDataset], *overrides: str) -> list[Stage]:
    return run_stages(load_section("train", TrainConfig, None, ["steps=100", *overrides]), datasets)


def test_datasets_are_alike_by_default(datasets):
    assert stages(datasets) == [Stage(100, [1.0, 1.0])]


def test_shares_follow_weights_or_sizes(datasets):
    (weighted,) = stages(datasets, "weights={tartanair: 5, redweb: 2}")
    assert weighted.shares == [2.0, 5.0]
    (sized,) = stages(datasets, "balance=size")
    assert sized.shares is not None
    assert sized.shares[1] == 3 * sized.shares[0] > 0


def test_curated_datasets_come_first_and_then_all(datasets):
    expected = [Stage(30, [1.0, 0.0], "stratified"), Stage(70, [1.0, 1.0], "stratified")]
    assert stages(datasets, CURATED, "sampling=stratified") == expected


@pytest.mark.parametrize(("override", "message"), [
    ("weights={redweb: 1}", r"^weights: given for \['redweb'\], but the datasets are"),
    ("stages=[{steps: 3, datasets: [nyu]}]", "^stages.0.datasets: no dataset nyu; there are"),
    ("stages=[{steps: 3, datasets: [redweb], weights: {tartanair: 1}}]",
     r"^stages.0.weights: given for \['tartanair'\], but the datasets are \['redweb'\]"),
    ("loss.trims={nyu: 0.1}", "^loss.trims: no dataset nyu; there are"),
    ("perturb.datasets=[redweb, nyu]", "^perturb.datasets: no dataset nyu; there are"),
    ("feature_alignment.datasets=[nyu]", "^feature_alignment.datasets: no dataset nyu; there are"),
    ("stages=[{steps: 100}]", "stages: they take all 100 steps"),
    ("stages=[{stpes: 3}]", "stages.0.stpes: unknown key; did you mean steps"),
    ("stages=[{steps: 3, balance: size, weights: {redweb: 1}}]", "stages.0.weights: cannot be given"),
])  # fmt: skip
def test_invalid_stages_are_refused(datasets, override, message):
    with pytest.raises(ConfigError, match=message):
        stages(datasets, override)

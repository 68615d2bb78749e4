import pytest
import yaml

from datasets_prep.settings import IngestSettings
from pipelines.config import ConfigError, Experiment, TrainConfig
from pipelines.config_files import CONFIG_FOLDER, load_experiment, load_section, to_yaml


def load_train(*overrides: str, config: str | None = None) -> TrainConfig:
    return load_section("train", TrainConfig, config, overrides)


def test_the_defaults_are_the_papers():
    config = load_train()
    assert config.steps == 60 * 72_000
    assert (config.batch_size, config.crop, config.flip) == (16, 384, True)
    assert (config.optimizer.backbone_lr, config.optimizer.decoder_lr) == (1e-5, 1e-4)
    assert (config.loss.trim, config.loss.gradient_weight, config.loss.gradient_scales) == (0.2, 0.5, 4)
    assert load_experiment("paper") == Experiment()


@pytest.mark.parametrize("path", sorted(CONFIG_FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_built_in_config_is_valid(path):
    load_experiment(path.stem)


def test_overrides_win_over_the_file_and_the_file_over_the_defaults(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train: {steps: 10, crop: 64, model: {name: dpt_tiny}}\n")
    config = load_train("steps=20", "optimizer.decoder_lr=3e-4", config=str(path))
    assert (config.steps, config.crop, config.model.name) == (20, 64, "dpt_tiny")
    assert config.optimizer.decoder_lr == 3e-4
    assert config.model.pretrained is True


def test_overrides_reach_into_free_dictionaries():
    config = load_train("model.overrides.taps=[6, 8, 10, 12]", "weights.redweb=2", "weights.hrwsi=1")
    assert config.model.overrides == {"taps": [6, 8, 10, 12]}
    assert config.weights == {"redweb": 2.0, "hrwsi": 1.0}


@pytest.mark.parametrize(("overrides", "message"), [
    (["stepz=3"], r"train\.stepz: unknown key; did you mean steps\? there are: .*model, loss, .*steps"),
    (["model.nme=x"], r"train\.model\.nme: unknown key; did you mean name\? there are: name, pretrained"),
    (["steps=many"], r"train\.steps: input should be a valid integer.*got 'many'"),
    (["steps=1.5"], r"train\.steps: .*integer.*got 1\.5"),
    (["steps=0"], r"train\.steps: .*greater than or equal to 1, got 0"),
    (["optimizer.betas=0.9"], r"train\.optimizer\.betas: .*got 0\.9"),
    (["device=tpu"], r"train\.device: .*'auto', 'cpu' or 'cuda'.*got 'tpu'"),
    (["batch_size=6", "workers=8"], r"train\.workers: 8 must be from 1 to batch_size \(6\)"),
    (["crop=100"], r"train\.crop: 100 is not divisible by 32"),
    (["weights={redweb: -1}"], r"train\.weights: must be positive"),
    (["steps"], r"'steps' is not KEY=VALUE"),
    (["steps.more=3", "steps=4"], r"train\.steps|steps"),
    (["steps={"], r"steps: '\{': not valid YAML: line 1: "),
])  # fmt: skip
def test_a_bad_override_is_refused_naming_the_key(overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_train(*overrides) if overrides[0] != "steps.more=3" else load_train("steps=4", "steps.more=3")
    assert "\n" not in str(caught.value)


def test_all_bad_keys_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        load_train("stepz=3", "crop=many")
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(("text", "message"), [
    ("train: [1, 2]", "train: expected a section with keys, got"),
    ("trian: {steps: 3}", r"trian: unknown key; did you mean train\? there are: stereo, prepare, train"),
    ("- a\n- b", "expected sections with keys, got list"),
    ("train: {steps: [", "not valid YAML: line 1"),
])  # fmt: skip
def test_a_bad_file_is_refused(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_train(config=str(path))


def test_a_missing_file_is_refused_with_the_built_in_names():
    names = "ade20k, demo, folder, kitti, mix6, nyu, paper, pascal_context"
    with pytest.raises(ConfigError, match=f"no config file 'papre'; built-in ones are: {names}"):
        load_train(config="papre")


def test_a_resolved_config_reads_back_as_itself(tmp_path):
    config = load_train("steps=7", "model.overrides.taps=[R0, R1, 9, 12]")
    assert TrainConfig(**yaml.safe_load(to_yaml(config))) == config


def test_other_jobs_read_their_own_section(tmp_path):
    settings = load_section("prepare", IngestSettings, "demo", ["seed=3"])
    assert settings == load_experiment("demo").prepare.model_copy(update={"seed": 3})


def test_crops_are_squares_or_have_a_height_and_a_width():
    assert TrainConfig(crop=64).crop_size == (64, 64)
    assert load_section("train", TrainConfig, None, ["crop=[352, 704]"]).crop_size == (352, 704)
    with pytest.raises(ConfigError, match=r"crop: \(352, 700\) is not divisible by 32"):
        load_section("train", TrainConfig, None, ["crop=[352, 700]"])

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from datasets_prep.errors import Note
from datasets_prep.settings import IngestSettings
from pipelines.config import ConfigError, Experiment, PredictConfig, TrainConfig
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
    (["weights={redweb: -1}"], r"train\.weights\.redweb: .*greater than or equal to 0, got -1"),
    (["steps"], r"'steps' is not KEY=VALUE"),
    (["steps.more=3", "steps=4"], r"train\.steps|steps"),
    (["steps={"], r"steps: '\{': not valid YAML: line 1: "),
    (["weights=3"], r"train\.weights: expected keys with values, \{KEY: VALUE\}, got 3"),
])  # fmt: skip
def test_a_bad_override_is_refused_naming_the_key(overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_train(*overrides) if overrides[0] != "steps.more=3" else load_train("steps=4", "steps.more=3")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("overrides", "note"), [
    (["steps=3", "crop=64", "steps=4"], r"^steps=3 is overridden by steps=4$"),
    (["model.pretrained=false", "steps=4", "model={name: dpt_base}"],
     r"^model\.pretrained=false is overridden by model=\{name: dpt_base\}$"),
])  # fmt: skip
def test_of_a_key_given_twice_the_last_value_is_taken_and_it_is_said(overrides, note):
    with pytest.warns(Note, match=note):
        config = load_train(*overrides)
    assert (config.steps, config.model.pretrained) == (4, True)


def test_a_later_override_may_reach_into_an_earlier_one():
    assert load_train("model={name: dpt_base}", "model.pretrained=false").model.name == "dpt_base"


@pytest.mark.parametrize(("override", "message"), [
    ("lists=utf8.txt", "prepare.lists: expected keys with values, {KEY: VALUE}, got 'utf8.txt'"),
    ("lists=[a, b]", "prepare.lists: expected keys with values, {KEY: VALUE}, got ['a', 'b']"),
    ("lists.test=5", "prepare.lists.test: input should be a valid string or a valid list, got 5"),
    ("lists.test={a: b}",
     "prepare.lists.test: input should be a valid string or a valid list, got {'a': 'b'}"),
    ("lists.test=[a.txt, 3]", "prepare.lists.test.1: input should be a valid string, got 3"),
    ("lists.held_out=a.txt",
     "prepare.lists.held_out: key should be 'train', 'val' or 'test', got 'held_out'"),
])  # fmt: skip
def test_a_value_of_several_types_is_refused_in_one_line(override, message):
    with pytest.raises(ConfigError) as caught:
        load_section("prepare", IngestSettings, None, [override])
    assert str(caught.value) == message


def test_an_override_of_an_option_is_taken_and_it_is_said():
    options = {"batch_size": 4, "side": None}
    with pytest.warns(Note, match="^--batch-size is overridden by batch_size=2$"):
        config = load_section("predict", PredictConfig, None, ["batch_size=2"], options=options)
    assert config.batch_size == 2


INFINITE = "input should be a finite number"
LISTED = r"expected an integer or \[height, width\], from 32 to 8192"


@pytest.mark.parametrize(("job", "override", "message"), [
    ("train", "optimizer.decoder_lr=inf", rf"train\.optimizer\.decoder_lr: {INFINITE}, got 'inf'"),
    ("train", "optimizer.decoder_lr=.nan", rf"train\.optimizer\.decoder_lr: {INFINITE}, got nan"),
    ("train", "optimizer.decoder_lr=1e400", rf"train\.optimizer\.decoder_lr: {INFINITE}, got inf"),
    ("train", "optimizer.decoder_lr=0", r"decoder_lr: input should be greater than 0, got 0"),
    ("train", "optimizer.decoder_lr=300", r"decoder_lr: input should be less than or equal to 10, got 300"),
    ("train", "optimizer.betas=[0.9, 1]", r"optimizer\.betas\.1: input should be less than 1, got 1"),
    ("train", "optimizer.betas=[-0.1, 0.9]", r"optimizer\.betas\.0: .*greater than or equal to 0, got -0\.1"),
    ("train", "optimizer.betas=0.9,0.99", r"betas: input should be a list in brackets, got '0\.9,0\.99'"),
    ("train", "optimizer.betas=[0.9, 0.99, 1]", r"betas: list should have at most 2 items"),
    ("train", "optimizer.ema=1", r"optimizer\.ema: input should be less than 1, got 1"),
    ("train", "crop=384,384", rf"train\.crop: {LISTED}, got '384,384'"),
    ("train", "crop=[384, 384, 3]", rf"train\.crop: {LISTED}, got \[384, 384, 3\]"),
    ("train", "crop=0", rf"train\.crop: {LISTED}, got 0"),
    ("train", "crop=1e9", rf"train\.crop: {LISTED}, got 1000000000\.0"),
    ("train", "workers=1,2", r"train\.workers: expected an integer or \[minimum, maximum\]"),
    ("train", "workers=0", r"train\.workers: expected an integer or .* from 1 to 100000, got 0"),
    ("train", "steps=yes", r"train\.steps: expected another type than true or false, got true"),
    ("train", "steps=1e18", r"train\.steps: input should be less than or equal to 1000000000"),
    ("train", "weights={redweb: .inf}", rf"train\.weights\.redweb: {INFINITE}"),
    ("train", "weights={redweb: 0}", r"train\.weights: must be positive"),
    ("train", "metric_depth.gamma=[0.5, .inf]", rf"metric_depth\.gamma\.1: {INFINITE}"),
    ("train", "metric_depth.cap=-1", r"metric_depth\.cap: .*greater than 0, got -1"),
    ("train", "metric_depth.border=[-1, 0, 9, 9]", r"metric_depth\.border\.0: .*to 0, got -1"),
    ("train", "hang_minutes=inf", rf"hang_minutes: {INFINITE}"),
    ("train", "seed=-1", r"train\.seed: .*greater than or equal to 0, got -1"),
    ("train", "metric_depth.image_size=inf", r"image_size: expected .* \[width, height\], .* got 'inf'$"),
    ("train", "metric_depth.image_size=[1,2]", r"image_size: expected .* 32 to 8192, got \[1, 2\]$"),
    ("train", "stages=[1]", r"train\.stages\.0: expected a section with keys, got 1"),
    ("train", "stages=[{steps: 0}]", r"train\.stages\.0\.steps: .*to 1, got 0"),
    ("evaluate", "caps.metres=.inf", rf"evaluate\.caps\.metres: {INFINITE}"),
    ("evaluate", "inference.scales=[0.5, 0]", r"inference\.scales\.1: .*greater than 0"),
    ("predict", "attention=[0]", r"predict\.attention\.0: .*greater than or equal to 1, got 0"),
    ("predict", "side=1000000", r"predict\.side: .*less than or equal to 8192"),
    ("tune", "hours=inf", rf"tune\.hours: {INFINITE}"),
    ("prepare", "min_dynamic_range=inf", rf"prepare\.min_dynamic_range: {INFINITE}"),
    ("stereo", "rules.uncertainty=inf", rf"stereo\.rules\.uncertainty: {INFINITE}"),
    ("demo", "width=true", r"demo\.width: expected another type than true or false"),
])  # fmt: skip
def test_a_value_outside_of_its_limits_is_refused_naming_key_value_and_limit(job, override, message):
    section = type(getattr(Experiment(), job))
    with pytest.raises(ConfigError, match=message) as caught:
        load_section(job, section, None, [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("override", "key", "value"), [
    ("steps=1e5", "steps", 100_000), ("steps=2.5E3", "steps", 2500), ("crop=5.12e2", "crop", 512),
    ("crop=[3.2e1, 64]", "crop", (32, 64)), ("workers=[1, 1e1]", "workers", (1, 10)),
    ("seed=1e3", "seed", 1000),
])  # fmt: skip
def test_a_whole_number_may_be_written_with_an_exponent(override, key, value):
    found = getattr(load_train(override), key)
    assert found == value
    assert repr(found) == repr(value), "an integer"


def numbers(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every number in a JSON schema, with its place."""
    if schema.get("type") in ("integer", "number"):
        yield path, schema
    for key, inner in schema.items():
        places = inner if isinstance(inner, list) else [inner]
        for each in places:
            if isinstance(each, dict) and not path.endswith(("options", "overrides")):
                yield from numbers(each, f"{path}/{key}")


def test_every_number_has_a_lower_and_an_upper_limit():
    found = dict(numbers(Experiment.model_json_schema()))
    assert len(found) > 90
    low, high = {"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}
    assert [
        path for path, limits in found.items() if not (low & limits.keys() and high & limits.keys())
    ] == []


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

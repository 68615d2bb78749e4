"""Equal configurations are one variant, whichever tables ask for them."""

import pytest

from pipelines.config import ConfigError, TrainConfig
from tune.ablations import PAPER, AblationTable, Row
from tune.plan import find_variants

BASE = TrainConfig()


def table(name: str, *rows: Row, trained: bool = True) -> AblationTable:
    return AblationTable(name, "", "", rows, trained=trained)


def test_the_papers_tables_share_variants():
    variants = {variant.key: variant for variant in find_variants(list(PAPER.values()), BASE)}
    rows = [row for name in ("skip", "readout", "backbone") for row in PAPER[name].rows]
    trained = [variant for variant in variants.values() if variant.trained]
    assert len(trained) == len(rows) - 2
    assert variants["dpt_base.readout-ignore"].rows == {"skip": "Base {3, 6, 9, 12}", "readout": "Ignore"}
    base = {"readout": "Project", "backbone": "ViT-Base", "resolution": "ViT-Base", "speed": "DPT-Base"}
    assert variants["dpt_base"].rows == base
    assert variants["dpt_hybrid.taps-3_6_9_12.readout-ignore"].rows == {"skip": "Hybrid {3, 6, 9, 12}"}
    assert [variant.key for variant in variants.values() if not variant.trained] == ["midas_v21"]


def test_a_default_that_is_spelled_out_makes_no_variant():
    rows = (
        Row("plain", {"model.name": "dpt_base"}),
        Row("spelled out", {"model.name": "dpt_base", "model.overrides.taps": [3, 6, 9, 12]}),
        Row("of the config", {"model.name": "dpt_base", "optimizer.decoder_lr": 1e-4}),
    )
    (variant,) = find_variants([table("a", *rows)], BASE)
    assert variant.key == "dpt_base"


def test_what_is_common_to_all_belongs_to_the_variants_too():
    base = BASE.model_copy(update={"model": BASE.model.model_copy(update={"overrides": {"readout": "add"}})})
    rows = (Row("base", {"model.name": "dpt_base"}), Row("add", {"model.overrides.readout": "add"}))
    base_only, add = find_variants([table("a", *rows)], base)
    assert base_only.config(base, 3).model.overrides == {"readout": "add"}
    assert base_only.config(base, 3).seed == 3
    assert add.config(base, 0).model.name == base.model.name


def test_variants_with_equal_keys_get_a_digest():
    rows = (Row("a", {"optimizer.clip_norm": 1.0}), Row("b", {"optimizer.clip_norm": 1.5}))
    long = "x" * 200
    names = (Row("c", {"train_split": f"{long}1"}), Row("d", {"train_split": f"{long}2"}))
    keys = [variant.key for variant in find_variants([table("a", *rows), table("b", *names)], BASE)]
    assert keys[:2] == ["dpt_large.clip_norm-1.0", "dpt_large.clip_norm-1.5"]
    assert len(set(keys)) == 4
    assert all(len(key) < 100 and "/" not in key for key in keys)


@pytest.mark.parametrize(("changes", "message"), [
    ({"model.name": "dpt_huge"}, "there is no 'dpt_huge'"),
    ({"model.overrides.readuot": "add"}, "there is no 'readuot'"),
    ({"optimiser.decoder_lr": 1}, "optimiser: unknown key; did you mean optimizer"),
    ({"steps": "many"}, "steps: "),
])  # fmt: skip
def test_a_row_that_is_no_training_is_refused_by_name(changes, message):
    with pytest.raises(ConfigError, match="mine: row 'odd': ") as caught:
        find_variants([table("mine", Row("odd", changes))], BASE)
    assert message in str(caught.value)

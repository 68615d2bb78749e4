import pytest
import torch

import dpt
from dpt.weights.adapt import with_classes

FIVE, THREE = ("a", "b", "c", "d", "e"), ("a", "b", "z")


def same(one: dpt.DPT, other: dpt.DPT, prefix: str) -> bool:
    theirs = other.state_dict()
    keys = [key for key in one.state_dict() if key.startswith(prefix)]
    assert keys
    return all(torch.equal(one.state_dict()[key], theirs[key]) for key in keys if key in theirs)


def test_a_model_of_depth_keeps_backbone_and_decoder():
    depth = dpt.create_model("dpt_tiny", scale=0.1, shift=0.2, invert=True)
    adapted = with_classes(depth, FIVE)
    settings = adapted.config
    assert (settings.task, settings.class_names, settings.metric) == ("segmentation", FIVE, False)
    for prefix in ("backbone.", "reassemble."):
        assert same(adapted, depth, prefix)
    one, other = (model.fusion.blocks[0].refine.conv1.weight for model in (adapted, depth))
    torch.testing.assert_close(one, other)
    logits, auxiliary = adapted.train()(torch.randn(2, 3, 64, 64))
    assert logits.shape == auxiliary.shape == (2, 5, 64, 64)


def test_other_classes_draw_new_last_layers_only():
    first = with_classes(dpt.create_model("dpt_tiny"), FIVE)
    for names in (THREE, FIVE[::-1]):
        adapted = with_classes(first, names)
        kept = ("backbone.", "reassemble.", "fusion.", "head.conv1.", "head.norm.", "auxiliary.conv1.")
        for prefix in kept:
            assert same(adapted, first, prefix)
        assert adapted.head.conv2.weight.shape[0] == len(names)
        if len(names) == len(FIVE):
            assert not torch.equal(adapted.head.conv2.weight, first.head.conv2.weight)
    assert with_classes(first, FIVE) is first


def test_what_is_drawn_depends_on_the_seed_alone():
    depth = dpt.create_model("dpt_tiny")
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(with_classes(depth, FIVE).state_dict())
    assert all(torch.equal(drawn[0][key], drawn[1][key]) for key in drawn[0])


@pytest.mark.heavy
def test_another_decoder_is_refused():
    with torch.device("meta"):
        model = dpt.create_model("midas_v21")
    with pytest.raises(ValueError, match="decoder 'midas'"):
        with_classes(model, FIVE)

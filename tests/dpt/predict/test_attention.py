import pytest
import torch

import dpt
from dpt.predict.attention import attention_maps


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return dpt.create_model("dpt_tiny").eval()


def test_maps_are_the_softmax_that_the_layers_use(model):
    """With a single head, attention times values is the layer's output, so the maps can be read off it."""
    torch.manual_seed(0)
    one = dpt.create_model(
        "dpt_tiny", backbone_arguments={"img_size": 64, "embed_dim": 64, "depth": 4, "num_heads": 1}
    ).eval()
    images = torch.randn(2, 3, 64, 96)
    maps = attention_maps(one, images, layers=(3,), references=((1, 4),))
    with torch.no_grad():
        tokens = one.backbone.tokens(one.backbone.embed(images)[1])
        for block in one.backbone.vit.blocks[:2]:
            tokens = block(tokens)
        block = one.backbone.vit.blocks[2]
        normalised = block.norm1(tokens)
        values = block.attn.qkv(normalised).chunk(3, dim=-1)[2]
        output = block.attn(normalised)[:, 1 + 1 * 6 + 4]
        # one prefix token: what the map leaves out of 1 goes to it
        flat = maps[:, 0, 0].flatten(1)
        weights = torch.cat([1 - flat.sum(dim=1, keepdim=True), flat], dim=1)
        expected = block.attn.proj((weights[:, None] @ values)[:, 0])
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)


def test_shapes_layers_and_references(model):
    images = torch.randn(2, 3, 64, 96)
    maps = attention_maps(model, images)
    assert maps.shape == (2, 4, 2, 4, 6)
    assert (maps >= 0).all()
    assert (maps.sum(dim=(-2, -1)) <= 1 + 1e-5).all()
    corner = attention_maps(model, images, layers=(2,), references=((3, 5),))
    torch.testing.assert_close(corner[:, 0, 0], maps[:, 1, 1])


def test_a_hybrid_has_maps_of_its_tapped_layers():
    hybrid = dpt.create_model("dpt_hybrid_small").eval()
    assert attention_maps(hybrid, torch.randn(1, 3, 64, 96)).shape == (1, 2, 2, 4, 6)


def test_layers_that_do_not_exist_are_refused(model):
    with pytest.raises(ValueError, match="no layer 5; this backbone has 1 to 4"):
        attention_maps(model, torch.randn(1, 3, 64, 64), layers=(1, 5))
    with pytest.raises(ValueError, match="no attention maps of resnet18"):
        attention_maps(dpt.create_model("dpt_tiny", backbone="resnet18.a1_in1k"), torch.randn(1, 3, 64, 64))

import torch
import torch.nn.functional as F

import dpt
from dpt.layers.upsampling import Upsampling


def test_values_are_those_of_pytorch_in_either_precision():
    x = torch.randn(2, 3, 5, 7)
    expected = F.interpolate(x, size=(11, 13), mode="bilinear", align_corners=False)
    torch.testing.assert_close(Upsampling(align_corners=False)(x, (11, 13)), expected)
    upsampling = Upsampling(align_corners=False)
    for as_given in (False, True):
        upsampling.as_given = as_given
        with torch.autocast("cpu", torch.bfloat16):
            found = upsampling(x.bfloat16(), (11, 13))
        assert found.dtype == torch.bfloat16 or not as_given
        torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.02)


def test_a_model_that_upsamples_in_bfloat16_differs_by_its_rounding():
    torch.manual_seed(0)
    model, images = dpt.create_model("dpt_tiny", image_size=64), torch.randn(2, 3, 64, 64)
    exact = model(images)
    for as_given in (False, True):
        model.set_upsampling(as_given)
        with torch.autocast("cpu", torch.bfloat16):
            found = model(images)
        assert found.dtype == torch.float32
        assert (found - exact).norm() < 0.03 * exact.norm()

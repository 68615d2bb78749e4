"""Small networks of unusual kinds."""

SHALLOW_HYBRID = {
    "backbone": "vit_base_r50_s16_384",
    "backbone_arguments": {"img_size": 64, "embed_dim": 64, "depth": 2, "num_heads": 2},
    "taps": ("R0", "R1", 1, 2),
    "channels": (256, 512, 64, 64),
}
"""Overrides that make of `dpt_tiny` a hybrid of two transformer layers."""

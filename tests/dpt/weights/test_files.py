import dataclasses
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import dpt
from dpt.weights.files import read_tensors


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = dpt.create_model("dpt_tiny", readout="add", scale=2.0, shift=0.5).eval()
    dpt.save_model(model, tmp_path / "model")
    return model, tmp_path / "model"


def test_a_saved_model_comes_back_exactly(saved):
    model, folder = saved
    again = dpt.load_model(folder)
    assert again.config == model.config
    assert not again.training
    images = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        torch.testing.assert_close(again(images), model(images), rtol=0, atol=0)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "weights.safetensors"]


def test_weights_that_do_not_fit_are_refused_key_by_key(saved):
    _, folder = saved
    tensors = load_file(folder / "weights.safetensors")
    tensors["extra.weight"] = torch.zeros(2)
    tensors["head.conv3.bias"] = torch.zeros(7)
    del tensors["backbone.vit.cls_token"]
    save_file(tensors, folder / "weights.safetensors")
    with pytest.raises(ValueError, match="does not fit") as error:
        dpt.load_model(folder)
    message = str(error.value)
    assert "missing: backbone.vit.cls_token" in message
    assert "unexpected: extra.weight" in message
    assert "misshapen: head.conv3.bias is [7], should be [1]" in message


@pytest.mark.parametrize("place", [-1, -1000, 0.5])
def test_one_flipped_bit_of_the_weights_is_noticed(saved, place):
    _, folder = saved
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[int(place * len(data)) if isinstance(place, float) else place] ^= 0x40
    path.write_bytes(data)
    for source in (folder, path):
        with pytest.raises(ValueError, match=r"weights\.safetensors is damaged: the weights differ"):
            dpt.load_weights(source)


def test_equal_weights_are_equal_bytes(saved, tmp_path):
    model, folder = saved
    data = (folder / "weights.safetensors").read_bytes()
    for number in range(8):
        dpt.save_model(model, tmp_path / f"again {number}")
        assert (tmp_path / f"again {number}" / "weights.safetensors").read_bytes() == data


def test_weights_without_a_digest_are_read(saved):
    model, folder = saved
    save_file(load_file(folder / "weights.safetensors"), folder / "weights.safetensors")
    assert dpt.load_model(folder).config == model.config


def test_a_changed_config_is_refused_until_its_digest_is_taken_out(saved):
    model, folder = saved
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"scale": 2.0', '"scale": 3.0'))
    with pytest.raises(ValueError, match=r"config\.json is damaged: it differs from its digest.*'digest'"):
        dpt.load_model(folder)
    config = json.loads(path.read_text())
    del config["digest"]
    path.write_text(json.dumps(config))
    assert dpt.load_model(folder).config == dataclasses.replace(model.config, scale=3.0)


@pytest.mark.parametrize(
    "text", [b"", b"[1]", b"{", b"\xff\xfe{}", b"[" * 100_000, b'{"a": 1' + b"0" * 9999 + b"}"]
)
def test_other_than_a_json_object_is_refused_in_one_line(saved, text):
    _, folder = saved
    (folder / "config.json").write_bytes(text)
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON: .") as caught:
        dpt.load_model(folder)
    assert len(str(caught.value).splitlines()) == 1


def test_a_config_with_an_unknown_key_is_refused(saved):
    _, folder = saved
    config = json.loads((folder / "config.json").read_text())
    del config["digest"]
    (folder / "config.json").write_text(json.dumps({**config, "colour": "red"}))
    with pytest.raises(ValueError, match="'colour'"):
        dpt.load_model(folder)


@pytest.mark.parametrize(("changes", "reason"), [
    ({"std": [0.5, 0, 0.5]}, r"std: \(0\.5, 0, 0\.5\), expected numbers above 0"),
    ({"std": [0.5, 0.5]}, r"std: .*, expected tuple\[float, float, float\]"),
    ({"mean": [0.5, float("nan"), 0.5]}, r"mean: .*nan.*, expected tuple\[float, float, float\]"),
    ({"classes": -1}, "classes: -1, expected from 1 to 65536"),
    ({"classes": "5"}, "classes: '5', expected int"),
    ({"features": 10**400}, "features: 10+, expected int"),
    ({"channels": [8192, 8192, 8192, 10**6]}, "channels: .*, expected from 1 to 8192"),
    ({"taps": ["R", 1, 2, 3]}, "taps: 'R', expected numbers of layers, or stages"),
    ({"scale": 0}, "scale: 0, max_depth: None; expected 0 for neither"),
    ({"invert": "no"}, "invert: 'no', expected bool"),
    ({"resize_rule": "largest"}, "resize_rule: there is no 'largest'; choose from minimal, "),
    ({"backbone": None}, "backbone: None, expected str"),
    ({"backbone_arguments": {"depth": 100_000}}, "arguments: depth is 100000, expected a number from 0"),
    ({"backbone_arguments": {"checkpoint_path": "/etc/passwd"}}, "there is no 'checkpoint_path'"),
    ({"channels": [8192] * 4, "features": 8192}, r"a network of 1\.\de\+10 numbers, expected at most 4"),
])  # fmt: skip
def test_values_of_a_config_are_checked_before_anything_is_built(saved, changes, reason):
    model, folder = saved
    (folder / "config.json").write_text(json.dumps({**model.config.to_dict(), **changes}))
    with pytest.raises(ValueError, match=reason) as caught:
        dpt.load_model(folder)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.heavy
def test_a_network_is_measured_before_it_is_built_in_memory():
    sizes = {"depth": 256, "embed_dim": 8192, "num_heads": 2, "img_size": 64}
    with pytest.raises(ValueError, match=r"a network of 2\.\de\+11 numbers"):
        dpt.create_model("dpt_tiny", backbone_arguments=sizes)


def test_headers_that_claim_more_than_there_is_are_refused(tmp_path):
    header = json.dumps({"x": {"dtype": "F32", "shape": [2**30, 2**10], "data_offsets": [0, 2**42]}}).encode()
    for data in ((2**62).to_bytes(8, "little") + b"{}", len(header).to_bytes(8, "little") + header):
        (tmp_path / "x.safetensors").write_bytes(data)
        with pytest.raises(ValueError, match=r"x\.safetensors is not a readable checkpoint"):
            dpt.load_weights(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "error", [KeyError("5"), IndexError(), TypeError(), AssertionError(), OverflowError()]
)
def test_whatever_fails_in_a_damaged_pickle_is_damage(error, tmp_path, monkeypatch):
    def load(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("torch.load", load)
    (tmp_path / "x.pt").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"x\.pt is not a readable checkpoint: it is damaged"):
        read_tensors(tmp_path / "x.pt")


def test_a_checkpoint_that_needs_code_to_be_read_comes_without_advice_to_run_it(tmp_path):
    for name, data in (("junk.pt", b"\x93\x00junk"), ("code.pt", pickle.dumps(Path))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(
            ValueError, match="not a readable checkpoint: it is damaged, or holds more than ten"
        ):
            read_tensors(tmp_path / name)

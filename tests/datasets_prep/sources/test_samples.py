import pytest

from datasets_prep.sources import samples as module
from datasets_prep.sources.samples import Sample, Samples, from_table, pack, to_table, unpack


def make(count: int) -> list[Sample]:
    def one(i: int) -> Sample:
        depth = {"depth": f"b/{i}.png"} if i % 2 else {}
        split, annotation = (None, "train", "val")[i % 3], "" if i % 5 else f"says {i}"
        return Sample(f"scene/{i}", {"image": f"a/{i}.jpg", **depth}, "scene", split, annotation)

    return [one(i) for i in range(count)]


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 20])
def test_what_goes_in_comes_out_in_order(count, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 4)
    given = make(count)
    packed = Samples(given)
    assert len(packed) == count
    assert list(packed) == given
    assert from_table(packed.table()) == given
    assert packed == Samples(given)
    assert packed != Samples(make(count + 1))


def test_packing_many_alike_takes_little():
    given = make(8192)
    packed = pack(to_table(given))
    assert from_table(unpack(packed)) == given
    assert len(packed) < 20 * len(given)

"""What a user can mend in a call of `dpt stereo` is one clear line, and nothing is written."""

import pytest

from tests.support.commands import dpt, said
from tests.support.raw_files import put


@pytest.mark.parametrize(("arguments", "message"), [
    (["movie", "--videos", "videos"], "dpt: 'movie' is not a dataset of stereo videos; there are: "),
    (["movies", "--videos", "nowhere"], "dpt: no such folder: "),
    (["movies", "--videos", "."], "dpt: no video in "),
    (["wsvd", "--videos", "videos"], "dpt: wsvd: the authors' lists of clips are needed"),
    (["wsvd", "--videos", "videos", "--lists", "videos"], "dpt: no list of clips in "),
    (["wsvd", "--videos", "videos", "--lists", "hostile"], "dpt: "),
    (["movies", "--videos", "videos", "flow=pwc"], "dpt: stereo.flow: "),
    (["movies", "--videos", "videos", "rules.vertcal=1"], "dpt: stereo.rules.vertcal: unknown key; did "),
    (["movies", "--videos", "videos", "flow=raft", "raft_weights=x.pth"], "dpt: no such file of RAFT"),
])  # fmt: skip
def test_mistakes_are_one_clear_line(arguments, message, tmp_path, monkeypatch, capsys):
    hostile = {"hostile/wsvd_test_clip_frame_ids.pkl": b"cposix\nmkdir\n(S'executed'\ntR."}
    put(tmp_path, {"videos/hugo.mkv": b"not decoded here", **hostile})
    monkeypatch.chdir(tmp_path)
    assert dpt("stereo", *arguments, "--out", "out") == 1
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert len(error.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hostile", "videos"]


def test_the_section_of_stereo_is_shown():
    shown = said("config", "stereo", "rules.vertical=3")
    assert "cut_threshold: 0.1\n" in shown
    assert "  vertical: 3.0\n" in shown

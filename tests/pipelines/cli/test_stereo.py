"""What a user can mend in a call of `dpt stereo` is one clear line, and nothing is written."""

import sys

import pytest

from tune import cli


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
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "hugo.mkv").write_bytes(b"not decoded here")
    (tmp_path / "hostile").mkdir()
    hostile = tmp_path / "hostile" / "wsvd_test_clip_frame_ids.pkl"
    hostile.write_bytes(b"cposix\nmkdir\n(S'executed'\ntR.")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["dpt", "stereo", *arguments, "--out", "out"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert len(error.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hostile", "videos"]


def test_the_section_of_stereo_is_shown(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dpt", "config", "stereo", "rules.vertical=3"])
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr().out
    assert "cut_threshold: 0.1\n" in said
    assert "  vertical: 3.0\n" in said

"""Stages on the screen, the rest in the log: what this process and others write, from Python or not."""

import logging
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.cluster.stages import stages_with_log


def be_noisy() -> None:
    print("print")
    print("print to stderr", file=sys.stderr)
    os.write(1, b"descriptor 1\n")
    os.write(2, b"descriptor 2\n")
    subprocess.run(["sh", "-c", "echo child; echo child to stderr >&2"], check=True)
    assert logging.lastResort is not None
    logging.lastResort.handle(logging.makeLogRecord({"msg": "logged"}))


NOISE = ("print", "print to stderr", "descriptor 1", "descriptor 2", "child", "child to stderr", "logged")


def test_the_screen_has_stages_alone_and_the_log_the_rest(tmp_path, capfd):
    log = tmp_path / "new" / "log"
    with stages_with_log(log) as stages:
        with stages.stage("render"):
            be_noisy()
            stages.say("10 of 20 [images]")
            stages.say("20 of 20 [images]")
        with stages.stage("train"):
            pass
        stages.console.print("a table")
    print("afterwards")
    shown, errors = capfd.readouterr()
    assert [line.split() for line in shown.splitlines()] == [
        *(["render", "0", "s", "20", "of", "20", "[images]"], ["train", "0", "s"], ["a", "table"]),
        ["afterwards"],
    ]
    assert errors == ""
    text = log.read_text()
    for line in (*NOISE, "render: 10 of 20 [images]", "render: 20 of 20 [images]"):
        assert f"{line}\n" in text


def test_neither_the_screen_nor_the_log_has_passwords_or_tokens(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "s3cr3t-value")
    secrets = ("postgresql://me:pa55word@host/db", "s3cr3t-value", f"hf_{'a' * 30}")
    with stages_with_log(tmp_path / "log") as stages, stages.stage("connect"):
        stages.console.print("table", *secrets)
        assert logging.lastResort is not None
        logging.lastResort.handle(logging.makeLogRecord({"msg": " ".join(secrets)}))
        print(*secrets, file=sys.stderr)
        stages.say(" ".join(secrets))
    for text in (capfd.readouterr().out, (tmp_path / "log").read_text()):
        assert " ".join(text.split()).count("postgresql://host/db … …") >= 2, text
        assert not any(word in text for word in ("me:pa55word", *secrets[1:])), text


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(143)])
def test_a_failure_names_stage_and_log_and_gives_the_screen_back(tmp_path, capfd, error):
    log = tmp_path / "log"

    def fail() -> None:
        with stages_with_log(log) as stages, stages.stage("train"):
            be_noisy()
            raise error

    with pytest.raises(type(error)):
        fail()
    print("afterwards", file=sys.stderr)
    shown, errors = capfd.readouterr()
    first, second = shown.splitlines()
    assert first.startswith("train ")
    assert first.endswith(" s  failed")
    assert second == f"all that was logged until then: {log}"
    assert errors == "afterwards\n"
    assert "descriptor 2\n" in log.read_text()


def test_no_descriptor_stays_open(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for number in range(3):
        with stages_with_log(tmp_path / str(number)):
            pass
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.heavy
def test_a_terminal_shows_what_is_said_until_the_stage_ends(tmp_path):
    program = (
        "import os, time\nfrom pathlib import Path\nfrom pipelines.cluster.stages import stages_with_log\n"
        "with stages_with_log(Path('log')) as stages, stages.stage('train'):\n"
        "    os.write(2, b'noise')\n    stages.say('step 1'); time.sleep(0.6); stages.say('done')\n"
    )
    primary, replica = pty.openpty()
    streams = {"stdin": replica, "stdout": replica, "stderr": replica}
    environment = os.environ | {"TERM": "xterm", "PYTHONPATH": str(Path(__file__).parents[3])}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True, **streams)
    os.close(replica)
    shown = os.read(primary, 65536).decode()
    assert "train  step 1" in shown
    assert shown.index("step 1") < shown.index("done")
    assert "noise" not in shown
    assert (tmp_path / "log").read_text() == "noisetrain: step 1\ntrain: done\n"

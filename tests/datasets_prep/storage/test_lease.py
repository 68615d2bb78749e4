import os
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from datasets_prep.storage import lease
from datasets_prep.storage.folder import Folder
from datasets_prep.storage.lease import Owned, owning
from datasets_prep.storage.sealed import sealed
from tests.support.faulty_s3 import serving

OTHER = {"host": "node7", "machine": "node7/boot/pid", "pid": 1, "since": 1e9}


@pytest.fixture(scope="module")
def s3():
    with serving(["leases"]):
        yield


@pytest.fixture(params=["local", "memory", "s3"])
def folder(request, tmp_path):
    if request.param == "s3":
        request.getfixturevalue("s3")
        return Folder(f"s3://leases/{uuid.uuid4().hex}")
    return Folder({"local": str(tmp_path / "run"), "memory": f"memory://{uuid.uuid4().hex}"}[request.param])


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lease, "RENEWAL", 0.1)
    monkeypatch.setattr(lease, "STALE", 0.8)


def leases(folder):
    return [name for name in folder.children() if name.startswith("lease")]


@pytest.mark.heavy
def test_a_folder_has_one_owner_and_none_afterwards(folder):
    said = []
    with owning(folder, "run demo", said.append):
        assert len(leases(folder)) == 1
        refused = pytest.raises(Owned, match=rf"run demo is in use by process {os.getpid()} on .* since 20")
        with refused, owning(folder, "run demo", said.append):
            pass
        time.sleep(0.3)
        assert "renewed" in folder.read_text(leases(folder)[0])
    assert leases(folder) == []
    with owning(folder, "run demo", said.append):
        pass
    assert said == []


def test_an_owner_elsewhere_that_renews_is_left_alone(folder):
    ended = threading.Event()

    def renew():
        count = 0
        while not ended.wait(0.1):
            count += 1
            folder.write_text("lease-00000004.json", sealed({**OTHER, "renewed": count}))

    folder.write_text("lease-00000004.json", sealed(OTHER))
    thread, said = threading.Thread(target=renew), []
    thread.start()
    try:
        refused = pytest.raises(Owned, match=r"process 1 on node7 since 2001-.* minutes\).*still works")
        with refused, owning(folder, "sweep", said.append):
            pass
    finally:
        ended.set()
        thread.join()
    assert len(said) == 1
    assert leases(folder) == ["lease-00000004.json"]


@pytest.mark.heavy
@pytest.mark.parametrize("text", [sealed(OTHER), "", "[1]", "{", '{"pid": "x", "since": "y"}'])
def test_a_lease_that_nobody_renews_is_over(folder, text):
    folder.write_text("lease-00000004.json", text)
    with owning(folder, "sweep", lambda line: None):
        assert leases(folder) == ["lease-00000005.json"]


def test_an_owner_that_died_on_this_machine_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "STALE", 600)
    folder, dead = Folder(str(tmp_path)), subprocess.Popen([sys.executable, "-c", "pass"])
    started = psutil.Process(dead.pid).create_time()
    while psutil.Process(dead.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    mine = {"machine": lease._machine(), "pid": dead.pid, "started": started, "since": 0}
    for waited_for in (False, True):
        if waited_for:
            dead.wait()
        folder.write_text("lease-00000001.json", sealed(mine))
        with owning(folder, "run", print):
            pass
    # Another process has the number by now.
    folder.write_text("lease-00000001.json", sealed(mine | {"pid": os.getpid()}))
    with owning(folder, "run", print):
        pass


@pytest.mark.heavy
def test_of_several_that_take_over_one_succeeds(folder):
    folder.write_text("lease-00000004.json", sealed(OTHER))
    together, done = threading.Barrier(6), threading.Event()

    def take():
        together.wait()
        try:
            with owning(folder, "run", lambda line: None):
                done.wait(20)
                return True
        except Owned:
            return False

    with ThreadPoolExecutor(6) as threads:
        taking = [threads.submit(take) for _ in range(6)]
        while sum(one.done() for one in taking) < 5:
            time.sleep(0.05)
        done.set()
        assert sum(one.result() for one in taking) == 1
    assert leases(folder) == []


def test_an_owner_that_stood_still_too_long_learns_that_it_lost(folder):
    lost = []
    with owning(folder, "run", print, lost.append):
        folder.write_text("lease-00000002.json", sealed(OTHER))
        while not lost:
            time.sleep(0.02)
    assert "process 1 on node7" in lost[0]
    assert leases(folder) == ["lease-00000002.json"]


def test_a_process_that_lost_its_folder_ends_at_once(tmp_path):
    code = (
        "import time; from datasets_prep.storage import lease\n"
        "from datasets_prep.storage.folder import Folder\n"
        "lease.RENEWAL = 0.05\n"
        f"with lease.owning(Folder({str(tmp_path)!r}), 'run', print):\n"
        "    print('owned', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "owned\n"
    Folder(str(tmp_path)).write_text("lease-00000002.json", sealed(OTHER))
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "process 1 on node7" in said
    assert len(said.splitlines()) == 1


def test_a_file_is_created_once_also_without_hard_links(tmp_path, monkeypatch):
    def refuse(*names):
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    folder = Folder(str(tmp_path))
    assert folder.create_text("a", "first")
    assert not folder.create_text("a", "second")
    assert folder.read_text("a") == "first"
    assert folder.children() == ["a"]

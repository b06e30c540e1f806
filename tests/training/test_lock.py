import errno
import fcntl
import subprocess
import sys

import pytest

from videomae_jax.training.lock import lock

HOLDER = """
import sys
from pathlib import Path
from videomae_jax.training.lock import lock

lock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_in_use_is_refused_with_the_name_of_the_process(holder, tmp_path):
    with pytest.raises(ValueError, match=f"workdir {tmp_path} is in use by another run .process {holder.pid} on "):
        lock(tmp_path)


def test_a_killed_process_leaves_no_lock(holder, tmp_path):
    holder.kill()
    holder.wait()
    lock(tmp_path)


def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch, capsys):
    def flock(descriptor, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    lock(tmp_path)
    assert "cannot be locked here (Function not implemented): start no second run in" in capsys.readouterr().out


def test_the_same_process_may_go_on_in_its_folder(tmp_path):
    lock(tmp_path)
    lock(tmp_path)

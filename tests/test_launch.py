"""The launch scripts of docs/scaling.md, with stand-ins for the cluster's commands."""

import os
import subprocess
import sys

import pytest
from train_command import ROOT, command, losses

# Starts two tasks as two nodes would, and ends as the worse of them.
SRUN = """#!/bin/bash
for task in 0 1; do
    SLURM_PROCID=$task SLURM_LOCALID=0 "$@" & tasks="$tasks $!"
done
worst=0
for task in $tasks; do wait $task; status=$?; [ $status -gt $worst ] && worst=$status; done
exit $worst
"""

STEP = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_NODELIST": "127.0.0.1",
    "SLURM_NTASKS": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
}


@pytest.fixture
def cluster(tmp_path):
    """A folder of stand-ins, to be first on the path, and how to write one."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def write(name, text):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
        return folder / name

    write("srun", SRUN)
    write("scontrol", f'#!/bin/bash\necho "$@" >> {tmp_path}/scontrol\n')
    write.folder = folder
    return write


def launch(cluster, script, *words, **variables):
    path = {"PATH": f"{cluster.folder}{os.pathsep}{os.environ['PATH']}"}
    environment = os.environ | path | variables
    return subprocess.run(
        [ROOT / "docs/launch" / script, *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.mark.full
def test_slurms_script_trains_on_two_nodes(cluster, builtin_clips, videos, tmp_path):
    words = command("quickstart.py", tmp_path / "run", data__path=videos, data__val_path="", total_steps=2)
    done = launch(cluster, "slurm.sh", *words[2:], PYTHON=sys.executable, JAX_NUM_CPU_DEVICES="2", **STEP)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "float32 on 4 cpu devices" in done.stdout
    assert [row["step"] for row in losses(tmp_path / "run")] == [1, 2]
    assert not (tmp_path / "scontrol").exists()


@pytest.mark.parametrize(("status", "requeued"), [(75, "requeue 4711\n"), (1, None), (0, None)])
def test_slurms_script_queues_a_job_again_that_was_told_to_end(cluster, tmp_path, status, requeued):
    python = cluster("python", f"#!/bin/bash\nexit {status}\n")
    assert launch(cluster, "slurm.sh", "--config", "c", PYTHON=str(python), **STEP).returncode == status
    said = tmp_path / "scontrol"
    assert (said.read_text() if said.exists() else None) == requeued


def test_the_tpu_script_runs_the_words_on_every_host_until_the_run_has_ended(cluster, tmp_path):
    gcloud = f"""#!/bin/bash
for word in "$@"; do [[ $word = --command=* ]] && echo "${{word#--command=}}" >> {tmp_path}/commands; done
echo "$@" >> {tmp_path}/calls
[ $(wc -l < {tmp_path}/calls) -lt 3 ] && exit 75
exit 0
"""
    cluster("gcloud", gcloud)
    done = launch(cluster, "tpu_pod.sh", "--config", "configs/a b.py", "--workdir", "runs/it's", TPU="pod", ZONE="here")
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 3
    assert calls[0].startswith("compute tpus tpu-vm ssh pod --zone=here --worker=all --command=cd videomae-jax && ")
    (tmp_path / "videomae-jax" / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / "videomae-jax" / ".venv" / "bin" / "python"
    python.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    on_the_host = (tmp_path / "commands").read_text().splitlines()[0]
    ran = subprocess.run(["bash", "-c", on_the_host], cwd=tmp_path, capture_output=True, text=True)
    assert ran.stdout.splitlines() == ["train.py", "--config", "configs/a b.py", "--workdir", "runs/it's"]

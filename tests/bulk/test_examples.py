"""The examples for schedulers: valid, and of a command that exists."""

import re
import shlex
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from birnn_bulk.command import bulk

DEPLOY = Path(__file__).parents[2] / "deploy"
JOB = DEPLOY / "kubernetes" / "bulk" / "job.yaml"
SLURM = DEPLOY / "slurm" / "bulk.sbatch"


def check(script: str) -> None:
    """The arguments of `birnn bulk` in a shell script, with the numbers of a task filled in, are understood."""
    script = re.sub(r"\$(SLURM_ARRAY_TASK_COUNT)", "16", re.sub(r"\$\w+(?=/)", "3", script.replace("\\\n", " ")))
    (line,) = re.findall(r"birnn bulk (.*?) \|\|", script)
    context = bulk.make_context("bulk", shlex.split(line))
    assert (context.params["share"].index, context.params["share"].count) == (3, 16)


@pytest.mark.parametrize("release", ["1.30", kubernetes_validate.latest_version()])
def test_the_job_of_kubernetes_is_valid(release: str) -> None:
    manifest = yaml.safe_load(JOB.read_text(encoding="utf-8"))
    kubernetes_validate.validate(manifest, release, strict=True)
    assert manifest["spec"]["completions"] == manifest["spec"]["parallelism"] == 16
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    check(container["args"][0])


def test_the_array_of_slurm_is_valid() -> None:
    subprocess.run(["bash", "-n", SLURM], check=True)
    script = SLURM.read_text(encoding="utf-8")
    assert "--array=0-15" in script
    check(script)

import os
import subprocess
import sys

from bench.machine import describe_machine, on_cores


def test_a_command_runs_on_the_cores_it_is_given() -> None:
    core = max(os.sched_getaffinity(0))
    code = "import os; print(sorted(os.sched_getaffinity(0)))"
    done = subprocess.run([*on_cores([core]), sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"[{core}]"


def test_a_report_says_what_it_ran_on() -> None:
    machine = describe_machine()
    assert machine["cpu"]
    assert machine["cores"] == len(os.sched_getaffinity(0))
    assert "onnxruntime" in machine["packages"]

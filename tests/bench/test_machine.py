import os
import subprocess
import sys
import time

from bench.machine import ForeignLoad, describe_machine, on_cores

COUNT_FOR_A_WHILE = "import time; end = time.time() + 30\nwhile time.time() < end: pass"


def test_the_work_of_programs_that_were_there_before_is_noticed() -> None:
    busy = subprocess.Popen([sys.executable, "-c", COUNT_FOR_A_WHILE])
    try:
        load = ForeignLoad()
        seen = 0.0
        # On a busy machine it may have to wait for its turn.
        for _ in range(40):
            time.sleep(0.25)
            if seen := load.cores():
                break
    finally:
        busy.kill()
        busy.wait()
    assert seen > 0


def test_what_starts_later_is_ones_own() -> None:
    load = ForeignLoad()
    busy = subprocess.Popen([sys.executable, "-c", COUNT_FOR_A_WHILE])
    try:
        assert busy.pid not in load._pids
    finally:
        busy.kill()
        busy.wait()


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

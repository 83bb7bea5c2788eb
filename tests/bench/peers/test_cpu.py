import os
import subprocess
import sys
import time

from bench.machine import parents
from bench.peers.cpu import CpuMeter, descends

COUNT = "import time; print(flush=True); end = time.time() + 30\nwhile time.time() < end: pass"
# Starts another one and waits, as a server with workers does.
COUNT_BELOW = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {COUNT!r}])"


def test_time_is_told_apart_by_who_took_it() -> None:
    server = subprocess.Popen([sys.executable, "-c", COUNT_BELOW], stdout=subprocess.PIPE, start_new_session=True)
    client = subprocess.Popen([sys.executable, "-c", COUNT], stdout=subprocess.PIPE)
    try:
        for process in (server, client):
            assert process.stdout is not None
            process.stdout.readline()
        begin = time.time()
        with CpuMeter(server.pid) as meter:
            # On a busy machine each may have to wait for its turn.
            for _ in range(100):
                time.sleep(0.25)
                spent = meter.between(begin, time.time())
                if spent.server > 0.05 and spent.clients > 0.05:
                    break
        assert spent.server > 0.05
        assert spent.clients > 0.05
    finally:
        below = [pid for pid, parent in parents().items() if parent == server.pid]
        for pid in (*below, server.pid, client.pid):
            os.kill(pid, 9)
        for process in (server, client):
            process.communicate()


def test_nothing_is_taken_before_the_meter_runs() -> None:
    with CpuMeter(os.getpid()) as meter:
        pass
    assert meter.between(0.0, 1.0) == (0.0, 0.0, 0.0)


def test_a_process_descends_from_what_started_it_directly_or_not() -> None:
    known = {5: 4, 4: 1, 6: 1, 1: 0}
    assert descends(5, 5, known)
    assert descends(5, 1, known)
    assert not descends(6, 4, known)
    # A process whose parents are not known any more.
    assert not descends(9, 4, known)

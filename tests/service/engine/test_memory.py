import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.engine.bundles import small_bundle

ROOT = Path(__file__).parents[3]
# In a process of its own: what other tests have allocated and freed would blur the reading.
SOAK = """
import os, sys
from pathlib import Path
import numpy as np
from birnn_bundle.bundle import Bundle
from birnn_bundle.ragged import RaggedBatch, offsets_of
from birnn_service.engine import onnx_engine
from birnn_service.engine.engine import Output
from birnn_service.engine.loading import load_engine

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

onnx_engine.available_cores = lambda: 2
engine = load_engine(Bundle.load(Path(sys.argv[1])), "cpu", engine=sys.argv[2]).engine
random = np.random.default_rng(0)
for number in range(20_000):
    if number == 5_000:
        before = resident()
    lengths = np.minimum(random.lognormal(2.7, 0.9, random.integers(1, 17)).astype(np.int64) + 1, 200)
    batch = RaggedBatch(random.integers(0, 5, lengths.sum(), dtype=np.int32), offsets_of(lengths))
    engine.run(batch, list(Output)[number % 5 == 0], 1 + number % 3 // 2)
print(before, resident())
"""


@pytest.mark.parametrize("engine", ["onnxruntime", "auto"])
def test_memory_stays_flat_over_twenty_thousand_batches_of_every_shape(tmp_path: Path, engine: str) -> None:
    bundle = small_bundle(tmp_path)
    command = [sys.executable, "-c", SOAK, str(bundle.path), engine]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    before, after = map(int, output.split())
    assert after < before * 1.05


# Of a large encoder, whose memory must be the system's again after it is unloaded.
UNLOADING = """
import os, sys
from pathlib import Path
from birnn_bundle.bundle import Bundle
from birnn_service.engine.loading import load_engine
from birnn_service.memory import give_back_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def once():
    proven = load_engine(Bundle.load(Path(sys.argv[1])), "cpu", engine=sys.argv[2])
    loaded = resident()
    proven.engine.close()
    return loaded

# What libraries keep once they have been used is there before.
once()
give_back_memory()
before = resident()
loaded = once()
give_back_memory()
print(before, loaded, resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc gives memory back when asked")
@pytest.mark.parametrize("engine", ["onnxruntime", "native"])
def test_the_memory_of_an_encoder_that_is_closed_goes_back_to_the_system(engine: str) -> None:
    command = [sys.executable, "-c", UNLOADING, str(ROOT / "models" / "smiles" / "2"), engine]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    before, loaded, after = (int(number) >> 20 for number in output.split())
    assert loaded - before > 15, "the encoder is too small to tell"
    assert after - before < (loaded - before) / 4, (before, loaded, after)

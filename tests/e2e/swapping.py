"""Versions that come and go under a running server, and callers who compare every reply with what it must be."""

import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import grpc
import numpy as np

from birnn.openinference import inference_pb2
from birnn.openinference.inference_pb2_grpc import GRPCInferenceServiceStub
from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from birnn_bundle.bundle import Bundle
from birnn_service.engine.engine import Output
from birnn_service.engine.loading import load_engine
from tests.e2e.server_process import MODELS, ServerProcess

NAME = "swapped"
SEQUENCES = [b"CCO", b"c1ccccc1", b"CC(=O)Oc1ccccc1C(=O)O", b"C"]
# What a version may hold: bundles whose vectors differ.
CONTENTS = (MODELS / "smiles-small" / "1", MODELS / "smiles" / "1", MODELS / "smiles" / "2")
# Looks are frequent, so that tests need not wait; every other setting is the server's own.
SETTINGS = ("--engine", "native", "--models-poll", "0.1")


@cache
def vectors(content: Path) -> bytes:
    """What the bytes of a reply to `SEQUENCES` must be, computed in this process."""
    bundle = Bundle.load(content)
    engine = load_engine(bundle, "cpu", engine="native").engine
    values = engine.run(bundle.tokenizer.tokenize(SEQUENCES, 1000).batch, Output.POOLED)
    engine.close()
    return np.ascontiguousarray(values, dtype="<f4").tobytes()


def prepare(models: Path, content: Path, name: str, version: int) -> Path:
    """A whole bundle in a folder that no look finds."""
    folder = models / f".{name}-{version}.partial"
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    shutil.copytree(content, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "name": name, "version": version}))
    return folder


def install(models: Path, content: Path, version: int, name: str = NAME) -> Path:
    """Put a bundle in its place, or another one into the place of that which is there."""
    prepared, target = prepare(models, content, name, version), models / name / str(version)
    target.parent.mkdir(exist_ok=True)
    if target.exists():
        old = models / f".{name}-{version}.old"
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    prepared.rename(target)
    return target


def index(server: ServerProcess) -> dict[tuple[str, str], tuple[str, str]]:
    """State and reason of every version, as the server tells them."""
    with grpc.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        reply = GRPCInferenceServiceStub(channel).RepositoryIndex(inference_pb2.RepositoryIndexRequest())
    return {(model.name, model.version): (model.state, model.reason) for model in reply.models}


def states(server: ServerProcess, name: str = NAME) -> dict[str, str]:
    """State of each version of an encoder."""
    return {version: state for (found, version), (state, _) in index(server).items() if found == name}


@dataclass
class Replies:
    """What became of the calls: how many got which version and content, and every one that was lost or wrong."""

    contents: tuple[Path, ...] = CONTENTS
    answered: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    refused: Counter[grpc.StatusCode] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, reply: pb.EncodeResponse) -> None:
        """Compare a reply with what it must be, to the bit."""
        found = [content for content in self.contents if reply.embeddings == vectors(content)]
        with self.lock:
            if found:
                self.answered[reply.version, str(found[0].relative_to(MODELS))] += 1
            else:
                self.wrong.append(str(reply.shape))

    def of(self, version: int, content: Path) -> int:
        """Calls that were answered by a content of a version."""
        with self.lock:
            return self.answered[str(version), str(content.relative_to(MODELS))]

    @property
    def total(self) -> int:
        """Calls that were answered."""
        with self.lock:
            return sum(self.answered.values())

    def assert_unharmed(self) -> None:
        """Every call was answered, and right."""
        assert not self.wrong, self.wrong[:3]
        assert not self.lost, (len(self.lost), self.lost[:3])
        assert self.total


@contextmanager
def callers(
    server: ServerProcess, *, count: int = 4, version: str = "", name: str = NAME, pause: float = 0.005
) -> Iterator[Replies]:
    """Callers with connections of their own: one by one, and as streams, which always have calls under way.

    With a `pause` of some seconds after each reply they leave the cores to what the server does beside answering them.
    """
    replies, ended = Replies(), threading.Event()
    for content in replies.contents:
        vectors(content)
    request = pb.EncodeRequest(encoder=name, version=version, sequences=SEQUENCES)

    def call_on() -> None:
        with grpc.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = EncoderServiceStub(channel)
            while not ended.is_set():
                try:
                    replies.take(stub.Encode(request, timeout=120))
                    ended.wait(pause)
                except grpc.RpcError as error:
                    with replies.lock:
                        replies.lost.append(str(error))

    def stream_on() -> None:
        with grpc.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            window = threading.Semaphore(8)

            def requests() -> Iterator[pb.EncodeStreamRequest]:
                number = 0
                while not ended.is_set():
                    if window.acquire(timeout=0.1):
                        number += 1
                        yield pb.EncodeStreamRequest(id=number, encode=request)

            try:
                for reply in EncoderServiceStub(channel).EncodeStream(requests()):
                    ended.wait(pause)
                    window.release()
                    if reply.HasField("failure"):
                        with replies.lock:
                            replies.lost.append(reply.failure.message)
                    else:
                        replies.take(reply.response)
            except grpc.RpcError as error:
                with replies.lock:
                    replies.lost.append(str(error))

    threads = [threading.Thread(target=call_on) for _ in range(count - 1)] + [threading.Thread(target=stream_on)]
    for thread in threads:
        thread.start()
    try:
        yield replies
    finally:
        ended.set()
        for thread in threads:
            thread.join()

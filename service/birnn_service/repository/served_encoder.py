"""An encoder that this process serves: its bundle, the engine that runs it, and the lanes in which its work waits."""

from dataclasses import dataclass, field

from birnn_bundle.bundle import Bundle
from birnn_bundle.manifest import Manifest
from birnn_bundle.tokenizer import Tokenizer
from birnn_service.catalog import next_instance
from birnn_service.engine.engine import Engine, EngineInfo, Output
from birnn_service.engine.gate import Limits
from birnn_service.queueing.lane import Lane


@dataclass(frozen=True, slots=True, eq=False)
class ServedEncoder:
    """One version of one encoder, proven and ready.

    Attributes:
        instance: Tells this load from every other, of the same name and version too.
        is_fallback: Whether `auto` could not have what it tried first.
    """

    bundle: Bundle
    engine: Engine
    lanes: dict[Output, Lane]
    limits: Limits
    instance: int = field(default_factory=next_instance)
    is_fallback: bool = False

    def __post_init__(self) -> None:
        for lane in self.lanes.values():
            lane.instance = self.instance

    @property
    def manifest(self) -> Manifest:
        """What the bundle says about itself."""
        return self.bundle.manifest

    @property
    def tokenizer(self) -> Tokenizer:
        """What reads its sequences."""
        return self.bundle.tokenizer

    @property
    def info(self) -> EngineInfo:
        """What runs it."""
        return self.engine.info

    @property
    def last_success(self) -> float:
        """When a batch last ended well, on the dispatcher's clock."""
        return max(lane.last_success for lane in self.lanes.values())

"""The PyTorch side: encoders, training, checkpoints, ONNX graphs, and the proof that they agree with PyTorch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from birnn_export.checkpoints.module_export import export_encoder

__all__ = ["export_encoder"]


def __getattr__(name: str) -> object:
    # Imported when it is asked for: it brings torch, onnx and onnxruntime, which reading a corpus does not need.
    if name == "export_encoder":
        from birnn_export.checkpoints.module_export import export_encoder

        return export_encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

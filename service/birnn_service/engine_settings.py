"""Settings of what computes: device, engine, precision and processes."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from birnn_service.engine.engine import Device, EngineName, Precision
from birnn_service.setting_types import Count


class EngineSettings(BaseModel):
    """What computes."""

    device: Device = Field(
        "auto", description="Device that runs encoders. `auto` uses CUDA if it works, and logs its choice."
    )
    engine: EngineName = Field(
        "auto",
        description="Engine that runs encoders. On a CPU, `auto` uses the native engine if it was built and can run "
        "the encoder.",
    )
    precision: Precision = Field(
        "fp32",
        description="Precision of the arithmetic. bf16 and int8 exist on CPUs with the native engine, fp16 on CUDA. "
        "Each is used only if the bundle allows it and it passes the golden gate. `auto` takes the fastest such "
        "precision, and logs why.",
    )
    slots: Count | None = Field(
        None, description="Number of batches that run at the same time; by default one per core on a CPU, two on a GPU."
    )
    frontends: Annotated[int, Field(ge=0, le=256)] = Field(
        0,
        description="Number of front-end processes, which take calls, tokenize and write replies for the process that "
        "owns the engines. They help if that work is the bottleneck: on a GPU or many cores, use one for about every "
        "3,000 calls per second. 0 does everything in one process, which is best on few cores. Linux only.",
    )
    frontend_memory_mib: Count = Field(
        4096,
        description="Limit, in MiB, of the memory that each front-end shares with the engine process for requests in "
        "progress and their results. It is allocated as needed.",
    )
    gpu_memory_mib: Count | None = Field(
        None,
        description="Maximum GPU memory of all encoders together, in MiB, including those that are loaded beside the "
        "ones they replace; by default four fifths of what is free at the start.",
    )
    cache_mib: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Size of the response cache, in MiB. It keeps the latest pooled encodings, by exact tokens. 0 "
        "turns it off.",
    )
    cache_dir: Path | None = Field(
        None,
        description="Folder that keeps measured costs and fetched bundles between starts; by default in the user's "
        "cache folder.",
    )

"""Reads a server's list of encoders and finds the one that answers to a name."""

from collections.abc import Iterable

from birnn.encodings import EncoderInfo
from birnn.errors import UnknownEncoderError
from birnn.options import Version
from birnn.v1 import encoder_pb2 as pb


def encoder_info(encoder: pb.Encoder) -> EncoderInfo:
    """Convert one entry of a ListEncoders reply."""
    return EncoderInfo(
        name=encoder.name,
        version=encoder.version,
        architecture=encoder.architecture,
        dimension=encoder.dimension,
        token_dimension=encoder.token_dimension,
        pooling=encoder.pooling,
        tokenizer=encoder.tokenizer,
        max_length=encoder.max_length,
        description=encoder.description,
        engine=encoder.engine,
        device=encoder.device,
        precision=encoder.precision,
        ready=encoder.ready,
        features=encoder.features,
        aliases=tuple(encoder.aliases),
        candidate=encoder.candidate,
    )


def find_encoder(infos: Iterable[EncoderInfo], name: str, version: Version, address: str) -> EncoderInfo:
    """Return the encoder that would answer a call.

    Args:
        infos: The encoders that the server lists.
        name: The requested name, or NAME@VERSION. "" selects the only encoder of a server that serves exactly one.
        version: The requested version or alias. None selects the highest version that is not a candidate.
        address: Address of the server, for the error message.

    Raises:
        UnknownEncoderError: No such encoder is ready.
    """
    if version is None and "@" in name:
        name, _, version = name.partition("@")
    ready = [info for info in infos if info.ready]
    alone = len({info.name for info in ready}) == 1
    matches = [
        info
        for info in ready
        if (info.name == name or (not name and alone))
        and (not info.candidate if version is None else str(version) in (info.version, *info.aliases))
    ]
    if not matches:
        served = ", ".join(f"{info.name} version {info.version}" for info in ready) or "none that is ready"
        wanted = f"encoder {name!r}" if version is None else f"encoder {name!r} version {version}"
        raise UnknownEncoderError(f"{wanted} is not served at {address}; served: {served}")
    # Versions are counting numbers, so a longer string is a higher version.
    return max(matches, key=lambda info: (len(info.version), info.version))

"""What every protocol says of an encoder."""

from birnn.v1 import encoder_pb2 as pb
from birnn_service.catalog import Encoder, Encoders, address_of
from birnn_service.state import ServingState


def description_of(encoder: Encoder, encoders: Encoders[Encoder], state: ServingState) -> pb.Encoder:
    """One of `encoders`: what it is, what runs it, and whether it is ready."""
    manifest, info = encoder.manifest, encoder.info
    return pb.Encoder(
        name=manifest.name,
        version=str(manifest.version),
        architecture=manifest.architecture,
        dimension=manifest.dimension,
        token_dimension=manifest.token_dimension,
        pooling=manifest.pooling,
        tokenizer=encoder.tokenizer.kind,
        max_length=manifest.max_length,
        description=manifest.description,
        engine=info.engine,
        device=info.device,
        precision=info.precision,
        ready=state.serves(*address_of(encoder)),
        features=manifest.features,
        aliases=sorted(
            alias for alias, version in encoders.aliases.get(manifest.name, {}).items() if version == manifest.version
        ),
        candidate=encoders.is_candidate(encoder),
    )

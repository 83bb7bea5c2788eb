"""Encoders to measure: real sizes, seeded random weights; what an encoder has learned changes nothing of its cost."""

from pathlib import Path

import torch

from birnn_bundle.bundle import Bundle
from birnn_bundle.precisions import LEAST_MIN_COSINE, REDUCED
from birnn_bundle.smiles import SmilesTokenizer
from birnn_export.bundle_writer import write_bundle
from birnn_export.encoders import EncoderConfig, SequenceEncoder
from birnn_export.training.checkpoint import load_encoder, write_start, write_weights

SEED = 0
EMBEDDING, HIDDEN = 128, 256
MAX_LENGTH = 1024
# Chemistry's usual tokens; a bench file may hold rarer ones, which become "unknown" and cost the same.
VOCABULARY = Path(__file__).parents[1] / "models" / "smiles" / "1" / "tokenizer.json"


def random_encoder(architecture: str, layers: int) -> tuple[SequenceEncoder, SmilesTokenizer]:
    """A SMILES encoder with final pooling (2 x 256 floats), E = 128, H = 256 and torch's initial weights by `SEED`."""
    tokenizer = SmilesTokenizer.from_json(VOCABULARY.read_text(encoding="utf-8"))
    torch.manual_seed(SEED)
    config = EncoderConfig(
        architecture,  # type: ignore[arg-type]
        vocab_size=tokenizer.vocab_size,
        embedding_size=EMBEDDING,
        hidden_size=HIDDEN,
        layers=layers,
    )
    return SequenceEncoder(config).eval(), tokenizer


def random_bundle(models: Path, architecture: str, layers: int) -> Bundle:
    """Export `random_encoder` as `models`/ARCHITECTURE-LAYERS/1, verified like any other bundle.

    A bundle that is there already is taken as it is: weights, graphs and tokenizer follow from the code.
    """
    name = f"{architecture}-{layers}"
    destination = models / name / "1"
    if destination.exists():
        return Bundle.load(destination)
    encoder, tokenizer = random_encoder(architecture, layers)
    checkpoint = models / f".{name}"
    facts = {
        "data": [],
        "recipe": f"torch.manual_seed({SEED})",
        "objective": "none: random weights",
        "sequences": 0,
        "metrics": {},
    }
    write_start(checkpoint, encoder.config, tokenizer, MAX_LENGTH, facts)
    write_weights(checkpoint, encoder)
    # These encodings are not for use, so reduced precisions need not be accurate.
    return write_bundle(
        load_encoder(checkpoint),
        destination,
        description="Random weights, to be measured.",
        min_cosines=dict.fromkeys(REDUCED, LEAST_MIN_COSINE),
    )

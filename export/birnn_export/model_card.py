"""The model card: the README.md of a bundle, written from its manifest."""

from birnn_bundle.manifest import Manifest
from birnn_bundle.numerals import counted
from birnn_bundle.precision_card import precision_section

BAR = r"\|"
POOLINGS = {
    "final": "the last state of each direction: [h_forward(T); h_backward(1)]",
    "mean": "mean over the sequence's own tokens",
    "max": "maximum over the sequence's own tokens",
    "mean+max": "mean and maximum over the sequence's own tokens, one after the other",
}


def model_card(manifest: Manifest, parameters: int, text: str = "") -> str:
    """Markdown about one version of one encoder.

    Args:
        manifest: Its manifest; the digests are not used.
        parameters: How many numbers its weights are.
        text: The author's own part, markdown, put after the description.
    """
    parts = [
        f"# {manifest.name}, version {manifest.version}",
        manifest.description,
        text.strip(),
        "## What it is",
        _table(("", ""), _facts(manifest, parameters)),
        "## Use",
        "With `birnn serve --models` pointing at the folder that holds this encoder's:",
        f'```python\nfrom birnn import Client\n\nvectors = Client("127.0.0.1:8001").{_call(manifest)}, '
        f'encoder="{manifest.name}")  # float32 [n, {manifest.dimension}]\n```',
        "## Training",
        *_training(manifest),
        "## Verification",
        _verification(manifest),
        precision_section(manifest.records),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def shown_sizes(manifest: Manifest) -> str:
    """The hidden size, or those of all layers where they differ."""
    return " and ".join(map(str, manifest.hidden_sizes or [manifest.hidden_size]))


def _call(manifest: Manifest) -> str:
    return "encode(sequences" if manifest.tokenizer else f"encode_features(arrays_of_width_{manifest.features}"


def _facts(manifest: Manifest, parameters: int) -> list[tuple[str, str]]:
    layers = counted(manifest.layers, "layer")
    if manifest.tokenizer is None:
        inputs = [("inputs", f"{manifest.features} float features a token")]
    else:
        inputs = [
            ("embedding size", f"{manifest.embedding_size}"),
            ("tokens", f"{manifest.tokenizer.kind}, vocabulary of {manifest.vocab_size:,}"),
        ]
    scratch = ", trained as two RNNs written from scratch" if manifest.architecture == "birnn-scratch" else ""
    activation = f", {manifest.nonlinearity}" if manifest.nonlinearity else ""
    if manifest.gate_activation != "sigmoid":
        activation += f", {manifest.gate_activation} gates"
    return [
        ("architecture", f"bidirectional {manifest.cell.operator}{scratch}{activation}, {layers}"),
        *inputs[:1],
        ("hidden size", f"{shown_sizes(manifest)} in each direction{'' if manifest.bias else ', no biases'}"),
        ("parameters", f"{parameters:,}"),
        *inputs[1:],
        ("longest sequence", f"{manifest.max_length:,} tokens"),
        ("encoding of a sequence", f"{manifest.dimension} floats, pooling `{manifest.pooling}`"),
        ("pooling", POOLINGS[manifest.pooling]),
        ("encoding of a token", f"{manifest.token_dimension} floats"),
    ]


def _training(manifest: Manifest) -> list[str]:
    training = manifest.training
    facts = [
        ("data", ", ".join(training.data) or "none"),
        ("sequences", f"{training.sequences:,}"),
        ("objective", training.objective or "none"),
    ]
    # Of weights that were trained elsewhere only their origin is known, which is the recipe.
    parts = [_table(("", ""), facts)] if training.sequences else []
    if training.recipe:
        parts.append(f"```\n{training.recipe}\n```")
    if training.metrics:
        parts.append(_table(("metric", "value"), [(name, f"{value:g}") for name, value in training.metrics.items()]))
    return parts


def _verification(manifest: Manifest) -> str:
    found = manifest.verification
    native, float32 = found.max_error_native, found.max_error_float32
    engine = "" if native is None else f", the native kernels, in batches only, by at most {native:.1e}"
    own = "" if float32 is None else f" PyTorch itself differs by up to {float32:.1e} in float32."
    return (
        f"In {found.cases} runs of mixed lengths, alone and in batches, the ONNX graphs (float32, onnxruntime "
        f"{found.onnxruntime}, {found.provider}) and the PyTorch {found.torch} encoder in float64 differ by at most "
        f"{found.max_error_pooled:.1e} (pooled) and {found.max_error_tokens:.1e} (per token){engine}.{own} An engine "
        f"that differs by more than {manifest.tolerance:g} on the golden sequences does not serve this bundle."
    )


def _table(head: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    lines = [head, ("---", "---"), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', BAR) for cell in line)} |" for line in lines)

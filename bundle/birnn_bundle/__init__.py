"""The contract on disk between export and service: manifest, tokenizers, golden vectors, the ragged batch."""

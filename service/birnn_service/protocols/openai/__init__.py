"""The embeddings of OpenAI's API."""

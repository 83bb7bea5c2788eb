"""Encoders of a birnn server as other libraries know them.

Each module needs a library that an extra of birnn-serving brings: `langchain`, `llama_index` and `sklearn`.
"""

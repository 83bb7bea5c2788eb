"""Adapters that use the encoders of a birnn server in other libraries.

The modules are `langchain`, `llama_index` and `sklearn`. Each needs a library that an extra of birnn-serving installs.
"""

"""Client of birnn-serving: strings in, encodings out."""

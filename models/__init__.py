"""The encoders that ship with birnn-serving: NAME/VERSION/manifest.json and what it lists. Data only."""

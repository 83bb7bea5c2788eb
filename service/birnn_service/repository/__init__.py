"""The versions of encoders that are served: found, proven, loaded, swapped and unloaded while calls go on."""

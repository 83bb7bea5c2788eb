"""`birnn doctor`: what this machine can do, what is missing, and what mends it.

Whatever may be broken is tried in processes of their own (`probe.py`): a library that crashes or hangs is a line of the
report. The rest of this package imports nothing that could be missing.
"""

"""What runs inside the other servers, in environments of their own: there is numpy, onnxruntime and little else."""

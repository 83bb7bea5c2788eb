"""Workers that are actors of Ray, on any of its nodes.

They read the encoder and write parts under the paths that this machine has for them.
"""

import os
from typing import Any

from birnn_bulk.bulk_encoder import BulkEncoder, Job
from birnn_bulk.crew import NoRoomError, WorkerLostError
from birnn_bulk.plan import BulkError

# How long an actor may wait for a place in the cluster, and for its encoder.
START_SECONDS = 60.0


class RayCluster:
    """A connection to a cluster.

    Args:
        address: As `ray.init` takes it: HOST:PORT, `auto`, or `local` for one that begins and ends here.
        job: What actors do.

    Attributes:
        places: For how many actors the cluster has room: one a GPU, or else one a core.

    Raises:
        BulkError: Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(self, address: str, job: Job) -> None:
        # Ray reports usage to its makers unless it is told not to, and reads this when it is imported.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        try:
            import ray
        except ModuleNotFoundError as error:
            raise BulkError(
                "--ray-address needs the Python package 'ray', which is not installed: pip install 'birnn-serving[ray]'"
            ) from error
        self.ray: Any = ray
        self.job = job
        try:
            ray.init(address=address, log_to_driver=False, logging_level="warning")
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            raise BulkError(f"--ray-address {address}: {error}") from error
        resources = ray.cluster_resources()
        gpus = 0 if job.device == "cpu" else int(resources.get("GPU", 0))
        self.places = gpus or int(resources.get("CPU", 0))
        options = {"num_cpus": 1, "num_gpus": 1 if gpus else 0, "scheduling_strategy": "SPREAD", "max_restarts": 0}
        self.actor: Any = ray.remote(**options)(BulkEncoder)

    def close(self) -> None:
        """Leave the cluster."""
        self.ray.shutdown()


class RayWorker:
    """An actor. Lost ones are replaced by the crew and not by Ray, so that all runners do the same."""

    def __init__(self, cluster: RayCluster) -> None:
        """Start it.

        Raises:
            BulkError: It cannot load the encoder.
            NoRoomError: The cluster has had no place for it.
            WorkerLostError: It ended.
        """
        self._ray = cluster.ray
        self._actor = cluster.actor.remote(cluster.job)
        try:
            self._result(self._actor.describe.remote(), START_SECONDS)
        except self._ray.exceptions.GetTimeoutError as error:
            self.close()
            raise NoRoomError(f"no node of the cluster has started a worker in {START_SECONDS:g} seconds") from error

    def call(self, method: str, *arguments: Any) -> Any:
        """See `Worker.call`."""
        return self._result(getattr(self._actor, method).remote(*arguments))

    def close(self) -> None:
        """See `Worker.close`."""
        self._ray.kill(self._actor)

    def _result(self, reference: Any, timeout: float | None = None) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference, timeout=timeout)
        except errors.RayTaskError as error:
            # What the method raised; of a constructor it is the cause of what follows.
            cause = error.as_instanceof_cause()
            raise BulkError(str(error.cause or cause)) from error
        except errors.RayActorError as error:
            raise WorkerLostError(str(error).strip().splitlines()[0]) from error

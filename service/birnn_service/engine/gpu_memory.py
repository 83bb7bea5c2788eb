"""GPU memory: one total for all encoders of a server, and what each of them reserves of it."""

import logging
import threading

from birnn_service.engine.cuda_runtime import device_memory
from birnn_service.errors import StartupError

logger = logging.getLogger(__name__)

# Of the memory that is free before the first encoder is loaded. The rest is for what lies outside the arenas: the CUDA
# context, the code of kernels, and memory that other programs take later.
DEFAULT_SHARE = 0.8
# Where CUDA does not say how much there is.
UNKNOWN_TOTAL = 4096 << 20


class GpuMemory:
    """The memory of all encoders on the GPU. Encoders that are loaded while others are unloaded count beside them.

    An encoder gets what its largest batches need, but at most half of what is left, so that there is always room for
    another one, such as the next version of one that is served. With less memory it runs smaller batches. An encoder
    for which not even what is left is enough is refused.
    """

    def __init__(self, total_mib: int | None = None) -> None:
        """Grant `total_mib` MiB in all; by default most of what is free when the first encoder is loaded."""
        self._asked = total_mib
        self._total: int | None = None
        self._reservations: dict[Reservation, int] = {}
        # An encoder may be closed on another thread while the next one is loaded.
        self._lock = threading.Lock()

    def reserve(self, label: str, least: int, most: int) -> "Reservation":
        """Reserve memory for an encoder.

        Args:
            label: The encoder.
            least: Bytes without which it cannot run.
            most: Bytes beyond which more would be of no use to it.

        Raises:
            StartupError: Less than `least` is left, or the setting asks for more than the GPU has.
        """
        with self._lock:
            if self._total is None:
                self._total = self._find_total()
            left = self._total - sum(self._reservations.values())
            if least > left:
                raise StartupError(self._refusal(label, least, left))
            reservation = Reservation(self, label, max(least, min(most, left // 2)))
            self._reservations[reservation] = reservation.bytes
        if reservation.bytes < most:
            logger.warning(
                "%s gets %d MiB of GPU memory and would make use of %d: its batches are smaller than they could be "
                "(--gpu-memory-mib)",
                *(label, reservation.bytes >> 20, most >> 20),
            )
        return reservation

    def release(self, reservation: "Reservation") -> None:
        """Take a reservation back; see `Reservation.release`."""
        with self._lock:
            self._reservations.pop(reservation, None)

    def _find_total(self) -> int:
        try:
            free, total = device_memory()
        except OSError as error:
            if self._asked is None:
                logger.warning(
                    "how much memory the GPU has is not known (%s): %d MiB are taken at most (--gpu-memory-mib)",
                    *(error, UNKNOWN_TOTAL >> 20),
                )
                return UNKNOWN_TOTAL
            return self._asked << 20
        if self._asked is None:
            return int(DEFAULT_SHARE * free)
        if self._asked << 20 > total:
            raise StartupError(f"--gpu-memory-mib {self._asked}: the GPU has {total >> 20} MiB in all")
        return self._asked << 20

    def _refusal(self, label: str, least: int, left: int) -> str:
        assert self._total is not None
        taken = ", ".join(f"{each.label} {each.bytes >> 20} MiB" for each in self._reservations)
        return (
            f"{label} needs at least {-(-least >> 20)} MiB of GPU memory, and {max(0, left) >> 20} of "
            f"{self._total >> 20} MiB are left{f' beside {taken}' if taken else ''}: unload an encoder, or raise "
            "--gpu-memory-mib"
        )


class Reservation:
    """Memory that belongs to one encoder until it is released."""

    def __init__(self, memory: GpuMemory, label: str, size: int) -> None:
        """`size` bytes of `memory` for the encoder `label`."""
        self._memory = memory
        self.label = label
        self.bytes = size

    def release(self) -> None:
        """Leave the memory to others; more than once does no harm."""
        self._memory.release(self)

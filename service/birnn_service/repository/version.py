"""One version, from its first look to its end."""

from dataclasses import dataclass

from birnn_bundle.numerals import read_version
from birnn_service.repository.served_encoder import ServedEncoder
from birnn_service.sources.source import Fingerprint
from birnn_service.state import Address

# Looks in a row that must see the same before it counts: a bundle that is being copied changes from one to the next,
# and one that is being replaced is missing for a moment.
SETTLED_LOOKS = 2


@dataclass(slots=True, eq=False)
class Version:
    """What is known of one version that was found.

    Attributes:
        address: Name and version, as its folders are named; they may be any text.
        fingerprint: Of its files, when they were last seen.
        looks: Looks in a row that saw this fingerprint.
        missing: Looks in a row that did not find it.
        tried: The fingerprint with which it was last loaded or refused; None where it is to be tried again.
        error: Why it was refused then; empty if it was not.
        encoder: What serves it.
        ordered: Whether an operator wants it, whatever the policy says.
        unloaded: Whether an operator does not.
        loading: Whether it is being loaded.
    """

    address: Address
    fingerprint: Fingerprint
    looks: int = 0
    missing: int = 0
    tried: Fingerprint | None = None
    error: str = ""
    encoder: ServedEncoder | None = None
    ordered: bool = False
    unloaded: bool = False
    loading: bool = False

    @property
    def number(self) -> int | None:
        """Its version; None where its folder is not named as one, so that it cannot be good."""
        return read_version(self.address[1])

    @property
    def is_gone(self) -> bool:
        """Whether its files have been removed."""
        return self.missing >= SETTLED_LOOKS or (self.missing > 0 and self.encoder is None)

    @property
    def is_untried(self) -> bool:
        """Whether its files are others than those that were tried."""
        return self.tried != self.fingerprint

    @property
    def is_settled(self) -> bool:
        """Whether its files are complete, as far as one can tell by looking."""
        return self.looks >= SETTLED_LOOKS

    def see(self, fingerprint: Fingerprint) -> None:
        """Its files were seen."""
        self.missing = 0
        if fingerprint == self.fingerprint:
            self.looks += 1
            return
        self.fingerprint, self.looks = fingerprint, 1
        # Other files are another matter than those that an operator did not want.
        self.unloaded = False

    def miss(self) -> None:
        """Its files were not seen."""
        self.missing += 1
        self.looks = 0

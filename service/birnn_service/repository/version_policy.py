"""Which of the versions that are found are served: the setting `versions`."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from birnn_bundle.numerals import read_version
from birnn_bundle.quoting import shown

MOST_CHARACTERS = 10_000
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
HINT = "write all, latest:N, or versions such as 1,3; after NAME= for one encoder, and ; between several of these"


@dataclass(frozen=True, slots=True)
class Rule:
    """Which versions of one encoder are served.

    Attributes:
        text: As it was written.
        latest: How many of the highest ones; None for no such limit.
        pinned: These and no others; empty for no such limit.
    """

    text: str
    latest: int | None = None
    pinned: frozenset[int] = frozenset()

    def wanted(self, found: Collection[int], bad: Collection[int]) -> list[int]:
        """Versions to serve, the highest first.

        Args:
            found: Those that are there.
            bad: Those of them that were tried and cannot be served; where the latest are wanted, earlier ones stand in
                for them.
        """
        versions = sorted(found, reverse=True)
        if self.pinned:
            return [version for version in versions if version in self.pinned]
        wanted: list[int] = []
        good = 0
        for version in versions:
            if good == self.latest:
                break
            wanted.append(version)
            good += version not in bad
        return wanted


ALL = Rule("all")


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """Which versions of which encoders are served.

    Attributes:
        rules: By name of an encoder.
        others: Of all encoders without a rule of their own.
    """

    rules: Mapping[str, Rule]
    others: Rule = ALL

    def of(self, name: str) -> Rule:
        """The rule of an encoder."""
        return self.rules.get(name, self.others)


def read_policy(text: str) -> VersionPolicy:
    """A policy from its text, such as `latest:2` or `latest:1;smiles=1,2;text=all`.

    Raises:
        ValueError: It is none; says what to write.
    """
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"--versions has {len(text)} characters, {MOST_CHARACTERS} at most expected")
    rules: dict[str, Rule] = {}
    others: Rule | None = None
    for part in text.split(";"):
        name, equals, rule = (piece.strip() for piece in part.rpartition("="))
        if not equals:
            if others is not None:
                raise ValueError(f"--versions has two rules for all encoders, the second is {shown(rule)}; {HINT}")
            others = _read_rule(rule)
            continue
        if not _NAME.fullmatch(name):
            raise ValueError(f"--versions: {shown(name)} is no name of an encoder; {HINT}")
        if name in rules:
            raise ValueError(f"--versions has two rules for {name}")
        rules[name] = _read_rule(rule)
    return VersionPolicy(rules, others or ALL)


def _read_rule(text: str) -> Rule:
    if text == "all":
        return ALL
    kind, _, count = text.partition(":")
    if kind == "latest" and (latest := read_version(count)):
        return Rule(text, latest=latest)
    versions = [read_version(part.strip()) for part in text.split(",")]
    pinned = frozenset(version for version in versions if version)
    if len(pinned) != len(versions):
        raise ValueError(f"--versions: {shown(text)} says no versions; {HINT}")
    return Rule(text, pinned=pinned)

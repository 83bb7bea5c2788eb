import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from birnn_bundle.bundle import Bundle
from birnn_service.catalog import Catalog, State, Status
from birnn_service.engine.engine import EngineInfo
from birnn_service.errors import BrokenEncoderError, LoadingError, UnknownEncoderError
from birnn_service.frontends.setup import RemoteEncoder

MODELS = Path(__file__).parents[2] / "models"
INFO = EngineInfo("fake", "cpu", "float32", 1, 8, True)
BUNDLE = Bundle.load(MODELS / "smiles-small" / "1")


def encoder(version: int, name: str = "smiles") -> RemoteEncoder:
    return RemoteEncoder(BUNDLE.manifest.model_copy(update={"name": name, "version": version}), BUNDLE.tokenizer, INFO)


def test_new_calls_find_what_was_put_last_and_earlier_ones_keep_what_they_found() -> None:
    catalog: Catalog[RemoteEncoder] = Catalog()
    one, two = encoder(1), encoder(2)
    assert catalog.put(one) is None
    found = catalog.find("smiles")
    assert catalog.put(two) is None
    assert (catalog.find("smiles"), catalog.find("smiles", "1"), found) == (two, one, one)
    again = encoder(2)
    assert catalog.put(again) is two
    assert catalog.find("", "") is again
    # Another load of the same version is no reason to take this one out.
    catalog.take_out(two)
    assert catalog.find("smiles", "2") is again
    catalog.take_out(again)
    assert catalog.find("smiles") is one
    # Calls of other processes that found it go on.
    assert catalog.instance(again.instance) is again
    catalog.forget(again)
    with pytest.raises(UnknownEncoderError, match="unloaded meanwhile"):
        catalog.instance(again.instance)


async def test_an_encoder_is_unused_once_its_last_call_has_ended() -> None:
    catalog = Catalog([one := encoder(1), other := encoder(2)])
    catalog.hold(one)
    catalog.hold(one)
    catalog.hold(other)
    waiting = [asyncio.create_task(catalog.until_unused(one)) for _ in range(2)]
    await asyncio.sleep(0)
    catalog.release(one)
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    catalog.release(one)
    await asyncio.wait_for(asyncio.gather(*waiting), 60)
    await asyncio.wait_for(catalog.until_unused(one), 60)


async def test_one_that_is_used_again_before_anybody_looks_is_waited_for() -> None:
    catalog = Catalog([one := encoder(1)])
    catalog.hold(one)
    task = asyncio.create_task(catalog.until_unused(one))
    await asyncio.sleep(0)
    catalog.release(one)
    catalog.hold(one)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done()
    catalog.release(one)
    await asyncio.wait_for(task, 60)


def test_a_version_that_is_not_served_says_why() -> None:
    catalog = Catalog([encoder(2)])
    catalog.note(
        {
            ("smiles", "1"): Status(State.UNAVAILABLE, "it was unloaded by an order"),
            ("smiles", "3"): Status(State.UNAVAILABLE, "weights.bin was changed", broken=True),
            ("smiles", "4"): Status(State.LOADING),
            ("text", "1"): Status(State.LOADING),
        },
        {},
    )
    assert catalog.find("smiles").manifest.version == 2
    with pytest.raises(UnknownEncoderError, match="not served: it was unloaded by an order"):
        catalog.find("smiles", "1")
    with pytest.raises(BrokenEncoderError, match="version 3 of encoder 'smiles' could not be loaded: weights"):
        catalog.find("smiles", "3")
    for address in (("smiles", "4"), ("text", "")):
        with pytest.raises(LoadingError, match="is being loaded"):
            catalog.find(*address)
    assert catalog.broken == {("smiles", "3"): "weights.bin was changed"}


def test_newer_files_that_are_broken_leave_what_is_served_unbroken() -> None:
    catalog = Catalog([encoder(1)])
    catalog.note({("smiles", "1"): Status(State.READY, "its newer files are not served", broken=True)}, {})
    assert catalog.broken == {}
    assert catalog.find("smiles", "1").manifest.version == 1


def test_an_alias_is_a_version() -> None:
    catalog = Catalog([encoder(1), encoder(2)])
    catalog.note(
        {("smiles", "3"): Status(State.UNAVAILABLE, "cut short", broken=True)}, {"smiles": {"a": 1, "b": 3, "c": 7}}
    )
    assert catalog.find("smiles", "a") is catalog.find("smiles@a") is catalog.find("smiles", "1")
    assert catalog.find("smiles@2") is catalog.find("smiles", "2")
    with pytest.raises(BrokenEncoderError, match="smiles@b is version 3; version 3 of encoder 'smiles' could not"):
        catalog.find("smiles", "b")
    with pytest.raises(UnknownEncoderError, match="smiles@c is version 7; encoder 'smiles' has no version '7'"):
        catalog.find("smiles@c")
    with pytest.raises(UnknownEncoderError, match="served are: 1, 2, a, b, c"):
        catalog.find("smiles", "d")


def test_an_instance_is_told_from_every_other() -> None:
    one = encoder(1)
    assert encoder(1).instance != one.instance
    assert replace(one).instance == one.instance

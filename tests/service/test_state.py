from birnn_service.state import ServingState


def test_a_server_is_ready_between_start_and_drain() -> None:
    state = ServingState()
    assert (state.ready, state.reason) == (False, "starting")
    state.start()
    assert (state.ready, state.reason) == (True, "")
    state.drain()
    assert (state.ready, state.draining, state.reason) == (False, True, "draining")


def test_whatever_is_wrong_keeps_it_from_being_ready_and_only_engines_from_living() -> None:
    state = ServingState()
    state.start()
    state.set_broken({("protein", "3"): "weights.bin was changed"})
    assert (state.ready, state.live, state.reason) == (False, True, "encoder protein/3: weights.bin was changed")
    state.set_broken({})
    state.set_obstacle("descriptors", "none is left")
    assert (state.ready, state.live, state.reason) == (False, True, "none is left")
    state.set_obstacle("descriptors", "")
    assert state.ready
    state.set_unhealthy({("smiles", "2"): "no answer"})
    assert (state.ready, state.live, state.reason) == (False, False, "encoder smiles/2: no answer")
    assert not state.serves("smiles", "2")
    assert state.serves("smiles", "1")
    state.set_unhealthy({})
    assert state.ready


async def test_every_change_is_told_and_nothing_else() -> None:
    state = ServingState()
    change = state.next_change
    state.start()
    assert change.is_set()
    change = state.next_change
    state.set_unhealthy({})
    state.set_obstacle("descriptors", "")
    assert not change.is_set()
    state.set_obstacle("descriptors", "none is left")
    assert change.is_set()

import pytest


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no curve where training ends: that takes longer than training these small encoders."""
    monkeypatch.setattr("birnn_export.training.trainer.draw_curve", lambda metrics, picture: None)


@pytest.fixture
def drawn(undrawn: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the tests that look at the curve: it is drawn all the same."""
    from birnn_export.training.curve import draw_curve

    monkeypatch.setattr("birnn_export.training.trainer.draw_curve", draw_curve)

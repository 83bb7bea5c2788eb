"""For scikit-learn: an encoder of a birnn server as a transformer."""

from collections.abc import Callable
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from birnn.channel import DEFAULT_ADDRESS
from birnn.client import Client
from birnn.options import Version

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils.validation import check_is_fitted
except ModuleNotFoundError as error:
    raise ImportError("birnn.integrations.sklearn needs scikit-learn: pip install 'birnn-serving[sklearn]'") from error


class BirnnTransformer(TransformerMixin, BaseEstimator):
    """Turns a column of strings into the vectors of an encoder.

    Fitting learns nothing from the strings. It remembers the version that is served, and transforming asks for that
    one: what was fitted behind this never gets vectors of another version.

    Args:
        address: HOST:PORT, or any gRPC target; see `birnn.Client`.
        encoder: Name of the encoder.
        version: Its version; None for the highest that is served when this is fitted.
        timeout: Seconds for each input; None for no limit.
        truncate: Cut strings that are too long for the encoder instead of failing them.
        normalize: Scale each vector to length 1, so that a dot product is a cosine.
        on_error: What becomes of a string that cannot be encoded: "raise" a `birnn.SequenceError` that names all of
            them, or fill its row with "nan".
        connect: Makes the client, from the address, where it needs options of its own: a function of a module, or a
            `functools.partial` of `birnn.Client`, so that the transformer can be pickled.

    Attributes:
        encoder_: Name of the encoder that answers.
        version_: Its version.
        dimension_: Width of its vectors.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        encoder: str = "smiles",
        *,
        version: Version = None,
        timeout: float | None = None,
        truncate: bool = False,
        normalize: bool = False,
        on_error: Literal["raise", "nan"] = "raise",
        connect: Callable[[str], Client] = Client,
    ) -> None:
        self.address = address
        self.encoder = encoder
        self.version = version
        self.timeout = timeout
        self.truncate = truncate
        self.normalize = normalize
        self.on_error = on_error
        self.connect = connect

    def fit(self, X: Any, y: object = None) -> Self:
        """Look the encoder up.

        Args:
            X: Strings, as in `transform`.
            y: Not used.

        Raises:
            birnn.EncodeError: The server has no such encoder, or cannot be reached.
            ValueError: `X` is not one column.
        """
        _column(X)
        with self.connect(self.address) as client:
            info = client.encoder(self.encoder, self.version)
        self.encoder_, self.version_, self.dimension_ = info.name, info.version, info.dimension
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """The vectors of strings.

        Args:
            X: Strings: a list, an array, a series, or a table of one column.

        Returns:
            float32 [n, dimension_].

        Raises:
            birnn.EncodeError: The call failed, or a string cannot be encoded.
            ValueError: `X` is not one column.
        """
        check_is_fitted(self)
        # A connection for each input costs little, and none is ever shared with a process forked from this one.
        with self.connect(self.address) as client:
            return client.encode(
                _column(X),
                self.encoder_,
                self.version_,
                timeout=self.timeout,
                truncate=self.truncate,
                normalize=self.normalize,
                on_error=self.on_error,
            )

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:
        """Names of the columns: that of the encoder with a number, such as smiles_0."""
        check_is_fitted(self)
        return np.array([f"{self.encoder_}_{number}" for number in range(self.dimension_)], dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = True
        return tags


def _column(strings: Any) -> list[Any]:
    """The strings of one column.

    Raises:
        ValueError: There is no column, or more than one.
    """
    values = np.asarray(strings, dtype=object)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise ValueError(f"X must be one column of strings, not of shape {list(values.shape)}")
    return list(values)

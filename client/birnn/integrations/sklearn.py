"""scikit-learn integration: a transformer that encodes strings with a birnn server."""

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
    """Transforms a column of strings into the vectors of an encoder.

    `fit` learns nothing from the strings. It records the version of the encoder, and `transform` always asks for that
    version. So an estimator that was fitted on these vectors never gets vectors of another version.

    Args:
        address: HOST:PORT, or any gRPC target. See `birnn.Client`.
        encoder: Name of the encoder.
        version: Version of the encoder. None selects the highest version that is served at the time of `fit`.
        timeout: Seconds for each input. None sets no limit.
        truncate: Truncate strings that are too long for the encoder instead of failing them.
        normalize: Scale each vector to length 1, so that a dot product is a cosine.
        on_error: What to do if strings cannot be encoded: "raise" raises one `birnn.SequenceError` that lists them all;
            "nan" fills their rows with NaN.
        connect: Creates the client from the address. Pass it if the client needs other options. Use a function of a
            module or a `functools.partial` of `birnn.Client`, so that the transformer can be pickled.

    Attributes:
        encoder_: Name of the encoder that answers.
        version_: Version of that encoder.
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
        """Look up the encoder and record its version.

        Args:
            X: Strings, as in `transform`.
            y: Ignored.

        Returns:
            The transformer itself.

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
        """Encode strings.

        Args:
            X: Strings: a list, an array, a series, or a table with one column.

        Returns:
            float32 [n, dimension_].

        Raises:
            birnn.EncodeError: The call failed, or a string cannot be encoded.
            ValueError: `X` is not one column.
        """
        check_is_fitted(self)
        # A new connection per input costs little, and no connection is ever shared with a forked process.
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
        """Return the names of the output columns: the encoder's name and a number, such as smiles_0.

        Args:
            input_features: Ignored.

        Returns:
            str [dimension_].
        """
        check_is_fitted(self)
        return np.array([f"{self.encoder_}_{number}" for number in range(self.dimension_)], dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = True
        return tags


def _column(strings: Any) -> list[Any]:
    """Return the strings of a single column.

    Raises:
        ValueError: There is no column, or more than one.
    """
    values = np.asarray(strings, dtype=object)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise ValueError(f"X must be one column of strings, not of shape {list(values.shape)}")
    return list(values)

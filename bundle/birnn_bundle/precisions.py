"""Reduced precisions: what was measured of a bundle in each, and which of them its author allows."""

from typing import Annotated, Literal

from pydantic import Field

from birnn_bundle.strict_model import Count, Measured, StrictModel, Text

ReducedPrecision = Literal["bf16", "fp16", "int8"]
REDUCED: tuple[ReducedPrecision, ...] = ("bf16", "fp16", "int8")
# Least cosines that are allowed unless the author says otherwise. The shared mean of an encoder's vectors holds all
# cosines near 1, so both bounds are far stricter than they look: docs/performance.md has what they cost in use.
MIN_COSINES: dict[ReducedPrecision, float] = {"bf16": 0.9999, "fp16": 0.9999, "int8": 0.999}
LEAST_MIN_COSINE = 0.9
# Other machines add in another order than the one that measured.
MARGIN = 2.0
# States are rounded to 8 bits at each step, so single ones stray further; the cosines are what counts.
LARGEST_TOLERANCES: dict[ReducedPrecision, float] = {"bf16": 0.1, "fp16": 0.1, "int8": 0.5}

Tolerance = Annotated[float, Field(gt=0, le=0.5)]
Cosine = Annotated[float, Field(ge=-1, le=1)]
MinCosine = Annotated[float, Field(ge=LEAST_MIN_COSINE, lt=1)]


class Agreement(StrictModel):
    """How far encodings in a reduced precision are from their reference.

    `max_error` is the largest absolute difference of encodings of sequences and of tokens. `least_cosine` is the least
    cosine of encodings of sequences, and `least_token_cosine` that of tokens. `least_centered_cosine` is that of
    encodings of sequences after the mean of the reference was subtracted from both; null for a single sequence.
    `sequences` were compared.
    """

    sequences: Annotated[int, Field(ge=1, le=1 << 53)]
    max_error: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    least_cosine: Cosine
    least_token_cosine: Cosine
    least_centered_cosine: Cosine | None


class Quality(StrictModel):
    """What a ridge regression explains of a measured quantity: the mean r2 over folds.

    `data` names the file and the column of the quantity, `sequences` is how many rows it had. `float32` and `reduced`
    are r2 on encodings in float32 and in the reduced precision.
    """

    data: Text
    sequences: Count
    float32: Annotated[Measured, Field(le=1)]
    reduced: Annotated[Measured, Field(le=1)]


class PrecisionRecord(StrictModel):
    """With which errors an engine may serve the bundle in a reduced precision, and what was measured.

    `tolerance` is the largest absolute error against the float64 reference, `min_cosine` the least cosine of any
    encoding to its reference. `engine` is what computed the encodings that were measured. `golden` compares those of
    the golden sequences with float64, and `others` those of further sequences with the same engine in float32. Where
    what was measured is beyond the bounds, the precision is not allowed. Cosines of tokens of `others` do not count:
    there are hundreds of thousands of them, and the more there are, the lower is the least one. Bundles from before
    this was recorded say nothing of `golden`.
    """

    tolerance: Tolerance
    min_cosine: MinCosine
    engine: Text
    golden: Agreement | None = None
    others: Agreement | None = None
    quality: Quality | None = None

    @property
    def refusal(self) -> str:
        """Why the precision is not allowed, although it was measured; empty where it is."""
        cosines = []
        if self.golden is not None:
            cosines += [("golden sequences", self.golden.least_cosine)]
            cosines += [("tokens of golden sequences", self.golden.least_token_cosine)]
        if self.others is not None:
            cosines += [("other sequences", self.others.least_cosine)]
        for what, cosine in cosines:
            if cosine < self.min_cosine:
                return f"least cosine {cosine:.6f} on {what}, {self.min_cosine:g} demanded"
        if self.golden is not None and self.golden.max_error > self.tolerance:
            return f"error {self.golden.max_error:g} on golden sequences, {self.tolerance:g} at most allowed"
        return ""


class HalfPrecision(StrictModel):
    """What bundles say of half precision that were written before each precision had a record of its own.

    `tolerance` and `min_cosine` are bounds for both fp16 and bf16. `error_fp16` and `error_bf16` are the errors that
    were measured when the bundle was written, in PyTorch on a CPU.
    """

    tolerance: Annotated[float, Field(gt=0, le=0.1)]
    min_cosine: Annotated[float, Field(ge=0.99, lt=1)] = 0.9999
    error_fp16: Measured | None = None
    error_bf16: Measured | None = None

    @property
    def record(self) -> PrecisionRecord:
        """The same as a record of one of the two."""
        return PrecisionRecord(tolerance=self.tolerance, min_cosine=self.min_cosine, engine="PyTorch on a CPU")


def record_of(
    precision: ReducedPrecision,
    golden: Agreement,
    engine: str,
    min_cosine: float,
    others: Agreement | None = None,
    quality: Quality | None = None,
) -> PrecisionRecord:
    """What a manifest says of a precision that was measured: `MARGIN` times the error of the golden sequences is
    allowed, but at most `LARGEST_TOLERANCES`."""
    tolerance = min(LARGEST_TOLERANCES[precision], float(f"{MARGIN * golden.max_error:.1e}"))
    return PrecisionRecord(
        # What is exact needs some tolerance, too.
        tolerance=max(tolerance, 1e-6),
        min_cosine=min_cosine,
        engine=engine,
        golden=golden,
        others=others,
        quality=quality,
    )

"""Every assumption of every bound: a short code that travels with the number, and the one sentence that explains it.

>>> explain("code-first")
'the code (the prior) was fixed before the sample was drawn'
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from theory.arguments import checked
from theory.checks import check_text

__all__ = ["ASSUMPTIONS", "assume", "check_codes", "explain"]

_SENTENCES: dict[str, str] = {}


class _Assumptions(Mapping[str, str]):
    """A mapping from codes to sentences that is read here and written by ``assume`` alone."""

    def __getitem__(self, code: str) -> str:
        return _SENTENCES[code]

    def __iter__(self) -> Iterator[str]:
        return iter(_SENTENCES)

    def __len__(self) -> int:
        return len(_SENTENCES)


ASSUMPTIONS = _Assumptions()
"""Code -> sentence, in the order in which they were stated."""


@checked
def assume(code: str, sentence: str) -> str:
    """State an assumption, so that bounds may name it by its code; a package outside does it beside its bound.

    Returns:
        The code.

    Raises:
        ValueError: if the code says something else already, or is not a short word without spaces.
    """
    check_text("sentence", sentence)
    if not 0 < len(code) <= 16 or not code.replace("-", "").isalnum():
        raise ValueError(f"code must be a word of at most 16 letters, digits and dashes, got {code!r}")
    if _SENTENCES.setdefault(code, sentence) != sentence:
        raise ValueError(f"code {code!r} says already: {_SENTENCES[code]}")
    return code


@checked
def explain(code: str) -> str:
    """Return what a code says.

    Raises:
        ValueError: if no assumption has it; the message lists the codes.
    """
    (found,) = check_codes("code", (code,))
    return _SENTENCES[found]


def check_codes(name: str, codes: tuple[str, ...]) -> tuple[str, ...]:
    """Return codes if each is known.

    Raises:
        ValueError: if one is not; the message lists the codes.
    """
    for code in codes:
        if code not in _SENTENCES:
            known = ", ".join(_SENTENCES)
            raise ValueError(f"{name} must hold codes that assume() stated, got {code!r}; known: {known}")
    return codes


MEAN = assume("mean", "holds for |E gen|, the mean over the sample and the training's randomness")
SUB_GAUSSIAN = assume("sub-gaussian", "the loss is sigma-sub-Gaussian for every fixed weight (in [0, 2 sigma]: always)")
STORED = assume("stored", "every trained number is stored in the stated bits")
ADAPTER_ONLY = assume("adapter-only", "only the adapter's numbers depend on the sample (no head)")
NO_BACKBONE = assume("no-backbone", "Phi_W0 is left out: as derived in the paper it bounds the network without W0")
PHI_ALL_RUNS = assume("phi-all-runs", "Phi_W0 is its mean over runs, or taken at norms that no run exceeds")
INDEPENDENT = assume("w0-first", "W0 and every frozen or random factor were fixed independently of the sample")
COUNTED = assume("counted", "the bits describe everything that depends on the sample")
FEED_FORWARD = assume("feed-forward", "the network is feed-forward, as in theorem 1, with inputs within the radius")
REACHABLE = assume("reachable", "the cap of the change holds for every update that training can reach, not for one")
DIAGNOSTIC = assume(
    "diagnostic", "norms were measured on this run: a diagnostic, unless they were enforced in training"
)
MERGED_STORED = assume("merged-stored", "the merged weights are stored in the stated bits")
GAUGE_FIRST = assume("gauge-first", "the update is quantised after its gauge is fixed, and that network is evaluated")
CODE_FIRST = assume("code-first", "the code (the prior) was fixed before the sample was drawn")
FIXED = assume("fixed", "the predictor was fixed before these examples were looked at")
IN_RANGE = assume("range", "the loss lies in [0, loss_range]")
ZERO_ONE = assume("zero-one", "the loss is 0 or 1")
IID = assume("iid", "the examples are independent draws from one law")
DRAWN = assume("drawn", "the sample was drawn uniformly without replacement by a seed published before the look")
CLUSTERS_IID = assume("iid-clusters", "whole clusters are independent draws from one law; inside they may depend")
SUPERSAMPLE = assume("supersample", "each row's training example was picked by a fair bit, independently")
ESTIMATED = assume("estimated", "the information was estimated: an estimate of a bound, no guarantee")
SUBSAMPLED = assume("subsampled", "the subsample was drawn uniformly, after the predictor was fixed")
UNLABELLED = assume("unlabelled", "the unlabelled examples are independent of both predictors")
POSTERIOR = assume("posterior", "it is the mean over the posterior; the prior was fixed before the sample")
NOISY = assume("noisy", "each step adds Gaussian noise, and no gradient is longer than stated")
FOLDS = assume("folds", "link j was trained on folds 1 to j, its code fixed before fold j was drawn")

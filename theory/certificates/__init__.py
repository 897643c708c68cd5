"""The public face of the certificates: guarantees for one run, with probability 1 - delta over its sample.

A certificate says: with probability at least 1 - delta over the draw of n i.i.d. examples, made after
the code (the prior) was fixed, the risk of the predictor at hand is at most the number. It is vacuous
when the number is not below the loss's range, and says little when it is not below the error of always
guessing the commonest class.
"""

from __future__ import annotations

from theory.certificates.chains import fold_bound, recursive_bound
from theory.certificates.codebook import Grid, SubspaceCode, decode_subspace, encode_subspace
from theory.certificates.coding import CodeError, CodeReader, CodeWriter
from theory.certificates.excess import empirical_bernstein, excess_loss_bound
from theory.certificates.occam import (
    choice_bits,
    disagreement_bound,
    kraft_sum,
    occam_bound,
    spare_bits,
    subsampled_bound,
)
from theory.certificates.pac_bayes import gaussian_divergence, gibbs_risk_upper, pac_bayes_kl_bound
from theory.certificates.quantize import Gauge, fit_levels, fix_gauge, nearest, uniform_levels
from theory.certificates.smoothing import SmoothedBound, cross_entropy_bound, smoothed_cross_entropy, smoothed_range
from theory.kl import binary_kl, kl_lower, kl_upper

__all__ = [
    "CodeError",
    "CodeReader",
    "CodeWriter",
    "Gauge",
    "Grid",
    "SmoothedBound",
    "SubspaceCode",
    "binary_kl",
    "choice_bits",
    "cross_entropy_bound",
    "decode_subspace",
    "disagreement_bound",
    "empirical_bernstein",
    "encode_subspace",
    "excess_loss_bound",
    "fit_levels",
    "fix_gauge",
    "fold_bound",
    "gaussian_divergence",
    "gibbs_risk_upper",
    "kl_lower",
    "kl_upper",
    "kraft_sum",
    "nearest",
    "occam_bound",
    "pac_bayes_kl_bound",
    "recursive_bound",
    "smoothed_cross_entropy",
    "smoothed_range",
    "spare_bits",
    "subsampled_bound",
    "uniform_levels",
]

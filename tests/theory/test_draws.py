"""Draws by key: normal, and the same bits whoever draws."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from theory.draws import draw_normal

_HASH = "import hashlib, sys; from theory.draws import draw_normal; "
_HASH += "print(hashlib.sha256(draw_normal(200_000, key='bits', std=0.02).tobytes()).hexdigest())"


def test_draws_are_normal_with_the_asked_spread():
    drawn = draw_normal(50_000, key="spread", std=0.02).astype(np.float64)
    assert stats.kstest(drawn / 0.02, "norm").pvalue > 1e-3
    assert drawn.std() == pytest.approx(0.02, rel=5 / np.sqrt(2 * 50_000))  # five standard errors of a deviation
    assert np.abs(drawn).max() / 0.02 < 6  # P(one of 50,000 above 6) = 1e-4


def test_another_key_is_an_independent_draw():
    first, second = draw_normal(20_000, key="0/q/0"), draw_normal(20_000, key="0/q/1")
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(20_000)
    assert (first == draw_normal(20_000, key="0/q/0")).all()


@pytest.mark.parametrize("arguments", [{"std": -1.0}, {"std": float("nan")}, {"std": float("inf")}])
def test_a_spread_that_is_none_is_refused(arguments):
    with pytest.raises(ValueError, match="std must be a finite number of at least 0"):
        draw_normal(2, key="", **arguments)


def test_a_negative_size_is_refused():
    with pytest.raises(ValueError, match="shape must be an integer of at least 0"):
        draw_normal(2, -1, key="")


@pytest.mark.committed
def test_a_processor_without_fused_products_draws_the_same_bits():
    """The mathematics of glibc without FMA and AVX2 rounds float64 otherwise; the float32 result must not."""
    plain = {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2_Usable,-FMA_Usable,-AVX2,-FMA,-FMA4"}
    done = subprocess.run(
        [sys.executable, "-c", _HASH], env=os.environ | plain, check=True, capture_output=True, text=True
    )
    here = hashlib.sha256(draw_normal(200_000, key="bits", std=0.02).tobytes()).hexdigest()
    assert done.stdout.strip() == here
    assert here == "e2064810f1e135e18a34da3591be138fe15dec2bf312e0290ea29bcb2de5c9db"

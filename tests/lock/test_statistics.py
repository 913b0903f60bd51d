"""What is drawn from keys is distributed as it should be. The keys are fixed, so that no test ever flickers; each test
refuses at a p-value below ALARM, which one honest generator in 100,000 would meet."""

import math
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from cmxlib import SecretKey

ALARM = 1e-5


def keys(n):
    return map(SecretKey.for_experiment, range(n))


@pytest.mark.parametrize("n", [4, 5])
def test_every_permutation_of_a_few_things_is_as_frequent(n):
    draws = 50 * math.factorial(n)
    seen = Counter(tuple(key.permutation(n, purpose="shuffle").tolist()) for key in keys(draws))
    counts = list(seen.values()) + [0] * (math.factorial(n) - len(seen))
    assert stats.chisquare(counts).pvalue > ALARM


def test_at_the_size_of_a_patch_places_and_fixed_points_are_those_of_uniform_permutations():
    orders = np.array([key.permutation(48, purpose="shuffle") for key in keys(2000)])
    for place in (0, 1, 24, 46, 47):  # the ends are where Fisher and Yates' shuffle is usually got wrong
        assert stats.chisquare(np.bincount(orders[:, place], minlength=48)).pvalue > ALARM
    # The number of fixed points is all but Poisson with mean 1: at 48 entries the two differ by less than 1e-50.
    fixed = np.bincount((orders == np.arange(48)).sum(1), minlength=6)
    chances = stats.poisson.pmf(range(5), 1)
    expected = 2000 * np.append(chances, 1 - chances.sum())
    assert stats.chisquare(np.append(fixed[:5], fixed[5:].sum()), expected).pvalue > ALARM


def test_bits_are_fair_at_every_place_and_in_pairs():
    bits = np.array([key.bits(48, purpose="flip") for key in keys(2000)]).astype(int)
    counts = bits.sum(0)
    assert stats.chi2.sf(((counts - 1000) ** 2 / 500).sum(), 48) > ALARM
    signs = 2 * bits - 1
    pairs = (signs.T @ signs)[np.triu_indices(48, 1)] / math.sqrt(2000)
    assert stats.chi2.sf((pairs**2).sum(), pairs.size) > ALARM


@pytest.mark.parametrize(
    "other",
    [
        lambda seed: SecretKey.for_experiment(seed).permutation(48, purpose="shuffle again"),
        lambda seed: SecretKey.for_experiment(seed).subkey("a").permutation(48, purpose="shuffle"),
        lambda seed: SecretKey.for_experiment(seed + 1).permutation(48, purpose="shuffle"),
    ],
    ids=["another purpose", "a subkey", "the next key"],
)
def test_draws_of_different_purposes_and_keys_are_independent(other):
    draws = np.array([(key.permutation(48, purpose="shuffle"), other(seed)) for seed, key in enumerate(keys(1000))])
    agreements = (draws[:, 0] == draws[:, 1]).sum()  # all but Poisson with a mean of one a draw
    assert min(stats.poisson.cdf(agreements, 1000), stats.poisson.sf(agreements - 1, 1000)) > ALARM / 2
    covariances = ((draws[:, 0] - 23.5) * (draws[:, 1] - 23.5)).mean(1)
    assert stats.ttest_1samp(covariances, 0).pvalue > ALARM


def test_close_passphrases_give_unrelated_secrets():
    """Half of the bits change with one letter. Few, for each derivation is made costly by intention."""
    streams = [
        np.unpackbits(np.frombuffer(SecretKey.from_passphrase(word, salt="same salt").stream(4096, purpose="x"), "u1"))
        for word in ("correct horse", "correct horsf", "Correct horse")
    ]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert stats.binomtest(int((streams[a] != streams[b]).sum()), streams[0].size).pvalue > ALARM


def test_orthogonal_matrices_are_uniform_in_the_sense_of_haar():
    """Entries of a Haar matrix: their squares are Beta(1/2, (n-1)/2). The trace and that of the square have mean 0 and
    1 and variance 1 and 2 (Diaconis and Shahshahani 1994), which hold the angles of the eigenvalues apart: QR without
    the correction of signs fails here."""
    n, draws = 12, 2000
    matrices = np.array([key.orthogonal(n, purpose="orthogonal") for key in keys(draws)])
    for row, column in ((0, 0), (0, n - 1), (n - 1, 0), (n - 1, n - 1)):
        assert stats.kstest(matrices[:, row, column] ** 2, stats.beta(0.5, (n - 1) / 2).cdf).pvalue > ALARM
        assert stats.binomtest(int((matrices[:, row, column] > 0).sum()), draws).pvalue > ALARM
    for power, mean, variance in ((matrices, 0, 1), (matrices @ matrices, 1, 2)):
        traces = np.trace(power, axis1=1, axis2=2)
        assert 2 * stats.norm.sf(abs(traces.mean() - mean) / math.sqrt(variance / draws)) > ALARM
    assert stats.binomtest(int((np.linalg.det(matrices) > 0).sum()), draws).pvalue > ALARM
    # The angles of complex eigenvalues repel each other but have no favoured direction in the middle of (0, pi).
    angles = np.abs(np.angle(np.linalg.eigvals(matrices))).ravel()
    middle = angles[(angles > 1) & (angles < math.pi - 1)]
    lower = int((middle < math.pi / 2).sum())
    assert 2 * stats.norm.sf(abs(lower - middle.size / 2) / math.sqrt(middle.size / 4)) > ALARM

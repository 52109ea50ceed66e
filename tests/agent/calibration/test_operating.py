from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from agent.calibration.noise import Noise, noises_of
from agent.calibration.operating import characteristics, rate_of, unpaired_runs_needed
from agent.calibration.rules import best_ever, sequential, unpaired_fixed
from agent.statistics.paired_test import Design
from tests.agent.calibration.pools import made_up


@pytest.mark.parametrize(
    ("count", "trials", "low", "high"),
    [(0, 10, 0.0, 0.3085), (5, 10, 0.1871, 0.8129), (10, 10, 0.6915, 1.0), (1, 20, 0.0013, 0.2487)],
)
def test_a_rate_has_the_interval_of_the_published_tables(
    count: int, trials: int, low: float, high: float
) -> None:
    rate = rate_of(count, trials)

    assert [rate.low, rate.high] == pytest.approx([low, high], abs=5e-5)
    assert rate.share == count / trials


@pytest.mark.parametrize(("count", "trials"), [(0, 0), (3, 2), (-1, 2)])
def test_a_count_outside_of_its_trials_is_refused(count: int, trials: int) -> None:
    with pytest.raises(ValueError, match="one trial or more"):
        rate_of(count, trials)


def standard(unpaired_sd: float = 1.0) -> Noise:
    """Return noise whose unpaired difference has this sd: the paired one adds nothing."""
    scores = np.random.default_rng(31).standard_normal(200)
    scores *= unpaired_sd / math.sqrt(2.0) / scores.std(ddof=1)
    return Noise(name="standard", reference=scores, difference=np.zeros(200))


@pytest.mark.parametrize(
    ("gain_sds", "power", "runs"),
    # One-sided .05, per group. Checked by simulating the t-test at these sizes and one below.
    [(0.5, 0.8, 51), (0.5, 0.9, 70), (0.8, 0.8, 21), (1.0, 0.95, 23), (2.0, 0.8, 4), (3.0, 0.9, 3)],
)
def test_an_unpaired_test_needs_the_runs_that_simulation_finds_enough(
    gain_sds: float, power: float, runs: int
) -> None:
    noise = standard(math.sqrt(2.0))  # each group has sd 1

    assert unpaired_runs_needed([noise], gain_bpb=gain_sds, power=power) == runs


def test_a_gain_out_of_reach_of_an_unpaired_test_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 65536 runs"):
        unpaired_runs_needed([standard()], gain_bpb=1e-4, power=0.9)
    with pytest.raises(ValueError, match="positive gain"):
        unpaired_runs_needed([standard()], gain_bpb=0.0, power=0.9)


def points(
    gains: list[float], *, sd: float, trials: int = 10_000
) -> dict[float, tuple[float, float]]:
    noises = [noise.at_sd(sd) for noise in noises_of(made_up(seeds=400))]
    found = characteristics(
        sequential(Design()), noises, gains, trials=trials, rng=np.random.default_rng(32)
    )
    return {point.gain_bpb: (point.accepted.share, point.mean_runs / 2.0) for point in found}


def test_the_judge_finds_a_gain_of_one_paired_sd_within_sixteen_pairs_on_average() -> None:
    share, pairs = points([0.005], sd=0.005)[0.005]

    assert share >= 0.9  # 0.93, twelve standard errors above
    assert pairs <= 16.0  # 10


def test_the_judge_finds_two_thousandths_where_the_paired_sd_is_one_and_a_half() -> None:
    share, _ = points([0.002], sd=0.0015)[0.002]

    assert share >= 0.9


def test_the_judge_is_fooled_at_most_at_the_nominal_rate() -> None:
    trials = 10_000
    share, _ = points([0.0], sd=0.005, trials=trials)[0.0]

    assert share * trials <= stats.binom.isf(1e-4, trials, 0.05)  # false-alarm rate 1e-4


def test_a_decision_costs_a_quarter_or_less_of_an_unpaired_test_of_the_same_power() -> None:
    found = points([0.0, 0.005], sd=0.005)
    noises = [noise.at_sd(0.005) for noise in noises_of(made_up(seeds=400))]

    each = unpaired_runs_needed(noises, gain_bpb=0.005, power=found[0.005][0])

    assert found[0.0][1] + found[0.005][1] <= 2 * each / 4.0
    rule = unpaired_fixed(each)
    rng = np.random.default_rng(33)
    nothing, gain = characteristics(rule, noises, [0.0, 0.005], trials=2_000, rng=rng)
    assert nothing.accepted.low <= 0.05 <= nothing.accepted.high + 0.01
    assert gain.accepted.share == pytest.approx(found[0.005][0], abs=0.03)


def test_one_run_against_a_record_is_fooled_every_other_time_and_reports_a_gain() -> None:
    (point,) = characteristics(
        best_ever(), noises_of(made_up()), [0.0], trials=4_000, rng=np.random.default_rng(34)
    )

    assert point.accepted.low <= 0.5 <= point.accepted.high
    # Half the time the better of two runs with sd .012 and .013: sqrt(2/pi) of .0177.
    assert point.mean_measured_bpb == pytest.approx(-0.0141, rel=0.1)


def test_a_rule_that_never_accepts_reports_no_effect() -> None:
    (point,) = characteristics(
        sequential(Design(smallest_gain_bpb=10.0)),
        noises_of(made_up()),
        [0.0],
        trials=50,
        rng=np.random.default_rng(35),
    )

    assert point.accepted.count == 0
    assert math.isnan(point.mean_measured_bpb)

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from agent.calibration.plants import Kind
from agent.calibration.real import Programme, facts_of, results, run_trials, trial_count
from agent.calibration.real_tables import faults, real_tables
from agent.calibration.record import Record
from agent.calibration.trial import Trial
from sandbox.baseline import seed_program
from tests.agent.calibration.test_record import TRIAL
from tests.agent.fakes import FakePool, settings

PROGRAMME = Programme(tuned=seed_program("micro"), aa=3, repeats=1, effect_pairs=2, bad_trials=1)
LUCK = "same but for luck"


def recorded(trials: Sequence[Trial]) -> Record:
    record = Record(None, {})
    for trial in trials:
        record.add_trial(trial)
    return record


async def test_what_the_record_holds_is_not_done_again(tmp_path: Path) -> None:
    pool, path = FakePool(), tmp_path / "record"
    facts = facts_of(pool, PROGRAMME, settings())
    told: list[Trial] = []
    with Record(path, facts) as record:
        for name in ("identical", "renamed", "reordered", "times one", "rounded otherwise"):
            record.add_trial(replace(TRIAL, plant=name))
        for name in ("uphill", "lr x5", "lr x0.1", "one iteration", "not orthogonal"):
            record.add_trial(replace(TRIAL, plant=name))
        for name in ("matrices stand still", "lr back from x0.9", "lr back from x0.8"):
            record.add_trial(replace(TRIAL, plant=name))
        for number in range(3):
            record.add_trial(replace(TRIAL, plant=LUCK, number=number))

        await run_trials(pool, PROGRAMME, record, settings=settings(), watch=told.append)

    assert [trial.plant for trial in told] == ["lr back from x0.7"]
    with Record(path, facts) as record:
        assert len(record.trials) == trial_count(PROGRAMME) == 17
        assert {name: len(found) for name, found in record.differences.items()} == {
            f"lr back from x{factor}": 2 for factor in (0.9, 0.8, 0.7)
        }
        jobs = len(pool.jobs)
        await run_trials(pool, PROGRAMME, record, settings=settings(), watch=told.append)
    assert len(pool.jobs) == jobs


def test_results_count_what_became_of_each_plant() -> None:
    record = recorded(
        [
            replace(TRIAL, plant=LUCK, number=0),
            replace(TRIAL, plant=LUCK, number=1, ended_at="screen", race_pairs=0, runs=4),
            replace(
                TRIAL,
                plant=LUCK,
                number=2,
                ended_at="replicate",
                promoted=True,
                runs=60,
                race_pairs=10,
                race_effect_bpb=-0.004,
                claimed=False,
            ),
            replace(TRIAL, plant="lr back from x0.8", promoted=True, claimed=True),
        ]
    )
    record.add_differences("lr back from x0.8", (-0.001, -0.003))

    gain, luck = results(PROGRAMME, record)

    assert (luck.kind, luck.promoted.count, luck.promoted.trials) == (Kind.CHANCE, 1, 3)
    assert (luck.claimed.count, luck.mean_pairs, luck.mean_runs) == (0, 6.0, 24.0)
    assert luck.ends == {"race": 1, "screen": 1, "replicate": 1}
    assert (luck.mean_reported_bpb, luck.effect) == (-0.004, None)
    assert (gain.name, gain.claimed.count) == ("lr back from x0.8", 1)
    assert gain.effect is not None
    # Two differences: 12.706 standard errors of .001.
    assert gain.effect.mean_bpb == pytest.approx(-0.002)
    assert gain.effect.low_bpb == pytest.approx(-0.014706, abs=1e-6)
    assert gain.effect.sd_bpb == pytest.approx(0.001 * math.sqrt(2.0))


def test_a_rate_is_a_fault_only_where_its_interval_lies_above_the_nominal_one() -> None:
    def lucky(promoted: int) -> tuple[str, ...]:
        trials = [
            replace(TRIAL, plant=LUCK, number=n, promoted=n < promoted, claimed=None)
            for n in range(100)
        ]
        return faults(results(replace(PROGRAMME, aa=100), recorded(trials)), 0.05)

    assert lucky(9) == ()
    assert lucky(11) == (
        "false promotions: 11.00 % (5.62 to 18.83) of trials, nominally 5 % at most",
    )


def test_a_promoted_bad_optimizer_is_a_fault_and_a_promoted_gain_is_none() -> None:
    bad = recorded([replace(TRIAL, promoted=True, claimed=False)])
    gain = recorded([replace(TRIAL, plant="lr back from x0.9", promoted=True, claimed=False)])

    found = results(PROGRAMME, bad)

    assert faults(found, 0.05) == ("uphill, which is no better, was promoted in 1 trial",)
    assert "Fault: uphill" in real_tables(found, 0.05)
    assert faults(results(PROGRAMME, gain), 0.05) == ()


def test_tables_keep_the_two_error_rates_apart() -> None:
    trials = [replace(TRIAL, plant=LUCK, number=n) for n in range(3)]

    text = real_tables(results(PROGRAMME, recorded(trials)), 0.05)

    assert "3 runs: false promotions 0.00 % (0.00 to 70.76), nominally 5 % at most" in text
    assert "false claims 0.00 % (0.00 to 70.76), nominally 1 % at most" in text
    assert "| chance: same but for luck | 3 | 0.00 % (0.00 to 70.76) |" in text
    assert real_tables((), 0.05) == "No trial was finished.\n"

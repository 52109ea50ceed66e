from __future__ import annotations

from pathlib import Path

import pytest

from agent.track3.submissions import collect
from agent.track3.verdicts import Judgement, Verdict, compare, judge
from tests.agent.track3_logs import STEPS, curve, run_text, validation, whole_log, write_runs

NAN = "step:{}/3000 val_loss:nan train_time:9.1s step_avg:72.00ms\n"


def judged(folder: Path, step: int | None = None) -> Judgement:
    (submission,) = collect([folder]).submissions
    return judge(submission, step)


def add(folder: Path, text: str, name: str = "more.txt") -> None:
    (folder / name).write_text(text, encoding="utf-8")


def test_a_submission_passes_at_the_earliest_common_step_at_which_the_rule_holds(
    tmp_path: Path,
) -> None:
    write_runs(tmp_path, [3.2770, 3.2771, 3.2775, 3.2772])

    judgement = judged(tmp_path)

    # The mean at 3000 is 3.2772 and .0004 more per 25 steps: 3.278 at 2950 is just enough for 4.
    assert judgement.verdict is Verdict.PASS
    assert judgement.result is not None
    assert (judgement.result.step, judgement.result.n) == (2950, 4)
    assert float(judgement.result.mean) == pytest.approx(3.278)


def test_a_claimed_step_is_the_one_that_counts(tmp_path: Path) -> None:
    write_runs(tmp_path, [3.2770, 3.2771, 3.2775, 3.2772])

    assert judged(tmp_path, 2950).verdict is Verdict.PASS
    assert judged(tmp_path, 2925).verdict is Verdict.FAIL
    assert judged(tmp_path, 2940).verdict is Verdict.MALFORMED


def test_a_fail_shows_the_last_common_step_and_how_many_runs_its_mean_would_need(
    tmp_path: Path,
) -> None:
    write_runs(tmp_path, [3.2785, 3.2786, 3.2787])

    judgement = judged(tmp_path)

    assert judgement.verdict is Verdict.FAIL
    assert judgement.result is not None
    assert judgement.result.step == 3000
    assert judgement.reasons == ("the mean at step 3000 would need 9 runs, there are 3",)


def test_a_mean_above_the_target_needs_more_than_runs(tmp_path: Path) -> None:
    write_runs(tmp_path, [3.28, 3.281])

    assert judged(tmp_path).reasons == ("the mean at step 3000 is not below 3.28",)


def test_step_0_is_no_step_to_pass_at(tmp_path: Path) -> None:
    add(tmp_path, validation(0, 3.0) + validation(125, 4.0))

    assert judged(tmp_path).verdict is Verdict.FAIL


def test_repeats_do_not_make_a_pass(tmp_path: Path) -> None:
    write_runs(tmp_path, [3.2785] * 9)

    judgement = judged(tmp_path)

    assert judgement.verdict is Verdict.FAIL
    assert judgement.result is not None
    assert judgement.result.n == 1
    assert "repeats counted once: 8" in judgement.notes[0]


def test_runs_that_stop_one_by_one_below_the_target_are_no_pass(tmp_path: Path) -> None:
    for number, end in enumerate((2950, 2975, 3000)):
        losses = {step: loss + 0.002 for step, loss in curve(3.279).items() if step <= end}
        losses |= {end: 3.2765 + number / 10_000}
        add(tmp_path, run_text(losses), f"{number}.txt")

    judgement = judged(tmp_path)

    assert judgement.verdict is Verdict.MALFORMED
    assert judgement.reasons[0] == (
        f"{tmp_path / '0.txt'}:2: this run stops at step 2950 of 3000, others go on to 3000; "
        "all must be compared at one step"
    )
    assert len(judgement.reasons) == 2


def test_a_run_that_crashed_early_is_not_left_out(tmp_path: Path) -> None:
    write_runs(tmp_path, [3.2750, 3.2755])
    add(tmp_path, run_text(curve(3.276, steps=STEPS[:2])))

    assert judged(tmp_path).verdict is Verdict.MALFORMED
    assert judged(tmp_path, 3000).verdict is Verdict.MALFORMED


def test_runs_of_different_length_pass_at_a_step_all_of_them_have(tmp_path: Path) -> None:
    write_runs(tmp_path, [3.2750, 3.2755, 3.2752, 3.2753])
    early = {step: loss for step, loss in curve(3.2751).items() if step <= 2975}
    add(tmp_path, run_text(early))

    judgement = judged(tmp_path)

    assert judgement.verdict is Verdict.PASS
    assert judgement.result is not None
    assert judgement.result.n == 5
    assert "runs end at different steps: 2975, 3000" in judgement.notes


def test_only_steps_common_to_all_runs_count(tmp_path: Path) -> None:
    write_runs(tmp_path, [3.2750, 3.2755])
    add(tmp_path, run_text(curve(3.2751, steps=(0, 250, 2990, 3000))))

    judgement = judged(tmp_path)

    assert judgement.result is not None
    assert (judgement.verdict, judgement.result.step) == (Verdict.PASS, 3000)


def test_runs_without_a_common_step_are_malformed(tmp_path: Path) -> None:
    write_runs(tmp_path, [3.2750])
    add(tmp_path, run_text(curve(3.2751, steps=(0, 100, 2999))))

    judgement = judged(tmp_path)

    assert judgement.verdict is Verdict.MALFORMED
    assert "no step at which this run was validated" in judgement.reasons[0]


def test_a_diverged_run_fails_its_submission(tmp_path: Path) -> None:
    write_runs(tmp_path, [3.2700, 3.2701])
    text = validation(0, 10.82584) + "".join(NAN.format(step) for step in STEPS[1:])
    add(tmp_path, text)

    judgement = judged(tmp_path)

    assert (judgement.verdict, judgement.result) == (Verdict.FAIL, None)
    assert judgement.reasons == (
        f"{tmp_path / 'more.txt'}:1: the loss of this run is nan at step 3000",
    )


def test_a_pass_that_later_steps_take_back_is_noted(tmp_path: Path) -> None:
    write_runs(tmp_path, [3.2700, 3.2701])
    losses = curve(3.2702) | {2975: 3.4, 3000: 3.5}
    add(tmp_path, run_text(losses))

    judgement = judged(tmp_path)

    assert judgement.verdict is Verdict.PASS
    assert "the rule no longer holds at step 2975" in judgement.notes


def test_a_piece_of_a_run_is_malformed(tmp_path: Path) -> None:
    write_runs(tmp_path, [3.2750])
    add(tmp_path, run_text({2975: 3.2761, 3000: 3.2755}))

    judgement = judged(tmp_path)

    assert judgement.verdict is Verdict.MALFORMED
    assert "more.txt:2: this run begins at step 2975" in judgement.reasons[0]


def test_a_run_may_begin_at_its_first_validation_after_step_0(tmp_path: Path) -> None:
    for number, final in enumerate((3.2750, 3.2755)):
        losses = {step: loss for step, loss in curve(final).items() if step}
        add(tmp_path, run_text(losses), f"{number}.txt")

    assert judged(tmp_path).verdict is Verdict.PASS


def test_a_seed_run_twice_with_different_losses_is_malformed(tmp_path: Path) -> None:
    for number, (seed, final) in enumerate([(1, 3.275), (2, 3.2751), (1, 3.2752)]):
        add(tmp_path, whole_log(curve(final), seed=seed), f"{number}.txt")

    judgement = judged(tmp_path)

    assert judgement.verdict is Verdict.MALFORMED
    assert "2.txt" in judgement.reasons[0]
    assert "seed 1 was run at" in judgement.reasons[0]


def test_a_bad_line_makes_its_submission_malformed_and_is_named(tmp_path: Path) -> None:
    write_runs(tmp_path, [3.2700, 3.2701])
    add(tmp_path, validation(125, 4.5) + "step:250/3000 val_loss:fine\n")

    judgement = judged(tmp_path)

    assert judgement.verdict is Verdict.MALFORMED
    assert judgement.reasons[0].startswith(f"{tmp_path / 'more.txt'}:2: ")


def test_runs_of_different_training_scripts_are_noted(tmp_path: Path) -> None:
    for seed, more in enumerate(["", "lr = 0.1"]):
        add(tmp_path, whole_log(curve(3.275 + seed / 1e4), seed=seed, more=more), f"{seed}.txt")

    judgement = judged(tmp_path)

    assert judgement.verdict is Verdict.PASS
    assert "the logs hold 2 different training scripts, seeds aside" in judgement.notes


def test_a_spread_wider_than_the_rule_assumes_is_noted(tmp_path: Path) -> None:
    wide = judged(write_runs(tmp_path / "wide", [3.270, 3.271, 3.276, 3.277]))
    usual = judged(write_runs(tmp_path / "usual", [3.270, 3.271, 3.272, 3.273]))

    assert [note for note in wide.notes if "is this one setting?" in note]
    assert not [note for note in usual.notes if "is this one setting?" in note]


def test_submissions_are_compared_each_at_its_own_step(tmp_path: Path) -> None:
    fast = judged(write_runs(tmp_path / "fast", [3.2750, 3.2752, 3.2754, 3.2756]))
    slow = judged(write_runs(tmp_path / "slow", [3.2778, 3.2779, 3.2781, 3.2782]))
    bad = judged(write_runs(tmp_path / "bad", [3.29]))

    forth, back = compare(fast, slow), compare(slow, fast)

    assert fast.result is not None
    assert slow.result is not None
    assert (fast.result.step, slow.result.step) == (2875, 3000)
    # Loss 3.2773 against 3.278 and 125 steps fewer: (.0007 + .005625) / √(1/4 + 1/4).
    assert forth.significance is not None
    assert forth.significance.statistic == pytest.approx(0.0089449, abs=1e-6)
    assert (forth.verdict, back.verdict) == (Verdict.PASS, Verdict.FAIL)
    assert compare(slow, bad).verdict is Verdict.PASS


def test_a_malformed_submission_cannot_be_compared(tmp_path: Path) -> None:
    good = judged(write_runs(tmp_path / "good", [3.275]))
    add(tmp_path, "step:250/3000 val_loss:fine\n")
    malformed = judged(tmp_path / "more.txt")

    comparison = compare(good, malformed)

    assert (comparison.verdict, comparison.significance) == (Verdict.MALFORMED, None)

from __future__ import annotations

from pathlib import Path

import pytest

from agent.guardrails import Guardrails
from agent.settings import SettingsError, load_settings, resume_settings, to_toml
from agent.statistics.paired_test import Design


def config(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_any_budget_a_run_gets_half_an_hour() -> None:
    assert load_settings({}).budget_hours == 0.5


def test_a_budget_in_training_runs_sets_no_hours() -> None:
    assert load_settings({"budget_evals": 9}).budget_hours is None


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = config(tmp_path, "seed = 3\nprofile = 'micro'\n")

    settings = load_settings({"seed": 4}, file)

    assert (settings.seed, settings.profile) == (4, "micro")


def test_scopes_can_be_given_as_text_or_as_a_list(tmp_path: Path) -> None:
    file = config(tmp_path, "scope = ['muon', 'adamw']")

    assert load_settings({"scope": "muon, adamw"}).scopes == {"muon", "adamw"}
    assert load_settings({}, file).scopes == {"muon", "adamw"}


def test_settings_survive_being_written_and_read_back(tmp_path: Path) -> None:
    settings = load_settings(
        {"budget_evals": 7, "data": Path('odd "name"\\x'), "scope": "policy", "seed": 5}
    )

    assert load_settings({}, config(tmp_path, to_toml(settings))) == settings


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"budget_hours": 0.0}, "budget_hours cannot be 0.0: .*greater than 0"),
        ({"budget_hours": -1.0}, "budget_hours cannot be -1.0"),
        ({"budget_hours": float("nan")}, "budget_hours cannot be nan"),
        ({"budget_evals": 0}, "budget_evals cannot be 0"),
        ({"workers": 0}, "workers cannot be 0"),
        ({"seed": -1}, "seed cannot be -1"),
        ({"profile": "cpi"}, "profile cannot be 'cpi': .*'micro', 'cpu' or 'gpu'"),
        ({"proposer": "magic"}, "proposer cannot be 'magic': .*'operators'"),
        ({"scope": "muom"}, "scope cannot be 'muom': .*'muon'"),
        ({"scope": ","}, "scope cannot be .*: name at least one scope"),
        ({"required_sandbox": "S9"}, "required_sandbox cannot be 'S9'"),
        ({"max_pairs": 3}, "max_pairs cannot be 3: 3 pairs cannot be accepted at alpha 0.05"),
        ({"max_pairs": 0}, "max_pairs cannot be 0"),
        ({"smallest_gain": -0.1}, "smallest_gain cannot be -0.1"),
        ({"sample_share": 1.5}, "sample_share cannot be 1.5"),
        ({"max_cpu_ratio": 0.5}, "max_cpu_ratio cannot be 0.5"),
        ({"max_setback": 0.0}, "max_setback cannot be 0.0"),
        ({"device": "gpu0"}, "device cannot be 'gpu0': there are cpu, cuda, cuda:0, cuda:1"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_in_one_sentence(
    flags: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        load_settings(flags)

    assert "\n" not in str(caught.value)


def test_a_misspelt_key_is_refused_with_the_likely_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"unknown setting 'buget_hours'.*'budget_hours'"):
        load_settings({}, config(tmp_path, "buget_hours = 1"))


def test_a_key_like_no_other_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"unknown setting 'qqq'.*budget_evals"):
        load_settings({}, config(tmp_path, "qqq = 1"))


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="not a TOML file"):
        load_settings({}, config(tmp_path, "seed: 1"))


def test_a_file_of_brackets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nested too deeply"):
        load_settings({}, config(tmp_path, "a=" + "[" * 100_000))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="readable file"):
        load_settings({}, tmp_path / "none.toml")


def test_resuming_keeps_what_was_recorded_and_takes_the_new_budget() -> None:
    recorded = load_settings({"seed": 8, "budget_hours": 2.0}).model_dump(mode="json")

    settings = resume_settings(recorded, {"budget_evals": 10, "workers": 3})

    assert (settings.seed, settings.workers) == (8, 3)
    assert (settings.budget_evals, settings.budget_hours) == (10, None)


def test_resuming_without_a_budget_names_none() -> None:
    recorded = load_settings({"budget_hours": 2.0}).model_dump(mode="json")

    settings = resume_settings(recorded, {})

    assert (settings.budget_evals, settings.budget_hours) == (None, None)


def test_what_decides_the_scores_cannot_change_on_resume() -> None:
    recorded = load_settings({"seed": 8}).model_dump(mode="json")

    with pytest.raises(SettingsError, match=r"--seed was 8 .* cannot change"):
        resume_settings(recorded, {"seed": 9})


def test_repeating_a_recorded_value_on_resume_is_allowed() -> None:
    recorded = load_settings({"seed": 8, "profile": "micro"}).model_dump(mode="json")

    assert resume_settings(recorded, {"seed": 8, "profile": "micro"}).seed == 8


def test_workers_are_asked_for_what_the_settings_say() -> None:
    settings = load_settings(
        {"profile": "micro", "required_sandbox": "S1", "data": "text", "compile": True}
    )

    spec = settings.worker_spec()

    assert (spec.profile, spec.required_level, spec.data_path) == ("micro", 1, "text")
    assert (spec.compile, spec.unsafe, spec.device) == (True, False, "cpu")


def test_the_test_and_the_guardrails_are_what_the_settings_say() -> None:
    settings = load_settings(
        {"max_pairs": 9, "smallest_gain": 0.001, "max_cpu_ratio": 1.5, "max_setback": 0.2}
    )

    assert settings.design == Design(max_pairs=9, smallest_gain_bpb=0.001)
    assert settings.guardrails == Guardrails(max_cpu_ratio=1.5, max_setback_bpb=0.2)
    assert load_settings({}).design == Design()
    assert load_settings({}).guardrails == Guardrails()


def test_a_run_recorded_before_there_were_guardrails_resumes_with_the_defaults() -> None:
    recorded = load_settings({"seed": 8}).model_dump(mode="json")
    for name in ("max_pairs", "smallest_gain", "sample_share", "max_cpu_ratio", "max_setback"):
        del recorded[name]

    settings = resume_settings(recorded, {})

    assert (settings.design, settings.guardrails) == (Design(), Guardrails())

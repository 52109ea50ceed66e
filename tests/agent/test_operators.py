"""Each operator changes one aspect, within bounds, and only where the change has an effect."""

from __future__ import annotations

import random

import pytest

from agent.operators.crossover import cross
from agent.operators.registry import OPERATORS
from agent.operators.tables import Tables
from sandbox.baseline import seed_program
from sandbox.knobs import Value, read_knobs, set_knobs, why_out_of_bounds
from sandbox.preflight import preflight
from sandbox.source_form import normalised_digest

SHIPPED = seed_program("none")
SCOPES = frozenset({"policy", "muon", "schedule"})
ALL = SCOPES | {"adamw", "routing"}

State = dict[str, Value]  # knobs that differ from the shipped file

CONTROLLED: State = {"POLICY.control": True, "POLICY.gate_loss": 0.4}
TRUSTING: State = {"POLICY.trust_ratio": "layerwise"}
CLIPPING: State = {"POLICY.clip": "update_rms"}
SCHEDULED: State = {"SCHEDULE.nesterov_blend": "scheduled"}
WARMING: State = {"SCHEDULE.beta2_warmup": True}
AVERAGING: State = {"POLICY.tail_ema_horizon": 50}
UNROUTED: State = {"ROUTES.matrix": "adamw"}  # nothing follows the rule for matrices

# Operator -> a state of the shipped file in which it is live, and the knobs it may change there.
THE_THIRTEEN: dict[str, tuple[State, set[str]]] = {
    "toggle_momentum_placement": ({}, {"POLICY.momentum_placement"}),
    "toggle_trust_ratio": (
        {},
        {"POLICY.trust_ratio", "POLICY.trust_clamp_min", "POLICY.trust_clamp_max"},
    ),
    "adjust_trust_ratio_clamp": (TRUSTING, {"POLICY.trust_clamp_min", "POLICY.trust_clamp_max"}),
    "toggle_clip_policy": (
        {"POLICY.clip_threshold": 2.0},
        {"POLICY.clip", "POLICY.clip_threshold"},
    ),
    "toggle_decay_mode": ({}, {"POLICY.decay"}),
    "scale_update_multiplier": ({}, {"POLICY.update_multiplier"}),
    "adjust_ns_steps": ({}, {"POLICY.ns_steps"}),
    "adjust_second_moment_beta": ({}, {"POLICY.beta2"}),
    "toggle_stateful_control": (
        {},
        {
            "POLICY.control",
            "POLICY.gate_loss",
            "POLICY.gate_improvement",
            "POLICY.gate_grad_norm",
            "POLICY.gate_update_ratio",
            "POLICY.gate_alignment",
            "POLICY.gate_step_fraction",
        },
    ),
    "adjust_gate_bias": (CONTROLLED, {"POLICY.gate_bias"}),
    "adjust_gate_weight": (CONTROLLED, {"POLICY.gate_"}),
    "adjust_stateful_ema_beta": (CONTROLLED, {"POLICY.ema_beta"}),
    "adjust_stateful_range": (CONTROLLED, {"_aggressive", "_conservative"}),
}
BEYOND: dict[str, tuple[State, set[str]]] = {
    "toggle_nesterov": ({}, {"POLICY.nesterov"}),
    "toggle_orthogonalization": ({}, {"POLICY.orthogonalization"}),
    "toggle_row_equilibration": ({}, {"POLICY.row_equilibration"}),
    "toggle_norm_snap": ({}, {"POLICY.norm_snap"}),
    "toggle_second_moment": ({}, {"POLICY.second_moment"}),
    "toggle_lr_aspect_scale": ({}, {"POLICY.lr_aspect_scale"}),
    "switch_route": ({}, {"ROUTES."}),
    "scale_clip_threshold": (CLIPPING, {"POLICY.clip_threshold"}),
    "scale_matrix_lr": ({}, {"MUON.lr"}),
    "scale_weight_decay": ({}, {"MUON.weight_decay"}),
    "scale_gate_sharpness": (CONTROLLED, {"POLICY.gate_sharpness"}),
    "adjust_lr_warmup_steps": ({}, {"SCHEDULE.warmup_steps"}),
    "adjust_warmdown": ({}, {"SCHEDULE.warmdown_fraction", "SCHEDULE.final_lr_fraction"}),
    "toggle_momentum_warmup": (
        {"SCHEDULE.momentum_warmup_steps": 0},
        {"SCHEDULE.momentum_start", "SCHEDULE.momentum_warmup_steps"},
    ),
    "adjust_momentum_warmup": ({}, {"SCHEDULE.momentum_start", "SCHEDULE.momentum_warmup_steps"}),
    "adjust_momentum": ({}, {"SCHEDULE.momentum_peak", "SCHEDULE.momentum_end"}),
    "toggle_nesterov_blend": ({}, {"SCHEDULE.nesterov_blend"}),
    "adjust_nesterov_blend": (SCHEDULED, {"SCHEDULE.nesterov_blend_"}),
    "toggle_beta2_warmup": (
        {"SCHEDULE.beta2_warmup_steps": 0},
        {"SCHEDULE.beta2_warmup", "SCHEDULE.beta2_warmup_steps"},
    ),
    "adjust_beta2_warmup": (WARMING, {"SCHEDULE.beta2_start", "SCHEDULE.beta2_warmup_steps"}),
    "change_weight_decay_shape": ({}, {"SCHEDULE.weight_decay_shape"}),
    "toggle_tail_ema": ({}, {"POLICY.tail_ema_horizon"}),
    "adjust_tail_ema": (AVERAGING, {"POLICY.tail_ema_horizon", "POLICY.tail_ema_mix"}),
    "toggle_adamw_eps_ramp": ({}, {"ADAMW.eps_start"}),
    "toggle_adamw_beta_warmup": ({}, {"ADAMW.beta1_start_offset", "ADAMW.beta2_start_offset"}),
    "step_any_knob": ({}, {"."}),
}
EVERY = THE_THIRTEEN | BEYOND
# Those that set several knobs to make one change.
COMPOUND = {
    "toggle_trust_ratio", "adjust_trust_ratio_clamp", "toggle_clip_policy",
    "toggle_stateful_control", "toggle_momentum_warmup", "toggle_beta2_warmup",
}  # fmt: skip


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 (reproducible, no secret)


def differing(old: str, new: str) -> set[str]:
    before, after = read_knobs(old), read_knobs(new)
    return {name for name in before if before[name].value != after[name].value}


def is_live(name: str, source: str, scopes: frozenset[str] = ALL) -> bool:
    return OPERATORS[name].is_live(Tables.read(source, scopes))


def test_every_operator_is_covered_here() -> None:
    assert set(EVERY) == set(OPERATORS)
    assert len(THE_THIRTEEN) == 13


@pytest.mark.parametrize("name", EVERY)
def test_an_operator_changes_the_knobs_it_is_named_for_and_no_others(name: str) -> None:
    state, named = EVERY[name]
    source = set_knobs(SHIPPED, state)
    met: set[str] = set()

    for seed in range(60):
        child = OPERATORS[name].apply(source, ALL, seeded(seed))
        assert child is not None
        changed = differing(source, child)
        assert len(changed) == 1 or name in COMPOUND
        assert changed
        met |= changed

    assert all(any(part in knob for part in named) for knob in met), met
    assert all(any(part in knob for knob in met) for part in named), met


@pytest.mark.parametrize("name", EVERY)
def test_what_an_operator_makes_passes_preflight(name: str) -> None:
    source = set_knobs(SHIPPED, EVERY[name][0])

    for seed in range(10):
        child = OPERATORS[name].apply(source, ALL, seeded(seed))
        assert child is not None
        assert preflight(child, source, ALL) == ()
        assert normalised_digest(child) != normalised_digest(source)


@pytest.mark.parametrize("name", EVERY)
def test_an_operator_gives_the_same_child_for_the_same_draw(name: str) -> None:
    source = set_knobs(SHIPPED, EVERY[name][0])

    first, again = (OPERATORS[name].apply(source, ALL, seeded(7)) for _ in range(2))

    assert first == again


def test_a_toggle_applied_twice_restores_the_program() -> None:
    for name in ("toggle_momentum_placement", "toggle_nesterov_blend", "toggle_norm_snap"):
        once = OPERATORS[name].apply(SHIPPED, ALL, seeded(0))
        assert once is not None
        assert OPERATORS[name].apply(once, ALL, seeded(0)) == SHIPPED


def test_the_clip_goes_round_its_modes() -> None:
    modes = []
    source = SHIPPED
    for _ in range(3):
        source = OPERATORS["toggle_clip_policy"].apply(source, ALL, seeded(0)) or ""
        knobs = read_knobs(source)
        modes.append((knobs["POLICY.clip"].value, knobs["POLICY.clip_threshold"].value))

    assert modes == [("update_rms", 0.9), ("global_norm", 0.8), ("none", 0.8)]


def test_a_controller_that_was_set_up_before_keeps_its_weights() -> None:
    source = set_knobs(SHIPPED, {"POLICY.gate_loss": 2.0})

    child = OPERATORS["toggle_stateful_control"].apply(source, ALL, seeded(0))

    assert child is not None
    assert differing(source, child) == {"POLICY.control"}


DEAD: list[tuple[str, State]] = [
    ("adjust_trust_ratio_clamp", {}),
    ("toggle_clip_policy", {"POLICY.orthogonalization": "none", "POLICY.norm_snap": False}),
    ("toggle_clip_policy", CONTROLLED),  # its poles, 2 and 0.5, allow more than most updates have
    ("scale_clip_threshold", {}),
    ("scale_clip_threshold", CLIPPING | CONTROLLED),
    ("adjust_gate_bias", {}),
    ("adjust_gate_weight", {}),
    ("adjust_stateful_ema_beta", {}),
    ("adjust_stateful_ema_beta", {"POLICY.control": True, "POLICY.gate_step_fraction": 1.0}),
    ("adjust_stateful_range", {}),
    ("scale_gate_sharpness", {}),
    ("scale_gate_sharpness", {"POLICY.control": True}),
    ("adjust_second_moment_beta", CONTROLLED),
    ("adjust_second_moment_beta", {"POLICY.second_moment": "none"}),
    ("adjust_ns_steps", {"POLICY.orthogonalization": "none"}),
    (
        "adjust_ns_steps",
        CONTROLLED
        | {"POLICY.orthogonal_mix_aggressive": 0.0, "POLICY.orthogonal_mix_conservative": 0.0},
    ),
    ("toggle_decay_mode", {"MUON.weight_decay": 0.0}),
    ("scale_weight_decay", {"POLICY.decay": "none"}),
    ("change_weight_decay_shape", {"POLICY.decay": "none"}),
    ("change_weight_decay_shape", {"MUON.weight_decay": 0.0}),
    ("adjust_nesterov_blend", {}),
    ("adjust_nesterov_blend", SCHEDULED | {"POLICY.nesterov": False}),
    ("toggle_nesterov_blend", {"POLICY.nesterov": False}),
    ("adjust_beta2_warmup", {}),
    ("toggle_beta2_warmup", {"POLICY.second_moment": "none"}),
    ("adjust_tail_ema", {}),
    ("adjust_momentum_warmup", {
        "SCHEDULE.momentum_start": 0.97, "SCHEDULE.momentum_warmup_steps": 0,
    }),
    ("toggle_momentum_placement", {
        "POLICY.orthogonalization": "none", "POLICY.row_equilibration": False,
        "POLICY.norm_snap": False,
    }),
    *((name, UNROUTED) for name in (*THE_THIRTEEN, "toggle_tail_ema", "toggle_beta2_warmup")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "state"), DEAD)
def test_an_operator_without_effect_is_not_offered(name: str, state: State) -> None:
    source = set_knobs(SHIPPED, state)

    assert not is_live(name, source)
    assert OPERATORS[name].apply(source, ALL, seeded(0)) is None


def test_the_poles_of_a_factor_that_is_off_are_left_alone() -> None:
    source = set_knobs(SHIPPED, CONTROLLED)
    met: set[str] = set()

    for seed in range(80):
        child = OPERATORS["adjust_stateful_range"].apply(source, ALL, seeded(seed)) or ""
        met |= {name.partition(".")[2].rpartition("_")[0] for name in differing(source, child)}

    assert met == {"update_multiplier", "orthogonal_mix", "beta2"}


def test_an_operator_stays_inside_the_scopes() -> None:
    assert not is_live("toggle_adamw_eps_ramp", SHIPPED, SCOPES)
    assert not is_live("switch_route", SHIPPED, SCOPES)
    assert not is_live("scale_matrix_lr", SHIPPED, frozenset({"policy"}))
    for seed in range(60):
        child = OPERATORS["step_any_knob"].apply(SHIPPED, frozenset({"schedule"}), seeded(seed))
        assert child is not None
        assert all(name.startswith("SCHEDULE.") for name in differing(SHIPPED, child))


def test_an_operator_at_the_end_of_its_range_is_not_offered() -> None:
    assert not is_live("scale_update_multiplier", SHIPPED, frozenset())
    one = set_knobs(SHIPPED, {"POLICY.ns_steps": 1})
    for seed in range(20):
        child = OPERATORS["adjust_ns_steps"].apply(one, ALL, seeded(seed)) or ""
        assert read_knobs(child)["POLICY.ns_steps"].value in {2, 3}


def test_a_free_step_moves_a_knob_that_is_at_zero() -> None:
    source = set_knobs(SHIPPED, {"MUON.weight_decay": 0.0})

    for seed in range(30):
        changes = OPERATORS["step_any_knob"].options(
            Tables.read(source, frozenset({"muon"})), seeded(seed)
        )
        values = {name: value for change in changes for name, value in change.items()}
        assert isinstance(values["MUON.weight_decay"], float)
        assert values["MUON.weight_decay"] > 0.0


@pytest.mark.parametrize("seed", range(2))
def test_after_200_random_applications_everything_is_still_within_bounds(seed: int) -> None:
    rng = seeded(seed)
    source, applied = SHIPPED, 0

    while applied < 200:
        child = rng.choice(list(OPERATORS.values())).apply(source, ALL, rng)
        if child is not None:
            source, applied = child, applied + 1

    for knob in read_knobs(source).values():
        assert knob.bounds is not None
        assert why_out_of_bounds(knob.value, knob.bounds) is None, knob
    assert preflight(source, SHIPPED, ALL) == ()


def test_a_crossover_takes_every_knob_from_one_of_the_two() -> None:
    theirs = set_knobs(SHIPPED, CONTROLLED | SCHEDULED | {"MUON.lr": 0.05, "ADAMW.mixing_lr": 1.0})
    first, second = Tables.read(SHIPPED, SCOPES), Tables.read(theirs, SCOPES)
    sizes = set()

    for seed in range(50):
        changes = cross(first, second, seeded(seed))
        assert changes
        assert all(second.value(name) == value for name, value in changes.items())
        assert "ADAMW.mixing_lr" not in changes
        sizes.add(len(changes))

    assert sizes >= {1, 2, 3}


def test_a_program_has_nothing_to_exchange_with_its_equal() -> None:
    tables = Tables.read(SHIPPED, SCOPES)

    assert cross(tables, tables, seeded(0)) is None


def test_a_knob_that_a_model_added_can_be_stepped() -> None:
    source = SHIPPED.replace("MUON = Knobs(\n", "MUON = Knobs(\n    row_beta=0.5,\n")
    met: set[str] = set()

    for seed in range(40):
        child = OPERATORS["step_any_knob"].apply(source, frozenset({"muon"}), seeded(seed))
        assert child is not None
        met |= differing(source, child)

    assert "MUON.row_beta" in met

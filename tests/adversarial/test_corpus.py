"""Every attack, by preflight, by the jail alone and by the naive control, in one run of lanes."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.adversarial.corpus import Attack, Slot, load_attacks
from tests.adversarial.lane import LaneSettings
from tests.adversarial.runner import CorpusRun, Tried, run_corpus

_ATTACKS = load_attacks()
_FEWEST = 150

each_attack = pytest.mark.parametrize("attack", _ATTACKS, ids=lambda attack: attack.id)


@pytest.fixture(scope="module")
def run(request: pytest.FixtureRequest) -> CorpusRun:
    """Try the attacks of the tests that were selected, and no others."""
    specs = [item.callspec for item in request.session.items if hasattr(item, "callspec")]
    wanted = [spec.params.get("attack") for spec in specs]
    attacks = [attack for attack in _ATTACKS if attack in wanted]
    settings = LaneSettings(jail=True, naive=True, required_level=2)
    return run_corpus(attacks or _ATTACKS[:1], settings)


@pytest.fixture
def tried(run: CorpusRun, attack: Attack) -> Tried:
    return next(each for each in run.tried if each.attack == attack)


@pytest.mark.slow
@each_attack
def test_preflight_refuses_what_it_refused_before(attack: Attack, tried: Tried) -> None:
    assert tried.preflight.sightings == ()
    if attack.preflight == "refuse":
        assert tried.preflight.verdict == "refused"


@pytest.mark.slow
@each_attack
def test_the_jail_alone_keeps_the_oracle_quiet(attack: Attack, tried: Tried) -> None:
    assert tried.jail is not None
    assert tried.jail.sightings == (), tried.jail.reason


@pytest.mark.slow
@pytest.mark.parametrize(
    "attack", [each for each in _ATTACKS if each.beats_naive], ids=lambda attack: attack.id
)
def test_the_naive_trainer_falls(attack: Attack, tried: Tried) -> None:
    assert tried.naive is not None
    assert tried.naive.sightings != (), tried.naive.reason


@pytest.mark.slow
def test_the_whole_corpus_leaves_nothing_behind(run: CorpusRun) -> None:
    assert run.leftovers == ()


def test_the_corpus_is_large_and_of_many_kinds() -> None:
    groups = Counter(attack.group for attack in _ATTACKS)

    assert len(_ATTACKS) >= _FEWEST
    assert min(groups.values()) >= 10
    assert {attack.slot for attack in _ATTACKS} == set(Slot)


def test_every_attack_says_what_must_not_be_seen() -> None:
    assert [attack.id for attack in _ATTACKS if not (attack.oracle and attack.ends)] == []


def test_the_corpus_has_harmless_controls() -> None:
    controls = [attack for attack in _ATTACKS if attack.is_control]

    assert len(controls) >= 2
    assert {attack.preflight for attack in controls} == {"pass"}

"""Planted breaches: attacks in the naive trainer, where every oracle must see its effect."""

from __future__ import annotations

import pytest

from tests.adversarial.corpus import load_attacks
from tests.adversarial.lane import LaneSettings
from tests.adversarial.runner import CorpusRun, run_corpus

_EFFECTS = {
    "fs01_read_secret": "the canary of a file",
    "pb04_torch_os_alias": "the canary of the environment",
    "rh27_read_prior_candidates": "the canary of a file",
    "fs05_read_val": "the output has 'PWN:",
    "fs07_overwrite_repo": "victim/optim.py was changed",
    "fs39_shared_memory_folder": "left /dev/shm/",
    "nw01_tcp": "a TCP connection",
    "nw03_udp_dns": "a datagram",
    "nw33_abstract_unix_socket": "an abstract UNIX connection",
    "nw34_unix_socket": "a UNIX connection",
    "zy01_daemon": "processes 'python",
    "zy05_signals_the_worker": "supervisor was killed",
    "rs36_search_that_never_ends": "did not end",
    "rh45_patches_validation": "the score went from",
    "co01_attribute_of_torch": "the output has 'PWN:left'",
}


@pytest.fixture(scope="module")
def run() -> CorpusRun:
    attacks = [attack for attack in load_attacks() if attack.id in _EFFECTS]
    return run_corpus(attacks, LaneSettings(jail=False, naive=True, required_level=0), lanes=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", _EFFECTS)
def test_the_oracle_sees_the_effect(run: CorpusRun, name: str) -> None:
    tried = next(each for each in run.tried if each.attack.id == name)

    assert tried.naive is not None
    assert any(_EFFECTS[name] in sighting for sighting in tried.naive.sightings)

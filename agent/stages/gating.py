"""The gates: tests of where a score comes from, for the few programs that won a race.

Isolation keeps a program from the scorer; it cannot keep it from ignoring its gradients or from
knowing the run it is scored on. Gates ask by training it under changed conditions, which costs
about four full runs, so they stand where few come: after the race, or after the quarantine.
"""

from __future__ import annotations

from agent.seeds import gate_seed
from agent.stage import Decided, Stage
from agent.stages.bench import Bench, Comparison, conclude
from agent.stages.gates.gate import Case, Gate
from agent.stages.gates.gradients import gradient_gate
from agent.stages.gates.horizon import horizon_gate
from agent.stages.gates.other_length import other_length_gate
from db.records import Program, Verdict
from sandbox.tells import find_tells

__all__ = ["GATES", "pass_gates"]

# From the cheapest to the dearest.
GATES: tuple[Gate, ...] = (horizon_gate, gradient_gate, other_length_gate)

MOST_FLAGS = 3  # quoted in a verdict


async def pass_gates(
    bench: Bench, candidate: Program, incumbent: Program, parent: Program
) -> Verdict:
    """Take a program through all gates, up to the first that refuses it.

    Args:
        bench: the means of judging.
        candidate: what is judged.
        incumbent: the champion it challenges.
        parent: what it was made from. What its text adds to this one and looks made to recognise
            a benchmark is noted in the verdict; it is no ground for refusal, as a text can be odd
            and honest.

    Raises:
        BudgetSpentError: a run could not be paid for.
    """
    seed = gate_seed(bench.run_seed, candidate.id)
    case = Case(bench=bench, candidate=candidate, incumbent=incumbent, seed=seed)
    finding = (Decided.PASS, "sound: learns from its gradients, at other horizons too")
    for gate in GATES:
        if reason := await gate(case):
            finding = (Decided.REJECT, reason)
            break
    if flags := _flags(candidate, parent):
        finding = (finding[0], f"{finding[1]} (flagged: {flags})")
    comparison = Comparison(reference_id=incumbent.id, seeds=(seed,))
    return conclude(bench, candidate, Stage.GATES, finding, comparison)


def _flags(candidate: Program, parent: Program) -> str:
    """Say in a few words what in the candidate's text deserves a reader's eye."""
    tells = find_tells(candidate.source, parent.source)
    said = [tell.sentence for tell in tells[:MOST_FLAGS]]
    if len(tells) > MOST_FLAGS:
        said.append(f"{len(tells) - MOST_FLAGS} more")
    return "; ".join(said)

"""A candidate and its incumbent, and the means to judge them on a pool of our own making."""

from __future__ import annotations

from agent.budget import Budget, Meter
from agent.evaluations import Evaluator, EvaluatorPool
from agent.seeds import gate_seed
from agent.stages.bench import Bench
from agent.stages.gates.gate import Case
from db.records import Evaluation, Program
from sandbox.knobs import set_knobs
from sandbox.source_form import digest, normalised_digest
from tests.agent.fakes import SEED_SOURCE, STEPS, clock

RUN_SEED = 1


class Sink:
    """Keeps what was measured."""

    def __init__(self) -> None:
        self.evaluations: list[Evaluation] = []

    def add_evaluation(self, evaluation: Evaluation) -> None:
        self.evaluations.append(evaluation)


def program(source: str, ordinal: int = 0) -> Program:
    return Program(
        id=digest(source),
        ordinal=ordinal,
        source=source,
        normalised=normalised_digest(source),
        created_at=clock()(),
    )


INCUMBENT = program(SEED_SOURCE)
CANDIDATE = program(set_knobs(SEED_SOURCE, {"MUON.lr": 0.08}), ordinal=1)


def bench(
    pool: EvaluatorPool,
    *,
    seed_program: Program = INCUMBENT,
    steps: int = STEPS,
    sink: Sink | None = None,
) -> Bench:
    now = clock()
    meter = Meter(Budget(evaluations=None, elapsed_s=None), clock=now)
    return Bench(
        run_seed=RUN_SEED,
        steps=steps,
        seed_program=seed_program,
        evaluator=Evaluator(pool, sink or Sink(), meter, clock=now),
        clock=now,
    )


def case(pool: EvaluatorPool) -> Case:
    return Case(
        bench=bench(pool),
        candidate=CANDIDATE,
        incumbent=INCUMBENT,
        seed=gate_seed(RUN_SEED, CANDIDATE.id),
    )

"""Find out how long a training run takes here, and limit others by it.

A program of somebody's own may be slow, which is a result and no offence; but one that hangs must
end some time. So the tuned optimizer is trained for the first quarter of the course, and others
may use a generous multiple of what it used. Within a search limits are tighter: there, time spent
on a slow candidate is taken from the others.
"""

from __future__ import annotations

from agent.evaluations import EvaluatorPool, SandboxError
from sandbox.baseline import BaselineError, seed_program
from sandbox.jobs import Job, Limits, Status

__all__ = ["UnfitCourseError", "limits_for"]

SHARE = 4  # a quarter of the run is trained
CPU_ALLOWANCE = 30.0  # second-order rules were seen to take up to 10 times the baseline's time
WALL_ALLOWANCE = 10.0  # wall time on shared cores varied up to 11 times for the same work
CPU_START_S = 10.0
WALL_START_S = 60.0
FIRST_LIMITS = Limits(cpu_s=3600.0, wall_s=36_000.0)


class UnfitCourseError(Exception):
    """The tuned optimizer itself cannot be trained like this."""


async def limits_for(pool: EvaluatorPool, *, steps: int, seed: int) -> Limits:
    """Return what a run of `steps` steps may use, whatever the program.

    Raises:
        UnfitCourseError: the tuned optimizer does not train like this.
        SandboxError: the sandbox failed.
        PoolError: no worker can be had any more.
    """
    trained = max(1, steps // SHARE)
    try:
        source = seed_program(pool.ready.profile)
    except BaselineError as error:
        raise UnfitCourseError(str(error)) from error
    outcome = await pool.run(
        Job(
            source=source,
            source_name="tuned optim.py",
            seed=seed,
            steps=trained,
            horizon=steps,
            limits=FIRST_LIMITS,
        )
    )
    if outcome.status is Status.SANDBOX_ERROR:
        raise SandboxError(outcome.reason)
    if outcome.status is not Status.OK:
        raise UnfitCourseError(
            f"the tuned optimizer itself does not train for {steps} steps ({outcome.status}: "
            f"{outcome.reason}), so nothing can be expected of others"
        )
    cpu_s = CPU_START_S + CPU_ALLOWANCE * outcome.jail_cpu_s * steps / trained
    wall_s = WALL_START_S + WALL_ALLOWANCE * outcome.wall_s * steps / trained
    return Limits(cpu_s=cpu_s, wall_s=wall_s + WALL_ALLOWANCE * cpu_s)

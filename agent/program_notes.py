"""Tell the owner of an optimizer file what is worth knowing before it is compared.

Advice only: the jail holds whatever a file does, so nothing here keeps it from being trained.
"""

from __future__ import annotations

from dataclasses import replace

from agent.programs import NamedProgram
from agent.words import counted
from sandbox.baseline import seed_program, shipped_program
from sandbox.guarded_preflight import GuardedPreflight
from sandbox.line_error import LineError
from sandbox.regions import find_regions
from sandbox.trial_run import Candidate, examination, tuned_like, whole_file

__all__ = ["notes_on", "with_tuned_knobs"]


def with_tuned_knobs(program: NamedProgram, profile: str) -> NamedProgram:
    """Give an edit of the shipped file the tuned knobs, where it left them at the shipped defaults.

    Any other program stays as it is.
    """
    if not _is_edit(program):
        return program
    tuned = _tuned(program, profile)
    return replace(program, source=tuned.source) if tuned.tuned_knobs else program


async def notes_on(
    program: NamedProgram, letter: str, profile: str, preflight: GuardedPreflight
) -> tuple[str, ...]:
    """Return what there is to say about a program, in sentences without their full stop.

    Raises:
        PoolError: preflight cannot be run on this machine.
    """
    if not _is_edit(program):
        return ()
    notes = []
    shipped = shipped_program()
    found = await preflight.examine(examination(whole_file(program.source, shipped), shipped))
    if found.violations:
        first = found.violations[0]
        others = len(found.violations) - 1
        more = f" (and {counted(others, 'other objection')})" if others else ""
        notes.append(
            f"preflight would refuse {letter} in a search, line {first.line}, {first.rule}: "
            f"{first.message}{more}; here it is trained all the same"
        )
    left = _tuned(program, profile).tuned_knobs
    if left:
        notes.append(
            f"{letter} leaves {counted(left, 'knob')} at the shipped defaults, those of a far "
            f"larger model: --tuned-knobs sets them to the ones tuned for profile {profile}"
        )
    return tuple(notes)


def _is_edit(program: NamedProgram) -> bool:
    """Whether a file of somebody's own was made from the shipped one."""
    if not program.origin.is_own:
        return False
    try:
        return bool(find_regions(program.source))
    except LineError:
        return False


def _tuned(program: NamedProgram, profile: str) -> Candidate:
    candidate = Candidate(name=program.name, source=program.source)
    try:
        return tuned_like(candidate, shipped_program(), seed_program(profile))
    except LineError:  # its knobs cannot be read, so they are its own affair
        return candidate

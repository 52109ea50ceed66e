"""All operators, by name, in a fixed order."""

from __future__ import annotations

from collections.abc import Mapping

from agent.operators import adamw, amounts, free_step, gating, schedules, switches
from agent.operators.operator import Operator

__all__ = ["OPERATORS"]

OPERATORS: Mapping[str, Operator] = {
    operator.name: operator
    for family in (switches, amounts, gating, schedules, adamw, free_step)
    for operator in family.OPERATORS
}

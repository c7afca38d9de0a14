"""Are the numbers those of the public implementations? Every comparison, as rows of one table.

The same state dict, the same input, the same output: small random configurations on the CPU. `benchmarks/parity.py` prints
the table, the tests hold every row to its bound. A new comparison is a `Check` in one of the lists that `CHECKS` joins.
"""

from teleworld.evaluation.parity import dit, geometry, solvers, vae
from teleworld.evaluation.parity.table import Check, Row, run_checks

__all__ = ["CHECKS", "Check", "Row", "run_checks"]

CHECKS: tuple[Check, ...] = (*dit.CHECKS, *vae.CHECKS, *solvers.CHECKS, *geometry.CHECKS)

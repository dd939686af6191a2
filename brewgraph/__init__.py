"""brewgraph: knowledge distillation as a loss equation.

import brewgraph as bg

recipe = bg.load("spec.brew", T=4)
distiller = recipe.build()
distiller(batch).loss.backward()

bg.run("spec.brew", T=4)
"""

from brewgraph.api import CheckedRecipe as Recipe
from brewgraph.api import check, format_text, load, loads, run, sweep
from brewgraph.diagnostics import BrewError, BrewWarning, Diagnostic, RunError, SpecError, UsageError
from brewgraph.training.callbacks import Callback, CheckpointEvent, EvaluationEvent, StepEvent, StopRun

__all__ = [
    "BrewError",
    "BrewWarning",
    "Callback",
    "CheckpointEvent",
    "Diagnostic",
    "EvaluationEvent",
    "Recipe",
    "RunError",
    "SpecError",
    "StepEvent",
    "StopRun",
    "UsageError",
    "check",
    "format_text",
    "load",
    "load_ipython_extension",
    "loads",
    "run",
    "sweep",
]


def load_ipython_extension(shell: object) -> None:
    """`%load_ext brewgraph`: adds the cell magic `%%brew NAME`."""
    from brewgraph.notebook import register

    register(shell)

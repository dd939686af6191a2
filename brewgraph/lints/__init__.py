"""Warnings about specs that are legal but probably not intended; a lint is a function from a checked recipe to some."""

from brewgraph.lints.lints import LINTS, Lint, lint
from brewgraph.lints.subject import Subject

__all__ = ["LINTS", "Lint", "Subject", "lint"]

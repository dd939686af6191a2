"""A spec with everything it names: built, run, found again, scored, compared."""

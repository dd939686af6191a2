"""A spec with everything it names: checked against its models and data, built, run, reused."""

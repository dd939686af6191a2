"""A spec to start from, for a teacher and data that a user names: both are looked at, and the spec is checked."""

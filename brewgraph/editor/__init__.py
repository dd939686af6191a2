"""What an editor asks about a spec while it is written: faults, names, completions, edits; and the server."""

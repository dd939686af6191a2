"""The student of a finished run for other runtimes: written, compared, and measured beside its teachers."""

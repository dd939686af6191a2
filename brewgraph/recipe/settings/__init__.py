"""What a spec configures: one frozen pydantic model for each source, block and option."""

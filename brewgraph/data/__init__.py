"""Where examples come from, how they are encoded, collated and put in order."""

"""Examples as token ids and labels."""

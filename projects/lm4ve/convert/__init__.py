"""What the converters of all tasks share: tables of names, and the released block."""

"""Worked solutions, one file a notebook. Try first: `check` and `hint` help."""

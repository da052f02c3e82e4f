"""Training inside a notebook: how long, told in one place."""

import os


def steps(full: int) -> int:
    """`full` training steps, or a fiftieth of them where LDM_EDU_SMOKE is set, as in tests."""
    return max(2, full // 50) if os.environ.get("LDM_EDU_SMOKE") else full

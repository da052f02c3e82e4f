"""diffusers' `scheduler_config.json` and our schedule, parameterisation and grid, both ways.

diffusers' pipeline takes `steps_offset` as 1 and `clip_sample` as off, whatever the file says,
and so do we. Which sampler the file names does not matter: ours is chosen at every call.
"""

from typing import Any

from ldm_edu.diffusion import Parameterisation
from ldm_edu.errors import InputError
from ldm_edu.schedule import Grid, NoiseSchedule
from ldm_edu.stable_diffusion.settings import (
    Settings,
    check_fixed,
    read_value,
    whole,
    write_value,
)

FIXED = {"trained_betas": None, "rescale_betas_zero_snr": False}
KINDS = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
SPACINGS = {"leading": ("leading", 1), "trailing": ("trailing", 0)}  # and the offset
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


def read_scheduler(s: Settings) -> tuple[NoiseSchedule, Parameterisation, Grid]:
    check_fixed(s, FIXED)
    kind = read_value(s, "beta_schedule", KINDS)
    ends = () if kind == "cosine" else (float(s["beta_start"]), float(s["beta_end"]))
    schedule = NoiseSchedule(kind, whole(s, "num_train_timesteps"), *ends)
    prediction = read_value({"prediction_type": "epsilon"} | s, "prediction_type", PREDICTIONS)
    # diffusers' defaults: True for DDIM alone
    to_clean = s.get("set_alpha_to_one", s.get("_class_name") == "DDIMScheduler")
    final = 0 if to_clean else 1
    spacing = read_value({"timestep_spacing": "leading"} | s, "timestep_spacing", SPACINGS)
    return schedule, prediction, Grid(*spacing, final)


def write_scheduler(
    schedule: NoiseSchedule, parameterisation: Parameterisation, grid: Grid
) -> dict[str, Any]:
    """Raises InputError for a grid that diffusers' pipeline would not keep."""
    expected = 1 if grid.spacing == "leading" else 0
    if grid.offset != expected or grid.final > 1 or grid.lowest:
        raise InputError(
            f"diffusers' pipeline has no {grid}: with {grid.spacing} spacing the offset is "
            f"{expected}, the final level 0 or 1, and the lowest 0"
        )
    settings = {
        "num_train_timesteps": schedule.T,
        "beta_schedule": write_value(KINDS, schedule.kind),
        "prediction_type": write_value(PREDICTIONS, parameterisation),
        "timestep_spacing": grid.spacing,
        "steps_offset": 1,
        "set_alpha_to_one": grid.final == 0,
    }
    if schedule.kind != "cosine":
        settings |= {"beta_start": schedule.beta_start, "beta_end": schedule.beta_end}
    if grid.spacing == "leading" and parameterisation != "x0":  # as Stable Diffusion has it
        return settings | {"_class_name": "PNDMScheduler", "skip_prk_steps": True}
    return settings | {"_class_name": "DDIMScheduler", "clip_sample": False}

"""Break the library in named ways, one at a time, and see that a test catches each.

    make mutants                  # all, about 10 minutes
    make mutants ARGS="geglu"     # those whose name contains a word

A mutant is one replacement in a copy of the library; the tests named beside it run against the
copy and have to fail. One that survives is a line of science that no test holds.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Mutant(NamedTuple):
    name: str
    file: str  # in ldm_edu/
    old: str  # stands there exactly once
    new: str
    tests: str  # files in tests/


# fmt: off
MUTANTS = [
    # schedule.py
    Mutant("alpha_bar off by one", "schedule.py",
           "torch.cumprod(1 - self.beta, dim=0)",
           "torch.cumprod(1 - self.beta, dim=0).roll(-1)", "test_schedule.py"),
    Mutant("scaled_linear linear in beta", "schedule.py",
           "torch.linspace(*ends, self.T, dtype=torch.float64) ** 2",
           "torch.linspace(ends[0] ** 2, ends[1] ** 2, self.T, dtype=torch.float64)",
           "test_schedule.py"),
    Mutant("cosine without its offset", "schedule.py",
           "(u + 0.008) / 1.008", "u", "test_schedule.py"),
    Mutant("sqrt left out of the signal", "schedule.py",
           "_gather(self.alpha_bar.sqrt(), t, like)", "_gather(self.alpha_bar, t, like)",
           "test_schedule.py test_diffusion.py"),
    # diffusion.py
    Mutant("velocity's sign", "diffusion.py",
           "schedule.signal(t, z0) * eps - schedule.noise(t, z0) * z0",
           "schedule.signal(t, z0) * eps + schedule.noise(t, z0) * z0", "test_diffusion.py"),
    Mutant("min-SNR not divided for v", "diffusion.py",
           '"v": snr + 1', '"v": snr', "test_diffusion.py"),
    Mutant("guidance reversed", "sampling.py",
           "unconditional + w * (conditional - unconditional)",
           "conditional + w * (unconditional - conditional)", "test_sampling.py"),
    Mutant("guidance counted from 0", "sampling.py",
           "unconditional + w * (conditional - unconditional)",
           "conditional + w * (conditional - unconditional)", "test_sampling.py"),
    Mutant("the two halves of guidance swapped", "sampling.py",
           "torch.cat([no_context, context])", "torch.cat([context, no_context])",
           "test_sampling.py test_pipeline_words.py"),
    # samplers.py
    Mutant("DDPM's mean without sqrt", "samplers.py",
           "mean = ab_s**0.5 * (1 - alpha)", "mean = ab_s * (1 - alpha)", "test_samplers.py"),
    Mutant("DDPM adds beta instead of beta tilde", "samplers.py",
           "variance = (1 - ab_s) / (1 - ab_t) * (1 - alpha)", "variance = 1 - alpha",
           "test_samplers.py"),
    Mutant("DDIM keeps too much noise", "samplers.py",
           "kept = max(1 - ab_s - variance, 0.0)", "kept = 1 - ab_s", "test_samplers.py"),
    Mutant("DPM++ extrapolates backwards", "samplers.py",
           "z0_hat + h / (2 * h_before)", "z0_hat - h / (2 * h_before)", "test_samplers.py"),
    Mutant("Heun without its second slope", "samplers.py",
           "(eps_hat + predict(z_s, s).eps_hat) / 2", "eps_hat", "test_samplers.py"),
    Mutant("PLMS reads its history from the wrong end", "samplers.py",
           "zip(weights, reversed(history), strict=False)",
           "zip(weights, history[-len(weights):], strict=False)", "test_samplers.py"),
    # layers.py
    Mutant("sines before cosines", "layers.py",
           "torch.cat([angles.cos(), angles.sin()], dim=1)",
           "torch.cat([angles.sin(), angles.cos()], dim=1)", "test_layers.py test_unet.py"),
    Mutant("GEGLU's halves swapped", "layers.py",
           "value, gate = self.proj_in(tokens).chunk(2, dim=-1)",
           "gate, value = self.proj_in(tokens).chunk(2, dim=-1)",
           "test_layers.py test_unet.py"),
    Mutant("GELU by tanh", "layers.py", "F.gelu(gate)", 'F.gelu(gate, approximate="tanh")',
           "test_layers.py test_unet.py"),
    Mutant("epsilon of the transformer's norm", "layers.py",
           "self.norm = nn.GroupNorm(groups, channels, eps=1e-6)",
           "self.norm = nn.GroupNorm(groups, channels, eps=1e-5)",
           "test_layers.py test_unet.py"),
    Mutant("asymmetric padding on the wrong sides", "layers.py",
           "(0, 1, 0, 1) if asymmetric", "(1, 0, 1, 0) if asymmetric",
           "test_layers.py test_autoencoder.py"),
    Mutant("attention's heads laid out the other way", "layers.py",
           '"b n (h d) -> b h n d"', '"b n (d h) -> b h n d"', "test_layers.py test_unet.py"),
    Mutant("no time in the residual block", "layers.py",
           "residual = residual + self.time(time)[:, :, None, None]", "pass", "test_unet.py"),
    # unet.py
    Mutant("skips before the path", "unet.py",
           "torch.cat([h, skips.pop()], dim=1)", "torch.cat([skips.pop(), h], dim=1)",
           "test_unet.py"),
    # autoencoder.py
    Mutant("epsilon of the autoencoder's norms", "autoencoder.py",
           "_EPS = 1e-6", "_EPS = 1e-5", "test_autoencoder.py"),
    Mutant("scale not applied in encode", "autoencoder.py",
           "DiagonalGaussian((mean - shift) * scale, logvar)",
           "DiagonalGaussian(mean - shift, logvar)", "test_autoencoder.py"),
    Mutant("scale applied twice in decode", "autoencoder.py",
           "latent = z / scale + shift", "latent = z / scale / scale + shift",
           "test_autoencoder.py"),
    Mutant("KL without its half", "autoencoder.py",
           "return 0.5 * per_entry", "return per_entry", "test_autoencoder.py"),
    Mutant("std as exp(logvar)", "autoencoder.py",
           "torch.exp(0.5 * self.logvar)", "torch.exp(self.logvar)", "test_autoencoder.py"),
    # losses.py
    Mutant("KL as a mean", "losses.py",
           "kl_weight * kl.mean() / x[0].numel()", "kl_weight * kl.mean()", "test_losses.py"),
    Mutant("adaptive weight upside down", "losses.py",
           "(g_rec.norm() / (g_adv.norm() + 1e-4))", "(g_adv.norm() / (g_rec.norm() + 1e-4))",
           "test_losses.py"),
    # latents.py, training.py
    Mutant("latent scale of the means alone", "latents.py",
           "variance = variance + latents.std.square().mean(axes, dtype=torch.float64)", "pass",
           "test_latents.py"),
    Mutant("EMA a step late", "training.py",
           """        state.optimizer.step()
        update_ema(state.ema, state.model, ema_decay(step, c.ema))""",
           """        update_ema(state.ema, state.model, ema_decay(step, c.ema))
        state.optimizer.step()""", "test_training.py"),
    Mutant("learning rate without its warm-up", "training.py",
           "return config.lr * step / config.warmup", "return config.lr", "test_training.py"),
    Mutant("batches not a function of the seed", "training.py",
           "mix(seed, epoch, count)", "mix(epoch, count)", "test_training.py"),
    # text.py, bpe.py
    Mutant("quick_gelu's constant", "text.py", "x * torch.sigmoid(1.702 * x)",
           "x * torch.sigmoid(1.7 * x)", "test_text.py"),
    Mutant("CLIP without its causal mask", "text.py",
           "causal=c.causal", "causal=False", "test_text.py"),
    Mutant("positions off by one", "text.py",
           "self.position.weight[: ids.shape[1]]", "self.position.weight[-ids.shape[1] :]",
           "test_text.py"),
    Mutant("the latest merge first", "bpe.py",
           "min(pairs, key=ranks.get)", "max(pairs, key=ranks.get)", "test_bpe.py"),
    Mutant("words without their end", "bpe.py",
           'symbols[-1] + "</w>"', "symbols[-1]", "test_bpe.py"),
    # stable_diffusion/
    Mutant("t of published weights off by one", "unet.py",
           "time_shift=-1", "time_shift=0", "test_stable_diffusion.py"),
    Mutant("t of published weights not moved", "unet.py",
           "self.time(t + self.config.time_shift)", "self.time(t)",
           "test_unet.py test_stable_diffusion.py"),
    Mutant("published latent scale", "stable_diffusion/published.py",
           "LATENT_SCALE = 0.18215", "LATENT_SCALE = 0.18", "test_stable_diffusion.py"),
    Mutant("CompVis' decoder levels not reversed", "stable_diffusion/key_map.py",
           "level = levels - 1 - i", "level = i", "test_key_map.py test_stable_diffusion.py"),
    # pipeline.py
    Mutant("decoded images not clamped", "pipeline.py",
           ".clamp(-1, 1).float().cpu()", ".float().cpu()", "test_pipeline.py"),
    Mutant("half precision not checked", "checkpoint.py",
           "if value.isfinite().all() != group[name].isfinite().all():", "if False:",
           "test_pipeline.py"),
    # tasks.py, inpainting.py
    Mutant("image to image takes the first steps", "tasks.py",
           "timesteps[-taken:]", "timesteps[:taken]",
           "test_tasks.py test_stable_diffusion.py"),
    Mutant("a walk along the straight line", "seeds.py",
           "(((1 - u) * angle).sin() * first + (u * angle).sin() * second) / angle.sin()",
           "(1 - u) * first + u * second", "test_tasks.py"),
    Mutant("kept pixels not put into the prediction", "inpainting.py",
           "z0 = pipe.encode(x.lerp(pipe.decode(z0_hat), mask)).to(z_t)", "z0 = z0_hat",
           "test_inpainting.py"),
    Mutant("positions free of kept pixels go through the autoencoder", "inpainting.py",
           "F.max_pool2d(-mask, f).to(pipe.device) == -1",
           "F.max_pool2d(-mask, f).to(pipe.device) > 0", "test_inpainting.py"),
    Mutant("positions with a kept pixel are free", "inpainting.py",
           "F.max_pool2d(-mask, f).to(pipe.device) == -1",
           "F.max_pool2d(mask, f).to(pipe.device) == 1", "test_inpainting.py"),
    Mutant("noise not told of the kept pixels", "inpainting.py",
           "eps_hat.where(free, eps)", "eps_hat", "test_inpainting.py"),
    Mutant("noised back too little", "inpainting.py",
           "(1 - kept) ** 0.5 * randn(z_t)", "(1 - kept) * randn(z_t)", "test_inpainting.py"),
    Mutant("the border's gap not closed", "inpainting.py",
           "return (x_hat + correction).clamp(-1, 1)", "return x_hat", "test_inpainting.py"),
    Mutant("hidden pixels seen", "inpainting.py",
           ".masked_fill(mask == 1, 0)  # unseen", "  # unseen", "test_inpainting.py"),
    # metrics.py
    Mutant("SSIM's windows flat", "metrics.py",
           "torch.softmax(-(offset**2) / (2 * _SIGMA**2), dim=0)",
           "torch.softmax(0 * offset, dim=0)", "test_metrics.py"),
    Mutant("SSIM's constants of a range of 1", "metrics.py",
           "(0.01 * 2) ** 2, (0.03 * 2) ** 2", "0.01**2, 0.03**2", "test_metrics.py"),
    Mutant("Frechet with sqrt(A) sqrt(B)", "metrics.py",
           "cross = torch.linalg.eigvalsh(root @ B @ root).clamp(min=0).sqrt().sum()",
           "cross = (torch.linalg.eigvalsh(A) * torch.linalg.eigvalsh(B)).sqrt().sum()",
           "test_metrics.py"),
    Mutant("KID where a vector meets itself", "metrics.py",
           "(values.sum() - values.trace()) / (m * (m - 1))", "values.mean()",
           "test_metrics.py"),
    Mutant("balls up to the second neighbour", "metrics.py",
           "topk(k + 1, largest=False).values[:, k]", "topk(k, largest=False).values[:, -1]",
           "test_metrics.py"),
    Mutant("balls around the fakes for precision", "metrics.py",
           "return _inside(fake, real, k), _inside(real, fake, k)",
           "return _inside(real, fake, k), _inside(fake, real, k)", "test_metrics.py"),
    Mutant("a picture its own neighbour", "metrics.py",
           "squared.masked_fill_(own, torch.inf)", "pass",
           "test_metrics.py test_memorisation.py"),
    # features.py
    Mutant("pixels of the features not moved by 127", "features.py",
           "(127.5 * (x.clamp(-1, 1) + 1) - 127) / 128", "127.5 * (x.clamp(-1, 1) + 1) / 128",
           "test_features.py"),
    Mutant("features resized without PIL's bicubic", "features.py",
           'mode="bicubic", antialias=True', 'mode="bicubic"', "test_features.py"),
    Mutant("padding where TensorFlow has none", "features.py",
           "top, left = (n // 2 for n in over)", "top, left = ((n + 1) // 2 for n in over)",
           "test_features.py"),
    # measures.py, memorisation.py, judges.py, prompt_accuracy.py, evaluate.py
    Mutant("all batches of samples of one seed", "measures.py",
           "own = seed if start == 0 else mix(seed, start)", "own = seed", "test_measures.py"),
    Mutant("captions of the first batch for all", "memorisation.py",
           "dataset.captions[i] for i in rows", "dataset.captions[i] for i in range(len(rows))",
           "test_memorisation.py"),
    Mutant("mirror images not looked at", "memorisation.py",
           "[train] if mirrored is None else [train, mirrored]", "[train]",
           "test_memorisation.py"),
    Mutant("judges that know what is rare", "judges.py",
           "logits + log_odds, due[index]", "logits, due[index]", "test_judges.py"),
    Mutant("a match that ignores places", "prompt_accuracy.py",
           "(o.shape, o.color, o.place)", "(o.shape, o.color)", "test_prompt_accuracy.py"),
    Mutant("captions that leave attributes out", "prompt_accuracy.py",
           "face_caption(name, index % 3)", "face_caption(name, index)",
           "test_prompt_accuracy.py"),
    Mutant("floor from the reference itself", "evaluate.py",
           "likeness(train[real], train[other])", "likeness(train[real], train[real])",
           "test_evaluate.py"),
    Mutant("new combinations among the unseen of the loss", "evaluate.py",
           'if dataset.name != "shapes":', "if True:", "test_evaluate.py"),
    # lab/
    Mutant("attention maps without their root", "lab/attention.py",
           "/ q.shape[-1] ** 0.5", "/ q.shape[-1]", "test_lab_attention.py"),
    Mutant("attention maps turned", "lab/attention.py",
           "h=H // shrink", "w=H // shrink", "test_lab_attention.py"),
    Mutant("exact paths with another rank", "lab/paths.py",
           "ab**0.5 * m) / deviation", "ab * m) / deviation", "test_lab_paths.py"),
    Mutant("dials of samples in another order", "lab/sampling.py",
           "product(*(axis.values() for axis in axes))",
           "product(*(axis.values() for axis in axes[::-1]))", "test_lab_sampling.py"),
    Mutant("a stroke at its points only", "lab/masks.py",
           "if len(path) == 1 else (path[:-1], path[1:])",
           "if len(path) else (path[:-1], path[1:])", "test_lab_painter.py"),
    Mutant("strokes mirrored at the diagonal", "lab/masks.py",
           "torch.stack([x, y], dim=-1)", "torch.stack([y, x], dim=-1)", "test_lab_painter.py"),
    Mutant("a stroke as a straight line without end", "lab/masks.py",
           ".sum(-1) / length).clamp(0, 1)", ".sum(-1) / length)", "test_lab_painter.py"),
    Mutant("an eraser that paints", "lab/masks.py",
           "mask & ~near if stroke.erase else mask | near", "mask | near",
           "test_lab_painter.py"),
    Mutant("the painter's caption as it was at first", "lab/painter.py",
           "self._use(mask, self.prompt)", "self._use(mask, self.alt)", "test_lab_painter.py"),
    Mutant("attention of the second shared with the first", "lab/word_swap.py",
           "weights[:, :1].expand_as", "weights[:, 1:].expand_as", "test_lab_word_swap.py"),
    Mutant("guidance's halves paired across", "lab/word_swap.py",
           ".unflatten(0, (-1, 2, n))\n        weights = weights[:, :1]",
           ".unflatten(0, (2, -1, n))\n        weights = weights[:1]", "test_lab_word_swap.py"),
    Mutant("attention kept in the last steps", "lab/word_swap.py",
           "set(levels[: round(share * steps)])",
           "set(levels[len(levels) - round(share * steps) :])", "test_lab_word_swap.py"),
    Mutant("each of two captions from its own noise", "lab/word_swap.py",
           "z_T = z_T.repeat(2, 1, 1, 1)", "z_T = pipe.noise(2 * n, seed)",
           "test_lab_word_swap.py"),
    Mutant("variations that start elsewhere", "lab/editing.py",
           "levels[-int(steps * strength)]", "levels[int(steps * strength) - 1]",
           "test_lab_editing.py"),
    Mutant("masks and captions in another order", "lab/editing.py",
           "torch.stack(painted, 1)", "torch.stack(painted)", "test_lab_editing.py"),
    # what words needed, and runs stage by stage
    Mutant("least weight near noise left out", "diffusion.py",
           "snr.clamp(snr_floor, min_snr)", "snr.clamp(max=min_snr)", "test_diffusion.py"),
    Mutant("coordinates from 0", "unet.py",
           "torch.linspace(-1, 1, n,", "torch.linspace(0, 1, n,", "test_unet.py"),
    Mutant("words drowned at the start", "text.py",
           "nn.init.normal_(embedding.weight)", "nn.init.normal_(embedding.weight, std=0.02)",
           "test_text.py"),
    Mutant("two objects taken for one", "data/shapes.py",
           "len(parse(text).objects) == 1", "len(parse(text).objects) == 2",
           "data/test_shapes.py test_quickstart.py"),
    Mutant("an unfinished autoencoder used", "run_files.py",
           'config["step"] == config["train"]["steps"]', "True", "test_train_model.py"),
    Mutant("pixels scaled and not back", "pixels.py",
           "z / self.latent_scale[:, None, None]", "z", "test_pixels.py"),
    Mutant("the film's guess is the noisy latent", "lab/denoising.py",
           "[s.z0_hat for s in states]", "[s.z_t for s in states]", "test_lab_denoising.py"),
    Mutant("the explorer's picture one level behind", "lab/noising.py",
           "q_sample(schedule, x0[None], t, eps[None])",
           "q_sample(schedule, x0[None], max(t - 50, 0), eps[None])", "test_lab_noising.py"),
    Mutant("the explorer's dot on another curve", "lab/noising.py",
           "self.schedules[name].snr[t]", "self.schedules[name].alpha_bar[t]",
           "test_lab_noising.py"),
    Mutant("the best guess forgets the clouds' width", "lab/points.py",
           "variance = ab * self.s**2 + 1 - ab", "variance = 1 - ab", "test_lab_points.py"),
    Mutant("weights of the clouds without their half", "lab/points.py",
           "/ (2 * variance)", "/ variance", "test_lab_points.py"),
    Mutant("a run shown one state late", "lab/flow.py",
           "if state.t >= level", "if state.t > level or state.t == max(levels)",
           "test_lab_points.py"),
    Mutant("frames that do not move", "lab/figures.py",
           "artist.axes.draw_artist(artist)", "pass", "test_lab_widgets.py"),
    Mutant("stills of another shot", "lab/widgets.py",
           "first = film.start // length * length", "first = 0", "test_lab_widgets.py"),
    Mutant("an answer judged by its first case", "lab/exercises/checking.py",
           "for case in wanted)\n", "for case in list(wanted)[:1])\n",
           "test_lab_exercises.py"),
    Mutant("a latent whose channels come last", "lab/exercises/start.py",
           "return channels, side, side", "return side, side, channels",
           "test_lab_exercises.py"),
    Mutant("guidance for nothing", "lab/exercises/start.py",
           "guidance == 1 else 2)\n\n", "guidance == 1 else 1)\n\n",
           "test_lab_exercises.py"),
    Mutant("decibels of a range of 1", "lab/exercises/compression.py",
           "peak=2.0, factor", "peak=1.0, factor", "test_lab_exercises.py"),
    Mutant("nats that forget the minus 1", "lab/exercises/compression.py",
           "half=0.5, minus_one=1", "half=0.5, minus_one=0", "test_lab_exercises.py"),
    Mutant("a spread without the posterior's own", "lab/exercises/latent_space.py",
           "def _latent_std(mean, std, own=2", "def _latent_std(mean, std, own=0",
           "test_lab_exercises.py"),
    Mutant("an arc of uneven angles", "lab/exercises/latent_space.py",
           "return mixed / angle.sin() if divide else mixed", "return mixed",
           "test_lab_exercises.py"),
    Mutant("a painter that always asks for a caption", "lab/painter.py",
           "line=line,", 'line="Caption",', "test_lab_painter.py"),
    Mutant("widgets stored with the notebook", "lab/execute.py",
           'output.get("data", {}).pop(WIDGET, None)', "pass", "test_lab_export.py"),
    Mutant("formulas of a page left as TeX", "lab/export.py",
           'return _mathml(body, "inline")', "return body", "test_lab_export.py"),
]
# fmt: on


def caught(mutant: Mutant) -> bool:
    """Whether the tests fail on a copy with this mutant in it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for part in ("ldm_edu", "tests", "notebooks/solutions", "pyproject.toml"):
            source = ROOT / part
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / part)
        file = copy / "ldm_edu" / mutant.file
        source = file.read_text()
        if source.count(mutant.old) != 1:
            raise SystemExit(f"{mutant.name}: {mutant.old!r} must stand once in {mutant.file}")
        file.write_text(source.replace(mutant.old, mutant.new))
        tests = [str(copy / "tests" / name) for name in mutant.tests.split()]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        # the copy comes before the installed library
        environment = {**os.environ, "PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}
        run = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if run.returncode not in (0, 1):  # 1: tests failed; others: pytest did not run
            raise SystemExit(f"{mutant.name}: pytest ended with {run.returncode}\n{run.stdout}")
        return run.returncode == 1 and not re.search(r"^ERROR", run.stdout, re.MULTILINE)


def main(word: str = "") -> int:
    """Print a row a mutant; returns the number that survived."""
    chosen = [m for m in MUTANTS if word.lower() in m.name.lower()]
    survivors = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for mutant, dead in zip(chosen, pool.map(caught, chosen), strict=True):
            survivors += not dead
            print(
                f"{'caught' if dead else 'SURVIVED':9} {mutant.file:32} {mutant.name}",
                flush=True,
            )
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants caught")
    return survivors


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) > 0)

"""Who may import whom, and what `import ldm_edu` may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ldm_edu

ROOT = Path(ldm_edu.__file__).parent
HEAVY = ["matplotlib", "ipywidgets", "datasets", "pyarrow", "torchvision", "PIL"]
HEAVY += ["huggingface_hub"]

MODELS = {"unet", "autoencoder", "bpe", "text"}
SCIENCE = MODELS | {
    "bpe_files",
    "characters",
    "schedule",
    "seeds",
    "diffusion",
    "samplers",
    "sampling",
    "layers",
    "losses",
    "latents",
    "pca",
    "pixels",
}
SAMPLING = {"diffusion", "samplers", "sampling", "schedule", "seeds"}
REPORT = {"report", "report_parts", "film", "chart", "images"}
ALL_BUT_LAB = (
    SCIENCE | REPORT | {"__init__", "checkpoint", "cli", "data", "metrics", "pipeline"}
)
ALL_BUT_LAB |= {"inpainting", "pipeline_files", "tasks"}
ALL_BUT_LAB |= {"pretrained", "quickstart", "quickstart_report", "recipes", "run_files", "runs"}
ALL_BUT_LAB |= {"stable_diffusion", "stages", "train_model", "training"}
ALL_BUT_LAB |= {"classifier", "commands", "evaluate", "evaluation_table", "features", "judges"}
ALL_BUT_LAB |= {"measures", "memorisation", "prompt_accuracy"}

# A folder is one module, whose files may import each other. Everyone may import `errors`.
ALLOWED = {
    "errors": set(),
    # what everything rests on
    "bpe_files": set(),
    "characters": set(),
    "checkpoint": {"checkpoint_files", "manifest"},
    "checkpoint_files": {"manifest"},
    "data": set(),
    "images": set(),
    "layers": set(),
    "losses": set(),
    "manifest": set(),
    "pca": set(),
    "schedule": set(),
    "seeds": set(),
    # models and diffusion do not know each other
    "autoencoder": {"layers", "pca"},
    "pixels": {"autoencoder"},
    "bpe": {"bpe_files", "characters"},
    "text": {"layers"},
    "unet": {"layers"},
    "diffusion": {"schedule"},
    "samplers": {"schedule"},
    "sampling": {"diffusion", "schedule"},
    # they meet here
    "latents": {"autoencoder"},
    "training": {"seeds"},
    "tasks": {"diffusion", "samplers", "sampling", "seeds"},
    "inpainting": SAMPLING,
    "pipeline_files": MODELS | {"checkpoint", "pixels", "schedule"},
    "pipeline": MODELS | SAMPLING | {"inpainting", "pipeline_files", "tasks"},
    "pretrained": {"checkpoint", "data", "pipeline"},
    "stable_diffusion": MODELS | {"data", "diffusion", "manifest", "pipeline", "schedule"},
    # a run of the quick start
    "recipes": {"autoencoder", "unet"},
    "run_files": {"checkpoint", "images"},
    "runs": {"checkpoint", "run_files", "training"},
    # measures: of tensors, of a model, and who judges
    "metrics": set(),
    "features": {"images"},
    "measures": {"images", "metrics", "pipeline", "sampling", "seeds"},
    "memorisation": {"data", "diffusion", "images", "metrics", "pipeline", "seeds"},
    "classifier": {"checkpoint", "images"},
    "judges": {"checkpoint", "classifier", "data", "latents", "pretrained"}
    | {"run_files", "runs", "seeds", "training"},
    "prompt_accuracy": {"classifier", "data", "judges"},
    "evaluation_table": {"judges", "prompt_accuracy"},
    # the report
    "chart": set(),
    "film": {"images"},
    "report_parts": {"chart", "film", "images"},
    "report": {"chart", "film", "images", "report_parts"},
    # the doors
    "__init__": ALL_BUT_LAB - {"__init__"},
    "__main__": ALL_BUT_LAB,
    "cli": {"commands"},
    "commands": ALL_BUT_LAB,
    "quickstart": ALL_BUT_LAB,
    "evaluate": ALL_BUT_LAB,
    "stages": ALL_BUT_LAB,
    "train_model": ALL_BUT_LAB,
    "quickstart_report": ALL_BUT_LAB,
    "lab": ALL_BUT_LAB | {"lab"},
}


def imports(source: str, package: list[str]):
    """Yield (line, imported ldm_edu module) for every import, also those inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            names = [[*base, alias.name] for alias in node.names]
        else:
            continue
        for name in names:
            if name[0] == "ldm_edu":
                inside = name[1] if len(name) > 1 else "__init__"
                yield (
                    node.lineno,
                    inside if inside in ALLOWED or is_module(inside) else "__init__",
                )


def is_module(name: str) -> bool:
    return (ROOT / name).is_dir() or (ROOT / f"{name}.py").is_file()


def offences(path: Path, source: str) -> list[str]:
    """The lines of the file `path`, relative to the package, that import what they must not."""
    module = path.parts[0].removesuffix(".py")
    if module not in ALLOWED:
        return [f"ldm_edu/{path}: add {module!r} to the table of tests/test_imports.py"]
    allowed = ALLOWED[module] | ({"errors"} if module != "errors" else set())
    if len(path.parts) > 1:
        allowed = allowed | {module}
    lines = source.splitlines()
    return [
        f"ldm_edu/{path}:{line}: {lines[line - 1].strip()!r}: {module} may import "
        f"{', '.join(sorted(allowed)) or 'nothing'} from ldm_edu, not {imported}"
        for line, imported in imports(source, ["ldm_edu", *path.parts[:-1]])
        if imported not in allowed
    ]


FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_nobody_imports_what_it_must_not(path):
    bad = offences(path, (ROOT / path).read_text(encoding="utf-8"))
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("errors.py", "import ldm_edu.schedule"),
        ("schedule.py", "from ldm_edu.unet import UNet"),
        ("unet.py", "from ldm_edu import diffusion"),
        ("unet.py", "from . import layers, diffusion"),
        ("diffusion.py", "def f():\n    from .unet import UNet"),
        ("training.py", "import os, ldm_edu.pipeline as p"),
        ("samplers.py", "from ldm_edu import UNet"),
        ("samplers.py", "import ldm_edu"),
        ("data/shapes.py", "from ..images import image_grid"),
        ("data/shapes.py", "from ldm_edu.layers import ResBlock"),
        ("cli.py", "from ldm_edu.lab.figures import show"),
        ("pipeline.py", "from ldm_edu import lab"),
        ("brand_new.py", ""),
    ],
)
def test_the_table_catches(path, line):
    assert len(offences(Path(path), f'"""Doc."""\n{line}\n')) == 1


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("errors.py", "import os"),
        ("schedule.py", "from ldm_edu.errors import InputError"),
        ("unet.py", "from . import layers, errors"),
        ("data/shapes.py", "from .scenes import draw\nfrom ..errors import DataError"),
        ("data/__init__.py", "from . import shapes"),
        ("lab/figures.py", "import ldm_edu\nfrom ldm_edu.lab import widgets"),
        ("commands.py", "from ldm_edu import LatentDiffusion, quickstart"),
        ("training.py", "from datasets import load_dataset"),
    ],
)
def test_the_table_lets_pass(path, line):
    assert offences(Path(path), f'"""Doc."""\n{line}\n') == []


def test_import_ldm_edu_stays_light():
    code = f"import sys, ldm_edu; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"

"""The files of a published CLIP tokenizer, read and written as transformers' does."""

import json
import os
from pathlib import Path
from typing import Any

from ldm_edu.errors import CheckpointError, InputError, LdmEduError, StorageError

START, STOP = "<|startoftext|>", "<|endoftext|>"
NAMES = {"bos_token": "start", "eos_token": "stop", "unk_token": "unknown", "pad_token": "pad"}
WANTED = "expected CLIP's: vocab.json and merges.txt, or tokenizer.json"


def read(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Arguments of a ClipTokenizer; tokenizer.json comes before vocab.json and merges.txt.

    Raises InputError if `folder` is no path, CheckpointError if its files are missing,
    malformed or another tokenizer's.
    """
    if not isinstance(folder, str | os.PathLike):
        raise InputError(f"a tokenizer folder is a path, not {folder!r}")
    path = Path(folder)
    try:
        return _settings(path)
    except LdmEduError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise CheckpointError(
            f"a file of the tokenizer in {path} is malformed: {why}"
        ) from error


def write(folder: str | os.PathLike[str], settings: dict[str, Any]) -> None:
    """vocab.json, merges.txt, tokenizer_config.json, special_tokens_map.json."""
    special = {name: settings[ours] for name, ours in NAMES.items()}
    plain = {"lstrip": False, "rstrip": False, "single_word": False}
    decoder = {
        str(settings["ids"][token]): {"content": token, "normalized": after, **plain}
        | {"special": token in special.values()}
        for token, after in settings["added"].items()
    }
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": settings["length"]}
    files = {
        "vocab.json": json.dumps(settings["ids"], ensure_ascii=False),
        "merges.txt": "\n".join(["#version: 0.2", *settings["merges"], ""]),
        "tokenizer_config.json": json.dumps(
            config | special | {"added_tokens_decoder": decoder}, indent=2
        ),
        "special_tokens_map.json": json.dumps(special, indent=2),
    }
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"cannot save the tokenizer in {folder}: {reason}") from error


# ---- settings


def _settings(path: Path) -> dict[str, Any]:
    ids, merges, added = _vocabulary(path)
    if not isinstance(ids, dict) or not all(type(i) is int and i >= 0 for i in ids.values()):
        raise CheckpointError(f"{path}: the vocabulary must map symbols to ids 0, 1, ...")
    config = _optional(path / "tokenizer_config.json")
    special, added = _special(path, config, added)
    length = config.get("model_max_length", 77)
    return {
        "ids": {token["content"]: token["id"] for token in added if "id" in token} | ids,
        "merges": merges,
        "added": {token["content"]: bool(token.get("normalized")) for token in added},
        "length": length if length < 10**6 else 77,  # 10^30 is written for "not known"
        **{NAMES[name]: _content(token) for name, token in special.items()},
    }


def _vocabulary(path: Path) -> tuple[dict, list[str], list[dict]]:
    if (path / "tokenizer.json").is_file():
        return _from_one_file(path / "tokenizer.json")
    if (path / "vocab.json").is_file() and (path / "merges.txt").is_file():
        return _json(path / "vocab.json"), _lines(path / "merges.txt"), []
    found = sorted(p.name for p in path.iterdir()) if path.is_dir() else []
    found = ", ".join(found[:6]) or ("nothing" if path.is_dir() else "no folder")
    raise CheckpointError(f"no tokenizer in {path}: {WANTED}; found {found}")


def _special(path: Path, config: dict, added: list[dict]) -> tuple[dict, list[dict]]:
    special = {"bos_token": START, "eos_token": STOP, "unk_token": STOP, "pad_token": STOP}
    newer = "added_tokens_decoder" in config  # then it says it all
    for source in [config] if newer else [config, _optional(path / "special_tokens_map.json")]:
        special |= {name: source[name] for name in NAMES if source.get(name) is not None}
    if newer:
        added = [{**t, "id": int(i)} for i, t in config["added_tokens_decoder"].items()]
    else:
        plain = [_content(token) for token in special.values()]
        taught = _optional(path / "added_tokens.json").items()
        listed = [{"content": c, "id": i, "normalized": c not in plain} for c, i in taught]
        added = listed + added
    known = {token["content"] for token in added}
    named = [token for token in special.values() if _content(token) not in known]
    # equal ones once, and of those with one content the last counts, as in transformers
    named = [token for i, token in enumerate(named) if token not in named[:i]]
    added = added + [t if isinstance(t, dict) else {"content": t} for t in named]
    for token in added:
        if flags := [f for f in ("lstrip", "rstrip", "single_word") if token.get(f)]:
            raise CheckpointError(
                f"{path}: token {token['content']!r} has {flags[0]}, which CLIP's do not have"
            )
    return special, added


def _content(token: str | dict) -> str:
    return token["content"] if isinstance(token, dict) else token


# ---- files


def _from_one_file(path: Path) -> tuple[dict, list[str], list[dict]]:
    whole = _json(path)
    model = whole.get("model") or {}
    kind, suffix = model.get("type"), model.get("end_of_word_suffix")
    if kind != "BPE" or suffix != "</w>":
        raise CheckpointError(
            f"{path} is a tokenizer of type {kind} with word ends {suffix!r}; supported is "
            "CLIP's, BPE with '</w>' (Unigram is SentencePiece, as T5 has it)"
        )
    merges = [m if isinstance(m, str) else " ".join(m) for m in model.get("merges", [])]
    return model.get("vocab", {}), merges, whole.get("added_tokens") or []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error


def _json(path: Path) -> dict:
    try:
        value = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object, found {type(value).__name__}")
    return value


def _optional(path: Path) -> dict:
    return _json(path) if path.is_file() else {}


def _lines(path: Path) -> list[str]:
    lines = _text(path).split("\n")
    return [line for line in lines if line and not line.startswith("#version")]

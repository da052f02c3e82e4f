"""The result of `evaluate` as text that a person reads."""

from ldm_edu.judges import Rates
from ldm_edu.prompt_accuracy import ShapeScore

_NAME = 34  # width of a row's name


def as_text(result: dict) -> str:
    """The tables of one evaluation: what was measured, beside its floor and its ceiling."""
    told = {key: value for key, value in result["sampling"].items() if value is not None}
    how = ", ".join(f"{key} {value}" for key, value in told.items())
    parts = [
        [f"{result['data']}: N = {result['count']} in every row; {how}"],
        _reconstruction(result["reconstruction"]),
        *(_likeness(space, rows) for space, rows in result["likeness"].items()),
        _prompts(result["prompts"]),
        _loss(result["loss"]),
        _copies(result["copies"]),
        _seconds(result),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts)


def _reconstruction(found) -> list[str]:
    return [
        _row(f"reconstruction of {found.count} unseen", "PSNR dB", "spread", "SSIM"),
        _row("", f"{found.psnr:.2f}", f"{found.psnr_spread:.2f}", f"{found.ssim:.3f}"),
    ]


def _likeness(space, rows) -> list[str]:
    head = ("FD", "/ floor", "KID x1000", "spread", "precision", "recall")
    lines = [_row(f"likeness in {space}", *head)]
    floor = next(iter(rows.values())).frechet
    for name, row in rows.items():
        kernel = (f"{1000 * row.kernel:.2f}", f"{1000 * row.kernel_spread:.2f}")
        shares = (f"{row.precision:.2f}", f"{row.recall:.2f}")
        ratio = f"{row.frechet / floor:.2f}"
        lines.append(_row(name, f"{row.frechet:.4g}", ratio, *kernel, *shares))
    return lines


def _prompts(rows) -> list[str]:
    first = next(iter(rows.values()))
    if isinstance(first, ShapeScore):
        lines = [_row("prompts", "clean", "match", "exact", "of")]
        return lines + [
            _row(name, *(f"{100 * v:.1f} %" for v in score[:3]), score.count)
            for name, score in rows.items()
        ]
    lines = [_row("prompts, as their judge sees them", *rows, width=23)]
    for name in dict.fromkeys(name for row in rows.values() for name in row):
        lines.append(_row(name, *(_share(row.get(name)) for row in rows.values()), width=23))
    if any(isinstance(value, Rates) for row in rows.values() for value in row.values()):
        lines.append("(balanced: said and seen / not said and not seen)")
    return lines


def _share(found) -> str:
    if found is None:
        return ""
    if isinstance(found, Rates):
        return f"{100 * found.balanced:.1f} ({100 * found.yes:.0f} / {100 * found.no:.0f}) %"
    return f"{100 * found:.1f} %"


def _loss(gap) -> list[str]:
    lines = [_row(f"loss, {gap.count} pictures each, t =", *gap.t, width=7)]
    lines.append(_row("training pictures", *(f"{v:.4f}" for v in gap.seen), width=7))
    lines.append(_row("unseen pictures", *(f"{v:.4f}" for v in gap.unseen), width=7))
    ratio = [100 * (u / s - 1) for u, s in zip(gap.unseen, gap.seen, strict=True)]
    lines.append(_row("gap in %", *(f"{v:+.1f}" for v in ratio), width=7))
    error = [100 * e / s for e, s in zip(gap.error, gap.seen, strict=True)]
    return [*lines, _row("its standard error", *(f"{v:.1f}" for v in error), width=7)]


def _copies(spaces) -> list[str]:
    head = ("1 % near", "closest", "samples", "restored", "unseen")
    lines = [_row("nearest training pictures", *head)]
    for space, found in spaces.items():
        shares = (found.samples, found.restored, found.unseen)
        shares = [f"{100 * share:.1f} %" for share in shares]
        lines.append(_row(f"in {space}", f"{found.near:.3g}", f"{found.closest:.3g}", *shares))
    return lines


def _seconds(result) -> list[str]:
    return [
        _row(f"{name}, {result['threads']} threads", f"{seconds:.2f} s")
        for name, seconds in result["seconds"].items()
    ]


def _row(name, *cells, width: int = 11) -> str:
    return f"{name:<{_NAME}}" + "".join(f"{cell!s:>{width}}" for cell in cells)

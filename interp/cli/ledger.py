"""A ledger's report -> what `interp ledger` prints."""

from __future__ import annotations

import math
from pathlib import Path

from interp.llm.ledger.report import Total, overall, rows, totals, unanswered
from sae.cli import console


def figures(path: Path) -> dict[str, float | int]:
    """The numbers of `print_totals` as one flat object: `usd`, `explain/MODEL/PROVIDER/usd`."""
    lost = unanswered(path)
    found = _figures("", overall(path))
    for total in totals(path):
        found |= _figures(f"{total.stage or '-'}/{total.model}/{total.provider or '-'}/", total)
    return found | {
        "n_unanswered": sum(each.n for each in lost),
        "usd_unanswered": math.fsum(each.usd for each in lost),
        "usd_risked": math.fsum(each.risked for each in lost),
    }


def print_totals(path: Path) -> None:
    """A table of the sums, when the calls were made, and what was lost on the way."""
    whole = overall(path)
    if whole.n_calls:
        lines = [_cells(_title(total), total) for total in totals(path)]
        header = ("stage, model (provider)", "calls", "prompt", "completion", "USD", "a latent")
        console.print_table([*lines, _cells("all", whole)], header)
        console.say(f"  answered from {_minute(whole.first)} to {_minute(whole.last)} UTC")
    else:
        console.say("no answered call yet")
    for each in unanswered(path):
        console.say(
            f"  {each.stage or '-'}: {each.n} without an answer (lost, or still in flight): "
            f"billed {_usd(each.usd)}, perhaps up to {_usd(each.risked)} more"
        )


def print_rows(path: Path, model: str | None = None, stage: str | None = None) -> None:
    """One line a call, oldest first."""
    lines = [
        (
            row.created[:19].replace("T", " "),
            *map(_printable, (row.about or "-", row.model, row.provider or "-")),
            str(row.prompt_tokens),
            str(row.completion_tokens),
            "unknown" if math.isnan(row.usd) else f"{row.usd:.6f}",
            _printable(row.finish_reason),
            row.key[:12],
        )
        for row in rows(path, model, stage)
    ]
    if not lines:
        console.say("no such call")
        return
    header = ("UTC", "about", "model", "provider", "prompt", "completion", "USD", "end", "key")
    console.print_table(lines, header)


def _figures(prefix: str, total: Total) -> dict[str, float | int]:
    numbers = {name: n for name, n in total._asdict().items() if isinstance(n, int | float)}
    numbers["usd_per_latent"] = total.usd_per_latent
    return {prefix + name: number for name, number in numbers.items()}


def _title(total: Total) -> str:
    provider = f" ({total.provider})" if total.provider else ""
    return _printable(f"{total.stage or '-'} {total.model}{provider}")


def _cells(title: str, total: Total) -> tuple[str, ...]:
    a_latent = total.usd_per_latent
    return (
        title,
        f"{total.n_calls:,}",
        f"{total.prompt_tokens:,}",
        f"{total.completion_tokens:,}",
        _cost(total),
        "-" if math.isnan(a_latent) else f"${a_latent:.6f}",
    )


def _cost(total: Total) -> str:
    if total.n_unknown == total.n_calls:
        return "unknown"
    return _usd(total.usd) + (f" + {total.n_unknown} unknown" if total.n_unknown else "")


def _usd(usd: float) -> str:
    return f"${usd:.4f}"


def _minute(created: str) -> str:
    return created[:16].replace("T", " ")


def _printable(text: str) -> str:
    """Names come from servers: none may steer the terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)

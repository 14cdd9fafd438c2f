"""What a user can set about asking models: each setting with its default and help, once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.llm.types import OPENROUTER, public_url, typed_url
from interp.records.family import LINEAR, LOCAL
from interp.run.latents import choose_latents, read_part
from sae.core.clip_name import without_place
from sae.core.errors import UserError, quote

if TYPE_CHECKING:
    from interp.evidence.reader import EvidenceReader

AUTO = "auto"
LAYOUTS = (AUTO, "grid", "separate")
UNRECORDED = (
    *("device", "concurrency", "timeout", "deadline", "max_cost", "price", "no_cap"),
    "capped_with",
)
"""Settings that change how fast or how far a run goes, not what comes out."""
N_AT_WORK = 16
"""Latents in work at once with the local model."""

_ASKING = "Asking"
_MONEY = "Money"
_LOCAL = "With --model local"
_ROUTING = "OpenRouter's routing"


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Who answers, and how."""

    model: Annotated[
        str,
        typer.Option(
            help="local (CLIP, no key), local:linear (the baseline), or a vision model's id "
            "(`interp models`).",
            show_default=False,
        ),
    ]
    base_url: Annotated[
        str,
        typer.Option(
            help="Any OpenAI-compatible server: OpenRouter, vLLM, SGLang, Ollama, llama.cpp."
        ),
    ] = OPENROUTER
    concurrency: Annotated[
        str,
        typer.Option(
            help="Requests in flight: a number, or auto: as many as the server takes.",
            rich_help_panel=_ASKING,
        ),
    ] = AUTO
    timeout: Annotated[
        float,
        typer.Option(help="Seconds for one request.", min=0.1, rich_help_panel=_ASKING),
    ] = 120.0
    deadline: Annotated[
        float,
        typer.Option(
            help="Seconds for one question with all its retries.",
            min=0.1,
            rich_help_panel=_ASKING,
        ),
    ] = 600.0
    max_tokens: Annotated[
        int | None,
        typer.Option(
            help="Tokens of an answer with its thoughts; default: what it needs, and more and "
            "more for a model that thinks.",
            min=1,
            rich_help_panel=_ASKING,
            show_default=False,
        ),
    ] = None
    reasoning: Annotated[
        str,
        typer.Option(
            help="Effort of models that reason: none, minimal, low, ...",
            rich_help_panel=_ASKING,
            show_default=False,
        ),
    ] = ""
    layout: Annotated[
        str,
        typer.Option(
            help="One grid, separate images, or auto: what the model bills less for.",
            rich_help_panel=_ASKING,
        ),
    ] = AUTO
    max_cost: Annotated[
        float | None,
        typer.Option(
            help="USD that this stage of the run may cost in all, however often it is resumed.",
            min=0.0,
            rich_help_panel=_MONEY,
            show_default=False,
        ),
    ] = None
    price: Annotated[
        str,
        typer.Option(
            help="USD per million tokens, IN,OUT; default: the server's price list.",
            rich_help_panel=_MONEY,
            show_default=False,
        ),
    ] = ""
    no_cap: Annotated[
        bool,
        typer.Option(
            "--no-cap",
            help="Ask a remote model whose price nobody knows.",
            rich_help_panel=_MONEY,
        ),
    ] = False
    provider: Annotated[
        str,
        typer.Option(
            help="Only these providers: a,b.", rich_help_panel=_ROUTING, show_default=False
        ),
    ] = ""
    quantization: Annotated[
        str,
        typer.Option(
            help="Only models served so: fp8,bf16.", rich_help_panel=_ROUTING, show_default=False
        ),
    ] = ""
    zdr: Annotated[
        bool,
        typer.Option(
            "--zdr",
            help="Only providers that keep nothing (zero data retention).",
            rich_help_panel=_ROUTING,
        ),
    ] = False
    clip: Annotated[
        str,
        typer.Option(
            help="CLIP that looks; default: the store's.",
            rich_help_panel=_LOCAL,
            show_default=False,
        ),
    ] = ""
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel=_LOCAL)
    ] = AUTO
    vocabulary: str = AUTO
    """Where the local namer takes its words from."""
    capped_with: tuple[str, ...] = ()
    """Names of further stages whose cost in this run counts under `max_cost` too."""

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise UserError(f"--layout {self.layout!r} is not known; one of {', '.join(LAYOUTS)}")
        if self.concurrency != AUTO and not (
            self.concurrency.isdecimal() and int(self.concurrency) > 0
        ):
            raise UserError(f"--concurrency {self.concurrency!r} is neither a number nor auto")

    @property
    def is_local(self) -> bool:
        return self.model in (LOCAL, LINEAR)

    @property
    def is_linear(self) -> bool:
        """Whether labels are the linear baseline's."""
        return self.model == LINEAR

    @property
    def server(self) -> str:
        """As records name it: "" for OpenRouter and for this machine."""
        is_default = self.is_local or self.base_url.rstrip("/") == OPENROUTER
        return "" if is_default else public_url(self.base_url).rstrip("/")

    @property
    def typed(self) -> str:
        """The options that ask the same model again, for a command that is printed."""
        elsewhere = self.base_url.rstrip("/") != OPENROUTER and not self.is_local
        where = f" --base-url {quote(typed_url(self.base_url))}" if elsewhere else ""
        return f"--model {quote(self.model)}{where}"

    @property
    def in_flight(self) -> int | None:
        """Requests in flight; None adapts."""
        return None if self.concurrency == AUTO else int(self.concurrency)

    @property
    def providers(self) -> tuple[str, ...]:
        return _listed(self.provider)

    @property
    def quantizations(self) -> tuple[str, ...]:
        return _listed(self.quantization)

    def recorded(self) -> dict[str, Any]:
        """What run.json keeps: all but what changes no result, without places and logins."""
        kept = {k: v for k, v in dataclasses.asdict(self).items() if k not in UNRECORDED}
        public = {
            "base_url": "" if self.is_local else public_url(self.base_url),
            "clip": without_place(self.clip),
            "vocabulary": Path(self.vocabulary).name,
        }
        return {**kept, **public}


@dataclass(frozen=True, kw_only=True)
class JudgeSettings(ModelSettings):
    """The same for scoring."""

    model: Annotated[
        str,
        typer.Option(
            help="local (CLIP, no key), or a vision model's id (`interp models`).",
            show_default=False,
        ),
    ]
    adaptive: Annotated[
        bool,
        typer.Option(
            "--adaptive",
            help="Judge 8 + 8 images of a latent first, and go on, up to 50 + 50, until it is sure "
            "whether the label says anything, or all of them would hardly tell.",
        ),
    ] = False
    clip: Annotated[
        str,
        typer.Option(
            "--judge-clip",
            "--clip",
            help="CLIP that judges; better another than the SAE's. Default: on the built-in world "
            "the built-in one that the SAE is not made of, else the store's.",
            rich_help_panel=_LOCAL,
            show_default=False,
        ),
    ] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.is_linear:
            raise UserError(f"--model {LINEAR} explains and does not judge; judge with {LOCAL}")


@dataclass(frozen=True, kw_only=True)
class DemoSettings(ModelSettings):
    """The same for the demo, which needs no other model than CLIP."""

    model: Annotated[
        str, typer.Option(help="local (CLIP, no key), or a vision model's id (`interp models`).")
    ] = LOCAL


@dataclass(frozen=True, kw_only=True)
class Work:
    """Which latents are worked on, and how far."""

    latents: Annotated[
        str | None, typer.Option(help="Only these: 3,17,100-120.", show_default=False)
    ] = None
    part: Annotated[
        str,
        typer.Option(
            help="3/8: the third of eight parts of the latents, each for a machine with a copy of "
            "the run (interp ledger merge).",
            metavar="I/N",
            show_default=False,
        ),
    ] = ""
    limit: Annotated[
        int | None,
        typer.Option(help="At most so many of those still to be done.", min=1, show_default=False),
    ] = None
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Ask again where there was no usable answer."),
    ] = False
    estimate: Annotated[
        bool,
        typer.Option(
            "--estimate",
            help="Say what it would cost; send nothing.",
            rich_help_panel=_MONEY,
        ),
    ] = False
    dry_run: Annotated[
        int | None,
        typer.Option(
            help="Write the first N requests as JSON and pictures; send nothing.",
            metavar="N",
            min=1,
            show_default=False,
            rich_help_panel=_MONEY,
        ),
    ] = None
    max_failures: Annotated[
        float,
        typer.Option(
            help="Share of latents without a usable answer above which the exit code is 4.",
            min=0.0,
            max=1.0,
            rich_help_panel=_ASKING,
        ),
    ] = 0.02

    def __post_init__(self) -> None:
        read_part(self.part)

    @property
    def sends_nothing(self) -> bool:
        """Whether only cost or requests are to be shown."""
        return self.estimate or self.dry_run is not None

    def has(self, latent: int) -> bool:
        """Whether the latent is of the part that is worked on."""
        return read_part(self.part).has(latent)

    def choose(self, reader: EvidenceReader, dense: bool = False) -> list[int]:
        """`choose_latents` by these settings, those of the part alone."""
        return [*filter(self.has, choose_latents(reader, self.latents, dense))]


def _listed(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())

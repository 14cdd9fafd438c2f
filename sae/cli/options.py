"""Config dataclasses as command-line options: a default and its help stand once, in the config."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from sae.training.settings.recipes import RECIPES, read_recipe


def _take_recipe(context: typer.Context, name: str) -> str:
    """Make a recipe's settings the defaults that a file of settings and flags override."""
    if not name:
        return name
    recipe = read_recipe(name)
    n_epochs, below = recipe.pop("epochs", 0), context.default_map or {}
    if not below.get("n_tokens"):
        # A function, as click asks for it when all that was typed is known: --n-tokens is instead.
        recipe["epochs"] = lambda: 0 if context.params.get("n_tokens") else n_epochs
    context.default_map = {**recipe, **below}
    return name


RecipeOption = Annotated[
    str,
    typer.Option(
        "--recipe",
        is_eager=True,
        callback=_take_recipe,
        metavar="|".join(RECIPES),
        help="Train as another lab did: its settings, below those of --config and of flags. Each "
        "is a TOML file that can be copied and changed.",
        show_default=False,
    ),
]


def spread(command: Callable[..., Any]) -> Callable[..., Any]:
    """Replace each parameter of `command` that is a config dataclass by an option per field.

    A field is an option when its type says so: `n: Annotated[int, typer.Option(help=...)] = 16`;
    other fields keep their default. The command gets the dataclasses as they were declared.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    configs: dict[str, type[Any]] = {}
    for parameter in inspect.signature(command).parameters.values():
        kind = hints.get(parameter.name)
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            configs[parameter.name] = kind
            parameters += _options(kind)
        else:
            keyword = inspect.Parameter.KEYWORD_ONLY
            parameters.append(parameter.replace(kind=keyword, annotation=kind))

    def run(**values: Any) -> Any:
        built = {
            name: kind(**{option.name: values.pop(option.name) for option in _options(kind)})
            for name, kind in configs.items()
        }
        return command(**values, **built)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _options(config: type[Any]) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(config, include_extras=True)
    for field in dataclasses.fields(config):
        hint = hints[field.name]
        if get_origin(hint) is not Annotated or len(get_args(hint)) < 2:
            continue
        missing = field.default is dataclasses.MISSING
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if missing else field.default,
            annotation=hint,
        )

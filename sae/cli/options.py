"""Config dataclasses as command-line options: a default and its help stand once, in the config."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints


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

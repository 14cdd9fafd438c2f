"""A number of a stored record <-> JSON: NaN, where it cannot be given, is null there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema


class _NanIsNull:
    """Tells pydantic how JSON shows a number that cannot be given."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        from pydantic_core import core_schema as schema

        return schema.union_schema(
            [
                handler(source),
                schema.no_info_after_validator_function(lambda _: math.nan, schema.none_schema()),
            ],
            mode="left_to_right",
            custom_error_type="figure",
            custom_error_message="Input should be a finite number or null",
            serialization=schema.plain_serializer_function_ser_schema(
                lambda figure: None if math.isnan(figure) else figure,
                return_schema=schema.nullable_schema(schema.float_schema()),
            ),
        )


Figure = Annotated[float, _NanIsNull()]
"""A number of a stored record: NaN here where it cannot be given, null in JSON."""

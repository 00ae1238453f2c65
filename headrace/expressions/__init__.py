"""The expression language of transforms: `compile_expression(text, columns)`."""

from headrace.expressions.canonical import column_text
from headrace.expressions.compiling import CompiledExpression, compile_expression
from headrace.expressions.zones import TIME_ZONE_DATA_VERSION

__all__ = ["TIME_ZONE_DATA_VERSION", "CompiledExpression", "column_text", "compile_expression"]

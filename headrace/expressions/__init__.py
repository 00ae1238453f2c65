"""The expression language of transforms: `compile_expression(text, columns)`."""

from headrace.expressions.canonical import column_text
from headrace.expressions.compiling import CompiledExpression, compile_expression
from headrace.expressions.identity import ExpressionIdentity, expression_identity
from headrace.expressions.parsing import TEXT_LENGTH_MAX
from headrace.expressions.zones import TIME_ZONE_DATA_VERSION

__all__ = [
    "TEXT_LENGTH_MAX",
    "TIME_ZONE_DATA_VERSION",
    "CompiledExpression",
    "ExpressionIdentity",
    "column_text",
    "compile_expression",
    "expression_identity",
]

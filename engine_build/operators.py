"""Which ONNX operators TensorRT's parsers take, and what to write instead of those they don't.               (pure)

No parser of 8.6, 10, 11 or TensorRT-RTX 1 takes what `NEAREST` names: read from the parsers' operator lists, and asked of
TensorRT-RTX 1.7 by `OnnxParser.supports_operator` (a test asks again). The parser that builds has the last word.
"""

from __future__ import annotations

from typing import Final

NEWEST_OPSET_OF_8_6: Final = 17
STANDARD_DOMAINS: Final = frozenset({"", "ai.onnx"})

_FLOAT_QDQ: Final = (
    "the float operator with QuantizeLinear and DequantizeLinear before it; `--precision int8` writes them"
)
_BITS: Final = "And, Or, Xor, Not on BOOL, or Mul, Div and Mod on INT32"
_FIXED: Final = "tensors: Split, Gather and Concat instead of a sequence"
_LOSS: Final = "nothing: a loss belongs to training, export the forecast"
_WAVES: Final = "a MatMul with a constant matrix of sines and cosines"
_TEXT: Final = "nothing: encode text before the model, its inputs are numbers"
_CHANCE: Final = "nothing: a forecast must not depend on chance; export with training=False"

NEAREST: Final[dict[str, str]] = {
    "AffineGrid": "the grid as a constant into GridSample",
    "Bernoulli": _CHANCE,
    "BitCast": "Cast",
    **dict.fromkeys(("BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor"), _BITS),
    "CenterCropPad": "Slice and Pad",
    "Col2Im": "ConvTranspose, or ScatterElements with reduction add",
    "Compress": "Gather with constant indices, or Mul by a 0/1 mask (the rows of a batch must stay)",
    "ConvInteger": _FLOAT_QDQ,
    "CumProd": "Exp(CumSum(Log(x))) for x above 0",
    "DFT": _WAVES,
    "DeformConv": "GridSample and Conv",
    "Det": "the determinant written out with Mul and Sub",
    "DynamicQuantizeLinear": "QuantizeLinear with a calibrated, constant scale; `--precision int8` writes it",
    "ImageDecoder": "nothing: decode before the model, its inputs are numbers",
    "MatMulInteger": _FLOAT_QDQ,
    "MaxRoiPool": "RoiAlign",
    "MaxUnpool": "ScatterElements",
    "MelWeightMatrix": "its matrix as a constant",
    "Multinomial": _CHANCE,
    "NegativeLogLikelihoodLoss": _LOSS,
    **dict.fromkeys(("Optional", "OptionalGetElement", "OptionalHasElement"), "a tensor that is always there"),
    "QLinearConv": _FLOAT_QDQ,
    "QLinearMatMul": _FLOAT_QDQ,
    **dict.fromkeys(("ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceEmpty"), _FIXED),
    **dict.fromkeys(("SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap", "SplitToSequence"), _FIXED),
    "SoftmaxCrossEntropyLoss": _LOSS,
    **dict.fromkeys(("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer"), _TEXT),
    "SwiGLU": "Mul(Mul(gate, Sigmoid(gate)), x)",
    "Unique": "TopK or Gather with constant indices (shapes must not depend on values)",
}
"""Operator of the standard domain -> the nearest form that is taken."""


def problem_of(operator: str, domain: str, *, known: bool) -> str | None:
    """Why TensorRT doesn't take `operator`, and what to write instead; None if it may.

    known: whether the ONNX standard (as installed) has the operator in the standard domain.
    """
    if domain not in STANDARD_DOMAINS:
        return (
            f"operator {domain}.{operator} is none of the ONNX standard, so TensorRT would need a plugin for it; "
            "export it as standard operators (a model function or a decomposition)"
        )
    if operator in NEAREST:
        return f"operator {operator} isn't taken by any TensorRT; nearest form: {NEAREST[operator]}"
    if not known:
        return (
            f"operator {operator} isn't in the ONNX standard as installed; update onnx, or export with an older opset"
        )
    return None

//! ONNX Runtime on CPUs, and whatever understands the same form (tract with `vitq-tract` does).

use super::{BiasForm, Blocks, Codes, Costs, LinearForm, Quantiser, Scales, Target, Values};

/// int8 over float products at the shapes of ViTs on AVX512-VNNI: 3.3 to 4.1 measured. An element's cost is fitted: with all
/// Linears quantised the model gives 2.0, 2.4 and 2.9 for DeiT-T, S and B, where 1.87, 2.44 and 2.90 were measured on one core.
const COSTS: Costs = Costs {
    float: 36,
    quantised: 10,
    element: 22 * 36,
};

/// The form that becomes `MatMulIntegerToFloat` with the bias inside, whatever the shapes: DeiT-S 2.63 times as fast as float, where
/// dequantised operands give 2.45 (dynamic shapes, the bias apart) and 2.51 (static ones, `QGemm`).
pub const ONNX_RUNTIME: Target = Target {
    name: "onnxruntime",
    about: "ONNX Runtime on CPUs, and tract with the crate vitq-tract: products that they fuse to integer ones, bias inside",
    reasons: &[
        "uint8 activations, int8 weights with a scale per channel: int8 activations run five times slower than float",
        "MatMulInteger, Cast, Mul, Add with scales that are computed: of QDQ it fuses the product without the bias, 7 % slower",
        "no quantiser on results, none inside Softmax, GELU and LayerNorm: they cost speed or are wrong there",
        "codes of weights of at most 4 or 2 bits, two or four a byte, which it unpacks when it loads the model",
        "weights with a scale a block (--block) as INT4 or INT8 beside float activations: they become MatMulNBits",
        "in models of operator set 23 or newer (--opset 23) float attentions are one Attention, without the Transposes of its parts",
        "neighbouring products of codes fit into 16 bits: x86-64 processors without VNNI add them so, and saturate",
    ],
    opset: 17,
    newest_opset: Some(26),
    folds_codes: true,
    blocks: Blocks::Any,
    linear: LinearForm::Integer(Scales::Computed),
    least_outputs: 0,
    weight_only_advice: Some(
        "ONNX Runtime multiplies Linears whose weight alone is quantised as MatMulNBits of accuracy_level 4, which rounds their \
         input to int8, block by block; with the session option session.qdq_matmulnbits_accuracy_level=1 it does not, and \
         takes half as long again",
    ),
    bias: BiasForm::Int32,
    codes: Codes::Unsigned,
    narrow_sums: true,
    quantiser: Quantiser::Operator,
    values: Values::Read,
    costs: Some(COSTS),
    attention: true,
    standard_only: false,
    measured: true,
};

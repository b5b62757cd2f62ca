//! What was written.

use serde::Serialize;

use crate::structure::Declined;

/// How a site was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Float, as it was or with folded parameters.
    Float,
    /// Linear or patch embedding with quantised input, weight and bias.
    Linear,
    /// Attention product with a quantiser on each operand.
    Product,
}

/// One site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SiteReport {
    /// [`crate::structure::Site::name`]
    pub site: String,
    /// How it was written.
    pub form: Form,
    /// Output channels whose weight scale was raised because their bias would not fit into int32.
    pub raised_scales: usize,
}

/// The whole emission.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// LayerNormalizations with new parameters.
    pub norms: usize,
    /// The sites that the plan names, in the graph's order.
    pub sites: Vec<SiteReport>,
    /// Quantisers on activations; Linears that read one tensor alike share one.
    pub quantisers: usize,
    /// Standard operator set of the emitted model.
    pub opset: i64,
    /// Operators between dequantisers and quantisers, for targets that want all so.
    pub units: usize,
    /// Those that the target wants so and that stay float.
    pub declined: Vec<Declined>,
}

//! What goes into a model and what comes out, read from its bytes without decoding its tensors.

use std::collections::HashSet;

use prost::Message;

use super::{Array, RunError};

/// Names and dims agreed at load.
pub struct Signature {
    /// Inputs to be fed, in the graph's order, with their extents.
    pub inputs: Vec<(String, Vec<usize>)>,
    /// Values to be given back: graph outputs, then taps.
    pub outputs: Vec<String>,
    /// Values among `outputs` that the graph neither declares as outputs nor is fed, each once.
    #[cfg_attr(not(feature = "onnxruntime"), allow(dead_code))]
    pub undeclared: Vec<String>,
}

impl Signature {
    pub fn read(
        model: &[u8],
        input_dims: &[(String, Vec<usize>)],
        taps: &[String],
    ) -> Result<Self, RunError> {
        let outline = Outline::decode(model).map_err(|e| RunError::Decode(e.to_string()))?;
        let graph = outline
            .graph
            .ok_or_else(|| RunError::Decode("it holds no graph".to_owned()))?;
        let inputs = fed_inputs(&graph, input_dims)?;
        let mut outputs: Vec<String> = graph.output.into_iter().map(|o| o.name).collect();
        let fed = inputs.iter().map(|(name, _)| name);
        let mut seen: HashSet<String> = outputs.iter().chain(fed).cloned().collect();
        let undeclared = taps
            .iter()
            .filter(|tap| seen.insert(String::clone(tap)))
            .cloned()
            .collect();
        outputs.extend(taps.iter().cloned());
        Ok(Self {
            inputs,
            outputs,
            undeclared,
        })
    }

    /// The given arrays in the graph's order, their dims checked.
    pub fn arrange<'a>(&self, given: &'a [(String, Array)]) -> Result<Vec<&'a Array>, RunError> {
        if let Some((name, _)) = given
            .iter()
            .find(|(n, _)| !self.inputs.iter().any(|(k, _)| k == n))
        {
            return Err(unknown_input(
                name,
                self.inputs.iter().map(|(k, _)| k.as_str()),
            ));
        }
        self.inputs
            .iter()
            .map(|(name, dims)| pick(given, name, dims))
            .collect()
    }
}

fn pick<'a>(
    given: &'a [(String, Array)],
    name: &str,
    expected: &[usize],
) -> Result<&'a Array, RunError> {
    let (_, array) =
        given
            .iter()
            .find(|(n, _)| n == name)
            .ok_or_else(|| RunError::MissingInput {
                name: name.to_owned(),
            })?;
    if array.dims() == expected {
        return Ok(array);
    }
    Err(RunError::InputDims {
        name: name.to_owned(),
        found: array.dims().to_vec(),
        expected: expected.to_vec(),
    })
}

/// Older files list initialisers among the inputs; those are not fed.
fn fed_inputs(
    graph: &OutlineGraph,
    dims: &[(String, Vec<usize>)],
) -> Result<Vec<(String, Vec<usize>)>, RunError> {
    let constant: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let fed: Vec<&str> = graph
        .input
        .iter()
        .map(|i| i.name.as_str())
        .filter(|n| !constant.contains(n))
        .collect();
    if let Some((name, _)) = dims.iter().find(|(n, _)| !fed.contains(&n.as_str())) {
        return Err(unknown_input(name, fed.into_iter()));
    }
    fed.into_iter()
        .map(|name| {
            dims.iter()
                .find(|(n, _)| n == name)
                .cloned()
                .ok_or_else(|| RunError::MissingInput {
                    name: name.to_owned(),
                })
        })
        .collect()
}

fn unknown_input<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> RunError {
    let known: Vec<String> = known.map(|k| format!("`{k}`")).collect();
    RunError::UnknownInput {
        name: name.to_owned(),
        known: known.join(", "),
    }
}

/// The encoded model with more graph outputs.
///
/// Encoded messages that follow each other merge, repeated fields by appending (protobuf encoding,
/// "Last One Wins"), so a second `ModelProto` that holds only outputs adds them to the first.
#[cfg(feature = "onnxruntime")]
pub fn with_outputs(model: &[u8], names: &[String]) -> Vec<u8> {
    let output = names
        .iter()
        .map(|name| Named { name: name.clone() })
        .collect();
    let more = Outline {
        graph: Some(OutlineGraph {
            output,
            ..Default::default()
        }),
    };
    let mut bytes = model.to_vec();
    bytes.extend(more.encode_to_vec());
    bytes
}

/// The few fields of `ModelProto` that a signature needs; the decoder skips the others.
#[derive(Message)]
struct Outline {
    #[prost(message, optional, tag = "7")]
    graph: Option<OutlineGraph>,
}

#[derive(Message)]
struct OutlineGraph {
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<OutlineTensor>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<Named>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<Named>,
}

/// `TensorProto`, of which only the name counts.
#[derive(Message)]
struct OutlineTensor {
    #[prost(string, tag = "8")]
    name: String,
}

/// `ValueInfoProto`, of which only the name counts.
#[derive(Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

//! Whole graphs in units: each operator between dequantisers and quantisers.

use vitq_passes::ir::{Graph, NodeId, Outlet};
use vitq_passes::plan::{Decision, Plan, ValuePlan};
use vitq_passes::quantise::{ApplyError, Report, apply, apply_to_sites, values};
use vitq_passes::target::{PORTABLE, QNN, TargetError};

use crate::linear::{INPUTS, OUTPUTS, linear, uniform, weight};
use crate::support::{parse, plan, structure, write_case};

/// Normalised tokens, a Linear, and a residual around a Softmax.
fn network(last: &str) -> Graph {
    let numbers = |count: usize, each: fn(usize) -> f32| {
        let numbers: Vec<_> = (0..count).map(|i| each(i).to_string()).collect();
        numbers.join(", ")
    };
    let gamma = numbers(INPUTS, |i| 0.5 + (i % 5) as f32 / 4.0);
    let beta = numbers(INPUTS, |i| (i % 7) as f32 / 8.0 - 0.4);
    let weight = crate::support::zeros("float", "w", &[INPUTS, OUTPUTS]);
    let bias = crate::support::zeros("float", "b", &[OUTPUTS]);
    parse(&format!(
        r#"<ir_version: 8, opset_import: ["" : 17]>
        net (float[N,5,{INPUTS}] x) => (float[N,5,{OUTPUTS}] y)
        <float[{INPUTS}] gamma = {{{gamma}}}, float[{INPUTS}] beta = {{{beta}}}, float scale = {{0.25}}, {weight}, {bias}>
        {{
            n = LayerNormalization<axis=-1>(x, gamma, beta)
            [fc] t = MatMul(n, w)
            [add] l = Add(t, b)
            h = Transpose<perm=[0,2,1]>(l)
            k = Transpose<perm=[0,2,1]>(h)
            m = Mul(k, scale)
            s = Softmax(m)
            r = Add(k, s)
            {last}
        }}"#
    ))
}

fn fc() -> Plan {
    let linear = linear(uniform(8, 128), weight(8, INPUTS, OUTPUTS));
    plan(vec![("fc", Decision::Linear(linear))])
}

/// The network with the plan's numbers in float, to compare with.
fn reference(graph: &Graph) -> Graph {
    let mut float = graph.clone();
    apply(&mut float, &structure(graph), &fc(), &PORTABLE).unwrap_or_else(|e| panic!("{e}"));
    float
}

fn ranged(graph: &Graph, without: &[&str]) -> Plan {
    let mut sites = graph.clone();
    let mut plan = fc();
    apply_to_sites(&mut sites, &structure(graph), &plan, &QNN).unwrap_or_else(|e| panic!("{e}"));
    let names = values(&sites).into_iter();
    let range = |value| ValuePlan {
        value,
        least: -24.0,
        most: 24.0,
    };
    plan.values = names
        .filter(|name| !without.contains(&&name[..]))
        .map(range)
        .collect();
    plan
}

fn in_units(graph: &Graph, plan: &Plan) -> Result<(Graph, Report), ApplyError> {
    let mut quantised = graph.clone();
    let report = apply(&mut quantised, &structure(graph), plan, &QNN)?;
    Ok((quantised, report))
}

/// `name = Op(codes of its inputs) -> codes of its results`, quantisers left out.
fn printed(graph: &Graph) -> String {
    let order = graph.topological().expect("an order");
    let line = |node: NodeId| {
        let op = graph
            .op(node)
            .filter(|op| !op.op_type().ends_with("Linear"))?;
        let inputs = graph.node_inputs(node).into_iter().flatten();
        let inputs: Vec<_> = inputs.filter_map(|value| read(graph, value)).collect();
        let readers = graph.readers(Outlet { node, slot: 0 });
        let written: Vec<_> = readers.iter().map(|it| codes(graph, it.node)).collect();
        let (name, inputs) = (&op.outputs[0], inputs.join(", "));
        Some(format!(
            "{name} = {}({inputs}) -> {}",
            op.op_type(),
            written.join(", ")
        ))
    };
    let lines: Vec<_> = order.into_iter().filter_map(line).collect();
    lines.join("\n")
}

/// Codes of a float input, its name where it has none.
fn read(graph: &Graph, value: Outlet) -> Option<String> {
    if graph.is(value.node, "DequantizeLinear") {
        return Some(codes(graph, value.node));
    }
    let constant = graph.initializer(value).is_some();
    (!constant).then(|| graph.name(value).to_owned())
}

/// Type of a quantiser's codes, with the number of its scales where there are several.
fn codes(graph: &Graph, node: NodeId) -> String {
    let tensor = |i| graph.input(node, i).and_then(|value| graph.tensor(value));
    let typed = tensor(2).or_else(|| tensor(0));
    let kind = typed.map_or_else(|| "none".to_owned(), |it| it.dtype.name().to_lowercase());
    match tensor(1).map_or(1, |scale| scale.len()) {
        1 => kind,
        count => format!("{kind}/{count}"),
    }
}

#[test]
fn every_operator_becomes_a_unit_of_one_type() {
    let graph = network("y = Neg(r)");
    let (quantised, report) = in_units(&graph, &ranged(&graph, &[])).unwrap();
    let expected = "n = LayerNormalization(uint16, uint8, int32) -> uint16\n\
                    fc/rows = Reshape(uint8) -> uint8\n\
                    fc/Gemm = Gemm(uint8, int8/16, int32/16) -> uint8\n\
                    l = Reshape(uint8) -> uint8\n\
                    h = Transpose(uint8) -> uint8\n\
                    k = Transpose(uint8) -> uint8\n\
                    m = Mul(uint16, uint16) -> uint16\n\
                    s = Softmax(uint16) -> uint16\n\
                    r = Add(uint16, uint16) -> uint16\n\
                    y/replaced = Neg(uint16) -> uint16";
    assert_eq!(printed(&quantised), expected, "{quantised}");
    assert_eq!(
        (report.units, report.declined.len(), report.opset),
        (10, 0, 21)
    );
    write_case(&reference(&graph), &quantised, &fc()).judge("near", &["28"]);
}

#[test]
fn what_cannot_be_a_unit_stays_float_and_is_named() {
    let graph = network("e = Erf(r)  y = Neg(e)");
    let (quantised, report) = in_units(&graph, &ranged(&graph, &["m"])).unwrap();
    let declined: Vec<_> = report.declined.iter().map(|it| &it.op_type[..]).collect();
    assert_eq!(declined, ["Mul", "Softmax", "Erf"]);
    assert!(report.declined[0].reason.contains("`m`"), "{report:?}");
    let text = printed(&quantised);
    assert!(text.contains("e = Erf(uint16) -> uint16"), "{text}");
    write_case(&reference(&graph), &quantised, &fc()).judge("near", &["24"]);
}

#[test]
fn a_plan_without_ranges_is_refused() {
    let graph = network("y = Neg(r)");
    let refused = in_units(&graph, &fc()).unwrap_err();
    let ranges = TargetError::Ranges { target: "qnn" };
    assert!(matches!(refused, ApplyError::Target(it) if it == ranges));
}

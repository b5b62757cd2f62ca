//! The invariants find what is broken.

use vitq_passes::check::check;
use vitq_passes::ir::{Graph, Op, Outlet};

use crate::support::parse;

const TEXT: &str = "<ir_version: 8, opset_import: [\"\" : 17]> g (float[n] x) => (float[n] y) { a = Relu(x) b = Relu(a) y = Relu(b) }";

#[track_caller]
fn breaks(fault: &str, how: impl Fn(&mut Graph)) {
    let mut graph = parse(TEXT);
    assert_eq!(check(&graph), Ok(()));
    how(&mut graph);
    let faults = check(&graph).expect_err(fault);
    assert!(faults.iter().any(|f| f.contains(fault)), "{faults:?}");
}

fn value(graph: &Graph, name: &str) -> Outlet {
    graph.find(name).expect("a value")
}

#[test]
fn broken_graphs_are_told() {
    breaks("cycle", |g| {
        let b = value(g, "b");
        g.set_input(value(g, "a").node, 0, b);
    });
    breaks("both produce \"a\"", |g| {
        let b = value(g, "b").node;
        g.op_mut(b).expect("an operator").outputs[0] = "a".to_owned();
    });
    breaks("reads output 3", |g| {
        let a = value(g, "a").node;
        g.set_input(value(g, "b").node, 0, Outlet { node: a, slot: 3 });
    });
    breaks("has no name", |g| {
        let a = value(g, "a").node;
        g.op_mut(a).expect("an operator").outputs[0].clear();
    });
    breaks("\"y\" is produced under the name \"z\"", |g| {
        let y = value(g, "y").node;
        g.op_mut(y).expect("an operator").outputs[0] = "z".to_owned();
    });
    breaks("\"y\" is produced by no node", |g| {
        let y = value(g, "y").node;
        g.op_mut(y).expect("an operator").outputs.clear();
    });
}

#[test]
fn values_can_be_added_and_superseded() {
    let mut graph = parse(TEXT);
    let b = value(&graph, "b");
    let x = graph.inputs().next().expect("an input");
    let new = graph.insert_op(Op::new("Abs", "abs"), &[x]);
    graph.supersede(b, new);
    assert_eq!(graph.name(new), "b");
    graph.remove_dead();
    assert_eq!(check(&graph), Ok(()));
    let wanted = "<ir_version: 8, opset_import: [\"\" : 17]> g (float[n] x) => (float[n] y) { [abs] b = Abs(x) y = Relu(b) }";
    assert_eq!(
        graph.to_string().split_whitespace().count(),
        parse(wanted).to_string().split_whitespace().count()
    );
    assert!(graph.to_string().contains("y = Relu (b)"), "{graph}");
}

//! Faults of a graph that tract doesn't survive: found before it sees the graph.

use vitq_passes::ir::Graph;

/// Says which node is broken, and how.
///
/// Most faults make tract fail or panic, and both are caught where it runs. A `Transpose` that names an axis twice makes it
/// allocate without end, which ends the process.
pub fn check(graph: &Graph) -> Result<(), String> {
    for (node, op) in graph.ops().filter(|(_, op)| op.is("Transpose")) {
        let Some(perm) = op.ints("perm") else {
            continue;
        };
        let mut axes = perm.to_vec();
        axes.sort_unstable();
        if !axes.into_iter().eq(0..perm.len() as i64) {
            let label = graph.label(node);
            return Err(format!(
                "node `{label}` (Transpose) has perm {perm:?}, which is no permutation; export the model again"
            ));
        }
    }
    Ok(())
}

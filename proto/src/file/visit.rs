use crate::{
    AttributeMsg, Lossless, Model, NodeMsg, TensorMsg,
    pb::{GraphProto, SparseTensorProto},
};

/// Calls `visit` for every tensor of a model: initializers and attributes of the graph, of the graphs
/// in its nodes, of functions and of training graphs, sparse tensors' parts included.
pub(super) fn try_for_each_tensor<E>(
    model: &mut Model,
    mut visit: impl FnMut(&mut TensorMsg) -> Result<(), E>,
) -> Result<(), E> {
    let visit: &mut dyn FnMut(&mut TensorMsg) -> Result<(), E> = &mut visit;
    let model = &mut **model;
    let training = model.training_info.iter_mut();
    let training = training.flat_map(|info| {
        let info = &mut **info;
        info.initialization.iter_mut().chain(&mut info.algorithm)
    });
    for graph in model.graph.iter_mut().chain(training) {
        in_graph(graph, visit)?;
    }
    for function in &mut model.functions {
        in_nodes(&mut function.node, visit)?;
        in_attributes(&mut function.attribute_proto, visit)?;
    }
    Ok(())
}

type Visit<'a, E> = &'a mut dyn FnMut(&mut TensorMsg) -> Result<(), E>;

fn in_graph<E>(graph: &mut GraphProto, visit: Visit<E>) -> Result<(), E> {
    graph.initializer.iter_mut().try_for_each(&mut *visit)?;
    for sparse in &mut graph.sparse_initializer {
        in_sparse(sparse, visit)?;
    }
    in_nodes(&mut graph.node, visit)
}

fn in_nodes<E>(nodes: &mut [NodeMsg], visit: Visit<E>) -> Result<(), E> {
    nodes
        .iter_mut()
        .try_for_each(|node| in_attributes(&mut node.attribute, visit))
}

fn in_attributes<E>(attributes: &mut [AttributeMsg], visit: Visit<E>) -> Result<(), E> {
    for attribute in attributes {
        let attribute = &mut **attribute;
        let one = attribute.t.as_deref_mut();
        for tensor in one.into_iter().chain(&mut attribute.tensors) {
            visit(tensor)?;
        }
        let one = attribute.sparse_tensor.as_deref_mut();
        for sparse in one.into_iter().chain(&mut attribute.sparse_tensors) {
            in_sparse(sparse, visit)?;
        }
        let one = attribute.g.as_deref_mut();
        for graph in one.into_iter().chain(&mut attribute.graphs) {
            in_graph(graph, visit)?;
        }
    }
    Ok(())
}

fn in_sparse<E>(sparse: &mut Lossless<SparseTensorProto>, visit: Visit<E>) -> Result<(), E> {
    let sparse = &mut **sparse;
    sparse
        .values
        .iter_mut()
        .chain(&mut sparse.indices)
        .try_for_each(visit)
}

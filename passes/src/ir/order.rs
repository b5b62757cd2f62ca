//! Topological order.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use petgraph::Direction;

use super::{Graph, NodeId};

impl Graph {
    /// Every node after those it reads. Among nodes that are ready the oldest comes first, so an imported graph
    /// keeps its order and the result never depends on hashing. `None` if the graph has a cycle.
    pub fn topological(&self) -> Option<Vec<NodeId>> {
        let mut waiting: HashMap<NodeId, usize> = HashMap::new();
        let mut ready = BinaryHeap::new();
        for id in self.net.node_indices() {
            match self.net.edges_directed(id, Direction::Incoming).count() {
                0 => ready.push(Reverse(id)),
                n => {
                    waiting.insert(id, n);
                }
            }
        }
        let mut order = Vec::with_capacity(self.len());
        while let Some(Reverse(id)) = ready.pop() {
            order.push(id);
            for edge in self.net.edges_directed(id, Direction::Outgoing) {
                use petgraph::visit::EdgeRef;
                let left = waiting.get_mut(&edge.target())?;
                *left -= 1;
                if *left == 0 {
                    ready.push(Reverse(edge.target()));
                }
            }
        }
        (order.len() == self.len()).then_some(order)
    }
}

//! Inputs and outputs of another element type than what is computed with.

use vitq_onnx::{DataType, ValueInfoMsg, pb::type_proto};

use super::{Graph, Node, Op, Slot};

impl Graph {
    /// Declares the float32 input `name` to be of type `stored`; operators read it through a Cast.
    pub fn store_input(&mut self, name: &str, stored: DataType) {
        let Some(input) = self.inputs().find(|&input| self.name(input) == name) else {
            return;
        };
        if let Some(Node::Input(info)) = self.net.node_weight_mut(input.node) {
            declare(info, stored);
        }
        let readers = self.readers(input);
        if readers.is_empty() {
            return;
        }
        let cast = self.insert_op(cast(&format!("{name}/Cast"), DataType::Float), &[input]);
        for reader in readers {
            if let Slot::Input(i) = reader.slot {
                self.set_input(reader.node, i, cast);
            }
        }
    }

    /// Declares the float32 output `name` to be of type `stored`; a Cast makes it of the value, which goes by another name.
    pub fn store_output(&mut self, name: &str, stored: DataType) {
        let Some(at) = self.outputs.iter().position(|o| o.info.name() == name) else {
            return;
        };
        declare(&mut self.outputs[at].info, stored);
        let wide = self.outputs[at].outlet;
        // An input that is an output as well has been declared already.
        if matches!(self.net[wide.node], Node::Input(_)) {
            return;
        }
        let spare = self.fresh(&format!("{name}/float"));
        self.rename(wide, spare);
        let narrow = self.insert_op(cast(&format!("{name}/Cast"), stored), &[wide]);
        self.rename(narrow, name.to_owned());
        self.outputs[at].outlet = narrow;
    }
}

fn cast(name: &str, to: DataType) -> Op {
    Op::new("Cast", name).with_int("to", i64::from(to as i32))
}

fn declare(info: &mut ValueInfoMsg, stored: DataType) {
    let value = info.r#type.as_mut().and_then(|kind| kind.value.as_mut());
    if let Some(type_proto::Value::TensorType(tensor)) = value {
        tensor.elem_type = Some(stored as i32);
    }
}

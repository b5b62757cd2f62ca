"""What ONNX's own parser, checker and schemas and ONNX Runtime say of a graph.

    judge.py text TEXT MODEL        the text, read by ONNX's parser, is the model
    judge.py write TEXT MODEL       writes the text, read by ONNX's parser, as the model
    judge.py equal {MODEL MODEL}…   each two run to the same outputs; prints the largest relative difference
    judge.py shapes MODEL BATCH     prints `name type dims…` of every value, as it comes out of a run
    judge.py breaking FROM TO       prints `version operator` wherever an attribute or a default went away
"""

import sys

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import onnxruntime

LOAD = onnxruntime.SessionOptions()
LOAD.log_severity_level = 3


def text(path, model_path):
    """Compare messages; constants by value, as they may be stored in several ways."""
    with open(path, encoding="utf-8") as file:
        ours = onnx.parser.parse_model(file.read())
    theirs = onnx.load(model_path)
    onnx.checker.check_model(ours)
    for model in (ours, theirs):
        for tensor in list(model.graph.initializer) + [
            a.t for n in model.graph.node for a in n.attribute if a.type == onnx.AttributeProto.TENSOR
        ]:
            array = onnx.numpy_helper.to_array(tensor)
            name, kind = tensor.name, tensor.data_type
            packed = onnx.numpy_helper.from_array(array, name)
            assert packed.data_type == kind, (name, packed.data_type, kind)
            tensor.CopyFrom(packed)
        for node in model.graph.node:
            node.ClearField("doc_string")
            if not node.domain:
                node.ClearField("domain")
            if not node.name:
                node.ClearField("name")
    for field in ("node", "initializer", "input", "output", "value_info", "name"):
        assert getattr(ours.graph, field) == getattr(theirs.graph, field), (field, ours, theirs)
    assert ours.ir_version == theirs.ir_version
    assert ours.opset_import == theirs.opset_import
    print("same")


def write(path, model_path):
    with open(path, encoding="utf-8") as file:
        model = onnx.parser.parse_model(file.read())
    onnx.checker.check_model(model)
    onnx.save(model, model_path)


def feeds(session, batch):
    rng = np.random.default_rng(batch)
    values = {}
    for value in session.get_inputs():
        dims = [d if isinstance(d, int) else batch for d in value.shape]
        numbers = rng.standard_normal(dims).astype(np.float32)
        if value.type == "tensor(float16)":
            numbers = numbers.astype(np.float16)
        values[value.name] = numbers > -1 if value.type == "tensor(bool)" else numbers
    return values


def equal(*paths):
    for before, after in zip(paths[::2], paths[1::2]):
        print(difference(before, after))


def difference(before, after):
    """Run both for one and three images; the interface must not have changed."""
    onnx.checker.check_model(onnx.load(after), full_check=True)
    sessions = [onnxruntime.InferenceSession(path, LOAD) for path in (before, after)]
    interfaces = [
        [(v.name, v.type, v.shape) for v in list(s.get_inputs()) + list(s.get_outputs())] for s in sessions
    ]
    assert interfaces[0] == interfaces[1], interfaces
    worst = 0.0
    for batch in (1, 3):
        first, second = (s.run(None, feeds(sessions[0], batch)) for s in sessions)
        for a, b in zip(first, second):
            assert a.shape == b.shape and a.dtype == b.dtype, (a.shape, b.shape)
            assert a.size > 0 and np.isfinite(a).all()
            worst = max(worst, float(np.abs(a - b).max() / max(1.0, np.abs(a).max())))
    return worst


def shapes(path, batch):
    model = onnx.load(path)
    names = [name for node in model.graph.node for name in node.output if name]
    outputs = {o.name for o in model.graph.output}
    for name in names:
        if name not in outputs:
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    LOAD.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), LOAD)
    values = session.run(names, feeds(session, int(batch)))
    for name, value in zip(names, values):
        kind = onnx.TensorProto.DataType.Name(onnx.helper.np_dtype_to_tensor_dtype(value.dtype))
        print(name, kind, *value.shape)


def breaking(first, last):
    """Versions in which an attribute went away, got another default, or inputs were added that must be given."""
    history = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            history.setdefault(schema.name, []).append(schema)
    for name, schemas in history.items():
        schemas.sort(key=lambda s: s.since_version)
        for old, new in zip(schemas, schemas[1:]):
            if not int(first) < new.since_version <= int(last):
                continue
            gone = [
                a
                for a, attribute in old.attributes.items()
                if a not in new.attributes
                or attribute.default_value.SerializeToString()
                != new.attributes[a].default_value.SerializeToString()
            ]
            if gone or new.min_input > old.min_input:
                print(new.since_version, name)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])

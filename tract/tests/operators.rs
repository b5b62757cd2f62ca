//! Quantised graphs mean in tract, with this crate's operators, what they mean in ONNX Runtime.

mod cases;

use std::path::Path;

use cases::{Case, Values, all_agree, cases};
use ndarray::ArrayD;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::anyhow;
use vitq_tract::Kernels;

/// What a test does to a model between reading and running it.
type Prepare<'a> = &'a dyn Fn(&Case, TypedModel) -> TractResult<TypedModel>;

fn run(
    case: &Case,
    model: &[u8],
    feed: &[(String, Values)],
    prepare: Prepare,
) -> TractResult<Vec<Values>> {
    let mut onnx = tract_onnx::onnx().with_ignore_value_info(true);
    vitq_tract::register(&mut onnx.op_register);
    let mut proto = onnx.proto_model_for_read(&mut &*model)?;
    vitq_tract::widen(&mut proto)?;
    let mut model = onnx.model_for_proto_model(&proto)?;
    let mut tensors = tvec!();
    for (i, (_, values)) in feed.iter().enumerate() {
        let fact = model.input_fact(i)?.clone().with_shape(values.dims());
        model.set_input_fact(i, fact)?;
    }
    let model = prepare(case, model.into_typed()?)?;
    for (i, (_, values)) in feed.iter().enumerate() {
        let tensor = tensor(values)?
            .cast_to_dt(model.input_fact(i)?.datum_type)?
            .into_owned();
        tensors.push(tensor.into_tvalue());
    }
    let given = model.into_runnable()?.run(tensors)?;
    given.iter().map(|tensor| values(tensor)).collect()
}

fn tensor(values: &Values) -> TractResult<Tensor> {
    fn of<T: Datum + Copy>(array: &ArrayD<T>) -> TractResult<Tensor> {
        Tensor::from_shape(array.shape(), &array.iter().copied().collect::<Vec<_>>())
    }
    match values {
        Values::F32(a) => of(a),
        Values::I64(a) => of(a),
        Values::I32(a) => of(a),
        Values::U8(a) => of(a),
    }
}

/// Widened as the script widens.
fn values(tensor: &Tensor) -> TractResult<Values> {
    fn of<T: Datum + Copy>(tensor: &Tensor) -> TractResult<ArrayD<T>> {
        let tensor = tensor.cast_to::<T>()?;
        let elements = tensor.try_as_plain_ram()?.as_slice::<T>()?.to_vec();
        Ok(ArrayD::from_shape_vec(tensor.shape(), elements)?)
    }
    Ok(match tensor.datum_type() {
        DatumType::F32 | DatumType::F16 => Values::F32(of(tensor)?),
        DatumType::U8 => Values::U8(of(tensor)?),
        DatumType::I64 | DatumType::TDim => Values::I64(of(tensor)?),
        _ => Values::I32(of(tensor)?),
    })
}

fn agree(prepare: impl Fn(&Case, TypedModel) -> TractResult<TypedModel>) {
    let (folder, cases) = cases(&[]);
    assert!(cases.len() >= 180, "only {} cases", cases.len());
    all_agree(&cases, folder.path(), |case, model, feed| {
        run(case, model, feed, &prepare).map_err(|e| format!("{e:#}"))
    });
}

#[test]
fn as_written() {
    agree(|_, model| Ok(model));
}

#[test]
fn optimised() {
    agree(|_, model| model.into_optimized());
}

fn fused(case: &Case, mut model: TypedModel, kernels: Kernels) -> TractResult<TypedModel> {
    let fused = vitq_tract::fuse_with(&mut model, kernels)?;
    expect(case.integer, fused, "Linears in integers")?;
    let nodes = model.nodes().iter();
    let quantisers = nodes.filter(|node| node.op.name() == "OnnxQuantizeLinear");
    expect(case.quantisers, quantisers.count(), "QuantizeLinears")?;
    let staircases = model.nodes().iter();
    let staircases = staircases.filter(|node| node.op.name() == "Staircase");
    expect(case.staircases, staircases.count(), "staircases")?;
    Ok(model)
}

fn expect(expected: Option<usize>, found: usize, what: &str) -> TractResult<()> {
    match expected {
        Some(expected) if expected != found => Err(anyhow!("{found} {what} instead of {expected}")),
        _ => Ok(()),
    }
}

#[test]
fn fused_by_the_fastest_kernels() {
    agree(|case, model| fused(case, model, Kernels::Fastest));
    agree(|case, model| fused(case, model, Kernels::Fastest)?.into_optimized());
}

#[test]
fn fused_by_tract_kernels() {
    agree(|case, model| fused(case, model, Kernels::Tract));
    agree(|case, model| fused(case, model, Kernels::Tract)?.into_optimized());
}

/// The Linears of a network that another tool quantised, each with its input in a run of the network.
#[test]
fn linears_of_a_network() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/digits/model.onnx");
    let (folder, cases) = cases(&[Path::new("--linears"), &model]);
    assert!(cases.len() >= 8, "only {} Linears", cases.len());
    for kernels in [Kernels::Fastest, Kernels::Tract] {
        all_agree(&cases, folder.path(), |case, model, feed| {
            let prepare = |case: &Case, model| fused(case, model, kernels)?.into_optimized();
            run(case, model, feed, &prepare).map_err(|e| format!("{e:#}"))
        });
    }
}

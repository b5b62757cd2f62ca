//! Times models of one image of 224×224 in tract, one thread, in interleaved rounds, against the first:
//! `cargo run --release -p vitq-tract --example speed -- FLOAT.onnx QUANTISED.onnx...`

use std::time::Instant;

use tract_onnx::prelude::*;
use vitq_tract::Kernels;

const IMAGE: [usize; 4] = [1, 3, 224, 224];
const WARM_UP: usize = 5;
const ROUNDS: usize = 60;

fn main() -> TractResult<()> {
    let mut names = vec![];
    let mut states = vec![];
    for path in std::env::args().skip(1) {
        for kernels in [Kernels::Tract, Kernels::Fastest] {
            let (plan, fused) = load(&path, kernels)?;
            if fused > 0 || kernels == Kernels::Tract {
                names.push(format!("{path}, {fused} integer Linears, {kernels:?}"));
                states.push(plan.spawn()?);
            }
        }
    }
    let pixels: Vec<f32> = (0..IMAGE.iter().product())
        .map(|i: usize| (i as f32 * 0.37).sin())
        .collect();
    let input = Tensor::from_shape(&IMAGE, &pixels)?;
    let mut rounds = vec![];
    for _ in 0..WARM_UP + ROUNDS {
        let mut round = vec![];
        for state in &mut states {
            let start = Instant::now();
            state.run(tvec!(input.clone().into_tvalue()))?;
            round.push(1e3 * start.elapsed().as_secs_f64());
        }
        rounds.push(round);
    }
    let rounds = &rounds[WARM_UP..];
    for (i, name) in names.iter().enumerate() {
        let ms = median(rounds.iter().map(|round| round[i]).collect());
        let ratio = median(rounds.iter().map(|round| round[0] / round[i]).collect());
        println!("{ms:8.2} ms  {ratio:5.2} x  {name}");
    }
    Ok(())
}

fn load(path: &str, kernels: Kernels) -> TractResult<(Arc<TypedRunnableModel>, usize)> {
    let mut onnx = tract_onnx::onnx().with_ignore_value_info(true);
    vitq_tract::register(&mut onnx.op_register);
    let mut proto = onnx.proto_model_for_path(path)?;
    vitq_tract::widen(&mut proto)?;
    let mut model = onnx.model_for_proto_model(&proto)?;
    model.set_input_fact(0, f32::fact(IMAGE).into())?;
    let mut model = model.into_typed()?;
    let fused = vitq_tract::fuse_with(&mut model, kernels)?;
    Ok((model.into_optimized()?.into_runnable()?, fused))
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

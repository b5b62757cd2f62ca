//! Times models in tract, in interleaved rounds: `cargo run --release --example speed -- FLOAT OTHER...`

use std::time::Instant;

use tract_onnx::prelude::*;

const ROUNDS: usize = 25;

fn main() -> TractResult<()> {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    let plans = paths
        .iter()
        .map(|p| load(p))
        .collect::<TractResult<Vec<_>>>()?;
    let pixels: Vec<f32> = (0..3 * 224 * 224)
        .map(|i| (i as f32 * 0.37).sin())
        .collect();
    let input = Tensor::from_shape(&[1, 3, 224, 224], &pixels)?;
    let mut times = vec![vec![]; plans.len()];
    for _ in 0..ROUNDS {
        for (plan, times) in plans.iter().zip(&mut times) {
            let start = Instant::now();
            plan.run(tvec!(input.clone().into_tvalue()))?;
            times.push(1e3 * start.elapsed().as_secs_f64());
        }
    }
    let medians: Vec<f64> = times.into_iter().map(median).collect();
    for (path, ms) in paths.iter().zip(&medians) {
        println!("{ms:8.2} ms  {:5.2} x  {path}", medians[0] / ms);
    }
    Ok(())
}

fn load(path: &str) -> TractResult<Arc<TypedRunnableModel>> {
    let mut onnx = tract_onnx::onnx().with_ignore_value_info(true);
    vitq_tract::register(&mut onnx.op_register);
    let mut proto = onnx.proto_model_for_path(path)?;
    vitq_tract::widen(&mut proto)?;
    let mut model = onnx.model_for_proto_model(&proto)?;
    model.set_input_fact(0, f32::fact([1, 3, 224, 224]).into())?;
    let mut model = model.into_typed()?;
    let fused = vitq_tract::fuse(&mut model)?;
    println!("{path}: {fused} integer Linears");
    let model = model.into_optimized()?;
    model.into_runnable()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

//! What a GPU computes, held against the processor's own kernels: candle's operators give the same on any device, so that this runs without one.

use super::*;
use crate::learn::gradients::{self, Gradients};
use crate::learn::kernels::Kernels;

/// candle's operators in place of our kernels.
fn composed() -> Backend {
    Backend {
        kernels: Kernels::Composed,
        ..Backend::cpu()
    }
}

/// Loss and gradients of some samples in the network of a plan.
fn differentiated(quantizer: &Quantizer, rates: &Rates, backend: Backend) -> Gradients {
    let (model, images) = digits();
    let feeds = Batches::new(&images, 0..6, 1);
    let plan = quantizer.plan(&model, &images, &NoProgress).unwrap().plan;
    let written = model.written(plan.rotation).unwrap();
    let form = (written.graph(), written.structure());
    let feed = feeds.feed(0).unwrap();
    let pair = Pair::new(form, &plan, &feed, rates, backend).unwrap();
    let leaves = pair.quantised.leaves(true).unwrap();
    let samples: Vec<usize> = (0..6).collect();
    gradients::sum(&samples, &leaves, |place, sample, leaves| {
        let view = View::new(Random::new(&[3, place as u64]));
        let inputs = pair.view(&feeds, (sample, 5 - sample), &view)?;
        pair.loss(Objective::Values, &inputs, leaves)
    })
    .unwrap()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f32>| -> f64 {
        values.map(|v| f64::from(v) * f64::from(v)).sum()
    };
    let error = square(&mut a.iter().zip(b).map(|(a, b)| a - b));
    (error / square(&mut a.iter().copied()).max(1e-20)).sqrt()
}

#[test]
fn composed_operators_give_the_same_loss_and_gradients() {
    // Weights that learn, with codebooks; branches beside frozen ones, and an interval. Few bits: most values lie beside no tie.
    let all = Options::default().rates;
    for (quantizer, rates) in [
        (quantizer(4).samples(8), all),
        (aiqvit(4).samples(8), BlockOptions::aiqvit().rates),
    ] {
        let (loss, own) = differentiated(&quantizer, &rates, Backend::cpu());
        let (other, theirs) = differentiated(&quantizer, &rates, composed());
        assert!((loss - other).abs() < 1e-3 * loss, "{loss}, {other}");
        let mut compared = 0;
        for (place, (own, theirs)) in own.iter().zip(&theirs).enumerate() {
            assert_eq!(own.len(), theirs.len());
            for (i, (a, b)) in own.iter().zip(theirs).enumerate() {
                assert_eq!(a.len(), b.len(), "place {place}, leaf {i}");
                let nothing = a.iter().all(|g| g.abs() < 1e-9);
                if a.is_empty() || nothing {
                    continue;
                }
                compared += 1;
                let apart = distance(a, b);
                assert!(apart < 0.02, "place {place}, leaf {i}: {apart}");
            }
        }
        assert!(compared > 50, "only {compared}");
    }
}

#[test]
fn composed_operators_learn_as_much() {
    let (model, images) = digits();
    let feeds = Batches::new(&images, 0..48, 1);
    let options = Options {
        steps: 12,
        ..Options::default()
    };
    let plan = quantizer(3)
        .plan(&model, &images, &NoProgress)
        .unwrap()
        .plan;
    let written = model.written(plan.rotation).unwrap();
    let form = (written.graph(), written.structure());
    let after = [Backend::cpu(), composed()].map(|backend| {
        let mut plan = plan.clone();
        let seen = (&feeds as &dyn Feeds, 32);
        let how = (&options, None);
        let course =
            crate::learn::distil::distil_on(backend, form, &mut plan, seen, how, &NoProgress)
                .unwrap();
        let [first, .., last] = &course.checks[..] else {
            panic!("no checks")
        };
        assert!(last.held_out < first.held_out, "{course:?}");
        last.held_out
    });
    assert!((after[0] - after[1]).abs() < 0.1 * after[0], "{after:?}");
}

#[test]
fn families_have_the_same_values() {
    for name in ["hf_vit", "swin", "cait", "davit", "pvt_v2", "vit_rms_norm"] {
        let model = FloatModel::open(&fixture(&format!("families/{name}.onnx"))).unwrap();
        let inputs = inputs(&model);
        let [own, theirs] =
            [Backend::cpu(), composed()].map(|it| forward(&model, &inputs, it).unwrap());
        assert_eq!(own.len(), theirs.len());
        for ((output, own), (_, theirs)) in own.iter().zip(&theirs) {
            let apart = distance(own, theirs);
            assert!(apart < 1e-5, "{name}, {output}: {apart}");
        }
    }
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_build_without_a_gpu_says_so() {
    let error = Backend::of(crate::learn::Device::Cuda).unwrap_err();
    assert!(error.to_string().contains("--features cuda"), "{error}");
}

/// Where there is a GPU.
#[cfg(feature = "cuda")]
#[test]
fn a_gpu_gives_the_same_loss_and_gradients() {
    let backend = match Backend::of(crate::learn::Device::Cuda) {
        Ok(backend) => backend,
        Err(error) => {
            println!("not judged: {error}");
            return;
        }
    };
    let quantizer = quantizer(4).samples(8);
    let rates = Options::default().rates;
    let (loss, own) = differentiated(&quantizer, &rates, Backend::cpu());
    let (other, theirs) = differentiated(&quantizer, &rates, backend);
    assert!((loss - other).abs() < 1e-2 * loss, "{loss}, {other}");
    for (a, b) in own.iter().flatten().zip(theirs.iter().flatten()) {
        if a.iter().any(|g| g.abs() > 1e-9) {
            let apart = distance(a, b);
            assert!(apart < 0.1, "{apart}");
        }
    }
}

//! What a GPU computes, held against the processor's own kernels: candle's operators give the same on any device, so that this runs without
//! one too. Where there is one, the same is asked of it.

use super::*;
use crate::learn::gradients::{self, Gradients};
use crate::learn::kernels::Kernels;

/// candle's operators in place of our kernels: on the processor, and on a GPU where there is one. With how much further apart its values may
/// be: sums in another order put some on the other side of a tie.
pub fn composed() -> Vec<(Backend, f64)> {
    let here = Backend {
        kernels: Kernels::Composed,
        ..Backend::cpu()
    };
    match Backend::of(crate::learn::Device::Cuda) {
        Ok(backend) => vec![(here, 1.0), (backend, 5.0)],
        Err(error) => {
            println!("not judged: {error}");
            vec![(here, 1.0)]
        }
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
        for (backend, slack) in composed() {
            let (other, theirs) = differentiated(&quantizer, &rates, backend);
            assert!(
                (loss - other).abs() < slack * 1e-3 * loss,
                "{loss}, {other}"
            );
            assert_near(&own, &theirs, slack);
        }
    }
}

/// Gradients by site and leaf, those that are nothing left out. On a GPU leaves of a number or two (steps) are judged together: in one of
/// them little may be left of much that is added up.
fn assert_near(own: &[Vec<Vec<f32>>], theirs: &[Vec<Vec<f32>>], slack: f64) {
    let most = slack * 0.02;
    let (mut compared, mut steps) = (0, [Vec::new(), Vec::new()]);
    for (place, (own, theirs)) in own.iter().zip(theirs).enumerate() {
        assert_eq!(own.len(), theirs.len());
        for (i, (a, b)) in own.iter().zip(theirs).enumerate() {
            assert_eq!(a.len(), b.len(), "place {place}, leaf {i}");
            if a.iter().all(|g| g.abs() < 1e-9) {
                continue;
            }
            compared += 1;
            if a.len() <= 2 && slack > 1.0 {
                steps[0].extend(a);
                steps[1].extend(b);
                continue;
            }
            let apart = distance(a, b);
            assert!(apart < most, "place {place}, leaf {i}: {apart}");
        }
    }
    let apart = distance(&steps[0], &steps[1]);
    assert!(apart < most, "steps: {apart}");
    assert!(compared > 50, "only {compared}");
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
    let learn = |backend: Backend| {
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
    };
    let own = learn(Backend::cpu());
    for (backend, _) in composed() {
        let theirs = learn(backend);
        assert!((own - theirs).abs() < 0.1 * own, "{own}, {theirs}");
    }
}

#[test]
fn families_have_the_same_values() {
    for (name, model, declined) in families() {
        if declined.is_some() {
            continue;
        }
        let inputs = inputs(&model);
        let own = forward(&model, &inputs, Backend::cpu()).unwrap();
        for (backend, _) in composed() {
            let theirs = forward(&model, &inputs, backend).unwrap();
            assert_eq!(own.len(), theirs.len());
            for ((output, own), (_, theirs)) in own.iter().zip(&theirs) {
                let apart = distance(own, theirs);
                assert!(apart < 1e-5, "{name}, {output}: {apart}");
            }
        }
    }
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_build_without_a_gpu_says_so() {
    let error = Backend::of(crate::learn::Device::Cuda).unwrap_err();
    assert!(error.to_string().contains("--features cuda"), "{error}");
}

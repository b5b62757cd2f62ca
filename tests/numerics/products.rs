//! Dense products and factors.

use serde_json::json;
use vitq::linalg;

use crate::judge::{Random, ask, close, gram, numbers};

/// Rows, inner extent, outputs: one, odd, beyond a run of `dot`'s lanes and of faer's blocks.
const SIZES: [(usize, usize, usize); 4] = [(1, 1, 1), (7, 5, 3), (70, 33, 17), (130, 64, 96)];

#[test]
fn products_are_numpys() {
    for (i, (rows, k, out)) in SIZES.into_iter().enumerate() {
        let mut random = Random(i as u64);
        let (x, w) = (random.normals(rows * k), random.normals(out * k));
        let a = random.normals(rows * out);
        let expected = ask(
            "products",
            &json!({"x": x, "w": w, "a": a, "rows": rows, "k": k, "out": out}),
        );
        let check = |given: &[f32], name: &str| close(given, &numbers(&expected[name]), 1e-5);
        check(&linalg::gemm_nt(&x, &w, rows, k, out), "gemm_nt");
        check(&linalg::gemm(&a, &w, rows, out, k), "gemm");
        let mut into = vec![f32::NAN; rows * k];
        linalg::gemm_into(&mut into, &a, &w, rows, out, k);
        check(&into, "gemm");
        // What is there already is added to.
        let mut sum = vec![1.0; k * out];
        linalg::add_gemm_tn(&mut sum, &x, &a, rows, k, out);
        sum.iter_mut().for_each(|v| *v -= 1.0);
        check(&sum, "gemm_tn");
        check(&gram(&w, k), "gram");
        let number = |name: &str| expected[name].as_f64().expect("a number");
        let reversed: Vec<f32> = x.iter().rev().copied().collect();
        let near = |given: f64, expected: f64, scale: f64| {
            assert!(
                (given - expected).abs() <= 1e-6 * scale,
                "{given} is not {expected}"
            );
        };
        near(
            linalg::dot(&x, &reversed),
            number("dot"),
            linalg::square_sum(&x),
        );
        let distance = number("squared_distance");
        near(
            linalg::squared_distance(&x, &reversed),
            distance,
            distance.max(1e-12),
        );
    }
}

#[test]
fn a_gram_touches_the_lower_triangle_alone() {
    let (rows, k) = (40, 37);
    let x = Random(5).normals(rows * k);
    let mut sums = vec![7.0; k * k];
    linalg::add_gram(&mut sums, &x, rows, k);
    let (mut above, mut below) = (0, 0);
    for i in 0..k {
        for j in 0..k {
            let products = (0..rows).map(|r| f64::from(x[r * k + i]) * f64::from(x[r * k + j]));
            let expected = if j > i {
                7.0
            } else {
                7.0 + products.sum::<f64>()
            };
            assert!((f64::from(sums[i * k + j]) - expected).abs() < 1e-3);
            *(if j > i { &mut above } else { &mut below }) += 1;
        }
    }
    assert_eq!((above, below), (k * (k - 1) / 2, k * (k + 1) / 2));
}

#[test]
fn sums_of_many_small_products_stay_exact() {
    // In f32 a running sum would stand still at 2²⁴.
    let ones = vec![1.0f32; (1 << 24) + 4096];
    assert_eq!(linalg::dot(&ones, &ones), ones.len() as f64);
}

#[test]
fn factors_are_numpys() {
    for (rows, k) in [(1, 1), (3, 6), (20, 48)] {
        let mut random = Random(k as u64);
        let x = random.normals(4 * k * k);
        let mut h = gram(&x, k);
        (0..k).for_each(|i| h[i * k + i] += 1.0);
        let b = random.normals(rows * k);
        let expected = ask("factors", &json!({"h": h, "b": b, "rows": rows, "k": k}));
        let l = linalg::cholesky(k, |i, j| h[i * k + j]).expect("H is positive definite");
        let pairs = (0..k).flat_map(|i| (0..k).map(move |j| (i, j)));
        let factor: Vec<f32> = pairs
            .map(|(i, j)| if j <= i { l[(i, j)] } else { 0.0 })
            .collect();
        close(&factor, &numbers(&expected["factor"]), 1e-5);
        let solution = linalg::solve_right(&h, &b, rows, k).expect("H is positive definite");
        close(&solution, &numbers(&expected["solution"]), 1e-5);
    }
}

#[test]
fn what_is_not_positive_definite_has_no_factor() {
    for bad in [
        [1.0, 2.0, 2.0, 1.0],
        [0.0; 4],
        [f32::NAN; 4],
        [f32::INFINITY, 0.0, 0.0, 1.0],
    ] {
        assert_eq!(linalg::cholesky(2, |i, j| bad[i * 2 + j]), None, "{bad:?}");
        assert_eq!(
            linalg::solve_right(&bad, &[1.0, 1.0], 1, 2),
            None,
            "{bad:?}"
        );
    }
}
